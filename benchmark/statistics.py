"""Summaries of run records: one row per method, over a stated and complete set of sessions. No torch here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .errors import RealmbenchError, unknown_name
from .records import HEADLINE, RunRecord, held_out_of
from .uncertainty import (
    LEAK_ERRORS,
    SIGNIFICANCE_SESSIONS,
    BlockSums,
    Interval,
    block_sums,
    errors_above_ceiling,
    interval,
)

# What a table shows where there is no number.
MISSING = "–"
# Characters of changed options that a table has room for.
LONGEST_CHANGES = 60


@dataclass(frozen=True)
class Comparison:
    """What makes rows comparable: equal data, protocol, front end and sessions; ``held_out`` counts all sessions."""

    dataset: str
    dataset_version: str
    data_options: tuple[str, ...]
    protocol: str
    front_end: str
    leaky: bool
    audit: str | None
    sessions: tuple[str, ...]
    held_out: int

    @property
    def subset(self) -> bool:
        """True if means are over fewer sessions than the dataset holds out."""
        return len(self.sessions) < self.held_out


@dataclass(frozen=True)
class Row:
    """One method on one comparison.

    Attributes
    ----------
    label : model and preset, and what the user changed.
    r2 : mean over sessions of the mean over seeds; None unless every session is there.
    interval : 95 % interval of that mean; None below four sessions or where one is missing.
    session_spread : standard deviation over sessions of the seed means; None below two sessions.
    seed_spread : standard deviation over seeds, averaged over sessions; None below two seeds.
    sessions, seeds : how many sessions are there, and how many seeds each of them has.
    left_out : seeds that only some sessions have; they count for nothing.
    ceiling : mean over sessions of the exact ceiling for this decoder's look-ahead, where every session has one.
    errors_above_ceiling : standard errors by which the mean exceeds it; above three it is a leak.
    look_ahead_s : seconds of future that it needs; None for the whole record.
    versions : of code and configuration, or of one session's data, that made the records; a mean over several is of
        no single method.
    calibration_s : shortest and longest calibration among the sessions, where the protocol limits it.
    parameters : needed to predict.
    input_kbit_s : bandwidth at the electrodes and after the front end, where recorded.
    training_seconds, training_seconds_with_artifacts : mean over sessions of the median over seeds, which a machine
        that was busy during one of them does not move; pretraining is counted whole in the latter.
    latency_p50_us, latency_p95_us : of the run whose steps were least disturbed by what else the machine did.
    devices : where the runs took place, that of most of them first; seconds and step times are of these alone (what
        pretraining took was perhaps on another).
    """

    label: str
    model: str
    preset: str
    config_hash: str
    causal: bool
    look_ahead_s: float | None
    r2: float | None
    session_r2: dict[str, float]
    interval: Interval | None
    session_spread: float | None
    seed_spread: float | None
    sessions: int
    seeds: int
    left_out: tuple[int, ...]
    ceiling: float | None
    errors_above_ceiling: float | None
    versions: int
    calibration_s: tuple[float, float] | None
    parameters: int
    input_kbit_s: tuple[float, float] | None
    training_seconds: float
    training_seconds_with_artifacts: float
    flops_per_step: int | None
    latency_p50_us: float | None
    latency_p95_us: float | None
    devices: tuple[str, ...]

    @property
    def fraction_of_ceiling(self) -> float | None:
        """R2 as a share of the highest that is possible."""
        return None if self.ceiling is None or self.r2 is None else self.r2 / self.ceiling

    @property
    def leaks(self) -> bool:
        """Whether the score is above what is possible by more than chance allows."""
        return self.errors_above_ceiling is not None and self.errors_above_ceiling > LEAK_ERRORS

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {**asdict(self), "fraction_of_ceiling": self.fraction_of_ceiling, "leaks": self.leaks}


def compare(records: Iterable[RunRecord], sessions: Sequence[str] | None = None) -> list[tuple[Comparison, list[Row]]]:
    """Group records into comparisons and summarise each method, best first, incomplete ones last.

    Parameters
    ----------
    sessions : the set over which means are taken; None takes all held-out sessions of the dataset.

    Raises
    ------
    RealmbenchError : records of one session stem from different splits, or one run is there twice.
    """
    tables = []
    for comparison, group in comparable(records, sessions):
        rows = [_row(method, comparison.sessions) for method in methods(group).values()]
        rows.sort(key=lambda row: (row.r2 is None, -(row.r2 or 0.0), row.model))
        tables.append((comparison, rows))
    return tables


def comparable(
    records: Iterable[RunRecord], sessions: Sequence[str] | None = None
) -> list[tuple[Comparison, list[RunRecord]]]:
    """Group records that may stand in one table: equal data, protocol, front end and audit.

    Parameters
    ----------
    sessions : the set over which means are taken; None takes all held-out sessions of the dataset.

    Raises
    ------
    RealmbenchError : records of one session stem from different splits.
    """
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    for record in records:
        groups.setdefault(_table(record), []).append(record)
    tables = [(_comparison(group, sessions), group) for _, group in sorted(groups.items())]
    if sessions is None:
        return tables
    return [(comparison, [record for record in group if record.session in sessions]) for comparison, group in tables]


def joined(suites: Iterable[Sequence[RunRecord]]) -> list[RunRecord]:
    """Put the records of several suites together; of a method that several have on a dataset, those of the first.

    A method is what tables call it: one whose preset has changed between two suites is one.
    """
    taken_from: dict[tuple[str, ...], int] = {}
    return [
        record
        for number, records in enumerate(suites)
        for record in records
        if taken_from.setdefault((*_table(record), label(record)), number) == number
    ]


def across_front_ends(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return records as if of one front end, each method named with its own: ``gru on bands50``.

    Tables rank behind equal front ends. What an input is worth to a method is another question, and all front ends are
    scored on the same samples.
    """
    return [
        record.model_copy(update={"model": f"{record.model} on {record.front_end}", "front_end": "any front end"})
        for record in records
    ]


