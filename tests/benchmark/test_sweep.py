"""Sweeps: real processes, real failures, one teacher for all, and the next call goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from realmbench.errors import OptionError, UnknownNameError
from realmbench.files import cache_dir, lock_if_free
from realmbench.pretrainings import ArtifactRecord
from realmbench.records import read_records
from realmbench.suite import Suite
from realmbench.sweep import Job, plan_jobs, run_jobs

MODELS = """
import os, signal
from realmbench.baselines.mean import Mean

class Fails(Mean):
    "Fails on one session."
    def adapt(self, session, context, artifact=None):
        if session.name == "a2":
            raise ValueError("broken on purpose")
        super().adapt(session, context, artifact)

class Dies(Mean):
    "Is killed, as for want of memory."
    def adapt(self, session, context, artifact=None):
        os.kill(os.getpid(), signal.SIGKILL)

class Leaves(Mean):
    "Ends its process as if all were done."
    code = 0
    def adapt(self, session, context, artifact=None):
        os._exit(self.code)

class LeavesWithThree(Leaves):
    "The same, with another code."
    code = 3
"""
# In the processes of a sweep this file ends before the class is there.
EXITS = """
import multiprocessing, sys
from realmbench.baselines.mean import Mean

if multiprocessing.parent_process() is not None:
    sys.exit(0)

class Exits(Mean):
    "Exits where it is imported."
