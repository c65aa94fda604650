"""The built-in protocols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from .errors import ProtocolError
from .manifest import CLOCK_RATE, SessionRole, Span, SplitManifest
from .protocol import Protocol, common_bins
from .recording import Recording
from .registry import Lazy

PROTOCOLS = {
    "blocked-v1": Lazy(
        "realmbench.protocols:BlockedV1", "contiguous blocks in time with gaps, statistics from training samples only"
    ),
    "calibration-v1": Lazy(
        "realmbench.protocols:CalibrationV1",
        "a curve: zero-shot and 15 to 240 s of the held-out session to calibrate on, its last fifth tests",
    ),
}


class BlockedV1(Protocol):
    """Contiguous blocks in time, several test blocks spread over the record, a gap before every block.

    The record is cut into cycles of about two minutes (two at least, five at most), each of which holds

        gap | train (about 65 %) | gap | validation 10 % | gap | test 20 %

    of a held-out session, and ``gap | train | gap | validation 15 %`` of a pretraining session. Gaps are 2 s, longer
    than any permitted front end remembers; before validation and test blocks they bring the decoder's state up.
    """

    name = "blocked-v1"
    summary = "contiguous blocks in time with gaps, statistics from training samples only"
    front_ends: ClassVar[tuple[str, ...]] = ("bands50", "lfp100", "spikes50")

    gap_s: ClassVar[float] = 2.0
    cycle_s: ClassVar[float] = 120.0
    min_cycles: ClassVar[int] = 2
    max_cycles: ClassVar[int] = 5
    min_cycle_s: ClassVar[float] = 30.0
    shares: ClassVar[dict[SessionRole, dict[str, float]]] = {
        "held-out": {"validation": 0.10, "test": 0.20},
        "pretrain": {"validation": 0.15},
    }

    def split(self, recording: Recording, role: SessionRole, dataset: str) -> SplitManifest:
        first, last = common_bins(recording)
        shortest = self.min_cycles * self.min_cycle_s
        seconds = (last - first) / CLOCK_RATE
        if seconds < shortest:
            raise ProtocolError(
                f"{dataset}, {recording.session}: {seconds:.1f} s with LFP and behaviour are too short for "
                f"{self.name}, which needs {shortest:.0f} s"
            )
        cycles = min(self.max_cycles, max(self.min_cycles, round(seconds / self.cycle_s)))
        length = (last - first) // cycles
        gap = round(self.gap_s * CLOCK_RATE)
        blocks = {name: round(share * length) for name, share in self.shares[role].items()}
        spans: list[Span] = []
        for cycle in range(cycles):
            cursor = first + cycle * length + gap
            train = length - sum(blocks.values()) - gap * (1 + len(blocks))
            spans.append(Span(role="train", start=cursor, stop=cursor + train))
            cursor += train
            for name, bins in blocks.items():
                cursor += gap
                spans.append(Span(role=name, start=cursor, stop=cursor + bins, warm_up=gap))
                cursor += bins
        return self.manifest(recording, role, dataset, (first, last), spans)


class CalibrationV1(Protocol):
    """How R2 grows with calibration: one record holds the curve over 0, 15, 30, 60, 120 and 240 s.

    The held-out session is cut once into what may calibrate, a gap and the last fifth, which always tests. Calibration
    with N seconds takes the first N:

        train | gap 2 s | validation 20 %, at least 3 s | ... not used ... | gap 2 s | test (last fifth)

    Zero seconds mean zero: normaliser and channel mask are then those of the pretraining sessions, and decoders that
    cannot do without the session have no such point. Pretraining sessions are cut as `blocked-v1` cuts them, so that
    one teacher serves both protocols.

    Parameters
    ----------
    calibration_s : the N of this cut; `stages` makes all of them.
    """

    name = "calibration-v1"
    summary = "R2 against seconds of calibration, 0 to 240 s; the last fifth of the session tests"
    front_ends: ClassVar[tuple[str, ...]] = BlockedV1.front_ends

    seconds: ClassVar[tuple[float, ...]] = (0.0, 15.0, 30.0, 60.0, 120.0, 240.0)
    gap_s: ClassVar[float] = BlockedV1.gap_s
    test_share: ClassVar[float] = 0.2
    validation_share: ClassVar[float] = 0.2
    min_validation_s: ClassVar[float] = 3.0

    def __init__(self, calibration_s: float = seconds[-1]) -> None:
        self.calibration_s = calibration_s

    def stages(self, recording: Recording) -> Sequence[Protocol]:
        """Return one cut per point of the curve that the recording is long enough for."""
        first, test_start, _ = self._edges(recording)
        available = (test_start - first) / CLOCK_RATE - self.gap_s
        fitting = [seconds for seconds in self.seconds if seconds <= available]
        if len(fitting) < 2:
            raise ProtocolError(
                f"{recording.dataset}, {recording.session}: {available:.1f} s before the test part are too short for "
                f"{self.name}, which needs {self.seconds[1]:g} s"
            )
        return [CalibrationV1(seconds) for seconds in fitting]

    def split(self, recording: Recording, role: SessionRole, dataset: str) -> SplitManifest:
        if role == "pretrain":
            return BlockedV1().split(recording, role, dataset)
        assert self.calibration_s is not None
        first, test_start, last = self._edges(recording)
        gap = round(self.gap_s * CLOCK_RATE)
        stop = first + round(self.calibration_s * CLOCK_RATE)
        if stop + gap > test_start:
            raise ProtocolError(
                f"{dataset}, {recording.session}: {self.calibration_s:g} s of calibration reach the test part"
            )
        spans = [Span(role="test", start=test_start, stop=last, warm_up=gap)]
        if self.calibration_s:
            validation_s = max(self.min_validation_s, self.validation_share * self.calibration_s)
            begin = stop - round(validation_s * CLOCK_RATE)
            spans = [
                Span(role="train", start=first, stop=begin - gap),
                Span(role="validation", start=begin, stop=stop, warm_up=gap),
                *spans,
            ]
        return self.manifest(recording, role, dataset, (first, last), spans)

    def _edges(self, recording: Recording) -> tuple[int, int, int]:
        """Return the first bin, the first of the test part, and one past the last."""
        first, last = common_bins(recording)
        return first, last - round(self.test_share * (last - first)), last