def _comparison(records: Sequence[RunRecord], wanted: Sequence[str] | None) -> Comparison:
    held_out = held_out_of(records)
    sessions = tuple(sorted(wanted or held_out))
    splits = {(record.session, record.split_hash) for record in records}
    if len(splits) > len({session for session, _ in splits}):
        raise RealmbenchError(
            f"{records[0].dataset}: records of one session were made on different splits and cannot be compared; "
            "run the older ones again"
        )
    first = records[0]
    return Comparison(
        dataset=first.dataset,
        dataset_version=first.dataset_version,
        data_options=tuple(f"{name}={value}" for name, value in sorted(first.data_options.items())),
        protocol=first.protocol,
        front_end=first.front_end,
        leaky=first.leaky,
        audit=first.audit,
        sessions=sessions,
        held_out=len(held_out),
    )


def methods(records: Iterable[RunRecord]) -> dict[tuple[str, str, str], list[RunRecord]]:
    """Group records by method: model, preset and hash of the configuration."""
    found: dict[tuple[str, str, str], list[RunRecord]] = {}
    for record in records:
        found.setdefault(_method(record), []).append(record)
    return found


def _table(record: RunRecord) -> tuple[str, ...]:
    """Return what records of one table have in common."""
    return record.dataset, record.dataset_identity, record.protocol, record.front_end, record.audit or ""


def _method(record: RunRecord) -> tuple[str, str, str]:
    return record.model, record.preset, record.config_hash


def label(record: RunRecord) -> str:
    """Name a method as tables do: model and preset, and what the user changed, as in ``gru (small, hidden=128)``.

    Where much was changed, the first change, their number and the start of the configuration's hash.
    """
    changes = [_changed(record, name) for name in record.changed_options]
    if len(", ".join(changes)) > LONGEST_CHANGES:
        changes = [f"{changes[0]} and {len(changes) - 1} more", record.config_hash[:6]]
    return f"{record.model} ({', '.join([record.preset, *changes])})"


def number(value: float | None, form: str) -> str:
    """Format a number; a dash where there is none."""
    return MISSING if value is None else format(value, form)


def only(records: Sequence[RunRecord], names: Sequence[str]) -> list[RunRecord]:
    """Keep the records of the methods named, by label or by a model's name, which means the method as it is.

    Raises
    ------
    UnknownNameError : a name fits no record.
    """
    fitting = {
        name: [each for each in records if label(each) == name or (each.model == name and not each.changed_options)]
        for name in names
    }
    for name, kept in fitting.items():
        if not kept:
            known = {each.model for each in records if not each.changed_options} | {label(each) for each in records}
            raise unknown_name("method among the records", name, known)
    return [record for kept in fitting.values() for record in kept]