"""


def suite(toy_name: str, *models: str, **entry: Any) -> Suite:
    return Suite.model_validate(
        {"name": "swept", "runs": [{"models": models, "datasets": [toy_name], "preset": "tiny", **entry}]}
    )


def test_a_job_is_a_fold_and_a_seed(toy_name: str, tmp_path: Path) -> None:
    jobs = plan_jobs(suite(toy_name, "wiener", "mean", seeds=2), tmp_path, None)
    assert [(job.request.model, job.fold, job.request.seed_numbers) for job in jobs] == [
        (model, fold, (seed,)) for model in ("wiener", "mean") for fold in "ab" for seed in (0, 1)
    ]
    assert all(job.recorded == 0 for job in jobs)
    assert jobs[0].name.endswith("blocked-v1, bands50, fold a, seed 0")


def test_device_is_for_decoders_that_can_use_it(toy_name: str, tmp_path: Path) -> None:
    jobs = plan_jobs(suite(toy_name, "wiener", "gru"), tmp_path, None, device="meta")
    assert {(job.request.model, job.request.device) for job in jobs} == {("wiener", "cpu"), ("gru", "meta")}
    with pytest.raises(OptionError, match=r"suite swept, gru on .*--device nowhere cannot be used here"):
        plan_jobs(suite(toy_name, "wiener", "gru"), tmp_path, None, device="nowhere")
    with pytest.raises(OptionError, match="--device cuda: no model that is to run can use it"):
        plan_jobs(suite(toy_name, "wiener"), tmp_path, None, device="cuda")
    with pytest.raises(UnknownNameError, match="suite swept, wienr on"):
        plan_jobs(suite(toy_name, "wienr"), tmp_path, None, device="cuda")


def test_what_cannot_be_run_is_refused_before_anything_runs(toy_name: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"suite swept, wienr on .*Did you mean 'wiener'"):
        plan_jobs(suite(toy_name, "mean", "wienr"), tmp_path, None)
    with pytest.raises(OptionError, match=r"suite swept, mean on .*decoder"):
        plan_jobs(suite(toy_name, "mean", set=["decoder.hidden=3"]), tmp_path, None)
    with pytest.raises(OptionError, match=r"lists mean on .*, a2, seed 0 twice"):
        plan_jobs(suite(toy_name, "mean", "mean"), tmp_path, None)
    with pytest.raises(OptionError, match="--processes 0"):
        run_jobs([], tmp_path, None, 0)


def test_failures_are_listed_and_take_nothing_else_with_them(toy_name: str, tmp_path: Path) -> None:
    file = tmp_path / "models.py"
    file.write_text(MODELS)
    exits = tmp_path / "exits.py"
    exits.write_text(EXITS)
    models = (f"{file}:Fails", f"{file}:Dies", f"{file}:Leaves", f"{file}:LeavesWithThree", f"{exits}:Exits", "mean")
    wanted = suite(toy_name, *models, sessions=["a2"])
    results = tmp_path / "results"
    started: list[Job] = []
    outcomes = run_jobs(plan_jobs(wanted, results, None), results, None, 2, on_start=started.append)
    by_model = {outcome.job.request.model.rpartition(":")[2]: outcome for outcome in outcomes}
    assert len(started) == 6
    assert {name: outcome.status for name, outcome in by_model.items()} == {
        "Fails": "failed",
        "Dies": "failed",
        "Leaves": "failed",
        "LeavesWithThree": "failed",
        "Exits": "failed",
        "mean": "done",
    }
    assert "broken on purpose" in by_model["Fails"].reason
    assert "without a word" in by_model["Dies"].reason
    assert "ended with code 0 without a word" in by_model["Leaves"].reason
    assert "ended with code 3 without a word" in by_model["LeavesWithThree"].reason
    assert "exits.py cannot be imported: SystemExit: 0" in by_model["Exits"].reason
    assert "broken on purpose" in by_model["Fails"].log.read_text()
    assert [record.model for record in read_records(results)] == ["mean"]
    # The next call knows what is recorded, and tries the others again.
    again = plan_jobs(wanted, results, None)
    recorded = {job.request.model.rpartition(":")[2]: job.recorded for job in again}
    assert recorded == {"Fails": 0, "Dies": 0, "Leaves": 0, "LeavesWithThree": 0, "Exits": 0, "mean": 1}
    assert all(job.recorded == 0 for job in plan_jobs(wanted, results, None, fresh=True))


def test_a_sweep_that_goes_on_starts_with_what_has_no_record(toy_name: str, tmp_path: Path) -> None:
    [outcome] = run_jobs(plan_jobs(suite(toy_name, "mean", sessions=["a2"]), tmp_path, None), tmp_path, None, 1)
    assert outcome.status == "done"
    started: list[Job] = []
    jobs = plan_jobs(suite(toy_name, "mean", "wiener", sessions=["a2"]), tmp_path, None)
    run_jobs(jobs, tmp_path, None, 1, on_start=started.append)
    assert [(job.request.model, job.recorded) for job in started] == [("wiener", 0), ("mean", 1)]
    anew: list[Job] = []
    jobs = plan_jobs(suite(toy_name, "mean", "wiener", sessions=["a2"]), tmp_path, None, fresh=True)
    run_jobs(jobs, tmp_path, None, 1, on_start=anew.append)
    assert [job.request.model for job in anew] == ["mean", "wiener"]


def test_processes_that_want_the_same_teacher_train_it_once(toy_name: str, tmp_path: Path) -> None:
    short = [f"train.{stage}.{key}" for stage in ("teacher", "student") for key in ("updates=30", "window_s=1")]
    runs = [
        {
            "models": ["realm-student"],
            "datasets": [toy_name],
            "preset": "tiny",
            "sessions": ["a2"],
            "set": [*short, f"train.finetune.updates={updates}"],
        }
        for updates in (1, 2)
    ]
    before = set((cache_dir() / "artifacts").glob("*.json"))
    wanted = Suite.model_validate({"name": "swept", "runs": runs})
    results = tmp_path / "results"
    outcomes = run_jobs(plan_jobs(wanted, results, None), results, None, 2)
    assert [outcome.status for outcome in outcomes] == ["done", "done"], outcomes
    made = [
        ArtifactRecord.model_validate_json(path.read_text())
        for path in set((cache_dir() / "artifacts").glob("*.json")) - before
    ]
    assert sorted(record.kind for record in made) == ["realm-student", "realm-teacher"]
    first, second = read_records(results)
    assert [use.hash for use in first.artifacts] == [use.hash for use in second.artifacts]
    assert [use.seconds for use in first.artifacts] == [use.seconds for use in second.artifacts]


def test_sweeps_side_by_side_share_the_jobs(toy_name: str, tmp_path: Path) -> None:
    file, tally, results = tmp_path / "models.py", tmp_path / "tally", tmp_path / "results"
    file.write_text(
        "import time\nfrom realmbench.baselines.mean import Mean\n"
        "class Counts(Mean):\n    'Says that it runs.'\n    def adapt(self, session, context, artifact=None):\n"
        f"        with open({str(tally)!r}, 'a') as file:\n            file.write('ran ')\n"
        "        time.sleep(0.5)\n        super().adapt(session, context, artifact)\n"
    )
    jobs = plan_jobs(suite(toy_name, f"{file}:Counts", sessions=["a2"], seeds=2), results, None)
    with ThreadPoolExecutor(2) as sweeps:
        both = list(sweeps.map(lambda _: run_jobs(jobs, results, None, 1), range(2)))
    assert [[outcome.status for outcome in outcomes] for outcomes in both] == [["done"] * 2] * 2
    assert len(read_records(results)) == 2
    assert tally.read_text().split() == ["ran"] * 2


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_sweep_ends_its_jobs_and_keeps_what_is_finished(
    how: signal.Signals, toy_name: str, tmp_path: Path
) -> None:
    file, sign = tmp_path / "models.py", tmp_path / "alive"
    file.write_text(
        "import time\nfrom pathlib import Path\nfrom realmbench.baselines.mean import Mean\n"
        "class Endless(Mean):\n    'Never ends.'\n    def adapt(self, session, context, artifact=None):\n"
        f"        while True:\n            Path({str(sign)!r}).write_text(str(time.time()))\n"
        "            time.sleep(0.05)\n"
    )
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\npreset = "tiny"\nsessions = ["a2"]\n'
        f'[[runs]]\nmodels = ["mean", "{file}:Endless"]\ndatasets = ["{toy_name}"]\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "realmbench", "sweep", "mine.toml", "--processes", "1"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not sign.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    if how is signal.SIGINT:
        os.killpg(process.pid, how)  # a terminal's Ctrl-C reaches the jobs too
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130, stderr
        assert "the same command goes on from there" in stderr
        assert "Traceback" not in stderr
    else:
        process.send_signal(how)
        process.wait(timeout=60)
    last = 0
    for _ in range(10):
        if (now := sign.stat().st_mtime_ns) == last:
            break
        last = now
        time.sleep(3)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError("the job goes on without its sweep")
    assert [record.model for record in read_records(tmp_path / "results")] == ["mean"]


def test_command_lists_runs_and_reports(toy_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from realmbench.cli import app

    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\n[[runs]]\nmodels = ["mean"]\ndatasets = ["{toy_name}"]\npreset = "tiny"\n')
    results = ["--results-dir", str(tmp_path / "results")]
    listed = CliRunner().invoke(app, ["sweep", str(path), "--dry-run", "--json", *results])
    assert [(row["runs"], row["recorded"]) for row in json.loads(listed.stdout)] == [(1, 0), (1, 0)]
    assert not (tmp_path / "results").exists()
    done = CliRunner().invoke(app, ["sweep", str(path), "--json", "--processes", "2", *results])
    assert done.exit_code == 0, done.output
    assert [row["status"] for row in json.loads(done.stdout)] == ["done", "done"]
    listed = CliRunner().invoke(app, ["sweep", str(path), "--dry-run", "--json", *results])
    assert [(row["runs"], row["recorded"]) for row in json.loads(listed.stdout)] == [(1, 1), (1, 1)]
    refused = CliRunner().invoke(app, ["sweep", str(path), "--dry-run", "--processes", "0", *results])
    assert refused.exit_code == 2
    damaged, *_ = (tmp_path / "results").rglob("*.seed0.json")
    damaged.write_text("{")
    mended = CliRunner().invoke(app, ["sweep", str(path), "--json", "--processes", "1", *results])
    assert mended.exit_code == 0, mended.output
    assert json.loads(damaged.read_text())["model"] == "mean"


def test_sweeps_that_begin_afresh_side_by_side_share_the_jobs_too(toy_name: str, tmp_path: Path) -> None:
    jobs = plan_jobs(suite(toy_name, "mean", sessions=["a2"]), tmp_path, None, fresh=True)
    [first] = run_jobs(jobs, tmp_path, None, 1)
    lock = lock_if_free(first.log)
    assert lock is not None
    [path] = tmp_path.rglob("a2.seed0.json")
    begun = path.stat().st_mtime_ns
    with ThreadPoolExecutor(1) as sweeps:
        waiting = sweeps.submit(run_jobs, jobs, tmp_path, None, 1)
        time.sleep(0.5)  # it has begun, and finds the job taken
        first.log.with_suffix(".json").write_text(json.dumps({"reason": "", "fresh": True}))  # as another has done it
        lock.release()
        [outcome] = waiting.result()
    assert outcome.status == "done"
    assert path.stat().st_mtime_ns == begun
    # One after the other each begins afresh, and so does one beside a sweep that only looks at what is there.
    run_jobs(jobs, tmp_path, None, 1)
    assert path.stat().st_mtime_ns > begun
    begun = path.stat().st_mtime_ns
    first.log.with_suffix(".json").write_text(json.dumps({"reason": "", "fresh": False}))
    os.utime(first.log.with_suffix(".json"), (time.time() + 100,) * 2)
    run_jobs(jobs, tmp_path, None, 1)
    assert path.stat().st_mtime_ns > begun


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("decoder.coloured=yes", "set decoder.coloured=yes means true; write that"),
        ("decoder.coloured=false", "set decoder.coloured is what it is without, and .* leave it out"),
        ("data.noise=10", "set data.noise is what it is without, and .* leave it out"),
    ],
)
def test_settings_by_whose_words_no_record_would_be_found_are_refused(
    setting: str, message: str, toy_name: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=f"suite swept, kalman on .*: {message}"):
        plan_jobs(suite(toy_name, "kalman", set=[setting]), tmp_path, None)
    assert plan_jobs(suite(toy_name, "kalman", set=["decoder.coloured=True", "data.noise=9"]), tmp_path, None)
