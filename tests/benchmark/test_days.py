"""R2 by day of the session: means by hand, complete methods only, a figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from realmbench.days import DayCurve, day_curves, in_words
from realmbench.errors import RealmbenchError
from realmbench.figures import day_figure, write_figures
from realmbench.records import CurvePoint, RunRecord

SESSIONS = {"p1": 1.0, "p30": 30.0, "p90": 90.0, "q90": 90.0}


def record(template: RunRecord, model: str, session: str, seed: int, r2: float, early: float | None) -> RunRecord:
    metrics = {**template.metrics, "r2_axis_mean": r2}
    curve = []
    if early is not None:
        earlier = {**metrics, "r2_axis_mean": early}
        curve = [
            CurvePoint(
                calibration_s=15, metrics=earlier, blocks=template.blocks, seconds={}, split_hash="x", warnings=[]
            )
        ]
    return template.model_copy(
        update={
            "model": model,
            "session": session,
            "day": SESSIONS[session],
            "seed": seed,
            "metrics": metrics,
            "held_out_sessions": list(SESSIONS),
            "calibration_s": None if early is None else 240.0,
            "curve": curve,
        }
    )


def test_means_by_day_and_seconds_by_hand(template: RunRecord) -> None:
    scores = {"p1": 0.6, "p30": 0.5, "p90": 0.2, "q90": 0.4}
    records = [
        record(template, "m", session, seed, r2 + 0.1 * seed, r2 - 0.1)
        for session, r2 in scores.items()
        for seed in (0, 1)
    ]
    [(_, lines)] = day_curves(records)
    assert [line.calibration_s for line in lines] == [15, 240]
    assert dict(lines[1].means) == pytest.approx({1: 0.65, 30: 0.55, 90: 0.35})
    assert dict(lines[0].means) == pytest.approx({1: 0.5, 30: 0.4, 90: 0.2})
    assert in_words(lines) == "m (tiny): R2 0.650 on day 1, 0.350 on day 90."


def test_a_method_that_lacks_a_session_has_no_curve(template: RunRecord) -> None:
    whole = [record(template, "m", session, 0, 0.5, None) for session in SESSIONS]
    part = [record(template, "n", session, 0, 0.9, None) for session in SESSIONS if session != "p30"]
    [(_, lines)] = day_curves(whole + part)
    assert [line.label for line in lines] == ["m (tiny)"]


def test_two_days_say_nothing_of_time(template: RunRecord) -> None:
    records = [record(template, "m", session, 0, 0.5, None) for session in ("p1", "p30")]
    assert day_curves(records) == []


def test_figure_is_drawn_and_its_lack_is_said(template: RunRecord, tmp_path: Path) -> None:
    records = [record(template, "m", session, 0, 0.5, None) for session in SESSIONS]
    [path] = write_figures(records, tmp_path)
    assert path.name.startswith("days-")
    assert "day of the session" in path.read_text()
    with pytest.raises(RealmbenchError, match=r"neither a calibration curve .* nor sessions of 3 days"):
        write_figures(records[:1], tmp_path)


def test_panels_are_in_order_and_the_legend_names_every_method(template: RunRecord) -> None:
    """Methods that have no zero-shot point come first here: neither order nor legend may follow them."""
    late = [record(template, "late", session, 0, 0.5, None) for session in SESSIONS]
    late = [run.model_copy(update={"calibration_s": 240.0}) for run in late]
    both = [record(template, "both", session, 0, 0.4, 0.3) for session in SESSIONS]
    [(comparison, lines)] = day_curves(late + both)
    figure = day_figure(comparison, lines)
    assert [axes.get_title() for axes in figure.axes] == ["15 s of calibration", "240 s of calibration"]
    [legend] = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert sorted(named) == ["both (tiny)", "late (tiny)"]
    colours = {line.get_label(): line.get_color() for axes in figure.axes for line in axes.lines}
    assert [line.get_color() for line in legend.get_lines()] == [colours[name] for name in named]


def test_non_causal_methods_are_not_praised() -> None:
    assert in_words([DayCurve("m", False, None, ((1.0, 0.5), (2.0, 0.5), (3.0, 0.1)))]) == ""
