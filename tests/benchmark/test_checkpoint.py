"""Checkpoints: what is written is what was trained, another machine goes on from it, what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realmbench import checkpoint
from realmbench.artifact import Artifact, save_arrays
from realmbench.cli.stages import _plan_of_checkpoint
from realmbench.dataset import Dataset
from realmbench.decoder import DECODERS
from realmbench.errors import OptionError, ProtocolError, RealmbenchError, UnknownNameError
from realmbench.plan import Plan, RunRequest, make_plan
from realmbench.pretrainings import read_pretrainings
from realmbench.provenance import Training, read_training
from realmbench.records import RunRecord, read_record, read_records
from realmbench.runner import Events, SessionBank, run
from realmbench.training import loop

STAGE = {"updates": 4, "evaluate_every": 2, "window_s": 1.0}
QUIET = Events()


def plan_of(dataset: Dataset, model: str, *stages: str, options: Any = None, **changes: Any) -> Plan:
    train = {f"{stage}.{key}": value for stage in stages for key, value in {**STAGE, **changes}.items()}
    return make_plan(RunRequest(model=model, preset="tiny", options=options or {}, train=train), dataset)


def teacher_of(dataset: Dataset, folder: Path, **changes: Any) -> Artifact:
    plan = plan_of(dataset, "realm-teacher", "teacher", "finetune", **changes)
    bank = SessionBank(dataset, Events().stage)
    return checkpoint.pretrain(plan, plan.folds[0], 0, folder, bank, Events())


def student_of(
    dataset: Dataset, folder: Path, given: Path | None = None, events: Events = QUIET, **changes: Any
) -> Artifact:
    plan = plan_of(dataset, "realm-student", "teacher", "student", "finetune", **changes)
    bank = SessionBank(dataset, events.stage)
    return checkpoint.pretrain(plan, plan.folds[0], 0, folder, bank, events, given)


def finetuned(
    dataset: Dataset, folder: Path, given: Path | None = None, session: str | None = None, events: Events = QUIET
) -> RunRecord:
    plan = plan_of(dataset, "realm-student", "teacher", "student", "finetune")
    session = session or plan.folds[0].held_out[0]
    bank = SessionBank(dataset, events.stage)
    return checkpoint.finetune(plan, session, 0, folder / "fitted", folder / "results", bank, events, given)


@pytest.fixture
def other_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it to go on with an empty cache."""
    return lambda: monkeypatch.setenv("REALMBENCH_CACHE", str(tmp_path / "elsewhere"))


def test_stages_on_another_machine_give_the_same_run(toy: Dataset, tmp_path: Path, other_machine: Any) -> None:
    """Teacher, student and fine-tuning apart, each from the folder before, against `run` in one go."""
    plan = plan_of(toy, "realm-student", "teacher", "student", "finetune")
    whole = run(plan, toy, tmp_path / "whole", Events(), SessionBank(toy, Events().stage))[0]
    teacher = teacher_of(toy, tmp_path / "teacher")
    other_machine()
    student = student_of(toy, tmp_path / "student", given=tmp_path / "teacher")
    assert student.record.parents == (teacher.hash,)
    record = finetuned(toy, tmp_path, given=tmp_path / "student")
    assert record.metrics == whole.metrics
    assert [use.hash for use in record.artifacts] == [use.hash for use in whole.artifacts]
    assert record.config_hash == whole.config_hash
    [written] = read_records(tmp_path / "results")
    assert written == record == read_record(tmp_path / "fitted" / "record.json")


@pytest.mark.parametrize("killed", ["teacher", "student", "fine-tuning"])
def test_killed_stage_goes_on_where_it_was(
    toy: Dataset, tmp_path: Path, other_machine: Any, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    """Killed after half of its updates a stage makes the other half, and what comes of it is the same."""
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)

    class KilledError(Exception):
        pass

    def stages(folder: Path, on_stage: Callable[[str, float | None], None]) -> RunRecord:
        events = Events(stage=on_stage)
        student_of(toy, folder / "student", events=events)
        return finetuned(toy, folder, given=folder / "student", events=events)

    def dies(text: str, share: float | None) -> None:
        # Half of the updates have been made, and looked at, when the one after them has.
        if text.startswith(killed) and share is not None and share > 0.5:
            raise KilledError

    whole = stages(tmp_path / "whole", lambda _text, _share: None)
    other_machine()
    with pytest.raises(KilledError):
        stages(tmp_path / "again", dies)
    shares: list[float] = []
    record = stages(
        tmp_path / "again", lambda text, share: shares.append(share) if text.startswith(killed) and share else None
    )
    assert shares == [0.75, 1.0]
    assert record.metrics == whole.metrics
    assert [use.hash for use in record.artifacts] == [use.hash for use in whole.artifacts]