def _changed(record: RunRecord, name: str) -> str:
    value: Any = record.config
    for part in name.split("."):
        value = value[part]
    shown = value if isinstance(value, str) else json.dumps(value)
    return f"{name.removeprefix('decoder.')}={shown}"


def _row(records: Sequence[RunRecord], sessions: tuple[str, ...]) -> Row:
    by_session = runs_by_session(records)
    common = sorted(next(iter(by_session.values()), {}))
    scores = {session: [run.metrics[HEADLINE] for run in runs.values()] for session, runs in by_session.items()}
    means = {session: float(np.mean(values)) for session, values in scores.items()}
    complete = set(means) == set(sessions)
    ceilings = [ceiling for runs in by_session.values() if (ceiling := next(iter(runs.values())).ceiling) is not None]
    known = complete and len(ceilings) == len(sessions)
    sums = sums_of(by_session)
    calibrations = [record.calibration_s for record in records if record.calibration_s is not None]
    # Every run of a method steps the same network: what differs is what else the machine did.
    devices = tuple(device for device, _ in Counter(record.device for record in records).most_common())
    timed = [record for record in records if record.device == devices[0]]
    latencies = [record.latency for record in timed if record.latency is not None]
    latency = min(latencies, key=lambda each: (each.p95, each.p50), default=None)
    first = records[0]
    return Row(
        label=label(first),
        model=first.model,
        preset=first.preset,
        config_hash=first.config_hash,
        causal=first.causal,
        look_ahead_s=first.look_ahead_s,
        r2=float(np.mean(list(means.values()))) if complete else None,
        session_r2=means,
        interval=interval(sums) if complete else None,
        session_spread=float(np.std(list(means.values()), ddof=1)) if len(means) > 1 else None,
        seed_spread=float(np.mean([np.std(values, ddof=1) for values in scores.values()])) if len(common) > 1 else None,
        sessions=len(means),
        seeds=len(common),
        left_out=tuple(sorted({record.seed for record in records} - set(common))),
        ceiling=float(np.mean(ceilings)) if known else None,
        errors_above_ceiling=errors_above_ceiling(sums, ceilings) if known else None,
        versions=versions(records),
        calibration_s=(min(calibrations), max(calibrations)) if calibrations else None,
        parameters=first.parameters_deployed,
        input_kbit_s=None
        if first.sampled_kbit_s is None or first.frames_kbit_s is None
        else (first.sampled_kbit_s, first.frames_kbit_s),
        training_seconds=_usual(timed, lambda record: record.training_seconds),
        training_seconds_with_artifacts=_usual(timed, lambda record: record.training_seconds_with_artifacts),
        # The first records counted matrix products alone; half a count is shown as none.
        flops_per_step=None
        if first.flops_elementwise is None or first.flops_uncounted
        else first.flops_per_step + first.flops_elementwise,
        latency_p50_us=None if latency is None else latency.p50,
        latency_p95_us=None if latency is None else latency.p95,
        devices=devices,
    )


def _usual(records: Sequence[RunRecord], seconds: Callable[[RunRecord], float]) -> float:
    """Return the mean over sessions of the median over seeds."""
    by_session: dict[str, list[float]] = {}
    for record in records:
        by_session.setdefault(record.session, []).append(seconds(record))
    return float(np.mean([np.median(values) for values in by_session.values()]))


def runs_by_session(records: Iterable[RunRecord]) -> dict[str, dict[int, RunRecord]]:
    """Return one method's records by session and seed, sorted, with the seeds that every session has.

    Every session counts with the same seeds, so that no session is measured better than another; without a common seed
    nothing is left.

    Raises
    ------
    RealmbenchError : one run is there twice.
    """
    found: dict[str, dict[int, RunRecord]] = {}
    for record in records:
        if found.setdefault(record.session, {}).setdefault(record.seed, record) is not record:
            raise RealmbenchError(
                f"two records of {label(record)}, {record.session}, seed {record.seed}, configuration "
                f"{record.config_hash[:6]}, in suite {record.suite}, {record.dataset}, {record.protocol}, "
                f"{record.front_end}: delete one"
            )
    common = sorted(set.intersection(*(set(runs) for runs in found.values()))) if found else []
    return {session: {seed: found[session][seed] for seed in common} for session in sorted(found) if common}


