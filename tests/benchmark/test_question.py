"""Questions in a suite file: how they are written, and slips that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from realmbench.dataset import Dataset
from realmbench.errors import OptionError
from realmbench.plan import RunRequest, make_plan
from realmbench.question import Method, Question
from realmbench.records import RunRecord
from realmbench.runner import Events, SessionBank, run
from realmbench.suite import Suite, built_in_suites, read_suite

SUITE = """
name = "mine"
preset = "tiny"
protocol = "calibration-v1"
[[runs]]
models = ["gru", "my.py:Mine"]
datasets = ["synthetic-reach"]
[[runs]]
models = ["gru"]
datasets = ["synthetic-reach", "synthetic-reach:hard"]
set = ["decoder.hidden=8", "train.updates=5"]
"""
DATA = 'dataset = "synthetic-reach"'
QUESTION = """
[[questions]]
about = "Is mine better?"
decided = "before any record"
dataset = "synthetic-reach"
pairs = [["my:Mine", "gru"], ["my:Mine", ["gru", "decoder.hidden=8", "train.updates=5"]]]
calibration_s = [15, 240]
"""


def read(folder: Path, text: str) -> Suite:
    path = folder / "suite.toml"
    path.write_text(text)
    return read_suite(str(path))


def test_a_question_is_a_family_of_pairs_and_points(tmp_path: Path) -> None:
    [question] = read(tmp_path, SUITE + QUESTION).questions
    mine, plain, other = question.methods
    assert question.pairs == ((mine, plain), (mine, other))
    assert (mine.name, plain.name) == ("my:Mine", "gru")
    assert other.name == "gru (decoder.hidden=8, train.updates=5)"
    assert question.comparisons == 4
    assert question.model_copy(update={"calibration_s": ()}).comparisons == 2
    assert read(tmp_path, SUITE).questions == ()


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        (('"gru"]', '"gur"]'), "unknown method of the suite on synthetic-reach 'gur'. Did you mean 'gru'"),
        (
            ("hidden=8", "hidden=9"),
            r"""unknown method .* '\["gru", "decoder.hidden=9", "train.updates=5"\]'. Did you mean '\["gru", "dec""",
        ),
        (
            ("[15, 240]", "[15, 17]"),
            "'Is mine better.': calibration-v1 scores with 0, 15, 30, 60, 120, 240 s, not with 17",
        ),
        (
            ("[15, 240]", "[15]\nprotocol = 'blocked-v1'"),
            "does not run these methods with one preset and protocol",
        ),
        (
            ('dataset = "synthetic-reach"', 'dataset = "synthetic-reach:hard"'),
            "suite: 'Is mine better.': unknown method",
        ),
        (
            ('dataset = "synthetic-reach"', 'dataset = "synthetic-rech"'),
            "unknown dataset .* 'synthetic-rech'. Did you mean",
        ),
        (
            ("calibration_s", 'front_end = "band50"\ncalibration_s'),
            "unknown front end 'band50'. Did you mean 'bands50'",
        ),
        (
            ("calibration_s", 'preset = "small"\ncalibration_s'),
            "does not run these methods with one preset and protocol",
        ),
        (('decided = "before any record"', ""), "questions.1.decided: Field required"),
        (("[15, 240]", '"all"'), "questions.1.calibration_s"),
        (("[15, 240]", "[15, nan]"), "questions.1.calibration_s.2: Input should be a finite number"),
        (("[15, 240]", "[-1]"), "questions.1.calibration_s.1: Input should be greater than or equal to 0"),
        (("[15, 240]", "[15, 15.0]"), "calibration_s holds a point twice"),
        (("pairs = [", 'pairs = [["gru", "my:Mine"], '), "pairs holds two methods twice"),
        (("pairs = [", 'pairs = [["gru", "gru"], '), "pairs compares gru with itself"),
        (
            ("pairs = [", 'pairs = [["gru", ["gru", "data.x=1"]], '),
            "gru and gru .data.x=1. on different data",
        ),
        ((', ["my:Mine"', ', ["gru", "gru"'), "questions.1.pairs.2"),
    ],
)
def test_slips_are_refused(tmp_path: Path, slip: tuple[str, str], said: str) -> None:
    assert slip[0] in QUESTION
    with pytest.raises(OptionError, match=said):
        read(tmp_path, SUITE + QUESTION.replace(*slip, 1))


