"""Paired differences between methods from run records, and what may be claimed of them. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .curves import at_calibration
from .errors import RealmbenchError, unknown_name
from .records import RunRecord
from .statistics import Comparison, comparable, label, methods, runs_by_session, sums_of, versions
from .uncertainty import (
    EQUIVALENCE,
    INTERVAL_SESSIONS,
    SIGNIFICANCE_SESSIONS,
    Interval,
    bayesian_signed_rank,
    distinguishable,
    holm,
    interval,
    score_matrix,
    signed_rank_p,
)

# From this number of subjects on, a result says something about others.
MANY_SUBJECTS = 4


@dataclass(frozen=True)
class Difference:
    """One method against another on the sessions and seeds that both have.

    Attributes
    ----------
    first, second : labels; positive differences favour the first.
    calibration_s : seconds of calibration at which they are compared; None takes each record's own score.
    sessions : R2 of the first minus R2 of the second, averaged over seeds, by session.
    missing : held-out sessions that one of them lacks.
    mixed : labels of those whose records several versions of the code made, or of the data.
    left_out : seeds that one of them lacks on some session; they count for nothing.
    other_data : sessions of which the two were handed different data: frames of another version, or spikes beside them.
    interval : 95 % interval of the mean difference; None below four sessions.
    p_value, p_adjusted : of the signed-rank test, the latter after Holm over everything that was asked for together,
        all datasets included; None below six sessions.
    probabilities : that the first is worse, practically equal (within 0.01), better; None below six sessions.
    claimed : the difference is larger than chance allows, after adjustment, and no session is missing,
        and each of the two is of one version of the code and of the data.
    """

    first: str
    second: str
    calibration_s: float | None
    sessions: dict[str, float]
    missing: tuple[str, ...]
    mixed: tuple[str, ...]
    left_out: tuple[int, ...]
    other_data: tuple[str, ...]
    seeds: int
    subjects: int
    mean: float
    median: float
    interval: Interval | None
    p_value: float | None
    p_adjusted: float | None
    probabilities: tuple[float, float, float] | None
    claimed: bool

    @property
    def name(self) -> str:
        """What is compared, in a few words."""
        stage = "" if self.calibration_s is None else f", {self.calibration_s:g} s of calibration"
        return f"{self.first} minus {self.second}{stage}"

    @property
    def ahead(self) -> int:
        """Number of sessions in which the first is ahead."""
        return sum(value > 0 for value in self.sessions.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the difference as JSON values."""
        return {**asdict(self), "ahead": self.ahead}


def differences(
    records: Iterable[RunRecord], first: str, others: Sequence[str], calibrations: Sequence[float] = ()
) -> list[tuple[Comparison, list[Difference]]]:
    """Compare one method with others wherever records of all of them exist.

    Parameters
    ----------
    first, others : a model's name, or a label as tables show it (``"gru (small)"``) where a name fits several; a bare
        name means the method with no option changed, where there is one.
    calibrations : seconds of calibration, points of the curves; none compares the records' own (last) scores.

    Raises
    ------
    RealmbenchError : a name fits no record or several methods, methods share no session and seed, one lacks a
        point of calibration, or no dataset, protocol and front end has all of them.
    """
    pairs = []
    usable = [record for record in records if record.audit is None]
    for comparison, group in comparable(usable):
        available = list(methods(group).values())
        one, *rest = (_chosen(name, available) for name in (first, *others))
        if one is not None and all(other is not None for other in rest):
            others_here = [other for other in rest if other is not None]
            pairs += [Pair(comparison, one, other, point) for point in calibrations or (None,) for other in others_here]
    if calibrations:  # they are points of curves, which not every protocol draws
        curved = (any(run.calibration_s is not None for run in (*pair.first, *pair.second)) for pair in pairs)
        pairs = [pair for pair, has_curve in zip(pairs, curved) if has_curve] or pairs
    if not pairs:
        known = {name for record in usable for name in (record.model, label(record))}
        for name in (first, *others):
            if name not in known:
                raise unknown_name("method among the records", name, known)
        raise RealmbenchError(
            f"no dataset, protocol and front end has records of all of {', '.join((first, *others))}; run them alike"
        )
    return paired(pairs)


class Pair(NamedTuple):
    """All records of two methods on one comparison, and the point of the curves at which they are compared."""

    comparison: Comparison
    first: Sequence[RunRecord]
    second: Sequence[RunRecord]
    calibration_s: float | None


