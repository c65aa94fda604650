"""`realmbench tune` as a user meets it: a real process, its output and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from realmbench.dataset import open_dataset
from realmbench.errors import OptionError
from realmbench.plan import RunRequest, make_plan
from realmbench.records import read_records, suites
from realmbench.tuning_record import read_tuning

MODELS = Path(__file__).parents[1] / "examples" / "tunable.py"


def realmbench(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "realmbench", *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )


def test_command_tunes_and_goes_on(toy_name: str, tmp_path: Path) -> None:
    command = ["tune", "--model", f"{MODELS}:Gain", "--dataset", toy_name, "--sessions", "2"]
    first = realmbench(*command, "--trials", "4", "--json", folder=tmp_path)
    assert first.returncode == 0, first.stderr
    [record] = json.loads(first.stdout)
    assert [trial["number"] for trial in record["trials"]] == [0, 1, 2, 3]
    assert "optuna" in record["versions"]
    [file] = (tmp_path / "results" / "tuning").rglob("*.json")
    assert file.relative_to(tmp_path / "results" / "tuning") == Path("toy/bands50/tunable~Gain.tiny.json")
    more = realmbench(*command, "--trials", "6", folder=tmp_path)
    assert more.returncode == 0, more.stderr
    assert "going on after 4 trials" in more.stderr
    assert "trial 4: " in more.stderr
    assert "trial 3: " not in more.stderr
    assert "best of 6 trials" in more.stdout


def test_interrupted_command_keeps_finished_trials(toy_name: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from realmbench.cli import app

    command = ["tune", "--model", f"{MODELS}:Interrupts", "--dataset", toy_name, "--results-dir", str(tmp_path)]
    assert CliRunner().invoke(app, command).exit_code == 130
    [file] = (tmp_path / "tuning").rglob("*.json")
    assert [trial.state for trial in read_tuning(file).trials] == ["complete"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "gruu"], "Did you mean 'gru'"),
        (["--model", "FILE:Gain", "--front-end", "bands5"], "Did you mean 'bands50'"),
        (["--model", "FILE:Gain", "--dataset", "synthetic-rech"], "Did you mean 'synthetic-reach'"),
        (["--model", "FILE:Gain", "--set", "decoder.x=1"], "unknown option decoder."),
        (["--model", "FILE:Gain", "--model", "FILE:Plain"], "declares no search_space"),
        (["--model", "FILE:AlwaysBreaks", "--trials", "1"], "none of 1 trial was completed"),
    ],
)
def test_command_refuses_in_one_line(arguments: list[str], message: str, toy_name: str, tmp_path: Path) -> None:
    given = [argument.replace("FILE", str(MODELS)) for argument in arguments]
    dataset = [] if "--dataset" in given else ["--dataset", toy_name]
    done = realmbench("tune", *given, *dataset, "--sessions", "1", folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_does_not_import_optuna() -> None:
    code = "import sys, realmbench.cli, realmbench.decoder; assert not {'optuna', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tunings_are_no_suite_and_no_run_records(tmp_path: Path) -> None:
    """What tuning writes lies beside the suites; reading all records must not stumble over it."""
    (tmp_path / "tuning" / "d").mkdir(parents=True)
    (tmp_path / "tuning" / "d" / "gru.tiny.json").write_text("{}")
    assert suites(tmp_path) == []
    assert read_records(tmp_path) == []
    with pytest.raises(OptionError, match="name the suite otherwise"):
        make_plan(RunRequest("mean", suite="tuning"), open_dataset("synthetic-lds:tiny"))
