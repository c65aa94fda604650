"""What the command line shows: progress bars, tables, and the pages of ``show``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from .answers import HEADER, Answer, heading
from .answers import rows as answer_rows
from .bench import BenchResult
from .conformance.report import Report
from .curves import curves
from .curves import in_words as curves_in_words
from .curves import table as curve_table
from .differences import Difference
from .differences import in_words as difference_in_words
from .expected_time import duration
from .expected_time import in_words as time_in_words
from .leaderboard import interval_text, title
from .records import Reproduction, RunRecord
from .runner import Events
from .statistics import MISSING, Comparison, Row, compare, in_words, number
from .suite import Suite
from .sweep import Job, Outcome
from .tuning_record import TuningRecord, TuningTrial, as_text

# Results go to standard output; progress and notes to standard error, so that --json stays clean in a pipe.
# In a pipe lines are as long as the widest table, unless $COLUMNS says otherwise.
# No word in colons, as a class called Key in FILE.py:Key: ..., is a picture.
out = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 180, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


@contextmanager
def _bars(*columns: ProgressColumn) -> Iterator[Progress]:
    """Show progress bars on standard error, and there too what others' code prints: standard output is for answers."""
    bars = Progress(*columns, console=err, transient=True, disable=not sys.stderr.isatty())
    with redirect_stdout(sys.stderr), bars as progress:
        yield progress


@contextmanager
def progress_events(total: int, label: str) -> Iterator[Events]:
    """Show two bars, one over runs and one over the work in hand, and yield the runner's events."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with _bars(*columns) as progress:
        runs = progress.add_task(label, total=total)
        work = progress.add_task("", total=1.0)

        def stage(text: str, share: float) -> None:
            progress.update(work, description=text, completed=share)

        def done(record: RunRecord, reused: bool) -> None:
            progress.advance(runs)
            state = "finished before" if reused else f"{record.training_seconds:.1f} s of training"
            err.print(
                f"{record.model} {record.session} seed {record.seed}: R2 {record.metrics['r2_axis_mean']:.3f} ({state})"
            )
            if not reused:
                for warning in record.warnings:
                    err.print(f"  note: {warning}")

        def failed(path: Path, reason: str) -> None:
            progress.advance(runs)
            err.print(f"failed: {reason}\n  traceback in {path.with_suffix('.failed.json')}", markup=False)

        yield Events(stage=stage, done=done, failed=failed, note=lambda text: err.print(text, markup=False))


@contextmanager
def progress_stage() -> Iterator[Callable[[str, float], None]]:
    """Show one bar of the work in hand and yield the function that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with _bars(*columns) as progress:
        work = progress.add_task("", total=1.0)
        yield lambda text, share: progress.update(work, description=text, completed=share)


