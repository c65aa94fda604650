"""Which channels can be used: judged on the raw training samples alone, reported, and masked everywhere after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from .errors import RecordingError
from .recording import ArrayLike

MAX_MISSING_SHARE = 0.05
# Real amplifiers saturate now and then: large theta waves clip 2 % of the samples of a usable open-field channel.
MAX_CLIPPED_SHARE = 0.05
# A channel whose standard deviation is below this share of the median channel's is taken for dead.
DEAD_SHARE = 0.05
CHUNK_VALUES = 20_000_000


class ChannelReport(BaseModel):
    """Channels that are left out, by reason; indices into the recording's channels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int
    missing: tuple[int, ...] = ()
    constant: tuple[int, ...] = ()
    dead: tuple[int, ...] = ()
    clipped: tuple[int, ...] = ()

    @property
    def mask(self) -> np.ndarray:
        """(C,) bool, True where the channel is used."""
        mask = np.ones(self.channels, bool)
        mask[[*self.missing, *self.constant, *self.dead, *self.clipped]] = False
        return mask

    def sentence(self) -> str:
        """Say in a few words what is left out; empty if nothing is."""
        reasons = {"missing": self.missing, "constant": self.constant, "dead": self.dead, "clipped": self.clipped}
        parts = [f"{len(found)} {reason}" for reason, found in reasons.items() if found]
        return f"{', '.join(parts)} of {self.channels} channels left out" if parts else ""


def inspect_channels(lfp: ArrayLike, spans: Sequence[tuple[int, int]], where: str) -> ChannelReport:
    """Find channels that are missing (NaN), constant, dead (far too quiet) or clipped.

    Parameters
    ----------
    lfp : (T, C) microvolt.
    spans : [start, stop) raw samples of the training part; nothing else is read.
    where : name of the recording, for the error.

    Raises
    ------
    RecordingError : no usable channel remains.
    """
    channels = lfp.shape[1]
    total, missing = 0, np.zeros(channels)
    sums, squares = np.zeros(channels), np.zeros(channels)
    extremes = [np.full(channels, np.inf), np.full(channels, -np.inf)]
    at_extreme = [np.zeros(channels), np.zeros(channels)]
    length = max(1, CHUNK_VALUES // channels)
    origin: np.ndarray | None = None
    for start, stop in spans:
        for begin in range(start, stop, length):
            chunk = np.asarray(lfp[begin : min(begin + length, stop)], np.float64)
            valid = np.isfinite(chunk)
            total += len(chunk)
            missing += (~valid).sum(0)
            # The first valid value per channel as origin keeps the variance exact where the offset is large.
            first = np.take_along_axis(chunk, valid.argmax(0)[None], axis=0)[0]
            origin = np.where(np.isfinite(first), first, 0.0) if origin is None else origin
            centred = np.where(valid, chunk - origin, 0.0)
            sums += centred.sum(0)
            squares += np.square(centred).sum(0)
            for side, reduce in enumerate((np.min, np.max)):
                filled = np.where(valid, chunk, (np.inf, -np.inf)[side])
                extreme = reduce(np.stack([reduce(filled, axis=0), extremes[side]]), axis=0)
                at_extreme[side] = np.where(extreme == extremes[side], at_extreme[side], 0)
                at_extreme[side] += (filled == extreme).sum(0)
                extremes[side] = extreme
    present = np.maximum(total - missing, 1)
    deviation = np.sqrt(np.maximum(squares / present - np.square(sums / present), 0))

    is_missing = missing > MAX_MISSING_SHARE * total
    is_constant = ~is_missing & (extremes[0] == extremes[1])
    alive = ~is_missing & ~is_constant
    typical = np.median(deviation[alive]) if alive.any() else 0.0
    is_dead = alive & (deviation < DEAD_SHARE * typical)
    is_clipped = alive & ~is_dead & (np.maximum(*at_extreme) > MAX_CLIPPED_SHARE * total)
    report = ChannelReport(
        channels=channels,
        missing=tuple(np.flatnonzero(is_missing).tolist()),
        constant=tuple(np.flatnonzero(is_constant).tolist()),
        dead=tuple(np.flatnonzero(is_dead).tolist()),
        clipped=tuple(np.flatnonzero(is_clipped).tolist()),
    )
    if not report.mask.any():
        raise RecordingError(f"{where}: {report.sentence()}; no usable LFP channel remains")
    return report


def inspect_units(counts: ArrayLike, spans: Sequence[tuple[int, int]], where: str) -> ChannelReport:
    """Find sorted units that never fire in the training part.

    Parameters
    ----------
    counts : (T, U) spikes per bin.
    spans : [start, stop) bins of the training part; nothing else is read.
    where : name of the recording, for the error.

    Raises
    ------
    RecordingError : none fires.
    """
    fired = np.sum([np.asarray(counts[start:stop]).sum(0, dtype=np.int64) for start, stop in spans], axis=0)
    report = ChannelReport(channels=counts.shape[1], constant=tuple(np.flatnonzero(fired == 0).tolist()))
    if not report.mask.any():
        raise RecordingError(f"{where}: no unit fires in the training part")
    return report
