"""Protocols: which part of a recording trains, validates and tests, fixed in a manifest with a hash."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from .dataset import Dataset, Fold
from .errors import ProtocolError
from .front_end import FrontEnd
from .manifest import CLOCK_RATE, SessionRole, Span, SplitManifest
from .recording import Recording
from .registry import Registry


class Protocol(ABC):
    """Base class: a named, versioned way to cut recordings.

    Attributes
    ----------
    name : ends in its version; a changed rule is a new name.
    front_ends : names it permits, the default first.
    causal_only : refuse decoders that look ahead.
    leaky : True for published protocols that let test data touch training; marked wherever they appear.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    front_ends: ClassVar[tuple[str, ...]]
    causal_only: ClassVar[bool] = False
    leaky: ClassVar[bool] = False
    headline: ClassVar[str] = "r2_axis_mean"
    # Seconds of the held-out session that may be learnt from, where the protocol limits them.
    calibration_s: float | None = None

    def stages(self, recording: Recording) -> Sequence[Protocol]:
        """Return the cuts of one held-out recording that a run goes through, the last one being its headline.

        One for most protocols; a calibration protocol has one per point of its curve.
        """
        return [self]

    def folds(self, dataset: Dataset) -> list[Fold]:
        """Return the dataset's fixed folds after checking that no held-out session pretrains.

        Raises
        ------
        ProtocolError : a session stands on both sides of a fold, or is held out twice.
        """
        folds = dataset.folds()
        held_out = [session for fold in folds for session in fold.held_out]
        if len(set(held_out)) != len(held_out):
            raise ProtocolError(f"{dataset.full_name}: a session is held out in two folds; each may be evaluated once")
        for fold in folds:
            if both := set(fold.pretrain) & set(fold.held_out):
                raise ProtocolError(f"{dataset.full_name}, fold {fold.name}: {sorted(both)} pretrain and are held out")
        return folds

    @abstractmethod
    def split(self, recording: Recording, role: SessionRole, dataset: str) -> SplitManifest:
        """Cut one recording.

        Raises
        ------
        ProtocolError : the recording is too short; the message says how long it must be.
        """

    def manifest(
        self, recording: Recording, role: SessionRole, dataset: str, bins: tuple[int, int], spans: Sequence[Span]
    ) -> SplitManifest:
        """Put the spans of a cut, within [first, last) bins, into a manifest."""
        return SplitManifest(
            protocol=self.name,
            dataset=dataset,
            session=recording.session,
            session_role=role,
            first_bin=bins[0],
            last_bin=bins[1],
            spans=tuple(spans),
        )


def common_bins(recording: Recording) -> tuple[int, int]:
    """Return the first and one past the last whole 50 Hz bin in which LFP and behaviour both exist."""
    start, stop = recording.common_span()
    # Rounding to a microsecond keeps a clock that starts at, say, 0.1 s from losing a bin.
    first = int(np.ceil(round((start - recording.lfp_start) * CLOCK_RATE, 4)))
    last = int(np.floor(round((stop - recording.lfp_start) * CLOCK_RATE, 4)))
    return first, last


def assert_no_leak(manifest: SplitManifest, front_end: FrontEnd, sampling_rate: float) -> None:
    """Assert on raw sample indices that nothing of a test block reaches training or validation.

    A frame depends on its own raw samples and, through the filters, on older ones; those are followed back until the
    filters have forgotten them (`FrontEnd.settling_time`). A front end that is not causal reaches forward as well.

    Raises
    ------
    ProtocolError : names the first pair of spans that touch.
    """
    per_bin = sampling_rate / manifest.clock_rate
    memory = int(np.ceil(front_end.settling_time(sampling_rate) * sampling_rate))
    ahead = 0 if front_end.causal else memory
    for test in manifest.of("test"):
        test_start, test_stop = int(test.start * per_bin), int(np.ceil(test.stop * per_bin))
        for span in manifest.spans:
            if span.role == "test":
                continue
            first = int((span.start - span.warm_up) * per_bin) - memory
            last = int(np.ceil(span.stop * per_bin)) + ahead
            if first < test_stop and test_start < last:
                raise ProtocolError(
                    f"{manifest.protocol}, {manifest.session}: raw samples {max(first, test_start)} to "
                    f"{min(last, test_stop)} of a test block reach the {span.role} frames of bins "
                    f"{span.start} to {span.stop} through front end {front_end.name}"
                )


PROTOCOLS: Registry[Protocol] = Registry(
    "protocol", "realmbench.protocols", ("realmbench.protocols:PROTOCOLS",), "realmbench.protocol:Protocol"
)
