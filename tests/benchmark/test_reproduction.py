"""Running records again: what comes out, what it vouches for, and what it must not vouch for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from realmbench.bank import Events, SessionBank
from realmbench.cli import main
from realmbench.dataset import Dataset
from realmbench.errors import OptionError, RealmbenchError, UnknownNameError
from realmbench.plan import RunRequest, make_plan
from realmbench.records import (
    REPRODUCED,
    Reproduction,
    note_reproduction,
    read_record,
    read_records,
    read_reproductions,
    same_code,
    write_record,
)
from realmbench.reproduction import Recorded, choose, reproduce
from realmbench.runner import run

SOURCE = """
from dataclasses import replace
from realmbench.baselines.wiener import Wiener

class Mine(Wiener):
    "A Wiener filter that learns a scaled target."
    def adapt(self, session, context, artifact=None):
        train = tuple(replace(segment, y=(SCALE * segment.y).astype("float32")) for segment in session.train)
        super().adapt(replace(session, train=train), context, artifact)

SCALE = 1.0
"""


def version(folder: Path, scale: str) -> str:
    """Write a version of the model and return its name; a process reads no file of code twice."""
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(SOURCE.replace("SCALE = 1.0", f"SCALE = {scale}"))
    return f"{folder / 'mine.py'}:Mine"


def record(toy: Dataset, results: Path, model: str, **request: Any) -> list[bool]:
    """Run, and return for every run whether its record stood there before."""
    reused: list[bool] = []
    events = Events(done=lambda _record, before: reused.append(before))
    request = {"preset": "tiny", "suite": "s", **request}
    run(make_plan(RunRequest(model=model, **request), toy), toy, results, events, SessionBank(toy, events.stage))
    return reused


def again(results: Path, toy_name: str, model: str = "", **chosen: Any) -> tuple[Recorded, Reproduction]:
    [recorded] = choose(results, "s", **chosen)
    names = {"toy": toy_name, recorded.record.model: model or recorded.record.model}
    return recorded, reproduce(recorded, None, results / "store", Events(), names)


def test_the_same_code_gives_the_same(toy: Dataset, toy_name: str, tmp_path: Path) -> None:
    record(toy, tmp_path, "gru", protocol="calibration-v1", options={"hidden": 8}, train={"updates": 20}, seeds=2)
    recorded, entry = again(tmp_path, toy_name)
    assert (entry.session, entry.seed) == ("a2", 0)  # the first session's lowest seed
    assert entry.exact
    assert entry.r2 == entry.recorded_r2 == recorded.record.metrics["r2_axis_mean"]
    assert read_reproductions(recorded.path.parent) == [entry]
    assert read_record(recorded.path) == recorded.record  # records are never changed
    assert len(read_records(tmp_path, "s")) == 4  # and what stands beside them is none


def test_what_comes_out_the_same_vouches_for_its_folder(toy: Dataset, toy_name: str, tmp_path: Path) -> None:
    assert record(toy, tmp_path, version(tmp_path / "old", "1.0")) == [False, False]
    model = version(tmp_path / "new", "2.0 / 2")
    recorded, entry = again(tmp_path, toy_name, model)
    assert entry.exact
    assert entry.code != entry.recorded_code == recorded.record.code
    assert record(toy, tmp_path, model) == [True, True]
    # Of one of two sessions run anew, tables still know that it is one method.
    recorded.path.unlink()
    assert record(toy, tmp_path, model) == [False, True]
    assert read_record(recorded.path).code == entry.code
    assert len({each.code for each in read_records(tmp_path, "s")}) == 1


def test_what_comes_out_otherwise_vouches_for_nothing(toy: Dataset, toy_name: str, tmp_path: Path) -> None:
    record(toy, tmp_path, version(tmp_path / "old", "1.0"))
    model = version(tmp_path / "new", "1.0 + 1e-6")
    recorded, entry = again(tmp_path, toy_name, model)
    assert not entry.exact
    assert entry.r2 == pytest.approx(entry.recorded_r2, abs=1e-4)
    assert not same_code(recorded.path.parent, entry.code, entry.recorded_code)
    assert record(toy, tmp_path, model) == [False, False]


def test_one_that_comes_out_otherwise_outweighs_the_others(toy: Dataset, toy_name: str, tmp_path: Path) -> None:
    record(toy, tmp_path, "mean")
    recorded, entry = again(tmp_path, toy_name)
    folder = recorded.path.parent
    exact = entry.model_copy(update={"code": "new"})
    note_reproduction(folder, exact)
    assert same_code(folder, entry.recorded_code, "new")
    # On another machine, or of a record from another, rounding says nothing about the code; here it does.
    for key in ("device", "recorded_device"):
        note_reproduction(folder, exact.model_copy(update={"exact": False, key: "another"}))
        assert same_code(folder, entry.recorded_code, "new")
    note_reproduction(folder, exact.model_copy(update={"exact": False}))
    assert not same_code(folder, entry.recorded_code, "new")


@pytest.mark.parametrize("key", ["flops_per_step", "stream_bytes", "parameters_trained", "test_s"])
def test_all_that_is_measured_must_be_the_same(toy: Dataset, toy_name: str, tmp_path: Path, key: str) -> None:
    record(toy, tmp_path, "wiener")
    [recorded] = choose(tmp_path, "s")
    content = json.loads(recorded.path.read_text())
    recorded.path.write_text(json.dumps({**content, key: content[key] + 1}))
    assert not again(tmp_path, toy_name)[1].exact
    recorded.path.write_text(json.dumps({**content, "created": "later", "threads": 2, "seconds": {"fit": 1.0}}))
    assert again(tmp_path, toy_name)[1].exact


def test_a_difference_anywhere_on_the_curve_counts(toy: Dataset, toy_name: str, tmp_path: Path) -> None:
    record(toy, tmp_path, "wiener", protocol="calibration-v1")
    [recorded] = choose(tmp_path, "s")
    content = json.loads(recorded.path.read_text())
    content["curve"][0]["metrics"]["r2_axis_mean"] += 0.5
    recorded.path.write_text(json.dumps(content))
    _, entry = again(tmp_path, toy_name)
    assert entry.r2 == entry.recorded_r2
    assert entry.largest_difference == pytest.approx(0.5)
    assert not entry.exact


def test_it_runs_with_the_threads_of_the_record(toy: Dataset, toy_name: str, tmp_path: Path) -> None:
    record(toy, tmp_path, "wiener")
    [recorded] = choose(tmp_path, "s")
    content = json.loads(recorded.path.read_text())
    assert content["threads"] == 1
    recorded.path.write_text(json.dumps({**content, "threads": 2}))
    assert again(tmp_path, toy_name)[1].threads == 2
    assert torch.get_num_threads() == 1


def test_pretraining_is_run_again_too(toy: Dataset, toy_name: str, tmp_path: Path) -> None:
    quick = {"pretrain.updates": 20, "finetune.updates": 5}
    record(toy, tmp_path, "gru-pooled", train=quick)
    _, entry = again(tmp_path, toy_name)
    assert entry.exact
    assert list((tmp_path / "store" / "artifacts").glob("gru-pooled-*.safetensors"))
    assert not entry.cached


def test_pretraining_is_taken_from_the_cache_where_asked(
    toy: Dataset, toy_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALMBENCH_CACHE", str(tmp_path / "cache"))
    record(toy, tmp_path, "gru-pooled", train={"pretrain.updates": 20, "finetune.updates": 5})
    [recorded] = choose(tmp_path, "s")
    folder = tmp_path / "cache" / "artifacts"
    built = {path: path.stat().st_mtime_ns for path in folder.glob("gru-pooled-*.safetensors")}
    assert built

    def cached() -> Reproduction:
        return reproduce(recorded, None, None, Events(), {"toy": toy_name})

    entry = cached()
    assert entry.cached
    assert entry.exact
    assert {path: path.stat().st_mtime_ns for path in folder.glob("gru-pooled-*.safetensors")} == built
    # Where the cache has lost it, it is trained again.
    for path in built:
        path.unlink()
    assert cached().exact
    [again_built] = folder.glob("gru-pooled-*.safetensors")  # of the record's fold
    assert again_built in built


def test_chains_of_codes_go_by_one_name(toy: Dataset, toy_name: str, tmp_path: Path) -> None:
    record(toy, tmp_path, "mean")
    recorded, entry = again(tmp_path, toy_name)
    folder = recorded.path.parent
    for first, second, exact in (("a", "b", True), ("c", "d", True), ("d", "e", False), ("b", "c", True)):
        changed = {"recorded_code": first, "code": second, "exact": exact}
        note_reproduction(folder, entry.model_copy(update=changed))
    assert same_code(folder, "a", "d")
    assert same_code(folder, "d", "a")
    assert same_code(folder, "x", "x")
    assert not same_code(folder, "a", "e")
    assert not same_code(folder, "a", recorded.record.code)


def test_what_cannot_be_the_same_run_is_refused(toy: Dataset, toy_name: str, tmp_path: Path) -> None:
    record(toy, tmp_path, "wiener")
    [recorded] = choose(tmp_path, "s")
    content = json.loads(recorded.path.read_text())
    content["config"]["decoder"]["lag_step"] = 1
    recorded.path.write_text(json.dumps({**content, "config_hash": "another"}))
    with pytest.raises(RealmbenchError, match=r"a2, seed 0: presets or .* decoder.lag_step was 1 and is"):
        again(tmp_path, toy_name)
    recorded.path.write_text(json.dumps({**content, "config": recorded.record.config, "data_key": "another"}))
    reason = rf"the data, their split or .* without numpy {np.__version__} and scipy [0-9.]+ \(docs/synthetic-reach.md"
    with pytest.raises(RealmbenchError, match=reason):
        again(tmp_path, toy_name)
    assert read_reproductions(recorded.path.parent) == []
    with pytest.raises(RealmbenchError, match=r"its dataset is of a file; name it by --dataset FILE.py:CLASS"):
        reproduce(recorded, None, tmp_path, Events())


def test_records_are_chosen(toy: Dataset, tmp_path: Path) -> None:
    for model in ("mean", "wiener"):
        record(toy, tmp_path, model, seeds=2)

    def names(**chosen: Any) -> list[str]:
        return [
            f"{each.record.model} {each.record.session} {each.record.seed}" for each in choose(tmp_path, "s", **chosen)
        ]

    assert names() == ["mean a2 0", "wiener a2 0"]
    assert names(models=["wiener"], session="b2", seed=1) == ["wiener b2 1"]
    assert names(models=["wiener.tiny"]) == ["wiener a2 0"]
    assert len(names(every=True)) == 8
    with pytest.raises(OptionError, match="holds no such record"):
        choose(tmp_path, "s", models=["mean"], seed=7)
    for kind in ("models", "datasets"):
        with pytest.raises(UnknownNameError, match=f"unknown {kind[:-1]} among the records of suite s 'typo'"):
            choose(tmp_path, "s", **{kind: ["mean" if kind == "models" else "toy", "typo"]})


def test_damaged_notes_are_named(tmp_path: Path) -> None:
    (tmp_path / REPRODUCED).write_text("")
    assert not same_code(tmp_path, "a", "b")
    (tmp_path / REPRODUCED).write_text('{"session": "a"}\n')
    with pytest.raises(RealmbenchError, match=r"reproduced.jsonl, line 1, is no reproduction \(Field required\)"):
        same_code(tmp_path, "a", "b")


def test_separators_inside_a_line_end_none(toy: Dataset, toy_name: str, tmp_path: Path) -> None:
    record(toy, tmp_path, "mean")
    recorded, entry = again(tmp_path, toy_name)
    odd = entry.model_copy(update={"device": "a CPU\u2028of\u0085old"})
    note_reproduction(recorded.path.parent, odd)
    assert read_reproductions(recorded.path.parent)[-1] == odd


def test_the_command_says_what_came_out(
    toy: Dataset, toy_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, other = version(tmp_path / "old", "1.0"), version(tmp_path / "other", "0.5")
    record(toy, tmp_path, old)

    def command(model: str, *more: str) -> int:
        words = ["reproduce", "s", "--results-dir", str(tmp_path), "--model", model, "--dataset", toy_name]
        monkeypatch.setattr(sys, "argv", ["realmbench", *words, *more])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    assert command(old) == 0
    said = capsys.readouterr().out
    assert "1 of 1 came out the same to the last bit." in said
    assert "cache" not in said
    assert command(old, "--cached") == 0
    assert "What pretraining of unchanged code had left was taken from the cache." in capsys.readouterr().out
    assert command(other, "--json") == 1
    [found] = json.loads(capsys.readouterr().out)["reproductions"]
    assert found["r2"] < found["recorded_r2"] - 0.01
    assert command(other, "--tolerance", "1") == 0
    assert command(old, "--session", "c9") == 2


def test_a_third_code_does_not_join_two_that_gave_different_things(toy: Dataset, toy_name: str, tmp_path: Path) -> None:
    record(toy, tmp_path, "mean")
    recorded, entry = again(tmp_path, toy_name)
    folder = recorded.path.parent
    for first, second in (("a", "b"), ("b", "c"), ("x", "y")):
        note_reproduction(folder, entry.model_copy(update={"recorded_code": first, "code": second}))
    apart = entry.model_copy(update={"recorded_code": "a", "code": "c", "exact": False})
    note_reproduction(folder, apart.model_copy(update={"device": "another"}))
    assert same_code(folder, "a", "c")
    note_reproduction(folder, apart)
    assert [same_code(folder, *pair) for pair in ("ac", "ab", "bc", "xy")] == [False, False, False, True]


def test_a_run_with_other_points_of_calibration_is_not_the_same(toy: Dataset, toy_name: str, tmp_path: Path) -> None:
    record(toy, tmp_path, "wiener", protocol="calibration-v1")
    [recorded] = choose(tmp_path, "s")
    assert len(recorded.record.curve) > 0
    write_record(recorded.record.model_copy(update={"curve": recorded.record.curve[1:]}), recorded.path)
    with pytest.raises(RealmbenchError, match="other seconds of calibration"):
        again(tmp_path, toy_name)
    [entry] = read_reproductions(recorded.path.parent)
    assert not entry.exact, "what speaks against the code is kept"