def paired(pairs: Sequence[Pair], decided: int = 0) -> list[tuple[Comparison, list[Difference]]]:
    """Compare two methods of each pair on the sessions and seeds that both have.

    Parameters
    ----------
    decided : number of comparisons that were decided on together, where that is more than these: p is adjusted for it.

    Raises
    ------
    RealmbenchError : two methods share no session and seed, or one lacks a point of calibration.
    """
    points = []
    for comparison, first, second, seconds in pairs:
        a, b, left_out = _common(first, second)
        points.append((comparison, seconds, _at(a, seconds), _at(b, seconds), left_out))
    raw = [_p_value(a, b) for _, _, a, b, _ in points]
    # Holm over everything that was asked for and can be tested at all; the rest makes no claim. What was decided on and
    # has not been run yet counts as if it said nothing.
    tested = [p for p in raw if p is not None]
    adjusted = iter(holm([*tested, *[1.0] * (decided - len(tested))]))
    found: dict[str, tuple[Comparison, list[Difference]]] = {}
    for (comparison, seconds, a, b, left_out), p_value in zip(points, raw):
        p_adjusted = None if p_value is None else next(adjusted)
        difference = _difference(comparison, seconds, a, b, left_out, p_value, p_adjusted)
        found.setdefault(repr(comparison), (comparison, []))[1].append(difference)
    return list(found.values())


def _chosen(name: str, available: Sequence[list[RunRecord]]) -> list[RunRecord] | None:
    fitting = [runs for runs in available if label(runs[0]) == name]
    if not fitting:
        # A bare name means the method as it is, not one of its variations.
        of_model = [runs for runs in available if runs[0].model == name]
        fitting = [runs for runs in of_model if not runs[0].changed_options] or of_model
    labels = sorted({label(runs[0]) for runs in fitting})
    if len(labels) > 1:
        options = ", ".join(map(repr, labels))
        raise RealmbenchError(f"{name} was run in several ways here; name one of {options}")
    if len(fitting) > 1:
        hashes = " and ".join(runs[0].config_hash[:6] for runs in fitting)
        raise RealmbenchError(
            f"{labels[0]} on {fitting[0][0].dataset} was run with configurations {hashes}: a preset or a default has "
            "changed between them; delete the older records"
        )
    return fitting[0] if fitting else None


Runs = Mapping[str, Mapping[int, RunRecord]]


def _p_value(a: Runs, b: Runs) -> float | None:
    if len(a) < SIGNIFICANCE_SESSIONS:
        return None
    return signed_rank_p(score_matrix(sums_of(a), sums_of(b)).mean(1))


def shared(a: Runs, b: Runs) -> tuple[list[str], list[int]]:
    """Return the sessions and the seeds that two methods have both."""
    sessions = [name for name in a if name in b]
    return sessions, sorted(set(a[sessions[0]]) & set(b[sessions[0]])) if sessions else []


def _common(first: Sequence[RunRecord], second: Sequence[RunRecord]) -> tuple[Runs, Runs, tuple[int, ...]]:
    """Keep the sessions and seeds that both have; return the seeds left out, too."""
    a, b = runs_by_session(first), runs_by_session(second)
    sessions, seeds = shared(a, b)
    if not seeds:
        raise RealmbenchError(f"{label(first[0])} and {label(second[0])} share no session and seed; run them alike")
    kept = ({name: {seed: runs[name][seed] for seed in seeds} for name in sessions} for runs in (a, b))
    left_out = {record.seed for record in (*first, *second)} - set(seeds)
    return next(kept), next(kept), tuple(sorted(left_out))


def _at(runs: Runs, seconds: float | None) -> Runs:
    if seconds is None:
        return runs
    return {name: {seed: at_calibration(run, seconds) for seed, run in seeds.items()} for name, seeds in runs.items()}


def _difference(
    comparison: Comparison,
    seconds: float | None,
    a: Runs,
    b: Runs,
    left_out: tuple[int, ...],
    p_value: float | None,
    p_adjusted: float | None,
) -> Difference:
    first, second = sums_of(a), sums_of(b)
    scores = score_matrix(first, second)
    by_session = scores.mean(1)
    spread = interval(first, second)
    runs = [next(iter(of_session.values())) for of_session in a.values()]
    other = next(iter(next(iter(b.values())).values()))
    names = label(runs[0]), label(other)
    used = ((run for of_session in own.values() for run in of_session.values()) for own in (a, b))
    mixed = tuple(name for name, own in zip(names, used) if versions(own) > 1)
    return Difference(
        first=names[0],
        second=names[1],
        calibration_s=seconds,
        sessions=dict(zip(a, by_session.tolist())),
        missing=tuple(name for name in comparison.sessions if name not in a),
        mixed=mixed,
        left_out=left_out,
        other_data=tuple(
            name for name in a if any(run.data_key != b[name][seed].data_key for seed, run in a[name].items())
        ),
        seeds=scores.shape[1],
        subjects=len({run.subject for run in runs}),
        mean=float(scores.mean()),
        median=float(np.median(by_session)),
        interval=spread,
        p_value=p_value,
        p_adjusted=p_adjusted,
        probabilities=bayesian_signed_rank(by_session) if len(a) >= SIGNIFICANCE_SESSIONS else None,
        claimed=(
            set(a) == set(comparison.sessions)
            and not mixed
            and p_adjusted is not None
            and distinguishable(spread, p_adjusted, len(a))
        ),
    )


