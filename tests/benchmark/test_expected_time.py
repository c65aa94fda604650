"""How long a sweep will take: medians of what is on record, and silence where nothing is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from realmbench.dataset import Dataset
from realmbench.expected_time import duration, expected_seconds, in_words
from realmbench.plan import RunRequest, make_plan
from realmbench.records import ArtifactUse, CurvePoint, RunRecord, record_path
from realmbench.runner import Events, SessionBank, run
from realmbench.suite import Suite
from realmbench.sweep import Job, plan_jobs


@pytest.fixture
def template(toy: Dataset, tmp_path: Path) -> RunRecord:
    """Return the record of a run of ``mean`` on the first of the toy's two held-out sessions, seed 0."""
    plan = make_plan(RunRequest("mean", preset="tiny", sessions=("a2",), suite="swept"), toy)
    [record] = run(plan, toy, tmp_path, Events(), SessionBank(toy, lambda *_: None))
    assert record_path(tmp_path, "swept", *plan.place(toy), "a2", 0).exists()
    return record


def took(template: RunRecord, fit: float, teacher: float = 0.0, **changes: object) -> RunRecord:
    """Return a record that took so many seconds, 1 to predict and half of the fit for an earlier point of a curve."""
    early = CurvePoint(calibration_s=15.0, metrics={}, blocks=[], seconds={"fit": fit / 2}, split_hash="", warnings=[])
    use = ArtifactUse(kind="teacher", hash="", parameters=1, seconds=teacher)
    seconds = {"fit": fit, "predict": 1.0}
    return template.model_copy(update={"seconds": seconds, "curve": [early], "artifacts": [use], **changes})


def planned(toy_name: str, folder: Path, **entry: object) -> list[Job]:
    runs = {"models": ["mean"], "datasets": [toy_name], "preset": "tiny", **entry}
    return plan_jobs(Suite.model_validate({"name": "swept", "runs": [runs]}), folder, None)


def test_medians_of_what_took_long_before(template: RunRecord, toy_name: str, tmp_path: Path) -> None:
    first, second = planned(toy_name, tmp_path)
    assert (first.recorded, second.recorded) == (1, 0)
    records = [took(template, fit, teacher) for fit, teacher in ((10.0, 100.0), (20.0, 300.0), (400.0, 200.0))]
    # What is done takes nothing; the rest 20 + 10 + 1 s and the median teacher.
    assert expected_seconds([first, second], records) == [0.0, 231.0]
    assert expected_seconds([first, second], []) == [0.0, None]


def test_pretraining_counts_once_and_only_where_nothing_is_recorded(
    template: RunRecord, toy_name: str, tmp_path: Path
) -> None:
    [job, _] = planned(toy_name, tmp_path)
    begun = Job(**{**vars(job), "sessions": ("a2", "a3", "a4"), "recorded": 1})
    new = Job(**{**vars(begun), "recorded": 0})
    assert expected_seconds([begun, new], [took(template, 20.0, 100.0)]) == [62.0, 193.0]


def test_the_same_options_tell_more_than_others_and_the_same_data_too(
    template: RunRecord, toy_name: str, tmp_path: Path
) -> None:
    [_, job] = planned(toy_name, tmp_path)
    other_options = took(template, 200.0, config_hash="other")
    assert expected_seconds([job], [other_options]) == [301.0]
    elsewhere = took(template, 20.0, dataset="elsewhere")
    assert expected_seconds([job], [other_options, elsewhere]) == [31.0]
    assert expected_seconds([job], [other_options, elsewhere, took(template, 2.0)]) == [4.0]


@pytest.mark.parametrize("what", ["model", "preset", "protocol", "front_end", "device"])
def test_other_work_tells_nothing(template: RunRecord, toy_name: str, tmp_path: Path, what: str) -> None:
    [_, job] = planned(toy_name, tmp_path)
    assert expected_seconds([job], [took(template, 20.0)]) == [31.0]
    assert expected_seconds([job], [took(template, 20.0, **{what: "other"})]) == [None]


def test_in_words(toy_name: str, tmp_path: Path) -> None:
    jobs = planned(toy_name, tmp_path, seeds=2)
    assert in_words(jobs, [0.0, 0.0, 0.0, 0.0], 2) == ""
    assert in_words(jobs, [0.0, 3600.0, 7200.0, 0.0], 1).startswith("About 3.0 h, by this")
    one_long = in_words(jobs, [0.0, 3600.0, None, None], 2)
    assert one_long.startswith("About 60 min with 2 processes, by")
    assert in_words(jobs, [1800.0, 3600.0, 1200.0, 600.0], 2).startswith("About 60 min with 2 processes, by")
    assert one_long.endswith("they take: 2 of mean.")
    assert [duration(seconds) for seconds in (7.4, 89.0, 90.0, 5399.0, 5400.0)] == [
        "7 s",
        "89 s",
        "2 min",
        "90 min",
        "1.5 h",
    ]


def test_command_tells_before_it_starts(template: RunRecord, toy_name: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from realmbench.cli import app

    suite = tmp_path / "mine.toml"
    suite.write_text(f'name = "swept"\n[[runs]]\nmodels = ["mean"]\ndatasets = ["{toy_name}"]\npreset = "tiny"\n')
    command = ["sweep", str(suite), "--results-dir", str(tmp_path), "--processes", "1"]
    rows = json.loads(CliRunner().invoke(app, [*command, "--dry-run", "--json"]).stdout)
    whole = sum(template.seconds.values())
    assert [row["seconds"] for row in rows] == [0.0, pytest.approx(whole)]
    assert "by this suite's records on this machine" in CliRunner().invoke(app, [*command, "--dry-run"]).stdout
    begun = CliRunner().invoke(app, command)
    assert begun.exit_code == 0
    assert "About 1 s, by this" in begun.stderr
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0
    assert "About" not in again.stderr
