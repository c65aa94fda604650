"""leaderboard.md from run records: a view of one suite, never edited by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from .answers import HEADER, Answer, heading
from .answers import rows as answer_rows
from .curves import Curve, curves
from .curves import in_words as curves_in_words
from .curves import table as curve_table
from .files import write_text_whole
from .learning import Effort, efforts
from .pretrainings import ArtifactRecord
from .records import RunRecord
from .statistics import MISSING, Comparison, Row, comparable, compare, in_words, number

HEADING = "# Leaderboard: suite "
COLUMNS = (
    "model",
    "causal",
    "R2",
    "95 % interval",
    "of ceiling",
    "SD sessions",
    "SD seeds",
    "sessions",
    "seeds",
    "parameters",
    "train s",
    "with teacher s",
    "FLOPs/step",
    "input kbit/s",
    "step p50 µs",
    "step p95 µs",
)

Line = TypeVar("Line")


def cells(row: Row, sessions: int) -> list[str]:
    """Return the texts of a row, in the order of ``COLUMNS``; what is missing shows as a dash."""
    return [
        row.label,
        "yes" if row.causal else "no",
        number(row.r2, ".3f"),
        interval_text(row),
        number(row.fraction_of_ceiling, ".0%") + (" LEAK" if row.leaks else ""),
        number(row.session_spread, ".3f"),
        number(row.seed_spread, ".3f"),
        f"{row.sessions}/{sessions}",
        str(row.seeds),
        f"{row.parameters:,}",
        f"{row.training_seconds:.1f}",
        f"{row.training_seconds_with_artifacts:.1f}",
        number(row.flops_per_step, ",d"),
        MISSING if row.input_kbit_s is None else " / ".join(f"{value:,.0f}" for value in row.input_kbit_s),
        number(row.latency_p50_us, ".0f"),
        number(row.latency_p95_us, ".0f"),
    ]


def interval_text(row: Row) -> str:
    """Return the interval of a row's mean, or a dash."""
    return MISSING if row.interval is None else f"{row.interval.low:.3f} to {row.interval.high:.3f}"


def title(comparison: Comparison) -> str:
    """Return the heading of a comparison."""
    leaky = " (leaky)" if comparison.leaky else ""
    subset = f", {len(comparison.sessions)} of {comparison.held_out} sessions" if comparison.subset else ""
    audit = f", audit {comparison.audit}" if comparison.audit else ""
    data = ", ".join([f"{comparison.dataset} v{comparison.dataset_version}", *comparison.data_options])
    return f"{data}, {comparison.protocol}{leaky}, {comparison.front_end}{subset}{audit}"


def markdown(
    records: Sequence[RunRecord],
    suite: str,
    missing: Sequence[str] = (),
    kept: Mapping[str, ArtifactRecord] | None = None,
    answered: Sequence[Answer] = (),
) -> str:
    """Return the whole leaderboard of a suite as markdown.

    Parameters
    ----------
    missing : what the suite lists and has no record of, in words (`realmbench.suite.outstanding`).
    kept : how the pretrainings went, by the artifacts' hashes (`realmbench.pretrainings.read_pretrainings`).
    answered : the suite's questions and what the records say to them (`realmbench.answers.answers`).
    """
    lines = [
        f"{HEADING}{suite}",
        "",
        "Made by `realmbench leaderboard` from the run records; do not edit. R2 is the mean over axes on the",
        "concatenated test blocks of a session, averaged over seeds and then over held-out sessions; its 95 % interval",
        "is about other sessions of these subjects or, with one session of each, about other subjects (and, with",
        "several seeds, about other trainings). `of ceiling` is R2 as a share of the exact optimum, where the data",
        "have one. SD sessions is the spread between sessions, SD seeds between seeds. `train s` is the time on the",
        "held-out session (median over seeds), `with teacher s` adds all pretraining; where several jobs ran at a",
        "time, seconds are upper bounds. Step times are those of the least disturbed run. A row that lacks a session",
        "shows no mean. Machine, versions and configuration of every run are in its record.",
        "",
    ]
    if missing:
        lines += [f"Listed by the suite and not run yet: {'; '.join(missing)}.", ""]
    calibrated, pretrained = curves(records), efforts(records, kept or {})
    for (comparison, rows), (_, group) in zip(compare(records), comparable(records)):
        lines += [f"## {title(comparison)}", ""]
        lines += _table(COLUMNS, [cells(row, len(comparison.sessions)) for row in rows])
        lines += ["", in_words(comparison, rows), ""]
        lines += _curve_lines(_of(comparison, calibrated))
        lines += _effort_lines(_of(comparison, pretrained))
        lines += [
            f"Sessions: {', '.join(comparison.sessions)}. Devices: {', '.join(_devices(group))}.",
            "",
        ]
    return "\n".join([*lines, *_answer_lines(answered)])