def in_words(difference: Difference) -> str:
    """Say in plain words what was measured, what can be claimed and what cannot."""
    d, count = difference, len(difference.sessions)
    sentences = [
        f"{d.name}: {d.mean:+.3f} R2 on average over {count} session{'s' * (count > 1)} "
        f"(median {d.median:+.3f}), ahead in {d.ahead} of {count}."
    ]
    if d.interval is None:
        sentences.append(f"With fewer than {INTERVAL_SESSIONS} sessions nothing can be said about any other session.")
        return " ".join(sentences)
    sentences.append(f"95 % interval {d.interval.low:+.3f} to {d.interval.high:+.3f} ({d.interval.method}).")
    if d.p_value is not None and d.p_adjusted is not None and d.probabilities is not None:
        holm_text = f", {d.p_adjusted:.3f} after Holm" if d.p_adjusted != d.p_value else ""
        worse, equal, better = d.probabilities
        sentences.append(
            f"Signed-rank p = {d.p_value:.3f}{holm_text}. Probability of being better by more than {EQUIVALENCE:g} is "
            f"{better:.2f}, of being practically equal {equal:.2f}, of being worse {worse:.2f}."
        )
    sentences += [_claim(d, count), *_limits(d)]
    return " ".join(sentences)


Verdict = Literal["missing", "mixed", "better", "equal", "few", "many", "none"]


def verdict(d: Difference) -> Verdict:
    """Sort a difference by what may be claimed of it: of ``better`` and ``equal`` something, of the others nothing."""
    count = len(d.sessions)
    if d.missing or d.mixed:
        return "missing" if d.missing else "mixed"
    if d.claimed:
        return "better"
    if d.interval is None or count < SIGNIFICANCE_SESSIONS:
        return "few"
    if d.interval.low >= -EQUIVALENCE and d.interval.high <= EQUIVALENCE:
        return "equal"
    alone = d.p_value is not None and distinguishable(d.interval, d.p_value, count)
    return "many" if alone else "none"


def _claim(d: Difference, count: int) -> str:
    assert d.interval is not None
    reach = f"a true difference anywhere from {d.interval.low:+.3f} to {d.interval.high:+.3f} remains possible"
    better, worse = (d.first, d.second) if d.mean > 0 else (d.second, d.first)
    few = f"with fewer than {SIGNIFICANCE_SESSIONS} sessions chance is too likely"
    many = "too much was compared at once, alone it could be"
    return {
        "missing": f"Nothing is claimed: {len(d.missing)} of {count + len(d.missing)} held-out sessions are missing "
        f"({', '.join(d.missing)}), and which ones are there may decide.",
        "mixed": "Nothing is claimed: several versions of the code or of the data made the records of "
        f"{' and of '.join(d.mixed)}.",
        "better": f"It can be claimed that {better} is better than {worse} on sessions like these.",
        "equal": f"It can be claimed that the two are practically equal: "
        f"the whole interval lies within {EQUIVALENCE:g}.",
        "few": f"No difference can be claimed: {few}; {reach}.",
        "many": f"No difference can be claimed: {many}; {reach}.",
        "none": f"No difference can be claimed; {reach}.",
    }[verdict(d)]


def _limits(d: Difference) -> list[str]:
    limits = []
    if d.left_out:
        which = f"Seed {d.left_out[0]} is" if len(d.left_out) == 1 else f"Seeds {', '.join(map(str, d.left_out))} are"
        limits.append(f"{which} left out: one of the two lacks it on some session.")
    if d.other_data:
        which = d.other_data[0] + " and others" * (len(d.other_data) > 1)
        limits.append(f"Their records name different data (other frames, or spikes beside them): {which}.")
    if d.seeds == 1:
        limits.append("One seed each: this is about these trained weights, and training again may change it.")
    if d.subjects < MANY_SUBJECTS:
        subjects = "one subject" if d.subjects == 1 else f"{d.subjects} subjects"
        limits.append(f"All sessions are of {subjects}: nothing is said about others.")
    return limits
