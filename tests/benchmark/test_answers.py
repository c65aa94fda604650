"""Answers to a suite's questions: adjusted for all that was decided on, run or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realmbench.answers import HEADER, answers, heading, rows
from realmbench.differences import differences
from realmbench.errors import RealmbenchError
from realmbench.leaderboard import markdown
from realmbench.question import Question
from realmbench.records import CurvePoint, RunRecord, record_path, write_record


def records_of(template: RunRecord, model: str, scores: np.ndarray, **update: Any) -> list[RunRecord]:
    """Make records of seed 0 that score so on sessions s0, s1, ..., and 0.1 less with 15 s of calibration."""
    names = [f"s{index}" for index in range(len(scores))]

    def blocks(score: float) -> list[Any]:
        return [
            block.model_copy(update={"sse": [(1 - score) * total for total in block.sst]}) for block in template.blocks
        ]

    def metrics(score: float) -> dict[str, float]:
        return {**template.metrics, "r2_axis_mean": score}

    made = []
    for name, score in zip(names, scores):
        early = CurvePoint(
            calibration_s=15.0, metrics=metrics(score - 0.1), blocks=blocks(score - 0.1), seconds={}, split_hash="",
            warnings=[],
        )  # fmt: skip
        changed = {"model": model, "session": name, "held_out_sessions": names, "blocks": blocks(score)}
        changed |= {"metrics": metrics(score), "curve": [early], "calibration_s": 240.0}
        made.append(template.model_copy(update={**changed, **update}))
    return made


def question(*pairs: tuple[Any, Any], **changes: Any) -> Question:
    content = {"about": "Is it?", "decided": "before any record", "dataset": "toy", "pairs": pairs, **changes}
    return Question.model_validate(content)


@pytest.fixture
def base() -> np.ndarray:
    return np.random.default_rng(0).normal(0.5, 0.1, 8)


def test_they_are_what_compare_says_of_the_same_comparisons(template: RunRecord, base: np.ndarray) -> None:
    records = [
        record
        for number, model in enumerate("abc")
        for record in records_of(template, model, base - number * np.linspace(0.02, 0.05, 8))
    ]
    [answer] = answers([question(("a", "b"), ("a", "c"), calibration_s=(15, 240))], records)
    [(_, expected)] = differences(records, "a", ["b", "c"], [15, 240])
    assert answer.differences == expected
    assert [each.p_adjusted for each in answer.differences] == pytest.approx([4 * 2 / 2**8] * 4)
    assert answer.open == []


def test_what_has_not_been_run_counts_too(template: RunRecord, base: np.ndarray) -> None:
    """Who decided on twelve comparisons and has run one may claim what one of twelve may."""
    records = records_of(template, "a", base) + records_of(template, "b", base - np.linspace(0.02, 0.05, 8))
    [alone] = answers([question(("a", "b"))], records)
    assert alone.differences[0].claimed
    others = [("a", f"m{number}") for number in range(11)]
    [of_twelve] = answers([question(("a", "b"), *others)], records)
    [difference] = of_twelve.differences
    assert difference.p_adjusted == pytest.approx(12 * 2 / 2**8)
    assert not difference.claimed
    assert [(each.first.name, each.second.name) for each in of_twelve.open] == others
    lines = rows(of_twelve)
    assert [len(line) for line in lines] == [len(HEADER)] * 12
    assert [line[-1] for line in lines] == ["none, alone it could be", *["not run yet"] * 11]
    [nothing] = answers([question(("x", "y"))], records)
    assert (nothing.differences, len(nothing.open)) == ([], 1)


def test_methods_are_told_apart_by_what_was_set(template: RunRecord, base: np.ndarray) -> None:
    def changed(value: int) -> dict[str, Any]:
        return {
            "config": {"decoder": {"x": value}, "train": {}}, "changed_options": ["decoder.x"],
            "config_hash": f"h{value}",
        }  # fmt: skip

    records = records_of(template, "a", base)
    for value in (1, 2):
        records += records_of(template, "a", base - value * 0.1, **changed(value))
    [answer] = answers([question(("a", ["a", "decoder.x=2"]))], records)
    assert [each.mean for each in answer.differences] == pytest.approx([0.2])
    assert answer.differences[0].second == "a (tiny, x=2)"


def test_two_configurations_of_one_name_claim_nothing(template: RunRecord, base: np.ndarray) -> None:
    records = records_of(template, "a", base + 0.1) + records_of(template, "b", base)
    records[0] = records[0].model_copy(update={"config_hash": "retuned"})
    [answer] = answers([question(("a", "b"))], records)
    [difference] = answer.differences
    assert (difference.mixed, difference.claimed) == (("a (tiny)",), False)


def test_other_data_and_audits_answer_nothing(template: RunRecord, base: np.ndarray) -> None:
    a, b = records_of(template, "a", base), records_of(template, "b", base - 0.1)
    for change in ({"dataset": "other"}, {"audit": "shifted-target"}, {"front_end": "lfp100"}):
        elsewhere = [record.model_copy(update=change) for record in b]
        [answer] = answers([question(("a", "b"))], a + elsewhere)
        assert (answer.differences, len(answer.open)) == ([], 1), change


def test_several_front_ends_must_be_told_apart(template: RunRecord, base: np.ndarray) -> None:
    records = [
        record
        for model, scores in (("a", base), ("b", base - 0.1))
        for front_end in ("bands50", "lfp100")
        for record in records_of(template, model, scores, front_end=front_end)
    ]
    with pytest.raises(RealmbenchError, match="have records on toy v1, bands50 and toy v1, lfp100; say which"):
        answers([question(("a", "b"))], records)
    [answer] = answers([question(("a", "b"), front_end="lfp100")], records)
    assert len(answer.differences) == 1


def test_other_presets_and_protocols_answer_nothing(template: RunRecord, base: np.ndarray) -> None:
    records = [
        record
        for model, scores in (("a", base), ("b", base - 0.1))
        for preset in ("tiny", "small")
        for record in records_of(template, model, scores, preset=preset)
    ]
    [answer] = answers([question(("a", "b"), preset="small", protocol="blocked-v1")], records)
    assert [each.second for each in answer.differences] == ["b (small)"]
    [other] = answers([question(("a", "b"), preset="small", protocol="calibration-v1")], records)
    assert (other.differences, len(other.open)) == ([], 1)


def test_it_says_why_a_comparison_is_open(template: RunRecord, base: np.ndarray) -> None:
    a, b = records_of(template, "a", base), records_of(template, "b", base - np.linspace(0.02, 0.05, 8))
    late = [record.model_copy(update={"seed": 7}) for record in b]
    [answer] = answers([question(("a", "b"), ("a", "c"))], a + late)
    assert [line[-1] for line in rows(answer)] == ["no session and seed in common", "not run yet"]
    without = [record.model_copy(update={"curve": []}) for record in b]
    [answer] = answers([question(("a", "b"), calibration_s=(15, 240))], a + without)
    assert [line[2] for line in rows(answer)] == ["240 s", "15 s"]
    assert rows(answer)[1][-1] == "no score of b there"
    assert answer.differences[0].p_adjusted == pytest.approx(2 * 2 / 2**8)


@pytest.mark.parametrize("sessions", [8, 12])
def test_equal_scores_are_practically_equal(template: RunRecord, sessions: int) -> None:
    scores = np.linspace(0.4, 0.6, sessions)
    [answer] = answers([question(("a", "b"))], records_of(template, "a", scores) + records_of(template, "b", scores))
    [difference] = answer.differences
    assert difference.interval is not None
    assert (difference.interval.low, difference.interval.high, difference.p_value) == (0.0, 0.0, 1.0)
    assert rows(answer)[0][-1] == "practically equal"


def test_a_missing_session_forbids_the_claim(template: RunRecord, base: np.ndarray) -> None:
    records = records_of(template, "a", base) + records_of(template, "b", base - 0.1)[1:]
    [answer] = answers([question(("a", "b"))], records)
    assert rows(answer)[0][-1] == "none: sessions are missing"


def test_page_and_command_show_them(template: RunRecord, toy_name: str, base: np.ndarray, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from realmbench.cli import app

    records = records_of(template, "mean", base) + records_of(template, "wiener", base + 0.1)
    for record in records:
        write_record(record, record_path(tmp_path, "mine", "toy", "p", "f", record.model, record.session, 0))
    asked = question(("wiener", "mean"))
    page = markdown(records, "mine", answered=answers([asked], records))
    assert "**Is it? On toy, 1 comparison, decided before any record.**" in page
    numbers = "+0.100 | +0.100 to +0.100 | 8 of 8 | 0.008 | 0.008 | 0.00"
    assert f"| wiener (tiny) | mean (tiny) | – | 1 | {numbers} | the first is better |" in page
    assert "What was asked" not in markdown(records, "mine")
    suite = tmp_path / "mine.toml"
    runs = '[[runs]]\nmodels = ["mean", "wiener"]\ndatasets = ["toy"]\npreset = "tiny"\n'
    suite.write_text(f'name = "mine"\n{runs}')
    command = ["answers", str(suite), "--results-dir", str(tmp_path)]
    refused = CliRunner().invoke(app, command)
    assert "suite mine asks no questions" in str(refused.exception)
    suite.write_text(
        f'name = "mine"\n{runs}[[questions]]\nabout = "Is it?"\ndecided = "before any record"\ndataset = "toy"\n'
        'pairs = [["wiener", "mean"]]\n'
    )
    before = CliRunner().invoke(app, [*command[:-1], str(tmp_path / "nothing")])
    assert "not run yet" in before.stdout
    shown = CliRunner().invoke(app, command)
    assert heading(asked) in shown.stdout
    assert "It can be claimed that wiener (tiny) is better than mean (tiny)" in shown.stdout
    [answer] = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert answer["differences"][0]["mean"] == pytest.approx(0.1)
    assert answer["question"]["decided"] == "before any record"