def _of(comparison: Comparison, found: Sequence[tuple[Comparison, list[Line]]]) -> list[Line]:
    return next((lines for other, lines in found if other == comparison), [])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruled = ["| " + " | ".join(row) + " |" for row in (header, *rows)]
    return [ruled[0], "|" + " --- |" * len(header), *ruled[1:]]


def _curve_lines(lines: Sequence[Curve]) -> list[str]:
    """Return the table of calibration curves below a comparison; nothing where there are none."""
    if not lines:
        return []
    header, rows = curve_table(lines)
    return [
        "R2 against seconds of calibration, with the 95 % interval (± half of it where it is symmetric):",
        "",
        *_table(header, rows),
        "",
        curves_in_words(lines),
        "",
    ]


def _effort_lines(lines: Sequence[Effort]) -> list[str]:
    """Return the table of how long pretraining went on; nothing where nothing is known of it."""
    if not lines:
        return []
    header = ["model", "stage", "updates allowed", "made", "kept", "trainings"]
    return [
        "How long pretraining went on: updates allowed, made before it ended or stopped by itself, and those whose",
        "weights were kept, over folds and seeds. Where far fewer were made than allowed, the rate was still high. Of",
        "trainings that are not listed no course was kept:",
        "",
        *_table(header, [_effort_cells(effort) for effort in lines]),
        "",
    ]


def _effort_cells(effort: Effort) -> list[str]:
    spans = (f"{low:,d}" if low == high else f"{low:,d} to {high:,d}" for low, high in (effort.made, effort.best))
    return [effort.label, effort.stage, number(effort.allowed, ",d"), *spans, str(effort.trainings)]


def _answer_lines(answered: Sequence[Answer]) -> list[str]:
    """Return a section of the questions that the suite asks; nothing where it asks none."""
    if not answered:
        return []
    lines = [
        "## What was asked",
        "",
        "Questions of the suite file and what the records say to them: the mean over sessions of the difference in R2,",
        "its 95 % interval, the sessions in which the first is ahead, p of the signed-rank test, alone and after Holm",
        "over all comparisons of the question, those not run yet included, and the probability that the two are",
        "practically equal (within 0.01).",
        "",
    ]
    for answer in answered:
        lines += [f"**{heading(answer.question)}**", "", *_table(HEADER, answer_rows(answer)), ""]
    return lines


def write_leaderboard(
    records: Sequence[RunRecord],
    suite: str,
    path: Path,
    missing: Sequence[str] = (),
    kept: Mapping[str, ArtifactRecord] | None = None,
    answered: Sequence[Answer] = (),
) -> Path:
    """Write ``leaderboard.md`` whole; arguments as of `markdown`."""
    return write_text_whole(path, markdown(records, suite, missing, kept, answered))


def suite_of(path: Path) -> str | None:
    """Return the suite that a leaderboard's file shows; None if there is no such file or it is something else."""
    if not path.is_file():
        return None
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return first.removeprefix(HEADING) if first.startswith(HEADING) else None


def _devices(records: Sequence[RunRecord]) -> list[str]:
    return sorted(
        {
            f"{record.device} ({record.threads} threads"
            + (f", {record.processes} jobs at a time)" if record.processes is not None else ")")
            for record in records
        }
    )
