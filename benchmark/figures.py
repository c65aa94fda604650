"""Figures from run records, as files. No torch here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
MARKERS = ("o", "s", "^", "D")
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
    figure, [axes] = _panels(1)
    ticks = sorted({point.seconds for curve in lines for point in curve.points})
    for curve, look in zip(lines, _looks(lines)):
        x = [ticks.index(point.seconds) for point in curve.points]  # doubling steps, zero included: evenly spaced
        axes.plot(x, [point.r2 for point in curve.points], label=curve.label, **look)
        if all(point.interval is not None for point in curve.points):
            low = [point.interval.low for point in curve.points if point.interval is not None]
            high = [point.interval.high for point in curve.points if point.interval is not None]
            axes.fill_between(x, low, high, color=look["color"], alpha=0.1, linewidth=0)
    axes.set_xticks(range(len(ticks)), [f"{value:g}" for value in ticks])
    axes.set_xlabel("seconds of calibration (0: nothing of the session was seen)")
    axes.set_ylabel("R2, mean over axes and sessions")
    _finish(figure, f"{title(comparison)}\n{lines[0].sessions} sessions, 95 % intervals; dashed: not causal")
    return figure


def day_figure(comparison: Comparison, lines: Sequence[DayCurve]) -> Figure:
    """Draw R2 against the day of the session, a panel per seconds of calibration; a dot is one session."""
    stages = sorted({line.calibration_s for line in lines}, key=lambda seconds: -1.0 if seconds is None else seconds)
    named = {line.label: line for line in lines}
    looks = dict(zip(named, _looks(list(named.values()))))
    figure, panels = _panels(len(stages))
    for axes, seconds in zip(panels, stages):
        for line in (line for line in lines if line.calibration_s == seconds):
            look = looks[line.label]
            axes.plot(*zip(*line.means), label=line.label, **{**look, "marker": ""})
            axes.plot(*zip(*line.sessions), look["marker"], color=look["color"], markersize=2.5)
        axes.set_xlabel("day of the session")
        axes.set_title("" if seconds is None else f"{seconds:g} s of calibration", fontsize=9)
    panels[0].set_ylabel("R2, mean over axes")
    _finish(figure, f"{title(comparison)}; days count from the subject's first session; dashed: not causal")
    return figure


def stream_figure(comparison: Comparison, lines: Sequence[StreamCurve]) -> Figure:
    """Draw R2 against the time since a test block began, one line per method."""
    figure, [axes] = _panels(1)
    for line, look in zip(lines, _looks(lines)):
        axes.plot(line.since_s, line.r2, label=line.label, **look)
    axes.set_xlabel("seconds since the test block began")
    axes.set_ylabel("R2 over all sessions, mean over axes")
    note = "behaviour differs from stretch to stretch: compare lines; dashed: not causal"
    _finish(figure, f"{title(comparison)}\n{note}")
    return figure


def _panels(count: int) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.4) if count == 1 else (0.6 + 2.4 * count, 4.4), layout="constrained")
    return figure, figure.subplots(1, count, sharey=True, squeeze=False)[0]


def _looks(lines: Sequence[Curve | DayCurve | StreamCurve]) -> list[dict[str, Any]]:
    """Give every line a colour, with another marker where colours come round again; dashes where it looks ahead."""
    return [
        {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number // len(COLOURS) % len(MARKERS)],
            "markersize": 4,
            "linestyle": "-" if line.causal else "--",
        }
        for number, line in enumerate(lines)
    ]


def _finish(figure: Figure, heading: str) -> None:
    """Make axes plain, set the heading, and put one legend of all panels below them."""
    named: dict[str, Any] = {}
    for axes in figure.axes:
        axes.axhline(0, color="grey", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        named |= {label: handle for label, handle in zip(labels, handles) if label not in named}
    figure.suptitle(heading, fontsize=9)
    columns = 2 if len(figure.axes) == 1 else 4
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def _save(figure: Figure, path: Path) -> Path:
    # Without a date and with a fixed salt the same records give the same file.
    import matplotlib

    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.suffix[1:])
    with matplotlib.rc_context({"svg.hashsalt": "realmbench"}):
        return write_whole(
            path, lambda temporary: figure.savefig(temporary, dpi=160, bbox_inches="tight", metadata=metadata)
        )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