@contextmanager
def sweep_progress(name: str, jobs: Sequence[Job]) -> Iterator[tuple[Callable[[Job], None], Callable[[Outcome], None]]]:
    """Show one bar over a sweep's jobs and a line per job that starts or ends; yield the two functions to call."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with _bars(*columns) as progress:
        bar = progress.add_task(name, total=len(jobs))

        def on_start(job: Job) -> None:
            err.print(f"start  {job.name}", markup=False)

        def on_end(outcome: Outcome) -> None:
            progress.advance(bar)
            err.print(f"{outcome.status:6} {outcome.job.name} ({outcome.seconds:.0f} s)", markup=False)

        yield on_start, on_end


def print_jobs(suite: Suite, jobs: Sequence[Job], seconds: Sequence[float | None], processes: int) -> None:
    """Print what a sweep would do, and about how long that takes."""
    table = Table(
        "job", "runs", "recorded", "about", title=f"suite {suite.name}: {suite.summary}", title_justify="left"
    )
    for job, expected in zip(jobs, seconds):
        about = MISSING if expected is None else duration(expected)
        table.add_row(Text(job.name), str(len(job.sessions)), str(job.recorded), about if expected != 0 else "")
    out.print(table)
    runs, recorded = sum(len(job.sessions) for job in jobs), sum(job.recorded for job in jobs)
    out.print(
        f"{len(jobs)} jobs, {runs} runs, {recorded} with a record of the same options and code; "
        "whether their data are the same is seen when the sweep runs. " + time_in_words(jobs, seconds, processes),
        soft_wrap=True,
    )


def print_report(report: Report) -> None:
    """Print what a conformance run found."""
    colours = {"pass": "green", "fail": "red", "error": "red", "as declared": "yellow", "not applicable": "dim"}
    table = Table("check", "result", "seen", title=report.subject, title_justify="left", box=SIMPLE_HEAD)
    for check in report.checks:
        table.add_row(check.name, Text(check.status, colours[check.status]), Text(check.detail))
    out.print(table)
    out.print(report.verdict + "\n", soft_wrap=True, highlight=False, markup=False)


def _fill(table: Table, rows: Iterable[Sequence[str]]) -> Table:
    """Add rows as they are written: what stands in brackets in an option's value is no markup."""
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def print_comparisons(records: Sequence[RunRecord], sessions: Sequence[str] | None = None) -> None:
    """Print one table per comparison, over all held-out sessions or those given, and what it says in words."""
    for comparison, rows in compare(records, sessions):
        table = Table(title=escape(title(comparison)), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        columns = _columns(comparison, rows)
        for name in columns:
            if name == "model":
                table.add_column(name, min_width=20, overflow="fold")
                continue
            # Where room is short a long label is folded, and never a number cut.
            least = max(map(len, (*columns[name], name.split()[-1])))
            table.add_column(name, justify="right", min_width=least, overflow="fold")
        _fill(table, zip(*columns.values()))
        out.print(table)
        out.print(in_words(comparison, rows) + "\n", soft_wrap=True, highlight=False, markup=False)
    for comparison, lines in curves(records):
        if sessions is None and lines:
            header, texts = curve_table(lines)
            heading = escape(f"{title(comparison)}: R2 by calibration")
            table = Table(*header, title=heading, title_justify="left", box=SIMPLE_HEAD)
            out.print(_fill(table, texts))
            out.print(curves_in_words(lines) + "\n", soft_wrap=True, highlight=False, markup=False)


def _columns(comparison: Comparison, rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the columns of a table on the screen: name to one text per row; those that say nothing are left out."""
    columns = {
        "model": [row.label for row in rows],
        "causal": ["yes" if row.causal else "no" for row in rows],
        "R2": [number(row.r2, ".3f") for row in rows],
        "95 % interval": [interval_text(row) for row in rows],
        "of ceiling": [number(row.fraction_of_ceiling, ".0%") + " LEAK" * row.leaks for row in rows],
        # The spread says little where the interval is there.
        "SD sessions": [MISSING if row.interval else number(row.session_spread, ".3f") for row in rows],
        "SD seeds": [number(row.seed_spread, ".3f") for row in rows],
        "runs": [f"{row.sessions}/{len(comparison.sessions)} x {row.seeds}" for row in rows],
        "params": [_short(row.parameters) for row in rows],
        "train s": [f"{row.training_seconds:.1f}" for row in rows],
        "+ teacher s": [f"{row.training_seconds_with_artifacts:.1f}" for row in rows],
        "FLOPs /step": [MISSING if row.flops_per_step is None else _short(row.flops_per_step) for row in rows],
        "step µs p50 / p95": [
            f"{number(row.latency_p50_us, ',.0f')} / {number(row.latency_p95_us, ',.0f')}" for row in rows
        ],
    }
    return {name: texts for name, texts in columns.items() if set(texts) != {MISSING}}


def _short(count: int) -> str:
    """Write 4909273 as 4.9M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.1f}{unit}"
    return str(count)


def print_trial(trial: TuningTrial) -> None:
    """Print a line about a trial that has ended."""
    options = " ".join(f"{name}={as_text(value)}" for name, value in trial.params.items())
    outcome = f"{trial.value:.3f}" if trial.value is not None else trial.state
    reason = f" ({trial.reason})" if trial.reason else ""
    err.print(f"trial {trial.number}: {outcome}{reason}, {trial.seconds:.1f} s, {options}", markup=False)


def print_tuning(record: TuningRecord, shown: int = 10) -> None:
    """Print the best trials and, in words, what came out."""
    table = Table(
        title=escape(f"{record.model} ({record.preset}): the best of {len(record.counted)} trials"),
        title_justify="left",
        box=SIMPLE_HEAD,
    )
    for name in ("trial", "R2", "state", "units", "s", *record.space):
        table.add_column(name, justify="right")

    def rank(trial: TuningTrial) -> tuple[bool, float]:
        # What was pruned ranks by the units that it was tried on, behind all that went through.
        mean = sum(trial.unit_values) / len(trial.unit_values) if trial.unit_values else float("-inf")
        return trial.state == "complete", mean

    def cells(trial: TuningTrial) -> list[str]:
        units = f"{len(trial.unit_values)}/{len(record.units)}"
        values = (as_text(trial.params[name]) for name in record.space)
        return [str(trial.number), number(trial.value, ".3f"), trial.state, units, f"{trial.seconds:.1f}", *values]

    out.print(_fill(table, map(cells, sorted(record.trials, key=rank, reverse=True)[:shown])))
    out.print(record.sentence + "\n", soft_wrap=True, highlight=False, markup=False)


def print_differences(found: Sequence[tuple[Comparison, Sequence[Difference]]]) -> None:
    """Print paired differences: one table of sessions per comparison, and in words what may be claimed."""
    for comparison, differences in found:
        out.print(title(comparison), soft_wrap=True, highlight=False, markup=False)
        table = Table("session", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        # Names are long, and cut they would be alike: columns bear numbers, and the sentences below say of what.
        marks = [f"({index})" for index in range(1, len(differences) + 1)]
        for mark in marks:
            table.add_column(mark, justify="right")
        texts = (
            [session, *(number(difference.sessions.get(session), "+.3f") for difference in differences)]
            for session in comparison.sessions
        )
        out.print(_fill(table, texts))
        for mark, difference in zip(marks, differences):
            sentence = f"{mark} {difference_in_words(difference)}\n"
            out.print(sentence, soft_wrap=True, highlight=False, markup=False)


def print_answers(found: Sequence[Answer]) -> None:
    """Print a suite's questions: a table of each, and in words what may be claimed."""
    for answer in found:
        out.print(heading(answer.question), soft_wrap=True, highlight=False, markup=False)
        table = Table(*HEADER, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        out.print(_fill(table, answer_rows(answer)))
        for difference in answer.differences:
            out.print(difference_in_words(difference) + "\n", soft_wrap=True, highlight=False, markup=False)


def print_reproductions(found: Sequence[tuple[str, Reproduction]], tolerance: float) -> None:
    """Print what came of runs that were run again, and in words how many came out as recorded."""
    table = Table("run", "R2 recorded", "R2 now", "code", "came out", box=SIMPLE_HEAD)
    for name, entry in found:
        verdict = "the same to the last bit" if entry.exact else f"at most {entry.largest_difference:.4f} of R2 off"
        code = "the same" if entry.code == entry.recorded_code else "changed"
        table.add_row(Text(name), f"{entry.recorded_r2:.4f}", f"{entry.r2:.4f}", code, verdict)
    out.print(table)
    exact = sum(entry.exact for _, entry in found)
    near = sum(not entry.exact and entry.largest_difference <= tolerance for _, entry in found)
    sentence = f"{exact} of {len(found)} came out the same to the last bit"
    sentence += f", {near} more within {tolerance:g} of R2." if near else "."
    if elsewhere := len(found) - exact - near:
        sentence += f" {elsewhere} did not come out as recorded."
    if any(entry.cached for _, entry in found):
        sentence += " What pretraining of unchanged code had left was taken from the cache."
    out.print(sentence, soft_wrap=True, highlight=False, markup=False)


def print_listing(heading: str, entries: Sequence[tuple[str, str]]) -> None:
    """Print names with one line each."""
    table = Table("name", "what it is", title=heading, title_justify="left")
    out.print(_fill(table, entries))


def print_bench(result: BenchResult, where: str) -> None:
    """Print what a bench found, and where."""
    for content in result.tables:
        table = Table(*content.columns, title=content.title, title_justify="left")
        out.print(_fill(table, ([str(cell) for cell in row] for row in content.rows)))
    for sentence in [*result.sentences, where]:
        out.print(sentence, markup=False, highlight=False)


def print_page(page: dict[str, Any]) -> None:
    """Print what `show` collected: the name, the text about it, and one table per section."""
    out.print(f"[bold]{page['name']}[/bold]\n")
    out.print(page["about"], markup=False, highlight=False)
    for section, values in page.items():
        if isinstance(values, dict) and values:
            table = Table(title=section, title_justify="left", show_header=False)
            out.print(_fill(table, ((name, str(value)) for name, value in values.items())))
