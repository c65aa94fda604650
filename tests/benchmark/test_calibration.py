"""calibration-v1: cuts, zero-shot statistics, one record per curve, tables and figures of curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realmbench.curves import Curve, Point, curves, in_words, table
from realmbench.dataset import Dataset, open_dataset
from realmbench.differences import differences
from realmbench.errors import OptionError, ProtocolError, RealmbenchError
from realmbench.figures import gain_figure, write_figures, write_gain_figures
from realmbench.front_end import front_end
from realmbench.leaderboard import markdown
from realmbench.plan import RunRequest, make_plan
from realmbench.preparation import prepare_session
from realmbench.protocols import BlockedV1, CalibrationV1
from realmbench.records import RunRecord, read_records
from realmbench.runner import Events, SessionBank, run
from realmbench.session import Normaliser
from realmbench.uncertainty import Interval


def execute(dataset: Dataset, results: Path, **request: Any) -> list[RunRecord]:
    plan = make_plan(RunRequest(**{"preset": "tiny", "protocol": "calibration-v1", **request}), dataset)
    return run(plan, dataset, results, Events(), SessionBank(dataset, Events().stage))


@pytest.fixture
def long_toy(toy_name: str) -> Dataset:
    return open_dataset(toy_name, options={"seconds": 330.0})


def test_stages_are_those_that_fit(toy: Dataset, long_toy: Dataset, toy_name: str) -> None:
    # 64 s: 51.2 s before the test part, less the gap.
    assert [stage.calibration_s for stage in CalibrationV1().stages(toy.load("a2"))] == [0, 15, 30]
    everything = [0, 15, 30, 60, 120, 240]
    assert [stage.calibration_s for stage in CalibrationV1().stages(long_toy.load("a2"))] == everything
    with pytest.raises(ProtocolError, match=r"calibration-v1, which needs 15 s"):
        CalibrationV1().stages(open_dataset(toy_name, options={"seconds": 20.0}).load("a2"))


@pytest.mark.parametrize("seconds", CalibrationV1.seconds)
def test_cut_takes_the_first_seconds_and_tests_on_the_last_fifth(long_toy: Dataset, seconds: float) -> None:
    recording = long_toy.load("a2")
    manifest = CalibrationV1(seconds).split(recording, "held-out", "toy")
    [test] = manifest.of("test")
    assert test.stop == manifest.last_bin
    assert test.stop - test.start == round(0.2 * (manifest.last_bin - manifest.first_bin))
    assert test.warm_up == 100
    if seconds == 0:
        assert manifest.of("train") == manifest.of("validation") == []
        return
    [train], [validation] = manifest.of("train"), manifest.of("validation")
    assert train.start == manifest.first_bin
    assert validation.stop == manifest.first_bin + 50 * seconds
    assert validation.start - train.stop == 100  # the gap
    assert manifest.seconds("validation") == max(3, 0.2 * seconds)
    assert validation.stop + 100 <= test.start


def test_longest_calibration_that_would_touch_the_test_part_is_refused(toy: Dataset) -> None:
    with pytest.raises(ProtocolError, match="60 s of calibration reach the test part"):
        CalibrationV1(60).split(toy.load("a2"), "held-out", "toy")


def test_pretraining_sessions_are_cut_as_in_the_default_protocol(toy: Dataset) -> None:
    """So that the very same teacher serves both protocols."""
    prepared = [
        prepare_session(toy, "a0", protocol, front_end("bands50"), "pretrain").data.key
        for protocol in (BlockedV1(), CalibrationV1(15))
    ]
    assert prepared[0] == prepared[1]


def test_zero_shot_sees_nothing_of_the_session(toy: Dataset) -> None:
    references = [
        prepare_session(toy, name, CalibrationV1(0), front_end("bands50"), "pretrain").data for name in ("a0", "a1")
    ]
    zero = prepare_session(toy, "a2", CalibrationV1(0), front_end("bands50"), references=references)
    assert zero.data.train == zero.data.validation == ()
    # Statistics by hand: the moments of two sessions that count the same.
    means = np.stack([reference.normaliser.x_mean for reference in references])
    deviations = np.stack([reference.normaliser.x_deviation for reference in references])
    expected = np.sqrt((deviations**2 + means**2).mean(0) - means.mean(0) ** 2)
    np.testing.assert_allclose(zero.data.normaliser.x_mean, means.mean(0), rtol=1e-5)
    np.testing.assert_allclose(zero.data.normaliser.x_deviation, expected, rtol=1e-4)
    with pytest.raises(ProtocolError, match="needs pretraining sessions for its statistics"):
        prepare_session(toy, "a2", CalibrationV1(0), front_end("bands50"))


def test_pooled_statistics_leave_a_sessions_dead_channels_out(session_maker: Any) -> None:
    from dataclasses import replace

    sessions = [session_maker(name=name) for name in "pqr"]
    normaliser = sessions[0].normaliser
    broken = replace(normaliser, x_mean=normaliser.x_mean + 1e3, x_deviation=normaliser.x_deviation * 1e-3)
    sessions[0] = replace(sessions[0], mask=np.array([False, True, True]), normaliser=broken)
    sessions[1] = replace(sessions[1], mask=np.array([True, True, False]))
    sessions[2] = replace(sessions[2], mask=np.array([True, True, False]))
    pooled, mask = Normaliser.pooled(sessions)
    assert mask.tolist() == [True, True, False]
    np.testing.assert_allclose(pooled.x_mean[0], 0)  # of the two sessions in which the channel is usable
    np.testing.assert_allclose(pooled.x_deviation[0], 1)


def test_one_record_holds_the_curve(toy: Dataset, tmp_path: Path) -> None:
    [wiener, _] = execute(toy, tmp_path, model="wiener")
    assert wiener.calibration_s == 30
    assert [point.calibration_s for point in wiener.curve] == [15]  # no zero-shot point for a single-session decoder
    [pooled, other] = execute(toy, tmp_path, model="realm-pooled", train={"student.updates": 20, "finetune.updates": 5})
    assert [point.calibration_s for point in pooled.curve] == [0, 15]
    assert pooled.curve[0].seconds.keys() == {"fit", "predict"}
    assert {point.split_hash for point in pooled.curve}.isdisjoint({pooled.split_hash})
    assert len(read_records(tmp_path)) == 4
    # The same command finds the runs finished.
    again = execute(toy, tmp_path, model="realm-pooled", train={"student.updates": 20, "finetune.updates": 5})
    assert again == [pooled, other]


def test_point_of_the_curve_equals_a_run_with_that_calibration(toy: Dataset, tmp_path: Path) -> None:
    """Against the definition: fit and score the 15 s cut by hand."""
    from realmbench.artifact import ArtifactStore
    from realmbench.decoder import DECODERS, Context
    from realmbench.evaluation import evaluate

    [record, _] = execute(toy, tmp_path, model="wiener")
    prepared = prepare_session(toy, "a2", CalibrationV1(15), front_end("bands50"))
    decoder = DECODERS.get("wiener")("tiny")
    decoder.adapt(prepared.data, Context(0, "cpu", ArtifactStore(tmp_path, "c", {}), tmp_path))
    assert record.curve[0].metrics == evaluate(decoder, prepared).metrics


def test_curves_tables_and_figures(toy: Dataset, tmp_path: Path) -> None:
    records = execute(toy, tmp_path, model="wiener") + execute(toy, tmp_path, model="mean")
    [(comparison, lines)] = curves(records)
    assert [curve.label for curve in lines] == ["wiener (tiny)", "mean (tiny)"]
    assert [point.seconds for point in lines[0].points] == [15, 30]
    at_15 = [record.curve[0].metrics["r2_axis_mean"] for record in records[:2]]
    assert lines[0].points[0].r2 == pytest.approx(np.mean(at_15))
    assert comparison.protocol == "calibration-v1"
    assert "With 15 s wiener (tiny) is highest" in in_words(lines)
    text = markdown(records, "x")
    assert "| model | causal | seeds | 15 s | 30 s |" in text
    [path] = write_figures(records, tmp_path / "figures")
    assert path.name == "calibration-toy-v1-calibration-v1-bands50.svg"
    first = path.read_bytes()
    [path] = write_figures(records, tmp_path / "figures")
    assert path.read_bytes() == first
    with pytest.raises(RealmbenchError, match="known: svg, png, pdf"):
        write_figures(records, tmp_path, "jpg")


def test_gain_against_calibration_is_drawn_as_it_was_compared(toy: Dataset, tmp_path: Path) -> None:
    records = execute(toy, tmp_path, model="wiener") + execute(toy, tmp_path, model="mean")
    [(comparison, found)] = differences(records, "wiener", ["mean"], [30, 15])
    [axes] = gain_figure(comparison, found).axes
    [line, *_] = axes.get_lines()
    scores = {
        (record.model, point.calibration_s): point.metrics["r2_axis_mean"]
        for record in records
        if record.session == "a2"
        for point in record.curve
    }
    assert line.get_label() == "minus mean (tiny)"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["15", "30"]
    drawn = dict(zip((15, 30), line.get_ydata()))
    assert drawn == {each.calibration_s: pytest.approx(each.mean) for each in found}
    by_hand = scores["wiener", 15] - scores["mean", 15]
    assert next(each for each in found if each.calibration_s == 15).sessions["a2"] == pytest.approx(by_hand)
    [path] = write_gain_figures([(comparison, found)], tmp_path)
    assert path.name == "gain-toy-v1-calibration-v1-bands50.svg"
    with pytest.raises(OptionError, match="a curve needs two points at least: repeat --calibration"):
        write_gain_figures([(comparison, found[:1])], tmp_path)


def test_curve_over_fewer_sessions_is_not_shown(toy: Dataset, tmp_path: Path) -> None:
    records = execute(toy, tmp_path, model="wiener") + execute(toy, tmp_path, model="mean")[:1]
    [(_, lines)] = curves(records)
    assert [curve.label for curve in lines] == ["wiener (tiny)"]
    with pytest.raises(RealmbenchError, match="run decoders with --protocol calibration-v1"):
        write_figures([record.model_copy(update={"calibration_s": None}) for record in records], tmp_path)


def test_scores_below_zero_are_not_praised() -> None:
    points = (Point(0.0, -0.4, None), Point(15.0, -0.1, None), Point(30.0, 0.2, None))
    words = in_words([Curve("m (tiny)", True, 2, 1, points)])
    assert "Without any calibration no causal decoder scores above 0 (the highest: m (tiny), -0.400)." in words
    assert "With 30 s m (tiny) is highest (R2 0.200)." in words
    assert "m (tiny) reaches nine tenths of its R2 of 0.200 after 30 s." in words


def test_only_the_highest_curves_are_put_into_words() -> None:
    def curve(name: str, last: float) -> Curve:
        return Curve(name, True, 2, 1, (Point(0.0, 0.0, None), Point(30.0, last, None)))

    words = in_words([curve("a", 0.1), curve("b", 0.4), curve("c", 0.2), curve("d", 0.3)])
    told = [sentence.split()[0] for sentence in words.split(". ") if "nine tenths" in sentence]
    assert told == ["b", "d", "c"]


def test_an_interval_that_is_not_symmetric_is_shown_by_its_ends() -> None:
    points = [
        Point(15.0, -0.234, Interval(-0.653, -0.053, "hierarchical bootstrap")),
        Point(30.0, 0.5, Interval(0.4, 0.6, "t")),
        Point(60.0, 0.6, None),
    ]
    _, [row] = table([Curve("m (tiny)", True, 12, 3, tuple(points))])
    assert row[3:] == ["-0.234 (-0.653 to -0.053)", "0.500 ± 0.100", "0.600"]