def test_given_teacher_is_not_trained(toy: Dataset, tmp_path: Path, other_machine: Any) -> None:
    teacher_of(toy, tmp_path / "teacher")
    other_machine()
    stages: list[str] = []
    events = Events(stage=lambda text, _share: stages.append(text))
    student_of(toy, tmp_path / "student", given=tmp_path / "teacher", events=events)
    assert any(text.startswith("student") for text in stages)
    assert not any(text.startswith("teacher") for text in stages)


def test_teacher_that_is_another_is_refused_with_the_difference(toy: Dataset, tmp_path: Path) -> None:
    teacher_of(toy, tmp_path / "teacher", updates=2)
    with pytest.raises(RealmbenchError, match=r"given realm-teacher .*: train\.updates is 2, not 4"):
        student_of(toy, tmp_path / "student", given=tmp_path / "teacher")
    assert not (tmp_path / "student").exists()


def test_exported_weights_are_the_artifacts(toy: Dataset, tmp_path: Path) -> None:
    for name, artifact in (
        ("realm-teacher", teacher_of(toy, tmp_path / "realm-teacher")),
        ("realm-student", student_of(toy, tmp_path / "realm-student")),
    ):
        training = read_training(tmp_path / name)
        decoder = DECODERS.get(name)(training.preset, training.config["decoder"], training.config["train"])
        arrays = decoder.import_arrays(tmp_path / name)
        assert set(arrays) == set(artifact.arrays)
        for key, value in arrays.items():
            np.testing.assert_array_equal(value, artifact.arrays[key])
        assert training.artifacts[-1] == artifact.record


def test_fitted_network_loads_with_transformers_and_predicts_the_same(toy: Dataset, tmp_path: Path) -> None:
    import torch

    from realmbench.realm.pretrained import RealmForDecoding

    record = finetuned(toy, tmp_path)
    assert set(read_pretrainings(tmp_path / "results", record.suite)) == {use.hash for use in record.artifacts}
    model = RealmForDecoding.from_pretrained(tmp_path / "fitted")
    session = model.decoded_session()
    assert session.name == record.session
    plan = plan_of(toy, "realm-student", "teacher", "student", "finetune")
    data = SessionBank(toy, Events().stage).of(plan, record.session, "held-out").data
    np.testing.assert_array_equal(session.normaliser.x_mean, data.normaliser.x_mean)
    np.testing.assert_array_equal(session.mask, data.mask)
    context = plan.context(0, Events().stage)
    decoder = plan.decoder()
    pretraining = [SessionBank(toy, Events().stage).of(plan, name, "pretrain").data for name in plan.folds[0].pretrain]
    decoder.adapt(data, context, decoder.pretrain(pretraining, context))
    segment = data.validation[0]
    with torch.no_grad():
        prediction = model(torch.from_numpy(segment.x)[None]).prediction
    np.testing.assert_allclose(prediction[0], decoder.predict(segment.x, data), atol=1e-6)


def test_card_says_what_the_record_says(toy: Dataset, tmp_path: Path) -> None:
    record = finetuned(toy, tmp_path)
    card = (tmp_path / "fitted" / "README.md").read_text()
    for text in (
        f"| r2_axis_mean | {record.metrics['r2_axis_mean']:.3f} |",
        f"{record.parameters_deployed:,} deployed",
        "| train.finetune.updates | 4 |",
        record.artifacts[0].hash,
        f"pretraining sessions: {', '.join(record.training_sessions[:-1])}",
        toy.info.licence,
        "It is causal.",
    ):
        assert text in card
    teacher_of(toy, tmp_path / "teacher")
    assert "no held-out session was seen" in (tmp_path / "teacher" / "README.md").read_text()


