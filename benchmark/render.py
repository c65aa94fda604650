"""What the command line shows: progress bars, tables, and the pages of ``show``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from .leaderboard import MISSING, title
from .records import RunRecord
from .runner import Events
from .statistics import Row, compare, in_words

# Results go to standard output; progress and notes to standard error, so that --json stays clean in a pipe.
out = Console(width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def progress_events(total: int, label: str) -> Iterator[Events]:
    """Show two bars, one over runs and one over the work in hand, and yield the runner's events."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not sys.stderr.isatty()) as progress:
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


def print_comparisons(records: Sequence[RunRecord], sessions: Sequence[str] | None = None) -> None:
    """Print one table per comparison, over all held-out sessions or those given, and what it says in words."""
    for comparison, rows in compare(records, sessions):
        table = Table(title=title(comparison), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for column in (
            "model",
            "causal",
            "R2 ± SD over sessions",
            "SD seeds",
            "runs",
            "params",
            "train s",
            "+ teacher s",
        ):
            table.add_column(column, justify="left" if column == "model" else "right")
        table.add_column("FLOPs /step", justify="right")
        table.add_column("step µs p50 / p95", justify="right")
        for row in rows:
            table.add_row(*_compact(row, len(comparison.sessions)))
        out.print(table)
        out.print(in_words(comparison, rows) + "\n", soft_wrap=True, highlight=False, markup=False)


def _compact(row: Row, sessions: int) -> list[str]:
    spread = "" if row.session_spread is None else f" ± {row.session_spread:.3f}"
    latency = f"{row.latency_p50_us:,.0f} / {row.latency_p95_us:,.0f}" if row.latency_p50_us is not None else MISSING
    return [
        row.label,
        "yes" if row.causal else "no",
        MISSING if row.r2 is None else f"{row.r2:.3f}{spread}",
        MISSING if row.seed_spread is None else f"{row.seed_spread:.3f}",
        f"{row.sessions}/{sessions} x {row.seeds}",
        _short(row.parameters),
        f"{row.training_seconds:.1f}",
        f"{row.training_seconds_with_artifacts:.1f}",
        _short(row.flops_per_step),
        latency,
    ]


def _short(count: int) -> str:
    """Write 4909273 as 4.9M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.1f}{unit}"
    return str(count)


def print_listing(heading: str, entries: Sequence[tuple[str, str]]) -> None:
    """Print names with one line each."""
    table = Table("name", "what it is", title=heading, title_justify="left")
    for name, summary in entries:
        table.add_row(name, summary)
    out.print(table)


def print_page(page: dict[str, Any]) -> None:
    """Print what `show` collected: the name, the text about it, and one table per section."""
    out.print(f"[bold]{page['name']}[/bold]\n")
    out.print(page["about"], markup=False, highlight=False)
    for section, values in page.items():
        if isinstance(values, dict) and values:
            table = Table(title=section, title_justify="left", show_header=False)
            for name, value in values.items():
                table.add_row(name, str(value))
            out.print(table)
