"""Figures from run records, as files. No torch here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .curves import Curve, curves
from .days import FEWEST_DAYS, DayCurve, day_curves
from .errors import RealmbenchError
from .files import write_whole
from .leaderboard import title
from .records import RunRecord
from .statistics import Comparison
from .stream_time import FEWEST_STRETCHES, StreamCurve, stream_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette: told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
FORMATS = ("svg", "png", "pdf")


def write_figures(records: Sequence[RunRecord], folder: Path, file_format: str = "svg") -> list[Path]:
    """Draw every figure that the records allow, and return the files.

    Raises
    ------
    RealmbenchError : the records hold nothing to draw, or the format is unknown.
    """
    if file_format not in FORMATS:
        raise RealmbenchError(f"unknown format {file_format!r}; known: {', '.join(FORMATS)}")
    written = []
    for comparison, lines in curves(records):
        drawn = [curve for curve in lines if len(curve.points) > 1]
        if drawn:
            path = folder / f"calibration-{_slug(title(comparison))}.{file_format}"
            written.append(_save(calibration_figure(comparison, drawn), path))
    for comparison, by_day in day_curves(records):
        path = folder / f"days-{_slug(title(comparison))}.{file_format}"
        written.append(_save(day_figure(comparison, by_day), path))
    for comparison, since_start in stream_curves(records):
        path = folder / f"stream-{_slug(title(comparison))}.{file_format}"
        written.append(_save(stream_figure(comparison, since_start), path))
    if not written:
        raise RealmbenchError(
            "these records hold neither a calibration curve over a whole set of sessions nor sessions of "
            f"{FEWEST_DAYS} days nor test blocks of {FEWEST_STRETCHES * 10} s; "
            "run decoders with --protocol calibration-v1, or on more sessions"
        )
    return written


def calibration_figure(comparison: Comparison, lines: Sequence[Curve]) -> Figure:
    """Draw R2 against seconds of calibration, one line per method with its 95 % interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    ticks = sorted({point.seconds for curve in lines for point in curve.points})
    for number, curve in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        x = [ticks.index(point.seconds) for point in curve.points]  # doubling steps, zero included: evenly spaced
        y = [point.r2 for point in curve.points]
        style = "-" if curve.causal else "--"
        axes.plot(x, y, style, marker="o", markersize=4, color=colour, label=curve.label)
        if all(point.interval is not None for point in curve.points):
            low = [point.interval.low for point in curve.points if point.interval is not None]
            high = [point.interval.high for point in curve.points if point.interval is not None]
            axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set_xticks(range(len(ticks)), [f"{value:g}" for value in ticks])
    axes.set_xlabel("seconds of calibration (0: nothing of the session was seen)")
    axes.set_ylabel("R2, mean over axes and sessions")
    axes.set_title(f"{title(comparison)}\n{lines[0].sessions} sessions; dashed: not causal", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    _plain(axes)
    return figure


def day_figure(comparison: Comparison, lines: Sequence[DayCurve]) -> Figure:
    """Draw R2 against the day of the session, a panel per seconds of calibration; a dot is one session."""
    from matplotlib.figure import Figure

    stages = list(dict.fromkeys(line.calibration_s for line in lines))
    names = list(dict.fromkeys(line.label for line in lines))
    figure = Figure(figsize=(1.6 + 2.8 * len(stages), 3.8), layout="constrained")
    panels = figure.subplots(1, len(stages), sharey=True, squeeze=False)[0]
    for axes, seconds in zip(panels, stages):
        for line in (line for line in lines if line.calibration_s == seconds):
            colour = COLOURS[names.index(line.label) % len(COLOURS)]
            axes.plot(*zip(*line.means), "-" if line.causal else "--", color=colour, label=line.label)
            axes.plot(*zip(*line.sessions), ".", color=colour, markersize=4)
        axes.set_xlabel("day of the session")
        axes.set_title("" if seconds is None else f"{seconds:g} s of calibration", fontsize=9)
        _plain(axes)
    panels[0].set_ylabel("R2, mean over axes")
    panels[-1].legend(fontsize=8, frameon=False)
    figure.suptitle(f"{title(comparison)}; days count from the subject's first session", fontsize=9)
    return figure


def stream_figure(comparison: Comparison, lines: Sequence[StreamCurve]) -> Figure:
    """Draw R2 against the time since a test block began, one line per method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for number, line in enumerate(lines):
        style = "-" if line.causal else "--"
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(line.since_s, line.r2, style, marker="o", markersize=4, color=colour, label=line.label)
    axes.set_xlabel("seconds since the test block began (behaviour differs from stretch to stretch: compare lines)")
    axes.set_ylabel("R2 over all sessions, mean over axes")
    axes.set_title(f"{title(comparison)}\ndashed: not causal", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    _plain(axes)
    return figure


def _plain(axes: Axes) -> None:
    axes.axhline(0, color="grey", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> Path:
    # Without a date and with a fixed salt the same records give the same file.
    import matplotlib

    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.suffix[1:])
    with matplotlib.rc_context({"svg.hashsalt": "realmbench"}):
        return write_whole(path, lambda temporary: figure.savefig(temporary, dpi=160, metadata=metadata))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
