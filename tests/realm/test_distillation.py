"""Stage 2 by hand: the sum that the student learns from, and the control that has all of it but the teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from realmbench.decoder import Context
from realmbench.realm.decoders import RealmPooled, RealmStudent
from realmbench.realm.distillation import DistillationOptions, Student, distillation_loss
from realmbench.realm.encoder import RealmEncoder, RealmNetwork
from realmbench.seeds import stream
from realmbench.training.network_decoder import load_arrays_into
from realmbench.training.windows import WindowSampler

STAGE = {"updates": 6, "evaluate_every": 3, "window_s": 1.0}


def one_minus_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over windows and steps of one minus the cosine of (B, T, d)."""
    norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return float(np.mean(1 - (first * second).sum(-1) / norms))


def test_loss_by_hand(sessions: list[Any]) -> None:
    decoder = RealmStudent("tiny", {"layers": 2, "teacher_layers": 2})
    sessions = [sessions[0], replace(sessions[1], mask=np.array([True, False, True]))]
    torch.manual_seed(0)
    student = Student(decoder.encoder_config(sessions[0], True), 2).eval()
    teacher = RealmEncoder(decoder.teacher_config(sessions[0])).eval()
    batch = WindowSampler(sessions, 1.0, 8, stream(0, "w"), "cpu").draw()
    assert 0 < batch.mask[:, 1].float().mean() < 1
    encoder = student.network.encoder
    with torch.no_grad():
        ours = [layer.numpy() for layer in encoder.encode(encoder.tokenize(batch.x, batch.mask)).layers]
        theirs = [layer.numpy() for layer in teacher.encode(teacher.tokenize(batch.x, batch.mask)).layers]
        task = np.mean((student.network(batch.x, batch.mask) - batch.y).numpy() ** 2)
        frames = student.reconstruction(torch.from_numpy(ours[-1])).numpy().reshape(batch.x.shape)
    errors = ((frames - batch.x.numpy()) ** 2).mean(-1)  # (B, T, C)
    torch.manual_seed(7)
    steps = torch.rand(batch.x.shape[:2]).numpy() < 0.3
    steps[:, 0] = True
    usable = batch.mask.numpy()
    reconstruction = errors[steps[:, :, None] & usable[:, None]].mean()
    first, last = (one_minus_cosine(*pair) for pair in zip(ours, theirs))
    other = one_minus_cosine(ours[-1], np.roll(theirs[-1], 1, axis=0))  # its window with its mask
    expected = {
        "task": ({"task": 2, "alignment": 0, "reconstruction": 0}, 2 * task),
        "alignment": ({"task": 0, "alignment": 3, "reconstruction": 0}, 3 * last),
        "two layers": ({"task": 0, "alignment": 3, "reconstruction": 0, "aligned_layers": 2}, first + 2 * last),
        "another window": ({"task": 0, "alignment": 1, "reconstruction": 0, "shuffled": True}, other),
        "reconstruction": ({"task": 0, "alignment": 0, "reconstruction": 0.5}, 0.5 * reconstruction),
        "all": ({"task": 1, "alignment": 1, "reconstruction": 0.1}, task + last + 0.1 * reconstruction),
    }
    for name, (weights, value) in expected.items():
        torch.manual_seed(7)
        with torch.no_grad():
            found = distillation_loss(student, teacher, DistillationOptions(**weights), batch).item()
        np.testing.assert_allclose(found, value, rtol=1e-5, err_msg=name)
    # No two can be taken for each other.
    values = sorted(value for _, value in expected.values())
    assert np.diff(values).min() > 1e-3


def test_student_without_its_teacher_is_the_control(context: Context, sessions: list[Any]) -> None:
    """Bit for bit after training: same start, windows, updates and selection; and with a teacher it is not."""
    train = {f"{stage}.{key}": value for stage in ("student", "finetune") for key, value in STAGE.items()}
    none = {f"distillation.{name}": 0 for name in ("alignment", "reconstruction")}
    alone = RealmStudent("tiny", {**none, "distillation.copy_tokenizer": False}, train).pretrain(sessions, context)
    control = RealmPooled("tiny", {}, train).pretrain(sessions, context)
    assert alone.record.history[-1]["update"] == 6
    for name, value in control.arrays.items():
        np.testing.assert_array_equal(alone.arrays[name], value)
    taught = {**train, **{f"teacher.{key}": value for key, value in STAGE.items()}}
    student = RealmStudent("tiny", {"distillation.copy_tokenizer": False}, taught).pretrain(sessions, context)
    assert not np.array_equal(student.arrays["head.weight"], control.arrays["head.weight"])


@pytest.mark.parametrize("task", [0.0, 1.0])
def test_alignment_on_validation_is_noted_beside_the_score(context: Context, sessions: list[Any], task: float) -> None:
    """With labels and without; of the last look the weights are those that are left."""
    stages = {f"{stage}.{key}": value for stage in ("teacher", "student") for key, value in STAGE.items()}
    decoder = RealmStudent("tiny", {"distillation.task": task}, {**stages, "student.evaluate_every": 6})
    artifact = decoder.pretrain(sessions, context)
    start, end = artifact.record.history
    student = RealmNetwork(RealmEncoder(decoder.encoder_config(sessions[0])), 2).eval()
    load_arrays_into(student, artifact.arrays)
    config, taught = decoder.teach(sessions, context)
    teacher = RealmEncoder(config).eval()
    load_arrays_into(teacher, taught.arrays)
    distances = []
    for session in sessions:
        [segment] = session.validation
        x, mask = torch.from_numpy(segment.x)[None], torch.from_numpy(session.mask)[None]
        with torch.no_grad():
            pair = [net.encode(net.tokenize(x, mask)).layers[-1].numpy() for net in (student.encoder, teacher)]
        distances.append(one_minus_cosine(*pair))
    assert end["alignment"] == pytest.approx(np.mean(distances), rel=1e-5)
    assert abs(start["alignment"] - end["alignment"]) > 1e-3  # it moves
    control = RealmPooled("tiny", {}, {name: value for name, value in stages.items() if "student" in name})
    assert not any("alignment" in entry for entry in control.pretrain(sessions, context).record.history)
