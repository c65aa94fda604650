"""Calibration curves from run records: R2 against seconds of the held-out session, per method. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .errors import RealmbenchError
from .records import BlockScore, RunRecord
from .statistics import Comparison, comparable, label, methods, runs_by_session
from .uncertainty import Interval, block_sums, interval, score_matrix

# How many curves, the highest, are put into words one by one; all stand in the table.
IN_WORDS = 3


@dataclass(frozen=True)
class Point:
    """Mean R2 over sessions (and seeds) with some seconds of calibration; every session of the table has it."""

    seconds: float
    r2: float
    interval: Interval | None


@dataclass(frozen=True)
class Curve:
    """One method's points, in order of seconds; a point that some session lacks is left out."""

    label: str
    causal: bool
    sessions: int
    seeds: int
    points: tuple[Point, ...]

    def at(self, seconds: float) -> Point | None:
        """Return the point at so many seconds, None where there is none."""
        return next((point for point in self.points if point.seconds == seconds), None)


def curves(records: Iterable[RunRecord]) -> list[tuple[Comparison, list[Curve]]]:
    """Collect the calibration curves of every table, highest last point first.

    Only methods that were run on every session of the table, so that no curve is over an easier set.
    """
    found = []
    for comparison, group in comparable(record for record in records if record.calibration_s is not None):
        lines = [
            _curve(runs)
            for method in methods(group).values()
            if set(runs := runs_by_session(method)) == set(comparison.sessions)
        ]
        lines.sort(key=lambda curve: -curve.points[-1].r2 if curve.points else 0.0)
        found.append((comparison, lines))
    return found


def _curve(runs: Mapping[str, Mapping[int, RunRecord]]) -> Curve:
    by_seconds: dict[float, list[list[Sequence[BlockScore]]]] = {}
    for of_session in runs.values():
        stages: dict[float, list[Sequence[BlockScore]]] = {}
        for run in of_session.values():
            assert run.calibration_s is not None
            for seconds, blocks in [(p.calibration_s, p.blocks) for p in run.curve] + [(run.calibration_s, run.blocks)]:
                stages.setdefault(seconds, []).append(blocks)
        for seconds, seeds in stages.items():
            if len(seeds) == len(of_session):
                by_seconds.setdefault(seconds, []).append(seeds)
    points = []
    for seconds, sessions in sorted(by_seconds.items()):
        if len(sessions) == len(runs):
            sums = [block_sums(seeds) for seeds in sessions]
            points.append(Point(seconds, float(score_matrix(sums).mean()), interval(sums)))
    first = next(iter(next(iter(runs.values())).values()))
    return Curve(label(first), first.causal, len(runs), len(next(iter(runs.values()))), tuple(points))


def has_point(record: RunRecord, seconds: float) -> bool:
    """Say whether a record was scored with so many seconds of calibration."""
    return seconds in (record.calibration_s, *(point.calibration_s for point in record.curve))


def at_calibration(record: RunRecord, seconds: float) -> RunRecord:
    """Return the record as of one point of its curve: that point's scores as its own, and no curve.

    Raises
    ------
    RealmbenchError : the record has no such point.
    """
    if record.calibration_s == seconds:
        return record.model_copy(update={"curve": []})
    for point in record.curve:
        if point.calibration_s == seconds:
            return record.model_copy(
                update={
                    "calibration_s": seconds,
                    "metrics": point.metrics,
                    "blocks": point.blocks,
                    "split_hash": point.split_hash,
                    "curve": [],
                }
            )
    where = f"{label(record)} on {record.session}, seed {record.seed},"
    if record.calibration_s is None:
        raise RealmbenchError(f"{where} was not run with seconds of calibration; run it under calibration-v1")
    there = [f"{value:g}" for value in (*(point.calibration_s for point in record.curve), record.calibration_s)]
    raise RealmbenchError(f"{where} has no score with {seconds:g} s of calibration; it has {', '.join(there)}")


def in_words(lines: Sequence[Curve]) -> str:
    """Say in plain words who needs how much calibration."""
    causal = [curve for curve in lines if curve.causal and curve.points]
    if not causal:
        return "No causal decoder has a whole curve yet."
    sentences = []
    for seconds in (0.0, 15.0, causal[0].points[-1].seconds):
        there = {curve.label: point.r2 for curve in causal if (point := curve.at(seconds)) is not None}
        if there:
            best = max(there, key=there.__getitem__)
            when = "Without any calibration" if seconds == 0 else f"With {seconds:g} s"
            sentences.append(
                f"{when} {best} is highest (R2 {there[best]:.3f})."
                if there[best] > 0
                else f"{when} no causal decoder scores above 0 (the highest: {best}, {there[best]:.3f})."
            )
    whole = [curve for curve in causal if len(curve.points) > 1 and curve.points[-1].r2 > 0]
    for curve in sorted(whole, key=lambda curve: -curve.points[-1].r2)[:IN_WORDS]:
        enough = next(point for point in curve.points if point.r2 >= 0.9 * curve.points[-1].r2)
        sentences.append(
            f"{curve.label} reaches nine tenths of its R2 of {curve.points[-1].r2:.3f} after {enough.seconds:g} s."
        )
    return " ".join(sentences)


def table(lines: Sequence[Curve]) -> tuple[list[str], list[list[str]]]:
    """Return the header and one row of texts per curve; a dash where there is no point."""
    seconds = sorted({point.seconds for curve in lines for point in curve.points})
    header = ["model", "causal", "seeds", *(f"{value:g} s" for value in seconds)]
    rows = []
    for curve in lines:
        points = [curve.at(value) for value in seconds]
        texts = ["–" if point is None else _text(point) for point in points]
        rows.append([curve.label, "yes" if curve.causal else "no", str(curve.seeds), *texts])
    return header, rows


def _text(point: Point) -> str:
    if point.interval is None:
        return f"{point.r2:.3f}"
    low, high = point.interval.low, point.interval.high
    if point.interval.method == "t":
        return f"{point.r2:.3f} ± {(high - low) / 2:.3f}"
    return f"{point.r2:.3f} ({low:.3f} to {high:.3f})"  # a bootstrap's need not be symmetric
