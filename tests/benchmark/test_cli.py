"""The command line as a user meets it: a real process, its output and its exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from realmbench.realm.options import StudentOptions
from realmbench.records import read_records


def realmbench(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "realmbench", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )


def test_run_then_leaderboard(tmp_path: Path, toy_name: str) -> None:
    done = realmbench(
        "run", "--model", "mean", "--model", "wiener", "--dataset", toy_name, "--preset", "tiny", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "The best causal decoder here is wiener (tiny)" in done.stdout
    assert len(list(tmp_path.rglob("*.seed0.json"))) == 4
    board = realmbench("leaderboard", folder=tmp_path)
    assert board.returncode == 0, board.stderr
    text = (tmp_path / "leaderboard.md").read_text()
    assert text.index("| wiener (tiny) |") < text.index("| mean (tiny) |")
    # Another suite's file is left alone.
    (tmp_path / "results" / "local").rename(tmp_path / "results" / "mine")
    board = realmbench("leaderboard", "--suite", "mine", folder=tmp_path)
    assert board.returncode == 2
    assert "leaderboard.md is that of suite local; say by --output" in board.stderr
    assert (tmp_path / "leaderboard.md").read_text() == text
    assert realmbench("leaderboard", "--output", "mine.md", folder=tmp_path).returncode == 0


def test_run_computes_with_the_threads_it_is_given(tmp_path: Path, toy_name: str) -> None:
    run = ["run", "--model", "mean", "--dataset", toy_name, "--preset", "tiny", "--json"]
    for given, used in ((), 1), (("--threads", "2"), 2):
        done = realmbench(*run, *given, "--fresh", folder=tmp_path, OMP_NUM_THREADS="3")
        assert [record["threads"] for record in json.loads(done.stdout)] == [used, used]
    refused = realmbench(*run, "--threads", "0", folder=tmp_path)
    assert refused.returncode == 2
    assert "--threads" in refused.stderr
    change = ["--dataset", toy_name, "--preset", "tiny", "--set", "train.updates=1", "--json", "--threads", "2"]
    fitted = realmbench("finetune", "--model", "gru", "--session", "a2", "--output", "fitted", *change, folder=tmp_path)
    assert json.loads(fitted.stdout)["threads"] == 2
    tuned = realmbench("tune", "--model", "gru", "--trials", "1", *change, folder=tmp_path)
    assert [record["threads"] for record in json.loads(tuned.stdout)] == [2]


def test_check_reports_and_exits_by_the_verdict(tmp_path: Path, toy_name: str) -> None:
    good = realmbench("check", "mean", toy_name, "--short", folder=tmp_path)
    assert good.returncode == 0, good.stderr
    assert "mean passes all" in good.stdout
    assert "toy passes all checks (1 of 6 sessions loaded)" in good.stdout
    (tmp_path / "bad.py").write_text(
        "from realmbench.baselines.mean import Mean\n"
        "class Bad(Mean):\n    'Forgets itself.'\n    def arrays(self): return {'mean': 1 + self._mean}\n"
    )
    bad = realmbench("check", "bad.py:Bad", "--short", "--json", folder=tmp_path)
    assert bad.returncode == 1
    [report] = json.loads(bad.stdout)
    assert [check["name"] for check in report["checks"] if check["status"] == "fail"] == ["save and load"]
    refused = realmbench("check", toy_name, "--device", "meta", folder=tmp_path)
    assert refused.returncode
    assert "--device does not apply to" in refused.stderr


def test_compare_and_figures_read_what_runs_wrote(tmp_path: Path, toy_name: str) -> None:
    run = ["run", "--model", "mean", "--model", "wiener", "--dataset", toy_name, "--preset", "tiny"]
    assert realmbench(*run, "--protocol", "calibration-v1", folder=tmp_path).returncode == 0
    compared = realmbench("compare", "wiener", "mean", folder=tmp_path)
    assert "wiener (tiny) minus mean (tiny)" in compared.stdout
    assert "nothing can be said about any other session" in compared.stdout
    [group] = json.loads(realmbench("compare", "wiener", "mean", "--json", folder=tmp_path).stdout)
    assert group["differences"][0]["ahead"] == 2
    early = realmbench("compare", "wiener", "mean", "--calibration", "15", folder=tmp_path)
    assert "wiener (tiny) minus mean (tiny), 15 s of calibration" in early.stdout
    both = ("--calibration", "15", "--calibration", "30", "--figures", "gains")
    gains = realmbench("compare", "wiener", "mean", *both, folder=tmp_path).stdout
    # What stands in a column of the table of sessions is what its number says below.
    rows = re.findall(r"^ [ab]2 +(\S+) +(\S+)", gains, re.MULTILINE)
    for column, seconds in enumerate((15, 30)):
        said = rf"^\({column + 1}\) wiener \(tiny\) minus mean \(tiny\), {seconds} s of calibration: (\S+) R2"
        [mean] = re.findall(said, gains, re.MULTILINE)
        assert float(mean) == pytest.approx(sum(float(row[column]) for row in rows) / 2, abs=0.0011)
    assert len(list((tmp_path / "gains").glob("gain-*.svg"))) == 1
    assert "repeat --calibration" in realmbench("compare", "wiener", "mean", *both[2:], folder=tmp_path).stderr
    never = realmbench("compare", "wiener", "mean", "--calibration", "7", folder=tmp_path)
    assert never.returncode == 2
    assert "has no score with 7 s of calibration; it has 15" in " ".join(never.stderr.split())
    (tmp_path / "own.py").write_text("from realmbench.baselines.mean import Mean\nclass Own(Mean):\n    'Own.'\n")
    assert (
        realmbench("run", "--model", "own.py:Own", *run[5:], "--protocol", "calibration-v1", folder=tmp_path).returncode
        == 0
    )
    for name in ("own.py:Own", "own:Own"):
        assert "wiener (tiny) minus own:Own (tiny)" in realmbench("compare", "wiener", name, folder=tmp_path).stdout
    small = [*run[:3], *run[5:-2], "--preset", "small", "--suite", "other", "--protocol", "calibration-v1"]
    assert realmbench(*small, folder=tmp_path).returncode == 0
    sizes = ("compare", "mean (small)", "mean (tiny)", "--suite", "other", "--suite")
    assert "mean (small) minus mean (tiny): +0.000 R2" in realmbench(*sizes, "local", folder=tmp_path).stdout
    assert "unknown method among the records 'mean (tiny)'" in realmbench(*sizes, "other", folder=tmp_path).stderr
    absent = realmbench("compare", "wiener", "mean", "--suite", "smoke", folder=tmp_path)
    assert "unknown suite in results (`realmbench sweep` runs those of `list suites`) 'smoke'" in absent.stderr
    assert realmbench("figures", "--suite", "local", folder=tmp_path).returncode == 0
    assert len(list((tmp_path / "figures").glob("calibration-*.svg"))) == 1
    wrong = realmbench("compare", "wiener", "mean", "--dataset", "tyo", "--suite", "local", folder=tmp_path)
    assert "unknown dataset among the records 'tyo'. Did you mean 'toy'" in wrong.stderr


def test_json_is_clean_on_standard_output(tmp_path: Path, toy_name: str) -> None:
    done = realmbench("run", "--model", "mean", "--dataset", toy_name, "--preset", "tiny", "--json", folder=tmp_path)
    assert [record["session"] for record in json.loads(done.stdout)] == ["a2", "b2"]
    board = realmbench("leaderboard", "--json", folder=tmp_path)
    assert json.loads(board.stdout)[0]["rows"][0]["model"] == "mean"


def test_what_a_decoder_prints_goes_to_standard_error(tmp_path: Path, toy_name: str) -> None:
    (tmp_path / "talks.py").write_text(
        "from realmbench.baselines.mean import Mean\n"
        "print('I am imported')\n"
        "class Talks(Mean):\n"
        "    'Prints.'\n"
        "    def __init__(self, *options):\n"
        "        print('I am made')\n"
        "        super().__init__(*options)\n"
        "    def adapt(self, session, context, artifact=None):\n"
        "        print('I learn')\n"
        "        super().adapt(session, context, artifact)\n"
    )
    run = ("run", "--model", "talks.py:Talks", "--dataset", toy_name, "--preset", "tiny", "--json")
    # What has been checked is told, though the next one's files are not there.
    check = ("check", "talks.py:Talks", "open-field", "--data-root", "nowhere", "--short", "--json")
    for command, code in ((run, 0), (check, 2)):
        done = realmbench(*command, folder=tmp_path)
        assert done.returncode == code, done.stderr
        assert all(words in done.stderr for words in ("I am imported", "I am made", "I learn"))
        assert len(json.loads(done.stdout)) == {run: 2, check: 1}[command]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--model", "gruu", "--dataset", "TOY"], "Did you mean 'gru'"),
        (
            ["run", "--model", "gru", "--model", "wiener", "--dataset", "TOY", "--set", "decoder.hidden=32"],
            "wiener: unknown",
        ),
        (["run", "--model", "gru", "--dataset", "synthetic-rech"], "Did you mean 'synthetic-reach'"),
        (["run", "--model", "gru", "--dataset", "synthetic-reach:hrd"], "Did you mean 'hard'"),
        (["run", "--model", "gru", "--dataset", "TOY", "--set", "decoder.x=1"], "unknown option decoder."),
        (["run", "--model", "gru", "--dataset", "TOY", "--set", "data.seconds=20"], "too short for blocked-v1"),
        (["run", "--model", "gru", "--dataset", "TOY", "--set", "data.damage=other clock"], "do not overlap"),
        (["run", "--model", "gru", "--dataset", "TOY", "--set", "data.damage=all constant"], "no usable LFP channel"),
        (["run", "--model", "gru", "--dataset", "open-field", "--data-root", "nowhere"], "data prepare open-field"),
        (["leaderboard"], "holds no run records"),
        (["show", "realm-studnt"], "Did you mean 'realm-student'"),
        (["list", "model"], "Did you mean 'models'"),
        (["check", "wienr"], "Did you mean 'wiener'"),
        (["check", "wiener", "--set", "train.updates=3"], "only --set data. applies"),
        (["check", "open-field", "--dataset", "TOY"], "which is a dataset itself"),
        (["check", "open-field", "--data-root", "nowhere"], "data prepare open-field"),
        (["compare", "gru", "wiener"], "holds no run records"),
        (["sweep", "smok"], "Did you mean 'smoke'"),
        (["sweep", "absent.toml"], "cannot read absent.toml"),
        (["figures"], "holds no run records"),
        (["run", "--model", "mean", "--model", "mean", "--dataset", "TOY"], "--model mean is given twice"),
        (["run", "--model", "a/d.py:M", "--model", "b/d.py:M", "--dataset", "TOY"], "records call both d:M"),
        (["leaderboard", "--json", "--output", "x.md"], "leave --output out"),
        (["run", "--model", "mean", "--dataset", "TOY", "--suite", "../x"], "a suite's name has"),
        (["run", "--model", "mean", "--dataset", "TOY", "--device", "tpu"], "--device tpu cannot be used here"),
        (["run", "--model", "mean", "--dataset", "TOY", "--results-dir", "FILE"], "is a file; name a folder"),
        (["figures", "--output", "FILE"], "is a file; name a folder"),
        (["sweep", "smoke", "--model", "tcn"], "unknown model of suite smoke 'tcn'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    tmp_path: Path, toy_name: str, arguments: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    places = {"TOY": toy_name, "FILE": "file/inside"}
    done = realmbench(*[places.get(word, word) for word in arguments], folder=tmp_path)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) <= 5
    assert message in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["realm-student", "synthetic-reach", "open-field", "blocked-v1", "wiener"])
def test_show(tmp_path: Path, name: str) -> None:
    done = realmbench("show", name, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == name


def test_show_names_every_option(tmp_path: Path) -> None:
    """Those too that a record leaves out because they change nothing."""
    shown = json.loads(realmbench("show", "realm-student", "--json", folder=tmp_path).stdout)
    assert set(shown["decoder options (preset small)"]) == set(StudentOptions.model_fields)


def test_show_a_dataset_of_a_file(tmp_path: Path, toy_name: str) -> None:
    assert json.loads(realmbench("show", toy_name, "--json", folder=tmp_path).stdout)["name"] == "toy"


@pytest.mark.parametrize("columns", [None, "100"])
def test_no_number_is_cut_in_a_pipe(
    tmp_path: Path, toy_name: str, columns: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    change = ["--set", "train.learning_rate=0.0012345", "--set", "train.updates=3", "--set", "decoder.dropout=0.3125"]
    done = realmbench("run", "--model", "gru", "--dataset", toy_name, "--preset", "tiny", *change, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    [score] = re.findall(r"R2 (-?\d\.\d{3}), ", done.stdout)  # in words
    table = done.stdout.partition("The best")[0]
    assert score in table
    assert "…" not in table


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_stopped_run_keeps_what_is_finished_and_goes_on(tmp_path: Path, toy_name: str, how: signal.Signals) -> None:
    command = [
        sys.executable, "-m", "realmbench", "run", "--model", "gru", "--dataset", toy_name, "--preset", "tiny",
        "--seeds", "3", "--set", "train.updates=60", "--set", "train.patience=1000",
    ]  # fmt: skip
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # A test run started in the background hands down a switched-off Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while len(list(tmp_path.rglob("*.seed*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=60)
    finished = {path: path.read_bytes() for path in tmp_path.rglob("*.seed*.json")}
    if how == signal.SIGINT:
        assert process.returncode == 130, stderr
        assert "the same command goes on from there" in stderr
        assert not list(tmp_path.rglob("*.tmp*"))
    assert 2 <= len(finished) < 6
    assert len(read_records(tmp_path)) == len(finished)
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert len(list(tmp_path.rglob("*.seed*.json"))) == 6
    assert all(path.read_bytes() == content for path, content in finished.items())


def test_light_commands_do_not_import_heavy_packages(tmp_path: Path) -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from realmbench.cli import app; "
        "codes = [CliRunner().invoke(app, words.split()).exit_code for words in "
        "('--help', 'run --help', 'list models', 'list datasets', 'list protocols', 'list suites')]; "
        "assert codes == [0] * 6, codes; "
        "heavy = {'torch', 'sklearn', 'pandas', 'scipy', 'transformers'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_leaderboard_does_not_import_torch(tmp_path: Path, toy_name: str) -> None:
    realmbench("run", "--model", "mean", "--dataset", toy_name, "--preset", "tiny", folder=tmp_path)
    program = (
        "import sys; from typer.testing import CliRunner; from realmbench.cli import app; "
        "result = CliRunner().invoke(app, ['leaderboard']); assert result.exit_code == 0, result.output; "
        "heavy = {'torch', 'sklearn', 'transformers'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_environment_of_the_tests_is_safe() -> None:
    """The repository's folder `datasets` must never be importable by its bare name."""
    repository = Path(__file__).parents[2]
    assert str(repository) not in [os.path.abspath(entry) for entry in sys.path if entry]


