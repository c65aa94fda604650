"""The runner: records, resuming, failures, shared artifacts, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from realmbench.dataset import Dataset, open_dataset
from realmbench.errors import OptionError, ProtocolError, RealmbenchError, UnknownNameError
from realmbench.files import cache_dir, write_whole
from realmbench.plan import RunRequest, make_plan
from realmbench.recording import Recording
from realmbench.records import RunRecord, read_record, read_records
from realmbench.runner import Events, FailedRunsError, SessionBank, run

Execute = Callable[..., list[RunRecord]]

BROKEN = """
import numpy as np
from realmbench.baselines.mean import Mean

class Broken(Mean):
    "Fails on one session."
    def adapt(self, session, context, artifact=None):
        if session.name == "a2":
            raise ValueError("broken on purpose")
        super().adapt(session, context, artifact)

class Looks(Mean):
    "Predicts the wrong shape."
    def predict(self, x, session):
        return super().predict(x, session)[:-1]

class Bands(Mean):
    "Takes bands alone."
    inputs = ("bands",)

class Exits(Mean):
    "Leaves."
    def adapt(self, session, context, artifact=None):
        raise SystemExit("no licence")
"""


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    return file


def test_one_record_per_session_and_seed_that_reads_back(execute: Execute, toy: Dataset, tmp_path: Path) -> None:
    records = execute(toy, tmp_path, model="wiener", seeds=2)
    assert [(record.session, record.seed) for record in records] == [("a2", 0), ("a2", 1), ("b2", 0), ("b2", 1)]
    assert sorted(read_records(tmp_path), key=lambda r: (r.session, r.seed)) == records
    record = records[0]
    assert 0.2 < record.metrics["r2_axis_mean"] < 0.9
    assert record.metrics["r2_axis_mean"] == pytest.approx(sum(axis.r2 for axis in record.axes) / 2)
    assert record.training_sessions == ["a2"]
    assert record.latency is not None
    assert record.flops_per_step == 2 * (record.parameters_deployed - 2)


def test_blocks_add_up_to_the_scores(execute: Execute, toy: Dataset, tmp_path: Path) -> None:
    record = execute(toy, tmp_path, model="wiener")[0]
    for axis, scores in enumerate(record.axes):
        assert sum(block.sse[axis] for block in record.blocks) == pytest.approx(scores.sse)
        assert sum(block.sst[axis] for block in record.blocks) == pytest.approx(scores.sst)
        count = sum(block.samples for block in record.blocks)
        total = sum(block.sum[axis] for block in record.blocks)
        squares = sum(block.sum_of_squares[axis] for block in record.blocks)
        assert squares - total**2 / count == pytest.approx(scores.sst, rel=1e-5)
    assert sum(block.samples for block in record.blocks) == record.test_s * 50


def test_finished_runs_are_reused_until_something_changes(execute: Execute, toy: Dataset, tmp_path: Path) -> None:
    reused: list[bool] = []
    notes: list[str] = []
    events = Events(done=lambda _record, again: reused.append(again), note=notes.append)
    execute(toy, tmp_path, events, model="mean")
    execute(toy, tmp_path, events, model="mean")
    assert reused == [False, False, True, True]
    path = next(tmp_path.rglob("a2.seed0.json"))
    for key, reason in (("data_key", "data, split or front end"), ("code", "the code has changed")):
        stale = json.loads(path.read_text()) | {key: "another"}
        path.write_text(json.dumps(stale))
        execute(toy, tmp_path, events, model="mean")
        assert reason in notes.pop()
    assert reused[4:] == [False, True] * 2
    # A mark that a later attempt has left beside a record that stands is nothing to come back to.
    mark = path.with_suffix(".failed.json")
    mark.write_text("{}")
    execute(toy, tmp_path, events, model="mean")
    assert reused[8:] == [True, True]
    assert not mark.exists()
    execute(toy, tmp_path, events, model="mean", fresh=True)
    assert reused[10:] == [False, False]


def test_changed_data_of_a_pretraining_session_run_it_again(
    execute: Execute, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reused: list[bool] = []
    notes: list[str] = []
    events = Events(done=lambda _record, again: reused.append(again), note=notes.append)
    short = {"student.updates": 2, "finetune.updates": 2}

    def runs() -> list[RunRecord]:
        reused.clear()
        return execute(toy, tmp_path, events, model="realm-pooled", train=short)

    pooled = runs()[0]
    assert pooled.pretraining_key is not None
    assert execute(toy, tmp_path, model="mean")[0].pretraining_key is None
    runs()
    assert reused == [True, True]
    load = type(toy).load

    def mended(self: Dataset, session: str) -> Recording:
        recording = load(self, session)
        return replace(recording, lfp=2 * recording.lfp) if session == "a0" else recording

    monkeypatch.setattr(type(toy), "load", mended)
    again = runs()[0]
    assert reused == [False, True]  # fold b has other sessions
    assert "the data of its pretraining have changed since" in notes.pop()
    assert again.pretraining_key != pooled.pretraining_key
    # A session that is not there any more is a change, and no failure.
    sessions, folds = type(toy).sessions, type(toy).folds
    monkeypatch.setattr(type(toy), "sessions", lambda self: [info for info in sessions(self) if info.name != "a0"])
    fewer = {"a": ("a1",), "b": ("b0", "b1")}
    monkeypatch.setattr(
        type(toy),
        "folds",
        lambda self: [fold.model_copy(update={"pretrain": fewer[fold.name]}) for fold in folds(self)],
    )
    assert runs()[0].training_sessions == ["a1", "a2"]
    assert reused == [False, True]
    # A record from before this was kept is believed.
    path = next(tmp_path.rglob("realm-pooled*/a2.seed0.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pretraining_key": None}))
    runs()
    assert reused == [True, True]


def test_damaged_record_is_run_again(execute: Execute, toy: Dataset, tmp_path: Path) -> None:
    execute(toy, tmp_path, model="mean")
    path = next(tmp_path.rglob("a2.seed0.json"))
    path.write_text(path.read_text()[:100])
    with pytest.raises(RealmbenchError, match="is not a run record"):
        read_record(path)
    assert len(execute(toy, tmp_path, model="mean")) == 2
    assert read_record(path).session == "a2"


def test_changed_options_never_share_a_file(execute: Execute, toy: Dataset, tmp_path: Path) -> None:
    execute(toy, tmp_path, model="wiener")
    execute(toy, tmp_path, model="wiener", options={"lag_step": 2})
    folders = {path.parent.name for path in tmp_path.rglob("*.json")}
    assert len(folders) == 2
    assert "wiener.tiny" in folders
    execute(toy, tmp_path, model="wiener", options={"lag_step": 5})
    assert {path.parent.name for path in tmp_path.rglob("*.json")} == folders  # the default, spelt out


def test_changed_data_never_share_a_file(execute: Execute, toy: Dataset, toy_name: str, tmp_path: Path) -> None:
    plain = execute(toy, tmp_path, model="mean")
    changed = execute(open_dataset(toy_name, options={"noise": 12.0}), tmp_path, model="mean")
    assert len(read_records(tmp_path)) == len(plain) + len(changed)
    assert changed[0].data_options == {"noise": 12.0}


def test_failed_run_leaves_a_traceback_and_the_others_go_on(
    execute: Execute, toy: Dataset, tmp_path: Path, broken: Path
) -> None:
    results = tmp_path / "results"
    with pytest.raises(RealmbenchError, match=r"a2, seed 0: ValueError: broken on purpose \(broken.py, line 9\)"):
        execute(toy, results, model=f"{broken}:Broken")
    with pytest.raises(FailedRunsError) as caught:
        execute(toy, results, model=f"{broken}:Broken")
    assert [record.session for record in caught.value.records] == ["b2"]
    failure = next(results.rglob("a2.seed0.failed.json"))
    assert any("broken on purpose" in line for line in json.loads(failure.read_text())["traceback"])
    assert [record.session for record in read_records(results)] == ["b2"]
    # The mended file lies in another folder, because one process imports a file once.
    mended = tmp_path / "mended" / broken.name
    mended.parent.mkdir()
    mended.write_text(BROKEN.replace('raise ValueError("broken on purpose")', "pass"))
    assert len(execute(toy, results, model=f"{mended}:Broken")) == 2
    assert not failure.exists()


def test_wrong_shape_of_a_prediction_is_named(execute: Execute, toy: Dataset, tmp_path: Path, broken: Path) -> None:
    with pytest.raises(RealmbenchError, match=r"predict returned \(\d+, 2\), expected"):
        execute(toy, tmp_path, model=f"{broken}:Looks")


def test_target_that_does_not_vary_is_named(execute: Execute, toy: Dataset, tmp_path: Path) -> None:
    class Still(type(toy)):  # type: ignore[misc]
        def load(self, session: str) -> Recording:
            recording = super().load(session)
            recording.behaviour[:, 1] = 2.0
            return recording

        @property
        def identity(self) -> str:
            return "still"

    with pytest.raises(RealmbenchError, match="velocity_y is constant over the test blocks"):
        execute(Still(), tmp_path, model="mean")


def test_what_waits_for_a_little_of_the_future_is_timed_as_it_runs(
    execute: Execute, toy: Dataset, tmp_path: Path
) -> None:
    record = execute(toy, tmp_path, model="wiener-smoother")[0]
    assert (record.causal, record.look_ahead_s) == (False, 0.42)
    assert record.latency is not None
    assert record.stream_bytes is not None
    whole = execute(toy, tmp_path, model="kalman-smoother")[0]
    assert (whole.look_ahead_s, whole.latency, whole.stream_bytes) == (None, None, None)


def test_decoder_that_exits_ends_its_own_runs_alone(
    execute: Execute, toy: Dataset, tmp_path: Path, broken: Path
) -> None:
    with pytest.raises(FailedRunsError, match=r"SystemExit: no licence \(and 1 more failures\)"):
        execute(toy, tmp_path, model=f"{broken}:Exits")


def test_artifacts_of_a_file_are_of_all_its_options(toy: Dataset, tmp_path: Path) -> None:
    """Of ours they are of what their stage names, so that students share a teacher."""
    file = tmp_path / "mine.py"
    file.write_text("from realmbench.realm.decoders import RealmStudent\n\nclass Mine(RealmStudent):\n    'Mine.'\n")
    keys = {}
    for model in (f"{file}:Mine", "realm-student"):
        plans = [
            make_plan(RunRequest(model, preset="tiny", train={"finetune.learning_rate": rate}), toy)
            for rate in (1e-3, 2e-3)
        ]
        stores = [plan.context(0, lambda _text, _share: None).artifacts for plan in plans]
        keys[model] = {store.key("teacher", {}, [], 0) for store in stores}
    assert [len(each) for each in keys.values()] == [2, 1]


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"model": "grü"}, UnknownNameError, "Did you mean 'gru'"),
        ({"model": "gru", "protocol": "blocked"}, UnknownNameError, "Did you mean 'blocked-v1'"),
        ({"model": "gru", "preset": "smal"}, UnknownNameError, "Did you mean 'small'"),
        ({"model": "gru", "front_end": "bands"}, UnknownNameError, "Did you mean 'bands50'"),
        ({"model": "gru", "sessions": ["a3"]}, UnknownNameError, "unknown held-out session of toy 'a3'"),
        ({"model": "gru", "sessions": ["a2", "a2"]}, OptionError, "--sessions a2,a2 names a session twice"),
        ({"model": "gru", "options": {"hiden": 3}}, OptionError, "Did you mean 'hidden'"),
        ({"model": "wiener", "train": {"updates": 3}}, OptionError, "does not apply"),
        ({"model": "gru", "seeds": 0}, OptionError, "at least one seed"),
        ({"model": "gru", "device": "quantum"}, OptionError, "cannot be used here"),
        ({"model": "wiener", "device": "meta"}, OptionError, "runs on the CPU alone"),
        ({"model": "gru", "suite": "audit"}, OptionError, "holds audits and nothing else"),
        ({"model": "gru", "suite": "x", "audit": "shifted-target"}, OptionError, "leave --suite x out"),
        (
            {"model": "gru", "train": {"updates": 0, "learning_rate": 0.1}},
            OptionError,
            "train.learning_rate: .* nothing",
        ),
        (
            {"model": "masked-lfp", "train": {"pretrain.updates": 0, "pretrain.patience": 3}},
            OptionError,
            "train.pretrain.patience: train.pretrain.updates=0 trains nothing",
        ),
        ({"model": "gru", "audit": "shift"}, UnknownNameError, "Did you mean 'shifted-target'"),
    ],
)
def test_refusals_come_before_any_work(
    execute: Execute, toy: Dataset, tmp_path: Path, request_: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        execute(toy, tmp_path, **request_)
    assert not any(tmp_path.rglob("*.json"))


def test_front_end_of_the_wrong_kind_is_refused(execute: Execute, toy: Dataset, tmp_path: Path, broken: Path) -> None:
    with pytest.raises(OptionError, match="accepts bands input; front end lfp100 gives broadband"):
        execute(toy, tmp_path, model=f"{broken}:Bands", front_end="lfp100")


def test_protocol_may_refuse_decoders_that_look_ahead(
    execute: Execute, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from realmbench.protocols import BlockedV1

    monkeypatch.setattr(BlockedV1, "causal_only", True)
    with pytest.raises(ProtocolError, match="takes causal decoders only; bigru looks ahead"):
        execute(toy, tmp_path, model="bigru")


def test_shifted_target_scores_nothing_and_is_kept_apart(execute: Execute, toy: Dataset, tmp_path: Path) -> None:
    record = execute(toy, tmp_path, model="wiener", audit="shifted-target")[0]
    assert record.metrics["r2_axis_mean"] < 0.05
    assert (record.suite, record.audit) == ("audit", "shifted-target")
    assert execute(toy, tmp_path, model="wiener")[0].metrics["r2_axis_mean"] > 0.2


def test_same_seed_gives_the_same_numbers(execute: Execute, toy: Dataset, tmp_path: Path) -> None:
    runs = [execute(toy, tmp_path / folder, model="gru", sessions=["a2"], train={"updates": 20})[0] for folder in "ab"]
    assert runs[0].metrics == runs[1].metrics
    other = execute(toy, tmp_path / "c", model="gru", sessions=["a2"], train={"updates": 20}, seeds=2)
    assert other[1].metrics != runs[0].metrics


def test_damaged_cache_is_made_again(execute: Execute, toy_name: str, tmp_path: Path) -> None:
    dataset = open_dataset(toy_name, options={"noise": 13.0})
    first = execute(dataset, tmp_path / "a", model="wiener", sessions=["a2"])
    newest = sorted((cache_dir() / "features").iterdir(), key=lambda path: path.stat().st_mtime_ns)[-2:]
    for path in newest:
        path.write_bytes(b"broken")
    assert execute(dataset, tmp_path / "b", model="wiener", sessions=["a2"])[0].metrics == first[0].metrics


@pytest.mark.parametrize("protocol", ["blocked-v1", "calibration-v1"])
def test_honest_protocols_hand_no_held_out_session_to_pretraining(toy: Dataset, tmp_path: Path, protocol: str) -> None:
    """A decoder that stops its pretraining on them finds none; under a protocol that is marked as leaky it does."""
    train = {"teacher.updates": 0, "student.updates": 1, "finetune.updates": 0}
    request = RunRequest(
        model="realm-student", protocol=protocol, preset="tiny", options={"select_on": "held-out"}, train=train
    )
    plan = make_plan(request, toy)
    bank = SessionBank(toy, Events().stage)
    with pytest.raises(FailedRunsError, match="an honest protocol does not hand them out"):
        run(plan, toy, tmp_path, Events(), bank)
    leaky = type("Leaky", (type(plan.protocol),), {"leaky": True})()
    records = run(replace(plan, protocol=leaky), toy, tmp_path, Events(), bank)
    assert records
    assert all(record.leaky for record in records)


def test_pretraining_that_warns_is_heard_in_the_records_of_its_fold(
    execute: Execute, toy: Dataset, tmp_path: Path
) -> None:
    """Where it was trained, and where its artifact comes from the store."""
    train = {"student.updates": 2, "student.window_s": 100.0, "finetune.updates": 0}
    [trained, *_], [found, *_] = (execute(toy, tmp_path / name, model="realm-pooled", train=train) for name in "ab")
    for record in (trained, found):
        cut = [line for line in record.warnings if "instead of 100, which is longer than the shortest" in line]
        assert len(cut) == 1
    assert found.artifacts == trained.artifacts  # with the seconds of the only training


def test_what_another_process_is_writing_is_no_record_yet(execute: Execute, toy: Dataset, tmp_path: Path) -> None:
    execute(toy, tmp_path, model="mean")
    path = next(tmp_path.rglob("a2.seed0.json"))
    text, seen = path.read_text(), []

    def write(place: Path) -> None:
        for part in (text[:100], text):
            place.write_text(part)
            seen.append(len(read_records(tmp_path)))

    write_whole(path, write)
    assert seen == [2, 2]
    path.unlink()
    with pytest.raises(RealmbenchError, match="cannot read"):
        read_record(path)
