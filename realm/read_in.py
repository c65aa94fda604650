"""A linear read-in that is fitted anew for every session: from its frames to the target around now.

Electrodes move and tuning drifts, so that one shared input layer does not survive months; what the target does over
time is the same on all days. The read-in is a ridge regression of the target some steps ago, now and some steps ahead
on one frame of all channels: what comes out means the same in every session. What came before the frame is for the
network to remember. Without labels the read-in is silent: its outputs are zeros.

On what it was fitted to, a read-in looks better than it is. A network must not learn to trust that, so training
segments get the outputs of read-ins that were fitted to the other parts of the session.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy.linalg import cho_factor, cho_solve
from torch import nn
from torch.nn import functional

from realmbench.errors import OptionError
from realmbench.metrics import r2_for_selection
from realmbench.options import whole_frames
from realmbench.session import Segment, Session, SessionData

# Ridge strengths, in units of the mean eigenvalue of the frames' covariance times their number.
STRENGTHS = (1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2)


class ReadInOptions(BaseModel):
    """What a read-in says, and how it is fitted.

    Attributes
    ----------
    horizons_s : of the target; ahead where positive. Without any there is no read-in.
    parts : stretches of a session, each of which gets the read-in of the others while a network learns.
    few_s : seconds of a pretraining session with which it plays a held-out one that has just been calibrated; what is
        left of a segment behind them is learnt from where it is no shorter than they are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    horizons_s: tuple[float, ...] = (-0.1, 0.0, 0.1, 0.2)
    parts: int = Field(4, ge=2)
    few_s: float = Field(30.0, gt=0)

    def horizons(self, rate: int) -> tuple[int, ...]:
        """Return the horizons as numbers of frames.

        Raises
        ------
        OptionError : one of them is no whole number.
        """
        return tuple(whole_frames("decoder.read_in.horizons_s", ahead, rate) for ahead in self.horizons_s)


class Weights(NamedTuple):
    """A fitted read-in: (K, C * F) weights and (K,) offset, K being horizons times targets."""

    weight: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True)
class FittedReadIn:
    """A session's read-in, and the session with the outputs for its network to learn from.

    Attributes
    ----------
    weights : fitted to the whole training part.
    session : its segments carry the read-in's outputs (T, K, 1) as their ``privileged`` frames.
    score : R2 of the outputs for now, on validation and on the training segments; not a number without horizons.
    """

    weights: Weights
    session: SessionData
    score: float


class ReadIn(nn.Module):
    """Frames (..., C, F) to the read-in's outputs (..., K).

    Parameters
    ----------
    inputs : C * F.
    outputs : K.
    """

    weight: torch.Tensor
    offset: torch.Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(outputs, inputs) / inputs**0.5)  # until a session's are set
        self.register_buffer("offset", torch.zeros(outputs))

    def set(self, weights: Weights) -> None:
        """Take over fitted weights."""
        self.weight.copy_(torch.from_numpy(weights.weight))
        self.offset.copy_(torch.from_numpy(weights.offset))

    def silence(self) -> None:
        """Say nothing until weights are set."""
        self.weight.zero_()
        self.offset.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x.flatten(-2), self.weight, self.offset)


def fit_read_in(session: SessionData, options: ReadInOptions) -> FittedReadIn:
    """Fit a session's read-in by ridge regression.

    Its strength is chosen by what has not been fitted to: validation, and every stretch of the training part by the
    read-in of the others. With seconds of calibration validation alone would be too short to choose anything.
    """
    if not options.horizons_s:
        silent = no_weights(session, options)
        return FittedReadIn(silent, with_read_in(session, silent), math.nan)
    segments = _stretches(session, options)
    stretches = [stretch for segment in segments for stretch in segment]
    everything = _joined([stretch.sums for stretch in stretches])
    # Every part is left out once.
    without = [
        _joined([stretch.sums for stretch in stretches if stretch.part != part]) for part in range(options.parts)
    ]

    def at(strength: float) -> FittedReadIn:
        weights = _solve(everything, strength)
        others = [_solve(sums, strength) for sums in without]
        carried = replace(
            session,
            train=tuple(
                _carrying(segment, np.concatenate([apply_read_in(each.x, others[each.part]) for each in own]))
                for segment, own in zip(session.train, segments)
            ),
            validation=tuple(_carrying(segment, apply_read_in(segment.x, weights)) for segment in session.validation),
        )
        return FittedReadIn(weights, carried, _score(carried, options.horizons(session.rate)))

    return max((at(strength) for strength in STRENGTHS), key=lambda fitted: fitted.score)


def rehearsals(session: SessionData, options: ReadInOptions) -> list[SessionData]:
    """Return a pretraining session as three that a network may meet: not calibrated, just calibrated, and wholly.

    A network that has only met read-ins fitted to whole sessions would trust one that was fitted to seconds as much.
    Without a read-in there is nothing to rehearse.

    Raises
    ------
    OptionError : ``few_s`` is less than a frame.
    """
    silent = with_read_in(session, no_weights(session, options))
    if not options.horizons_s:
        return [silent]
    whole = fit_read_in(session, options).session
    frames = round(options.few_s * session.rate)
    if not frames:
        raise OptionError(f"decoder.read_in.few_s={options.few_s:g} is less than a frame at {session.rate} Hz")
    few, rest = _first(session, frames)
    if not rest.train:
        return [silent, whole]
    return [silent, with_read_in(rest, fit_read_in(few, options).weights), whole]


