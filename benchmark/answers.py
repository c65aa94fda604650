"""Answers to the questions that a suite asks, from its records; what has not been run stays open. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .differences import Difference, Pair, better_and_worse, paired, shared, verdict
from .errors import RealmbenchError
from .question import Method, Question
from .records import RunRecord
from .statistics import comparable

HEADER = ("first", "minus", "with", "difference", "95 % interval", "ahead", "p", "after Holm", "P(equal)", "claim")
CLAIMS = {
    "missing": "none: sessions are missing",
    "mixed": "none: several versions of the code",
    "equal": "practically equal",
    "few": "none: too few sessions",
    "many": "none, alone it could be",
    "none": "none",
}
OPEN = "not run yet"


class Answer(NamedTuple):
    """What the records say to a question.

    Attributes
    ----------
    differences : of the comparisons that records of both methods answer, p adjusted for all that were decided on.
    open : pairs that have not been run, or share no session and seed.
    """

    question: Question
    differences: list[Difference]
    open: list[tuple[Method, Method]]

    def as_dict(self) -> dict[str, Any]:
        """Return question and answer as JSON values."""
        return {
            "question": self.question.model_dump(mode="json"),
            "differences": [difference.as_dict() for difference in self.differences],
            "open": [[first.name, second.name] for first, second in self.open],
        }


def answers(questions: Sequence[Question], records: Sequence[RunRecord]) -> list[Answer]:
    """Answer every question as far as there are records.

    Raises
    ------
    RealmbenchError : a question's methods were compared behind several front ends and it names none, or a method has no
        score at a point of calibration.
    """
    return [_answer(question, records) for question in questions]


def _answer(question: Question, records: Sequence[RunRecord]) -> Answer:
    own = [
        record
        for record in records
        if record.audit is None
        and record.dataset == question.dataset
        and question.front_end in (None, record.front_end)
    ]
    groups = comparable(own)
    pairs, left_open = [], []
    for first, second in question.pairs:
        found = []
        for comparison, group in groups:
            a, b = ([record for record in group if method.made(record)] for method in (first, second))
            if a and b and shared(a, b)[1]:
                found.append(Pair(comparison, a, b))
        if len(found) > 1:
            raise RealmbenchError(
                f"question {question.about!r}: {first.name} and {second.name} have records behind "
                f"{' and '.join(pair.comparison.front_end for pair in found)}; say which with front_end"
            )
        if not found:
            left_open.append((first, second))
        pairs += found
    groups_of = paired(pairs, question.calibration_s, decided=question.comparisons) if pairs else []
    return Answer(question, [difference for _, group in groups_of for difference in group], left_open)


def rows(answer: Answer) -> list[list[str]]:
    """Return the texts of a table of comparisons, in the order of ``HEADER``; those not run yet last."""
    lines = [_cells(difference) for difference in answer.differences]
    dashes = ["–"] * (len(HEADER) - 4)
    return lines + [[first.name, second.name, "–", *dashes, OPEN] for first, second in answer.open]


def heading(question: Question) -> str:
    """Say what was asked, of which data, and when it was decided."""
    count = f"{question.comparisons} comparison{'s' * (question.comparisons > 1)}"
    return f"{question.about} On {question.dataset}, {count}, decided {question.decided}."


def _cells(d: Difference) -> list[str]:
    kind = verdict(d)
    return [
        d.first,
        d.second,
        "–" if d.calibration_s is None else f"{d.calibration_s:g} s",
        f"{d.mean:+.3f}",
        "–" if d.interval is None else f"{d.interval.low:+.3f} to {d.interval.high:+.3f}",
        f"{d.ahead} of {len(d.sessions)}",
        "–" if d.p_value is None else f"{d.p_value:.3f}",
        "–" if d.p_adjusted is None else f"{d.p_adjusted:.3f}",
        "–" if d.probabilities is None else f"{d.probabilities[1]:.2f}",
        f"{better_and_worse(d)[0]} is better" if kind == "better" else CLAIMS[kind],
    ]
