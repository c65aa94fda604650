"""The built-in protocols."""

from __future__ import annotations

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
    front_ends: ClassVar[tuple[str, ...]] = ("bands50", "lfp100")

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
        return SplitManifest(
            protocol=self.name,
            dataset=dataset,
            session=recording.session,
            session_role=role,
            first_bin=first,
            last_bin=last,
            spans=tuple(spans),
        )
