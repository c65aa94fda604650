"""R2 against the day of the held-out session: where a method stops to hold. From run records; no torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .records import RunRecord
from .statistics import Comparison, comparable, label, methods, runs_by_session

# A line over fewer days says nothing of time.
FEWEST_DAYS = 3


@dataclass(frozen=True)
class DayCurve:
    """One method's R2 by day, all with the same seconds of calibration.

    Attributes
    ----------
    calibration_s : None where the protocol does not limit them.
    sessions : (day, R2) of every session, seeds averaged.
    """

    label: str
    causal: bool
    calibration_s: float | None
    sessions: tuple[tuple[float, float], ...]

    @property
    def means(self) -> list[tuple[float, float]]:
        """R2 by day, averaged over the sessions (subjects) of a day."""
        days = sorted({day for day, _ in self.sessions})
        return [(day, float(np.mean([r2 for other, r2 in self.sessions if other == day]))) for day in days]


def day_curves(records: Iterable[RunRecord]) -> list[tuple[Comparison, list[DayCurve]]]:
    """Collect the curves of every table whose sessions lie on three days or more, complete methods only.

    Days count from the subject's first session.
    """
    found = []
    for comparison, group in comparable(record for record in records if record.day is not None):
        if len({record.day for record in group}) < FEWEST_DAYS:
            continue
        lines = [
            curve
            for method in methods(group).values()
            if set(runs := runs_by_session(method)) == set(comparison.sessions)
            for curve in _curves(runs)
        ]
        if lines:
            found.append((comparison, lines))
    return found


def _curves(runs: Mapping[str, Mapping[int, RunRecord]]) -> list[DayCurve]:
    """Return one curve per seconds of calibration that all runs have."""
    stages = [run.r2_by_calibration for of_session in runs.values() for run in of_session.values()]
    common = set.intersection(*(set(stage) for stage in stages))
    first = next(iter(next(iter(runs.values())).values()))
    curves = []
    for seconds in sorted(common, key=lambda value: -1.0 if value is None else value):
        points = []
        for of_session in runs.values():
            day = next(iter(of_session.values())).day
            assert day is not None
            points.append((day, float(np.mean([run.r2_by_calibration[seconds] for run in of_session.values()]))))
        curves.append(DayCurve(label(first), first.causal, seconds, tuple(sorted(points))))
    return curves


def in_words(lines: Sequence[DayCurve]) -> str:
    """Say how much of its first day's R2 each causal method keeps on the last, with the most calibration."""
    longest = max((line.calibration_s or 0.0) for line in lines)
    sentences = []
    for line in lines:
        if not line.causal or (line.calibration_s or 0.0) != longest:
            continue
        (first_day, first), (last_day, last) = line.means[0], line.means[-1]
        if first > 0:
            sentences.append(f"{line.label}: R2 {first:.3f} on day {first_day:g}, {last:.3f} on day {last_day:g}.")
    return " ".join(sentences)