def versions(records: Iterable[RunRecord]) -> int:
    """Return how many versions of code and configuration made a method's records, or of the data those of a session.

    Whichever is more.
    """
    codes: set[tuple[str, str]] = set()
    data: dict[str, set[str]] = {}
    for record in records:
        codes.add((record.code, record.config_hash))
        data.setdefault(record.session, set()).add(record.data_key)
    return max(len(codes), max(map(len, data.values()), default=0))


def sums_of(runs: Mapping[str, Mapping[int, RunRecord]]) -> list[BlockSums]:
    """Return the block sums of what `runs_by_session` found, one per session."""
    return [block_sums([run.blocks for run in of_session.values()]) for of_session in runs.values()]


def in_words(comparison: Comparison, rows: Sequence[Row]) -> str:
    """Say in plain words what a table shows and what it does not."""
    complete = [row for row in rows if row.r2 is not None]
    if not complete:
        return "No method has been run on every session yet, so no means are shown."
    count = len(comparison.sessions)
    if comparison.audit:
        highest = max(score for row in complete for score in row.session_r2.values())
        return (
            f"Audit {comparison.audit}: the target has nothing to do with the LFP, so R2 should be about 0 or below. "
            f"The highest of any session here is {highest:.3f}."
        )
    sentences = []
    causal = [row for row in complete if row.causal and not row.leaks]
    if causal:
        best = causal[0]
        low, high = min(best.session_r2.values()), max(best.session_r2.values())
        span = f", {low:.2f} to {high:.2f} over sessions" if count > 1 else ""
        sentences.append(f"The best causal decoder here is {best.label}: R2 {best.r2:.3f}{span}.")
        if len(causal) > 1:
            second = causal[1]
            differences = np.array([best.session_r2[name] - second.session_r2[name] for name in comparison.sessions])
            sentences.append(
                f"It is {differences.mean():+.3f} from {second.label}, the next, and ahead in "
                f"{int((differences > 0).sum())} of {count} sessions."
            )
    whole = [row for row in complete if not row.causal and row.look_ahead_s is None]
    if whole:
        sentences.append(f"{whole[0].label} sees the future (R2 {whole[0].r2:.3f}) and cannot run in real time.")
    for row in complete:
        if row.look_ahead_s:
            sentences.append(f"{row.label} (R2 {row.r2:.3f}) runs in real time with {row.look_ahead_s:g} s of delay.")
    ranges = {row.calibration_s for row in complete if row.calibration_s is not None}
    if ranges:
        low, high = min(span[0] for span in ranges), max(span[1] for span in ranges)
        span = f"{high:g} s" if low == high else f"{low:g} to {high:g} s, as much as fits,"
        sentences.append(f"These are scores with {span} of calibration.")
    if mixed := [row.label for row in rows if row.versions > 1]:
        sentences.append(f"Made by several versions of the code or of the data: {', '.join(mixed)}; run them again.")
    if len(devices := sorted({device for row in rows for device in row.devices})) > 1:
        timed = {device: [row.label for row in rows if row.devices[0] == device] for device in devices}
        places = (f"{device} ({', '.join(labels) or 'none'})" for device, labels in timed.items())
        sentences.append(
            f"Seconds and step times are of different devices and not to be compared: {'; '.join(places)}."
        )
    if partial := [f"{', '.join(map(str, row.left_out))} of {row.label}" for row in rows if row.left_out]:
        sentences.append(f"Seeds that not every session has are left out: {'; '.join(partial)}.")
    if missing := [row.label for row in rows if row.r2 is None]:
        sentences.append(f"Not run on every session: {', '.join(missing)}; their means are left out.")
    if comparison.subset:
        sentences.append(f"These are {count} of the {comparison.held_out} held-out sessions.")
    for row in complete:
        if row.leaks:
            sentences.append(
                f"LEAK: {row.label} scores {row.errors_above_ceiling:.1f} standard errors above the highest R2 that "
                f"its look-ahead permits ({row.ceiling:.3f}); it sees what it must not see."
            )
    if count < SIGNIFICANCE_SESSIONS:
        sentences.append(f"With {count} session{'s' * (count > 1)} no difference can be called significant.")
    if comparison.leaky:
        sentences.append("This protocol is leaky: it reproduces published numbers, not what a device would reach.")
    return " ".join(sentences)
