"""REALM's stages: what is shared, what is frozen, what is matched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from realmbench.artifact import ArtifactStore
from realmbench.decoder import Context
from realmbench.errors import OptionError, RealmbenchError
from realmbench.realm.decoders import RealmPooled, RealmScratch, RealmStudent, RealmStudentTransformer, RealmTeacher
from realmbench.realm.distillation import DistillationOptions, Student, _loss
from realmbench.realm.encoder import RealmEncoder

STAGE = {"updates": 6, "evaluate_every": 3, "window_s": 1.0}


def train(*stages: str, **changes: Any) -> dict[str, Any]:
    return {f"{stage}.{key}": value for stage in stages for key, value in {**STAGE, **changes}.items()}


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(0, "cpu", ArtifactStore(tmp_path, "code", {}), tmp_path)


@pytest.fixture
def sessions(session_maker: Any) -> list[Any]:
    return [session_maker(name=f"p{index}", seed=index + 1) for index in range(2)]


def kinds(context: Context) -> list[str]:
    return sorted(path.name.rsplit("-", 1)[0] for path in context.artifacts.folder.glob("*.json"))


def test_teacher_is_trained_once_and_shared(context: Context, sessions: list[Any]) -> None:
    teacher = RealmTeacher("tiny", {}, train("teacher", "finetune")).pretrain(sessions, context)
    student = RealmStudent("tiny", {}, train("teacher", "student", "finetune")).pretrain(sessions, context)
    assert student.record.parents == (teacher.hash,)
    assert kinds(context) == ["realm-student", "realm-teacher"]
    again = RealmStudent("tiny", {}, train("teacher", "student", "finetune")).pretrain(sessions, context)
    assert again.hash == student.hash
    np.testing.assert_array_equal(again.arrays["head.weight"], student.arrays["head.weight"])


def test_student_with_attention_shares_the_teacher_and_its_own_options_apply(
    context: Context, sessions: list[Any]
) -> None:
    options = train("teacher", "student", "finetune")
    mamba = RealmStudent("tiny", {}, options).pretrain(sessions, context)
    attention = RealmStudentTransformer("tiny", {"attention_s": 0.5}, options).pretrain(sessions, context)
    assert attention.record.parents == mamba.record.parents
    assert abs(attention.record.parameters / mamba.record.parameters - 1) < 0.02
    with pytest.raises(OptionError, match="attention_s"):
        RealmStudent("tiny", {"attention_s": 0.5})


def test_anything_that_shapes_an_artifact_changes_its_address(context: Context, sessions: list[Any]) -> None:
    hashes = {
        RealmTeacher("tiny", options, train("teacher", "finetune", **changes)).pretrain(data, context).hash
        for options, changes, data in (
            ({}, {}, sessions),
            ({"masking.share": 0.5}, {}, sessions),
            ({"d_state": 8}, {}, sessions),
            ({}, {"updates": 3}, sessions),
            ({}, {}, sessions[:1]),
        )
    }
    assert len(hashes) == 5


def test_frozen_tokenizer_stays_and_the_rest_moves(context: Context, sessions: list[Any], session_maker: Any) -> None:
    fast = train("student", "finetune", learning_rate=1e-2, evaluate_every=1)
    decoder = RealmPooled("tiny", {"freeze_tokenizer": True}, fast)
    artifact = decoder.pretrain(sessions, context)
    decoder.adapt(session_maker(), context, artifact)
    changed = {name for name, value in decoder.arrays().items() if not np.array_equal(value, artifact.arrays[name])}
    assert not any(name.startswith("encoder.tokenizer") for name in changed)
    assert "head.weight" in changed
    counts = decoder.parameters()
    frozen = sum(value.size for name, value in artifact.arrays.items() if name.startswith("encoder.tokenizer"))
    assert counts.trained == counts.deployed - frozen


def test_student_and_control_have_the_same_network_start_and_updates(context: Context, sessions: list[Any]) -> None:
    none = train("student", "finetune", updates=0)
    student = RealmStudent("tiny", {"distillation.copy_tokenizer": False}, {**none, **train("teacher")})
    pooled = RealmPooled("tiny", {}, none)
    first, second = student.pretrain(sessions, context), pooled.pretrain(sessions, context)
    for name, value in first.arrays.items():
        np.testing.assert_array_equal(value, second.arrays[name])
    assert student.presets["small"].train["student"] == pooled.presets["small"].train["student"]


def test_alignment_pulls_the_student_towards_the_teacher(context: Context, sessions: list[Any]) -> None:
    """With alignment alone the cosine rises; the loss by hand equals one minus the mean cosine."""
    decoder = RealmStudent("tiny")
    torch.manual_seed(0)
    teacher = RealmEncoder(decoder.encoder_config(sessions[0], False)).eval()
    student = Student(decoder.encoder_config(sessions[0], True), 2).eval()
    weights = DistillationOptions(alignment=1, task=0, reconstruction=0)
    from realmbench.seeds import stream
    from realmbench.training.windows import WindowSampler

    sampler = WindowSampler(sessions, 1.0, 8, stream(0, "w"), "cpu")
    batch = sampler.draw()
    encoder = student.network.encoder
    with torch.no_grad():
        mine = encoder.encode(encoder.tokenize(batch.x, batch.mask)).layers[-1]
        target = teacher.encode(teacher.tokenize(batch.x, batch.mask)).layers[-1]
        cosine = (mine * target).sum(-1) / (mine.norm(dim=-1) * target.norm(dim=-1))
        torch.testing.assert_close(_loss(student, teacher, weights, batch), (1 - cosine).mean())
    optimiser = torch.optim.Adam(student.parameters(), lr=5e-3)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = _loss(student, teacher, weights, sampler.draw())
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_task_alone_is_what_the_control_minimises(sessions: list[Any]) -> None:
    decoder = RealmStudent("tiny")
    student = Student(decoder.encoder_config(sessions[0], True), 2).eval()
    weights = DistillationOptions(alignment=0, task=1, reconstruction=0)
    from realmbench.seeds import stream
    from realmbench.training.windows import WindowSampler

    batch = WindowSampler(sessions, 1.0, 4, stream(0, "w"), "cpu").draw()
    expected = (student.network(batch.x, batch.mask) - batch.y).square().mean()
    torch.testing.assert_close(_loss(student, None, weights, batch), expected)


def test_options_that_do_not_apply_are_refused() -> None:
    with pytest.raises(OptionError, match="unknown option"):
        RealmPooled("tiny", {"distillation.alignment": 1})
    with pytest.raises(OptionError, match="unknown option"):
        RealmScratch("tiny", {"freeze_tokenizer": True})
    with pytest.raises(OptionError, match="unknown option"):
        RealmTeacher("tiny", {}, {"student.updates": 1})


def test_head_width_must_divide() -> None:
    with pytest.raises(OptionError, match=r"headdim=24 must divide d_model \* expand = 64"):
        RealmScratch("tiny", {"headdim": 24})


def test_adapting_without_pretraining_is_refused(session_maker: Any, context: Context) -> None:
    with pytest.raises(RealmbenchError, match="needs the artifact"):
        RealmStudent("tiny").adapt(session_maker(), context)
