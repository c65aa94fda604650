"""The split manifest: how one session is cut, with a hash; part of every run record."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from .seeds import stable_hash

# Every decoder is scored on this clock, whatever its own frame rate.
CLOCK_RATE = 50

Role = Literal["train", "validation", "test"]
SessionRole = Literal["pretrain", "held-out"]


class Span(BaseModel):
    """A contiguous stretch of 50 Hz bins, [start, stop), preceded by ``warm_up`` bins of unscored gap."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role
    start: int
    stop: int
    warm_up: int = 0


class SplitManifest(BaseModel):
    """How one session is cut. Bins count from the first LFP sample."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: str
    dataset: str
    session: str
    session_role: SessionRole
    clock_rate: int = CLOCK_RATE
    first_bin: int
    last_bin: int
    spans: tuple[Span, ...]

    @property
    def hash(self) -> str:
        """Hash of the whole manifest."""
        return stable_hash(self.model_dump(mode="json"))

    def of(self, role: Role) -> list[Span]:
        """Return the spans of one role in time order."""
        return [span for span in self.spans if span.role == role]

    def seconds(self, role: Role) -> float:
        """Return the scored seconds of one role."""
        return sum(span.stop - span.start for span in self.of(role)) / self.clock_rate
