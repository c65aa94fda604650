"""Figures from run records, as files. No torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .curves import Curve, Point, curves
from .days import FEWEST_DAYS, DayCurve, day_curves
from .differences import Difference
from .errors import OptionError, RealmbenchError
from .files import write_whole
from .leaderboard import title
from .learning import Learning, Reached, learning_curves, reached
from .pretrainings import ArtifactRecord
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
FILLS = ("full", "none", "left", "right", "top", "bottom")
STAGE_COLUMNS = 3
SCORES = "the score is R2, or minus the error where no labels are learnt"
# What validation measured: the name of its files, of its axis, and what to know.
MEASURES = {
    "score": ("learning", "validation score", SCORES),
    "alignment": (
        "alignment",
        "distance from the teacher",
        "between last residual streams, on validation of the pretraining sessions",
    ),
}


def write_figures(
    records: Sequence[RunRecord],
    folder: Path,
    file_format: str = "svg",
    kept: Mapping[str, ArtifactRecord] | None = None,
) -> list[Path]:
    """Draw every figure that the records allow, and return the files.

    Parameters
    ----------
    kept : how the pretrainings went, by the artifacts' hashes (`realmbench.pretrainings.read_pretrainings`).

    Raises
    ------
    RealmbenchError : the records hold nothing to draw, or the format is unknown.
    """
    if file_format not in FORMATS:
        raise RealmbenchError(f"unknown format {file_format!r}; known: {', '.join(FORMATS)}")
    kept, written = kept or {}, []
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
    for measure, (name, _, _) in MEASURES.items():
        for comparison, learnt in learning_curves(records, kept, measure):
            path = folder / f"{name}-{_slug(title(comparison))}.{file_format}"
            written.append(_save(learning_figure(comparison, learnt, measure), path))
    for comparison, ends in reached(records, kept):
        path = folder / f"reached-{_slug(title(comparison))}.{file_format}"
        written.append(_save(reached_figure(comparison, ends), path))
    if not written:
        raise RealmbenchError(
            "these records hold neither a calibration curve over a whole set of sessions nor sessions of "
            f"{FEWEST_DAYS} days nor test blocks of {FEWEST_STRETCHES * 10} s nor pretraining; "
            "run decoders with --protocol calibration-v1, or on more sessions"
        )
    return written


def calibration_figure(comparison: Comparison, lines: Sequence[Curve]) -> Figure:
    """Draw R2 against seconds of calibration, one line per method with its 95 % interval."""
    figure, axes = _against_calibration(lines)
    axes.set_ylabel("R2, mean over axes and sessions")
    _finish(figure, f"{title(comparison)}\n{lines[0].sessions} sessions, 95 % intervals; dashed: not causal")
    return figure


def write_gain_figures(found: Sequence[tuple[Comparison, Sequence[Difference]]], folder: Path) -> list[Path]:
    """Draw what is gained over other methods against seconds of calibration, an SVG file per table.

    Raises
    ------
    OptionError : as `gain_figure`.
    """
    figures = {f"gain-{_slug(title(comparison))}.svg": gain_figure(comparison, group) for comparison, group in found}
    return [_save(figure, folder / name) for name, figure in figures.items()]


def gain_figure(comparison: Comparison, differences: Sequence[Difference]) -> Figure:
    """Draw paired differences against seconds of calibration, one line per other method with its 95 % interval.

    What other sessions are worth must shrink where the session itself tells more; a gain that does not is no proof of a
    leak, but asks for a reason.

    Raises
    ------
    OptionError : the differences are not at two or more points of calibration.
    """
    others: dict[str, dict[float, Difference]] = {}
    for difference in differences:
        if difference.calibration_s is not None:
            others.setdefault(_minus(difference), {})[difference.calibration_s] = difference
    if not others or any(len(points) < 2 for points in others.values()):
        raise OptionError(
            "a curve needs two points at least: repeat --calibration, as in --calibration 15 --calibration 240"
        )
    lines = []
    for label, by_seconds in others.items():
        points = tuple(Point(s, by_seconds[s].mean, by_seconds[s].interval) for s in sorted(by_seconds))
        one = next(iter(by_seconds.values()))
        lines.append(Curve(label, True, len(one.sessions), one.seeds, points))
    figure, axes = _against_calibration(lines)
    axes.set_ylabel("difference of R2, mean over axes and sessions")
    counts = sorted({f"{line.sessions} sessions x {line.seeds} seeds" for line in lines})
    _finish(figure, f"{differences[0].first}, {title(comparison)}\n{', '.join(counts)}, paired, 95 % intervals")
    return figure


def _minus(difference: Difference) -> str:
    """Name the other method, and why nothing can be claimed of it whatever the curve."""
    parts = [f"minus {difference.second}"]
    if difference.missing:
        parts.append(f"{len(difference.missing)} sessions missing")
    if difference.mixed:
        parts.append("of several versions")
    return ", ".join(parts)


def _against_calibration(lines: Sequence[Curve]) -> tuple[Figure, Axes]:
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
    return figure, axes


def day_figure(comparison: Comparison, lines: Sequence[DayCurve]) -> Figure:
    """Draw R2 against the day of the session, a panel per seconds of calibration; a small mark is one session."""
    stages = sorted({line.calibration_s for line in lines}, key=lambda seconds: -1.0 if seconds is None else seconds)
    named = {line.label: line for line in lines}
    looks = dict(zip(named, _looks(list(named.values()))))
    figure, panels = _panels(len(stages))
    for axes, seconds in zip(panels, stages):
        for line in (line for line in lines if line.calibration_s == seconds):
            look = looks[line.label]
            axes.plot(*zip(*line.means), label=line.label, **look)
            axes.plot(*zip(*line.sessions), look["marker"], color=look["color"], markersize=2, alpha=0.5)
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


def learning_figure(comparison: Comparison, lines: Sequence[Learning], measure: str = "score") -> Figure:
    """Draw what validation measured against updates, a panel per stage and a line per training."""
    _, what, note = MEASURES[measure]
    figure, panels = _stages(lines)
    for line, look in zip(lines, _looks(lines)):
        for number, curve in enumerate(line.curves):
            named = None if number else line.label
            panels[line.stage].plot(*zip(*curve), label=named, markevery=[-1], **{**look, "linewidth": 0.8})
    for stage, axes in panels.items():
        axes.set_title(stage, fontsize=9)
        axes.set_xlabel("updates")
        axes.set_ylabel(what)
    _finish(figure, f"{title(comparison)}\na line per fold and seed; {note}")
    return figure


def reached_figure(comparison: Comparison, lines: Sequence[Reached]) -> Figure:
    """Draw R2 against the best validation score of a stage, a panel per stage and a dot per fold and seed."""
    figure, panels = _stages(lines)
    folds = sorted({fold for line in lines for fold, _, _ in line.points})
    for line, look in zip(lines, _looks(lines)):
        for fold, score, r2 in line.points:
            fill = FILLS[folds.index(fold) % len(FILLS)]
            panels[line.stage].plot(score, r2, label=line.label, fillstyle=fill, **{**look, "linestyle": ""})
    for stage, axes in panels.items():
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(f"best validation score of {stage}")
        axes.set_ylabel("R2, mean over axes and sessions")
    _finish(
        figure,
        f"{title(comparison)}\na dot per seed, filled otherwise in every fold: compare within one; {SCORES}",
        from_zero=False,
    )
    return figure


def _stages(lines: Sequence[Learning | Reached]) -> tuple[Figure, dict[str, Axes]]:
    """Make a grid of panels, one per stage."""
    from matplotlib.figure import Figure

    stages = sorted({line.stage for line in lines})
    columns = min(len(stages), STAGE_COLUMNS)
    rows = -(-len(stages) // columns)
    figure = Figure(figsize=(max(7.2, 3.6 * columns), 1.4 + 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    named = dict(zip(stages, panels))
    for spare in panels[len(stages) :]:
        spare.remove()
    return figure, named


def _panels(count: int) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.4) if count == 1 else (0.6 + 2.4 * count, 4.4), layout="constrained")
    return figure, figure.subplots(1, count, sharey=True, squeeze=False)[0]


def _looks(lines: Sequence[Curve | DayCurve | StreamCurve | Learning | Reached]) -> list[dict[str, Any]]:
    """Give every method a colour, with another marker where colours come round again; dashes where it looks ahead."""
    order = {named: number for number, named in enumerate(dict.fromkeys(line.label for line in lines))}
    return [
        {
            "color": COLOURS[order[line.label] % len(COLOURS)],
            "marker": MARKERS[order[line.label] // len(COLOURS) % len(MARKERS)],
            "markersize": 4,
            "linestyle": "-" if line.causal else "--",
        }
        for line in lines
    ]


def _finish(figure: Figure, heading: str, from_zero: bool = True) -> None:
    """Make axes plain, set the heading, and put one legend of all panels below them."""
    named: dict[str, Any] = {}
    for axes in figure.axes:
        if from_zero:
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
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("=-", "=minus ")).strip("-")