def test_what_is_run_in_several_ways_must_be_told_apart(tmp_path: Path) -> None:
    def suite(*ways: str, question: str = "") -> Suite:
        runs = "".join(f'[[runs]]\nmodels = ["gru", "lstm"]\ndatasets = ["synthetic-reach"]\n{way}\n' for way in ways)
        asked = '[[questions]]\nabout = "?"\ndecided = "now"\ndataset = "synthetic-reach"\npairs = [["gru", "lstm"]]\n'
        return read(tmp_path, f'name = "mine"\n{runs}{asked}{question}')

    presets = ('preset = "tiny"', 'preset = "small"')
    with pytest.raises(OptionError, match="with several presets or protocols; name preset or protocol"):
        suite(*presets)
    [question] = suite(*presets, question='preset = "tiny"').asked()
    assert (question.preset, question.protocol, question.front_end) == ("tiny", "blocked-v1", None)
    [alone] = suite('protocol = "calibration-v1"').asked()
    assert (alone.preset, alone.protocol) == ("small", "calibration-v1")
    with pytest.raises(OptionError, match="gru is run behind several front ends; name front_end"):
        suite("", 'front_end = "lfp100"')
    [behind] = suite("", 'front_end = "lfp100"', question='front_end = "lfp100"').asked()
    assert behind.front_end == "lfp100"


def test_models_and_data_of_files_go_by_their_recorded_names(tmp_path: Path, toy_name: str) -> None:
    asked = QUESTION.replace("my:Mine", "my.py:Mine").replace('"synthetic-reach"', f'"{toy_name}"')
    [question] = read(tmp_path, SUITE.replace('"synthetic-reach"', f'"{toy_name}"') + asked).asked()
    assert question.dataset == "toy"
    assert question.methods[0].model == "my:Mine"


def test_a_method_is_its_model_and_exactly_these_settings(toy: Dataset, tmp_path: Path) -> None:
    def record(**options: object) -> RunRecord:
        request = RunRequest("gru", preset="tiny", sessions=("a2",), options=options, train={"updates": 1})
        return run(make_plan(request, toy), toy, tmp_path, Events(), SessionBank(toy, Events().stage))[0]

    plain, changed = record(), record(hidden=8)
    once, both = ("train.updates=1",), ("train.updates=1", "decoder.hidden=8")
    for settings, fitting in ((once, plain), (both, changed), (both[::-1], changed)):
        method = Method(model="gru", settings=settings)
        assert [method.made(each) for each in (plain, changed)] == [fitting is plain, fitting is changed]
    assert not Method(model="gru").made(plain)
    assert not Method(model="lstm", settings=once).made(plain)
    assert not Method(model="gru", settings=("train.updates=1", "decoder.hidden=7")).made(changed)


def test_every_suite_that_comes_along_asks_of_what_it_runs() -> None:
    asked = {name: read_suite(name).questions for name in built_in_suites()}
    assert [question.comparisons for question in asked["cohort-v1"]] == [8, 2, 8, 4]
    assert all(read_suite(name).asked() for name, questions in asked.items() if questions)
    assert all(isinstance(question, Question) for questions in asked.values() for question in questions)


def test_points_of_a_protocol_without_any_are_refused(tmp_path: Path) -> None:
    suite = SUITE.replace("calibration-v1", "blocked-v1")
    with pytest.raises(OptionError, match="blocked-v1 has no points of calibration; leave calibration_s out"):
        read(tmp_path, suite + QUESTION)
    assert read(tmp_path, suite + QUESTION.replace("calibration_s = [15, 240]", "")).questions
