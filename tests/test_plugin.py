"""A package of one's own: it is really built and installed, and the command line finds what it brings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from realmbench.records import read_records

PLUGIN = Path(__file__).parent / "examples" / "plugin"
NAME = "moving-average"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the plug-in."""
    folder = tmp_path_factory.mktemp("plugin")
    # A copy, because building leaves files beside the sources.
    source = shutil.copytree(PLUGIN, folder / "source")
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(target), str(source)], capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.fail(
            "the example plug-in could not be installed; this needs pip and setuptools, which "
            f"`pip install 'realmbench[dev]'` brings:\n{done.stderr}"
        )
    return target


def realmbench(*arguments: str, folder: Path, site: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    command = [sys.executable, "-m", "realmbench", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_installed_decoder_is_listed(installed: Path, tmp_path: Path) -> None:
    done = realmbench("list", "models", "--json", folder=tmp_path, site=installed)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[NAME] == "Ordinary least squares on the mean of the last frames."
    # Control: without the package there is no such name.
    bare = realmbench("list", "models", "--json", folder=tmp_path, site=None)
    assert NAME not in json.loads(bare.stdout)


def test_installed_decoder_runs_and_is_recorded(installed: Path, tmp_path: Path) -> None:
    command = ["run", "--model", NAME, "--dataset", "synthetic-lds:tiny", "--preset", "tiny", "--sessions", "s0-test-0"]
    done = realmbench(*command, "--set", "decoder.frames=3", folder=tmp_path, site=installed)
    assert done.returncode == 0, done.stderr
    [record] = read_records(tmp_path / "results")
    assert (record.model, record.session, record.config["decoder"]) == (NAME, "s0-test-0", {"frames": 3})
    assert record.metrics["r2_axis_mean"] > 0.1
    # Control: without the package the name is refused.
    bare = realmbench(*command, folder=tmp_path, site=None)
    assert bare.returncode == 2
    assert f"unknown model '{NAME}'" in bare.stderr
    assert "Known: " in bare.stderr


def test_installed_decoder_passes_the_checks(installed: Path, tmp_path: Path) -> None:
    done = realmbench("check", NAME, "--short", folder=tmp_path, site=installed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{NAME} passes all" in done.stdout


def test_installed_decoder_is_tuned_as_any_other(installed: Path, tmp_path: Path) -> None:
    command = ["tune", "--model", NAME, "--dataset", "synthetic-lds:tiny", "--trials", "2", "--sessions", "1", "--json"]
    done = realmbench(*command, folder=tmp_path, site=installed)
    assert done.returncode == 0, done.stderr
    [record] = json.loads(done.stdout)
    assert [trial["params"].keys() for trial in record["trials"]] == [{"decoder.frames"}, {"decoder.frames"}]