def _first(session: SessionData, frames: int) -> tuple[SessionData, SessionData]:
    """Cut a session's training segments after so many frames."""
    before: list[Segment] = []
    after: list[Segment] = []
    left = frames
    for segment in session.train:
        taken = min(left, len(segment))
        left -= taken
        if taken:
            before.append(_part(segment, slice(0, taken)))
        # Training windows are as short as the shortest segment: a sliver would shorten them all.
        if not taken or len(segment) - taken >= frames:
            after.append(_part(segment, slice(taken, None)))
    return replace(session, train=tuple(before)), replace(session, train=tuple(after))


def _part(segment: Segment, inside: slice) -> Segment:
    x, y, privileged = (getattr(segment, name)[inside] for name in ("x", "y", "privileged"))
    return replace(segment, x=x, y=y, privileged=privileged, warm_up=0, start=segment.start + inside.start)


def with_read_in(session: SessionData, weights: Weights) -> SessionData:
    """Return the session with the outputs of a read-in that was fitted elsewhere."""
    train, validation = (
        tuple(_carrying(segment, apply_read_in(segment.x, weights)) for segment in part)
        for part in (session.train, session.validation)
    )
    return replace(session, train=train, validation=validation)


def no_weights(session: Session, options: ReadInOptions) -> Weights:
    """Return the silent read-in of a session that gave no labels."""
    said = len(options.horizons_s) * session.outputs
    weight = np.zeros((said, session.channels * session.features), np.float32)
    return Weights(weight, np.zeros(said, np.float32))


def apply_read_in(x: np.ndarray, weights: Weights) -> np.ndarray:
    """Map (T, C, F) frames to (T, K) outputs."""
    return (_flat(x) @ weights.weight.T + weights.offset).astype(np.float32)


def _flat(x: np.ndarray) -> np.ndarray:
    """Reshape (T, C, F) frames, of which there may be none, to (T, C * F)."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


class _Sums(NamedTuple):
    """Moments of frames and targets: of both, of frames with targets, sums, and the number of rows."""

    gram: np.ndarray
    cross: np.ndarray
    x: np.ndarray
    y: np.ndarray
    rows: int


class _Stretch(NamedTuple):
    """A stretch of a segment.

    Attributes
    ----------
    part : of the session that it belongs to; neighbours in time go together, because they resemble each other.
    x : (T, C, F) its frames.
    sums : their moments with the targets; these may lie beyond the stretch, by the longest horizon.
    """

    part: int
    x: np.ndarray
    sums: _Sums


def _stretches(session: SessionData, options: ReadInOptions) -> list[list[_Stretch]]:
    """Cut every training segment so that each part of the session gets a stretch at least."""
    horizons = options.horizons(session.rate)
    each = -(-options.parts // len(session.train))
    found: list[list[_Stretch]] = []
    for number, segment in enumerate(session.train):
        x, y = segment.x, segment.y
        cuts = np.linspace(0, len(segment), each + 1).round().astype(int)
        found.append([])
        for index, (start, end) in enumerate(pairwise(cuts), start=number * each):
            first = max(start, -min(0, *horizons))
            stop = max(first, min(end, len(y) - max(0, *horizons)))
            targets = np.concatenate([y[first + ahead : stop + ahead] for ahead in horizons], axis=1)
            part = index * options.parts // (each * len(session.train))
            found[-1].append(_Stretch(part, x[start:end], _sums(x[first:stop], targets)))
    return found


def _sums(frames: np.ndarray, targets: np.ndarray) -> _Sums:
    x = _flat(frames)
    return _Sums(
        (x.T @ x).astype(np.float64),
        (x.T @ targets).astype(np.float64),
        x.sum(0, dtype=np.float64),
        targets.sum(0, dtype=np.float64),
        len(x),
    )


def _joined(sums: Sequence[_Sums]) -> _Sums:
    gram, cross, x, y = (np.sum([np.asarray(each[part]) for each in sums], axis=0) for part in range(4))
    return _Sums(gram, cross, x, y, sum(each.rows for each in sums))


def _solve(sums: _Sums, strength: float) -> Weights:
    """Solve ``min |y - X w|^2 + s |w|^2``, s being the strength times the mean of X^T X's diagonal."""
    rows = max(1, sums.rows)
    gram = sums.gram - np.outer(sums.x, sums.x) / rows
    cross = sums.cross - np.outer(sums.x, sums.y) / rows
    pull = strength * np.trace(gram) / len(gram) + 1e-6
    gram.flat[:: len(gram) + 1] += pull
    weight = cho_solve(cho_factor(gram, overwrite_a=True, check_finite=False), cross, check_finite=False).T
    return Weights(weight.astype(np.float32), ((sums.y - weight @ sums.x) / rows).astype(np.float32))


def _score(session: SessionData, horizons: Sequence[int]) -> float:
    """Return R2 of the outputs that a session's segments carry, for the horizon nearest to now."""
    outputs = session.outputs
    now = int(np.argmin(np.abs(horizons)))
    columns = slice(now * outputs, (now + 1) * outputs)
    segments = (*session.train, *session.validation)
    truth = np.concatenate([segment.y[segment.warm_up :] for segment in segments])
    said = np.concatenate([segment.privileged[segment.warm_up :, columns, 0] for segment in segments])
    return r2_for_selection(truth, said)


def _carrying(segment: Segment, outputs: np.ndarray) -> Segment:
    return replace(segment, privileged=outputs[:, :, None])