def test_decoder_of_any_kind_has_a_checkpoint(toy: Dataset, tmp_path: Path) -> None:
    plan = make_plan(RunRequest(model="wiener", preset="tiny"), toy)
    session, bank = plan.folds[0].held_out[0], SessionBank(toy, Events().stage)
    record = checkpoint.finetune(plan, session, 0, tmp_path / "fitted", tmp_path / "results", bank, Events())
    data = bank.of(plan, session, "held-out").data
    loaded = DECODERS.get("wiener").load(tmp_path / "fitted" / "model.safetensors", data)
    assert loaded.predict(data.validation[0].x, data).shape == data.validation[0].y.shape
    assert read_training(tmp_path / "fitted").artifacts == []
    assert record.model == "wiener"


def test_start_from_another_fold_is_refused(toy: Dataset, tmp_path: Path) -> None:
    student_of(toy, tmp_path / "student")
    plan = plan_of(toy, "realm-student", "teacher", "student", "finetune")
    other = plan.folds[1].held_out[0]
    with pytest.raises(ProtocolError, match=rf"{other} cannot start from this checkpoint: it has fold"):
        finetuned(toy, tmp_path, tmp_path / "student", other)


def test_pretraining_of_another_model_is_refused(toy: Dataset, tmp_path: Path) -> None:
    """`gru-pooled-steady` has the weights of the same shapes, learnt from other frames."""
    quick = {"pretrain.updates": 2, "finetune.updates": 2}
    bank = SessionBank(toy, Events().stage)
    plain, steady = (
        make_plan(RunRequest(model=model, preset="tiny", train=quick), toy)
        for model in ("gru-pooled", "gru-pooled-steady")
    )
    checkpoint.pretrain(plain, plain.folds[0], 0, tmp_path / "pretrained", bank, Events())
    given = (plain.folds[0].held_out[0], 0, tmp_path / "fitted", tmp_path / "results", bank, Events())
    with pytest.raises(ProtocolError, match="it has model 'gru-pooled', not 'gru-pooled-steady'"):
        checkpoint.finetune(steady, *given, tmp_path / "pretrained")
    record = checkpoint.finetune(plain, *given, tmp_path / "pretrained")
    # What changes frames on their way into pretraining is no other code.
    checkpoint.pretrain(steady, steady.folds[0], 0, tmp_path / "steady", bank, Events())
    for each in (record, checkpoint.finetune(steady, *given, tmp_path / "steady")):
        assert not [warning for warning in each.warnings if "present code" in warning]


def test_what_is_no_pretraining_is_refused(toy: Dataset, tmp_path: Path) -> None:
    finetuned(toy, tmp_path)
    with pytest.raises(RealmbenchError, match=r"is fitted to .* already"):
        finetuned(toy, tmp_path / "other", tmp_path / "fitted")
    with pytest.raises(RealmbenchError, match="is no checkpoint"):
        finetuned(toy, tmp_path, tmp_path)
    plan = make_plan(RunRequest(model="wiener", preset="tiny"), toy)
    with pytest.raises(OptionError, match="has no pretraining"):
        checkpoint.pretrain(plan, plan.folds[0], 0, tmp_path / "x", SessionBank(toy, Events().stage), Events())


