"""Answers to the questions that a suite asks, from its records; what has not been run stays open. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .curves import has_point
from .differences import Difference, Pair, paired, shared, verdict
from .errors import RealmbenchError
from .question import Method, Question
from .records import RunRecord
from .statistics import MISSING, comparable, number, runs_by_session

HEADER = (
    "first", "minus", "with", "seeds", "difference", "95 % interval", "ahead", "p", "after Holm", "P(equal)", "claim",
)  # fmt: skip
CLAIMS = {
    "missing": "none: sessions are missing",
    "mixed": "none: several versions of code or data",
    "equal": "practically equal",
    "few": "none: too few sessions",
    "many": "none, alone it could be",
    "none": "none",
}


class Open(NamedTuple):
    """A comparison that was decided on and has no answer."""

    first: Method
    second: Method
    calibration_s: float | None
    why: str


class Answer(NamedTuple):
    """What the records say to a question; p is adjusted for all that were decided on, answered or open."""

    question: Question
    differences: list[Difference]
    open: list[Open]

    def as_dict(self) -> dict[str, Any]:
        """Return question and answer as JSON values."""
        return {
            "question": self.question.model_dump(mode="json"),
            "differences": [difference.as_dict() for difference in self.differences],
            "open": [{**each._asdict(), "first": each.first.name, "second": each.second.name} for each in self.open],
        }


def answers(questions: Sequence[Question], records: Sequence[RunRecord]) -> list[Answer]:
    """Answer every question (`realmbench.suite.Suite.asked`) as far as there are records.

    Raises
    ------
    RealmbenchError : methods were compared on several versions of the data or behind several front ends.
    """
    return [_answer(question, records) for question in questions]


def _answer(question: Question, records: Sequence[RunRecord]) -> Answer:
    groups = [
        (comparison, {method: [record for record in group if method.made(record)] for method in question.methods})
        for comparison, group in comparable(record for record in records if question.concerns(record))
    ]
    pairs: list[Pair] = []
    left_open: list[Open] = []
    for point in question.calibration_s or (None,):
        for first, second in question.pairs:
            found, why = [], "not run yet"
            for comparison, made in groups:
                a, b = made[first], made[second]
                if a and b:
                    if reason := _no_answer(a, b, point):
                        why = reason
                    else:
                        found.append(Pair(comparison, a, b, point))
            if len(found) > 1:
                where = " and ".join(f"{c.dataset} v{c.dataset_version}, {c.front_end}" for c, *_ in found)
                raise RealmbenchError(
                    f"question {question.about!r}: {first.name} and {second.name} have records on {where}; say which "
                    "with front_end, or remove the records that are out of date"
                )
            if not found:
                left_open.append(Open(first, second, point, why))
            pairs += found
    found_by_group = paired(pairs, decided=question.comparisons)
    return Answer(question, [difference for _, group in found_by_group for difference in group], left_open)


def _no_answer(a: Sequence[RunRecord], b: Sequence[RunRecord], point: float | None) -> str:
    """Say why records of two methods cannot be compared at a point; nothing where they can."""
    if not shared(runs_by_session(a), runs_by_session(b))[1]:
        return "no session and seed in common"
    lacks_it = next((record for record in (*a, *b) if point is not None and not has_point(record, point)), None)
    return f"no score of {lacks_it.model} there" if lacks_it is not None else ""


def rows(answer: Answer) -> list[list[str]]:
    """Return the texts of a table of comparisons, in the order of ``HEADER``; those without an answer last."""
    lines = [_cells(difference) for difference in answer.differences]
    for each in answer.open:
        dashes = [MISSING] * (len(HEADER) - 4)
        lines.append([each.first.name, each.second.name, _point(each.calibration_s), *dashes, each.why])
    return lines


def heading(question: Question) -> str:
    """Say what was asked, of which data, and when it was decided."""
    count = f"{question.comparisons} comparison{'s' * (question.comparisons > 1)}"
    return f"{question.about} On {question.dataset}, {count}, decided {question.decided}."


def _cells(d: Difference) -> list[str]:
    kind = verdict(d)
    return [
        d.first,
        d.second,
        _point(d.calibration_s),
        str(d.seeds),
        f"{d.mean:+.3f}",
        MISSING if d.interval is None else f"{d.interval.low:+.3f} to {d.interval.high:+.3f}",
        f"{d.ahead} of {len(d.sessions)}",
        number(d.p_value, ".3f"),
        number(d.p_adjusted, ".3f"),
        number(None if d.probabilities is None else d.probabilities[1], ".2f"),
        f"the {'first' if d.mean > 0 else 'second'} is better" if kind == "better" else CLAIMS[kind],
    ]


def _point(calibration_s: float | None) -> str:
    return MISSING if calibration_s is None else f"{calibration_s:g} s"