def test_stages_one_by_one(tmp_path: Path, toy_name: str) -> None:
    short = [f"--set=train.{stage}.{key}" for stage in ("teacher", "finetune") for key in ("updates=4", "window_s=1")]
    both = [*short, *(f"--set=train.student.{key}" for key in ("updates=4", "window_s=1"))]
    common = ["--dataset", toy_name, "--preset", "tiny", "--fold", "a"]
    done = realmbench("pretrain", *common, *short, "--output", "teacher", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Checkpoint in teacher." in done.stderr
    done = realmbench(
        "distill", *common, *both, "--teacher", "teacher", "--output", "student", "--json", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kind"] == "realm-student"
    start = ["--from", "student", "--dataset", toy_name]
    done = realmbench("finetune", *start, "--session", "a2", "--output", "fitted", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "results").rglob("a2.seed0.json"))) == 1
    change = ["--set", "train.finetune.updates=2", "--json"]
    done = realmbench("finetune", *start, "--session", "a2", "--output", "shorter", *change, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["train"]["finetune"]["updates"] == 2
    refused = {
        (*start, "--session", "a2", "--model", "gru"): "--model: with --from the checkpoint decides it",
        (*start, "--session", "zz"): "unknown held-out session",
        ("--session", "a2"): "give --from, or --model and --dataset",
        (*start, "--session", "a2", "--set", "decoder.layers=3"): "--set decoder.layers: with --from",
        ("--from", "nowhere", "--session", "a2"): "nowhere is no checkpoint",
        ("--from", "student", "--session", "a2"): "its dataset toy is of a file; name it by --dataset FILE.py:CLASS",
        ("--from", "student", "--dataset", "synthetic-reach:tiny", "--session", "s0-test-d020"): "dataset 'toy', not",
    }
    for arguments, message in refused.items():
        done = realmbench("finetune", *arguments, "--output", "other", folder=tmp_path)
        assert done.returncode == 2, done.stdout
        assert message in done.stderr
    assert not (tmp_path / "other").exists()


def test_benches_are_listed_and_unknown_ones_refused(tmp_path: Path) -> None:
    listed = realmbench("list", "benches", folder=tmp_path)
    assert "ssd" in listed.stdout
    done = realmbench("bench", "sdd", folder=tmp_path)
    assert done.returncode == 2
    assert "Did you mean 'ssd'?" in done.stderr