def test_folder_with_something_else_is_left_alone_and_a_checkpoint_gives_way(toy: Dataset, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.tex").write_text("years of work")
    with pytest.raises(RealmbenchError, match="holds something that is no checkpoint"):
        teacher_of(toy, taken)
    assert [path.name for path in taken.iterdir()] == ["thesis.tex"]
    first = teacher_of(toy, tmp_path / "teacher")
    second = teacher_of(toy, tmp_path / "teacher", updates=2)
    assert first.hash != second.hash
    assert read_training(tmp_path / "teacher").artifacts[-1].hash == second.hash
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_folds_by_name(toy: Dataset) -> None:
    plan = plan_of(toy, "realm-teacher", "teacher", "finetune")
    names = [fold.name for fold in plan.folds]
    assert checkpoint.fold_of(plan, names[1]) == plan.folds[1]
    with pytest.raises(OptionError, match="name one with --fold"):
        checkpoint.fold_of(plan, None)
    with pytest.raises(UnknownNameError, match="unknown fold 'nope'"):
        checkpoint.fold_of(plan, "nope")


@pytest.mark.parametrize("place", [".", "..", "file", "taken"])
def test_impossible_places_are_refused_before_anything_is_trained(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "file").write_text("")
    (here / "taken").mkdir()
    (here / "taken" / "thesis.tex").write_text("years of work")
    monkeypatch.setattr(checkpoint, "_training", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(RealmbenchError, match=r"--output|holds something"):
        teacher_of(toy, Path(place))
    assert (here / "taken" / "thesis.tex").exists()


def test_checkpoint_is_not_written_over_what_it_starts_from(toy: Dataset, tmp_path: Path) -> None:
    teacher_of(toy, tmp_path / "teacher")
    with pytest.raises(OptionError, match="is what the command starts from"):
        student_of(toy, tmp_path / "teacher", given=tmp_path / "teacher")


def test_teacher_that_nothing_learns_from_is_refused(toy: Dataset, tmp_path: Path) -> None:
    teacher_of(toy, tmp_path / "teacher")
    plan = plan_of(toy, "realm-pooled", "student", "finetune")
    bank = SessionBank(toy, Events().stage)
    with pytest.raises(OptionError, match="holds a realm-teacher, which realm-pooled does not learn from"):
        checkpoint.pretrain(plan, plan.folds[0], 0, tmp_path / "x", bank, Events(), tmp_path / "teacher")


def test_damaged_checkpoint_is_refused_and_does_not_spoil_the_cache(toy: Dataset, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    student = student_of(toy, tmp_path / "student")
    weights = tmp_path / "student" / "model.safetensors"
    save_file({name: np.zeros_like(x) for name, x in load_file(weights).items()}, weights, metadata={"format": "pt"})
    with pytest.raises(RealmbenchError, match="holds other weights than it was made with"):
        finetuned(toy, tmp_path, given=tmp_path / "student")
    again = student_of(toy, tmp_path / "again")
    for name, value in again.arrays.items():
        np.testing.assert_array_equal(value, student.arrays[name])


def test_unknown_session(toy: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown held-out session 'a9'"):
        finetuned(toy, tmp_path, session="a9")


def test_loaded_network_leaves_the_sessions_dead_channels_out(toy: Dataset, tmp_path: Path) -> None:
    import json

    import torch

    from realmbench.realm.pretrained import RealmForDecoding

    finetuned(toy, tmp_path)
    path = tmp_path / "fitted" / "config.json"
    config = json.loads(path.read_text())
    config["session"]["mask"][1] = False
    path.write_text(json.dumps(config))
    model = RealmForDecoding.from_pretrained(tmp_path / "fitted")
    frames, mask = torch.randn(1, 50, 4, model.config.encoder["features"]), torch.tensor([[True, False, True, True]])
    with torch.no_grad():
        torch.testing.assert_close(model(frames).prediction, model(frames, mask).prediction)
        assert not torch.allclose(model(frames).prediction, model(frames, torch.ones_like(mask)).prediction)


def test_what_pretraining_warned_of_stands_in_the_record(toy: Dataset, tmp_path: Path, other_machine: Any) -> None:
    """Trained now, found in the store, or given by a checkpoint on another machine."""
    plan = plan_of(toy, "realm-pooled", "student", "finetune", window_s=100.0)
    bank = SessionBank(toy, QUIET.stage)

    def heard(name: str, given: Path | None = None) -> list[str]:
        results, session = tmp_path / "results" / name, plan.folds[0].held_out[0]
        record = checkpoint.finetune(plan, session, 0, tmp_path / name, results, bank, QUIET, given)
        assert read_records(results) == [record]
        return [warning for warning in record.warnings if warning.startswith("realm-student: windows of")]

    trained, found = heard("trained"), heard("found")
    checkpoint.pretrain(plan, plan.folds[0], 0, tmp_path / "pretrained", bank, QUIET)
    other_machine()
    assert trained == found == heard("given", tmp_path / "pretrained")
    assert len(trained) == 1


def test_checkpoint_of_other_code_is_used_and_finishes_no_run(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record has a code of its own: a run of the present code must not be taken for finished by it."""

    def run_after(folder: str) -> tuple[RunRecord, list[bool]]:
        record = finetuned(toy, tmp_path / folder, given=tmp_path / "student")
        reused: list[bool] = []
        events = Events(done=lambda _record, before: reused.append(before))
        plan = plan_of(toy, "realm-student", "teacher", "student", "finetune")
        run(plan, toy, tmp_path / folder / "results", events, SessionBank(toy, events.stage))
        return record, reused

    student_of(toy, tmp_path / "student")
    record, reused = run_after("ours")
    assert reused == [True, False]
    monkeypatch.setattr("realmbench.artifact.code_of", lambda sources: f"other code of {sources}")
    foreign, reused = run_after("theirs")
    assert foreign.metrics == record.metrics
    [warning] = set(foreign.warnings) - set(record.warnings)
    assert "the realm-student that it starts from is not what the present code makes" in warning
    assert reused == [False, False]
    # That run's record is not written over.
    [path] = (tmp_path / "theirs" / "results").rglob("a2.seed0.json")
    before = path.read_text()
    with pytest.raises(
        RealmbenchError, match="is a run of the present code, whose place a start of other code or data"
    ):
        finetuned(toy, tmp_path / "theirs", given=tmp_path / "student")
    assert path.read_text() == before


def test_checkpoint_that_cannot_be_moved_leaves_the_older_one(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = student_of(toy, tmp_path / "student")
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if Path(target).name == "student" and not self.name.endswith(".older"):
            raise OSError("no room")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(RealmbenchError, match="no room"):
        student_of(toy, tmp_path / "student", updates=3)
    assert read_training(tmp_path / "student").artifacts[-1] == first.record
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_stage_that_is_asked_for_is_no_start_of_itself(toy: Dataset, tmp_path: Path) -> None:
    student_of(toy, tmp_path / "student")
    with pytest.raises(
        OptionError, match="student holds the realm-student that is asked for, not what it is made from"
    ):
        student_of(toy, tmp_path / "again", given=tmp_path / "student")
    assert not (tmp_path / "again").exists()


def test_weights_of_a_checkpoint_can_be_read_by_others(toy: Dataset, tmp_path: Path) -> None:
    student_of(toy, tmp_path / "student")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "student").iterdir()}
    assert set(modes.values()) == {modes["config.json"]}, modes


def test_what_adapts_to_the_session_may_be_changed_after_pretraining(toy_name: str, tmp_path: Path) -> None:
    model = "realm-student-unlabelled"
    config = DECODERS.get(model)("tiny").config
    training = Training(
        stage="pretrained", model=model, preset="tiny", config=config, dataset="toy", version="1", data={},
        protocol="calibration-v1", front_end="bands50", fold="a", session=None, seed=3, artifacts=[],
    )  # fmt: skip
    (tmp_path / "realmbench.json").write_text(training.model_dump_json())

    def planned(*settings: str) -> tuple[list[str], int]:
        plan, _, seed = _plan_of_checkpoint(tmp_path, toy_name, {}, list(settings), None)
        return plan.changed_options, seed

    assert planned() == ([], 3)
    assert planned("decoder.rounds=0") == (["decoder.rounds"], 3)
    with pytest.raises(OptionError, match=r"decoder\.layers: with --from the checkpoint decides it"):
        planned("decoder.layers=3")


def test_folders_of_a_checkpoint_can_be_entered(toy: Dataset, tmp_path: Path) -> None:
    student_of(toy, tmp_path / "student")

    def write(place: Path) -> None:
        (place / "more").mkdir()
        save_arrays(place / "more" / "weights.safetensors", {"a": np.zeros(3)})

    checkpoint._write_whole(tmp_path / "other", read_training(tmp_path / "student"), write)
    assert (tmp_path / "other" / "more").stat().st_mode & 0o111 == 0o111
    assert (tmp_path / "other" / "more" / "weights.safetensors").stat().st_mode & 0o044 == 0o044
