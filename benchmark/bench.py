"""Measurements of speed: things that do the same work, timed in turns inside one process.

Seconds depend on the machine and on what else it does; ratios of medians inside one process hold best. Benches are
registered like decoders (entry points ``realmbench.benches``) and run by `realmbench bench NAME`.
"""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from pydantic import BaseModel, ConfigDict

from .registry import Registry


class BenchTable(BaseModel):
    """A table of a bench: what was timed, and one row per case."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    columns: list[str]
    rows: list[list[str | float]]


class BenchResult(BaseModel):
    """What a bench found: tables of medians, what they say, and every single time by case."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tables: list[BenchTable]
    sentences: list[str]
    seconds: dict[str, dict[str, list[float]]]


class Bench(ABC):
    """A measurement of speed."""

    @abstractmethod
    def measure(self, device: str, rounds: int, on_progress: Callable[[str, float], None]) -> BenchResult:
        """Time everything ``rounds`` times, in turns."""


def time_in_turns(
    candidates: Mapping[str, Callable[[], object]], rounds: int, finish: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Time callables in turns, after one call of each that is not counted.

    In turns, so that what else the machine does meets all of them.

    Parameters
    ----------
    finish : waits until the device has done what it was given.
    """
    for call in candidates.values():
        call()
    finish()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            started = time.perf_counter()
            call()
            finish()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(seconds: Mapping[str, list[float]], slower: str, faster: str) -> float:
    """Return how many times as long the median of one case takes as that of another."""
    return statistics.median(seconds[slower]) / statistics.median(seconds[faster])


BENCHES: Registry[Bench] = Registry(
    "bench", "realmbench.benches", ("realmbench.realm:BENCHES",), "realmbench.bench:Bench"
)
