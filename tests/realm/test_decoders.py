"""REALM's stages: what is shared, what is frozen, what is matched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from realmbench.artifact import load_arrays
from realmbench.decoder import DECODERS, Context
from realmbench.errors import OptionError, ProtocolError, RealmbenchError
from realmbench.realm.decoders import (
    RealmPooled,
    RealmStudent,
    RealmStudentTransformer,
    RealmTeacher,
)
from realmbench.realm.distillation import DistillationOptions, Student, distillation_loss
from realmbench.realm.encoder import RealmEncoder
from realmbench.realm.pretraining import MaskedAutoencoder
from realmbench.seeds import stream_seed
from realmbench.training.network_decoder import drawn, load_arrays_into

STAGE = {"updates": 6, "evaluate_every": 3, "window_s": 1.0}


def train(*stages: str, **changes: Any) -> dict[str, Any]:
    options = changes if changes.get("updates") == 0 else {**STAGE, **changes}
    return {f"{stage}.{key}": value for stage in stages for key, value in options.items()}


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
    student, pooled = RealmStudent("tiny", {"distillation.copy_tokenizer": False}, none), RealmPooled("tiny", {}, none)
    first, second = student.pretrain(sessions, context), pooled.pretrain(sessions, context)
    for name, value in first.arrays.items():
        np.testing.assert_array_equal(value, second.arrays[name])
    assert kinds(context) == ["realm-pooled", "realm-student"]  # of no teacher is anything taken
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
        torch.testing.assert_close(distillation_loss(student, teacher, weights, batch), (1 - cosine).mean())
    optimiser = torch.optim.Adam(student.parameters(), lr=5e-3)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = distillation_loss(student, teacher, weights, sampler.draw())
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
    torch.testing.assert_close(distillation_loss(student, None, weights, batch), expected)


def test_adapting_without_pretraining_is_refused(session_maker: Any, context: Context) -> None:
    with pytest.raises(RealmbenchError, match="needs the artifact"):
        RealmStudent("tiny").adapt(session_maker(), context)


def test_read_out_is_ridge_on_eleven_stacked_states(context: Context, sessions: list[Any], session_maker: Any) -> None:
    """The head by hand: the last eleven states, before the first one the first, and scikit-learn's ridge."""
    from sklearn.linear_model import Ridge

    from realmbench.metrics import r2_axis_mean

    decoder = RealmStudent("tiny", {"adaptation": "ridge"}, train("teacher", "student"))
    assert not decoder.zero_shot
    artifact, session = decoder.pretrain(sessions, context), session_maker()
    decoder.adapt(session, context, artifact)
    for name, value in artifact.arrays.items():
        if name.startswith("encoder."):
            np.testing.assert_array_equal(decoder.arrays()[name], value)
    mask = torch.from_numpy(session.mask)[None]

    def stack(segments: Any) -> tuple[np.ndarray, np.ndarray]:
        x, y = [], []
        for segment in segments:
            with torch.no_grad():
                hidden = decoder.network.encoder(torch.from_numpy(segment.x)[None], mask)[0].numpy()
            rows = [np.concatenate([hidden[max(0, t - lag)] for lag in range(10, -1, -1)]) for t in range(len(hidden))]
            x.append(np.stack(rows)[segment.warm_up :])
            y.append(segment.y[segment.warm_up :])
        return np.concatenate(x), np.concatenate(y)

    fitted, chosen = stack(session.train), stack(session.validation)
    scores = {
        strength: r2_axis_mean(chosen[1], Ridge(alpha=strength).fit(*fitted).predict(chosen[0]))
        for strength in 10.0 ** np.arange(7)
    }
    best = Ridge(alpha=max(scores, key=lambda strength: scores[strength]))
    best.fit(*(np.concatenate(parts) for parts in zip(fitted, chosen)))
    expected = best.predict(stack(session.validation[:1])[0])
    segment = session.validation[0]
    np.testing.assert_allclose(decoder.predict(segment.x, session)[segment.warm_up :], expected, atol=1e-4)
    running = decoder.stream(session)
    streamed = np.stack([running.step(frame) for frame in segment.x])
    np.testing.assert_allclose(streamed, decoder.predict(segment.x, session), atol=1e-5)
    assert decoder.parameters().trained == 2 * (11 * 32 + 1)


@pytest.mark.parametrize("kind", [RealmStudent, RealmTeacher])
def test_read_out_of_a_single_output(kind: Any, context: Context, sessions: list[Any], session_maker: Any) -> None:
    """Targets of one axis, as speed on `open-field`."""

    def one_axis(session: Any) -> Any:
        train, validation = (
            tuple(replace(segment, y=segment.y[:, :1]) for segment in part)
            for part in (session.train, session.validation)
        )
        return replace(session, target_names=("speed",), train=train, validation=validation)

    stages = train("teacher", "student") if kind is RealmStudent else train("teacher")
    decoder = kind("tiny", {"adaptation": "ridge"}, stages)
    session = one_axis(session_maker(name="held-out", seed=9))
    decoder.adapt(session, context, decoder.pretrain([one_axis(each) for each in sessions], context))
    segment = session.validation[0]
    prediction = decoder.predict(segment.x, session)
    assert prediction.shape == segment.y.shape
    assert decoder.network.head.weight.shape == (1, 11 * 32)
    # Refitted on these frames too, it must beat their mean.
    scored = slice(segment.warm_up, None)
    assert np.mean((prediction - segment.y)[scored] ** 2) < 0.9 * np.var(segment.y[scored])


@pytest.mark.parametrize("kind", [RealmStudent, RealmPooled])
def test_head_that_nothing_has_trained_is_not_scored_before_calibration(kind: Any) -> None:
    assert kind("tiny").zero_shot
    assert not kind("tiny", {}, {"student.updates": 0}).zero_shot


def test_fresh_head_of_the_control_is_the_students(context: Context, sessions: list[Any], session_maker: Any) -> None:
    """What a comparison of the two at one seed must not differ by."""
    stages = train("student") | train("finetune", updates=0)
    heads = []
    for decoder in (
        RealmStudent("tiny", {"fresh_head": True}, stages | train("teacher")),
        RealmPooled("tiny", {"fresh_head": True}, stages),
    ):
        artifact = decoder.pretrain(sessions, context)
        decoder.adapt(session_maker(name="held-out", seed=9), context, artifact)
        heads.append(decoder.arrays()["head.weight"])
        assert not np.array_equal(heads[-1], artifact.arrays["head.weight"])
    np.testing.assert_array_equal(*heads)


def test_fresh_head_and_no_skip_in_the_second_version(
    context: Context, sessions: list[Any], session_maker: Any
) -> None:
    small = {"variant": "paper", "energy_s": None}
    stages = train("teacher", "finetune", updates=0) | train("student")
    for fresh in (False, True):
        decoder = RealmStudent("tiny", {**small, "fresh_head": fresh}, stages)
        artifact = decoder.pretrain(sessions, context)
        decoder.adapt(session_maker(), context, artifact)
        arrays = decoder.arrays()
        assert ("skip.weight" in arrays) == (not fresh)
        assert np.array_equal(arrays["head.weight"], artifact.arrays["head.weight"]) == (not fresh)
        assert decoder.zero_shot == (not fresh)


def test_fresh_head_and_fresh_skip_in_the_first_version(
    context: Context, sessions: list[Any], session_maker: Any
) -> None:
    none = train("teacher", "student", "finetune", updates=0)
    decoder = RealmStudent("tiny", {"variant": "paper", "fresh_head": True, "fresh_skip": True}, none)
    artifact = decoder.pretrain(sessions, context)
    decoder.adapt(session_maker(), context, artifact)
    arrays = decoder.arrays()
    for name in ("head.weight", "skip.weight"):
        assert arrays[name].shape == artifact.arrays[name].shape
        assert not np.array_equal(arrays[name], artifact.arrays[name])
    assert np.array_equal(arrays["encoder.norm.weight"], artifact.arrays["encoder.norm.weight"])
    assert not decoder.zero_shot
    for given in ({"variant": "paper", "fresh_skip": True}, {"fresh_head": True, "fresh_skip": True}):
        with pytest.raises(OptionError, match="fresh_skip"):
            RealmStudent("tiny", given)


def test_frozen_layers_stay_as_they_are(context: Context, sessions: list[Any], session_maker: Any) -> None:
    """The first blocks with their norms; what stands behind them learns."""
    options = train("teacher", "student", updates=0) | train("finetune", updates=2)
    decoder = RealmStudent("tiny", {"layers": 3, "frozen_layers": 2}, options)
    artifact = decoder.pretrain(sessions, context)
    decoder.adapt(session_maker(), context, artifact)
    arrays = decoder.arrays()
    moved = {name for name, array in arrays.items() if not np.array_equal(array, artifact.arrays[name])}
    assert not [name for name in moved if name.startswith(("encoder.blocks.0.", "encoder.blocks.1."))]
    assert {name for name in arrays if name.startswith("encoder.blocks.2.")} <= moved
    assert any(name.startswith("encoder.tokenizer.") for name in moved)
    counted = decoder.parameters()
    frozen = sum(arrays[name].size for name in arrays if name.startswith(("encoder.blocks.0.", "encoder.blocks.1.")))
    assert counted.trained == counted.deployed - frozen
    with pytest.raises(OptionError, match="frozen_layers=4, but the network has layers=3"):
        RealmStudent("tiny", {"layers": 3, "frozen_layers": 4})


def test_part_of_the_pretraining_sessions_grows_and_is_drawn_by_the_seed(context: Context, session_maker: Any) -> None:
    sessions = [session_maker(name=f"p{index}", seed=index) for index in range(5)]

    def used(count: int | None, seed: int = 0) -> list[str]:
        decoder = RealmPooled("tiny", {} if count is None else {"sessions": count})
        chosen = decoder.pretraining_sessions(sessions, Context(seed, "cpu", context.artifacts, context.checkpoints))
        return [session.name for session in chosen]

    assert used(None) == used(5) == [session.name for session in sessions]
    for count in (1, 2, 3, 4):
        assert len(used(count)) == count
        assert set(used(count)) < set(used(count + 1))
    assert len({tuple(used(2, seed)) for seed in range(20)}) > 3
    with pytest.raises(OptionError, match=r"decoder\.sessions=6, but the fold has 5"):
        used(6)


def test_selection_on_held_out_sessions_is_refused_unless_a_leaky_protocol_hands_them_out(
    context: Context, sessions: list[Any], session_maker: Any
) -> None:
    decoder = RealmStudent("tiny", {"select_on": "held-out"}, train("teacher", "student", "finetune"))
    with pytest.raises(ProtocolError, match="an honest protocol does not hand them out"):
        decoder.pretrain(sessions, context)
    honest = RealmStudent("tiny", {}, train("teacher", "student", "finetune")).pretrain(sessions, context)
    context.selection = [session_maker(name="held-out", seed=9)]
    leaky = decoder.pretrain(sessions, context)
    assert leaky.hash != honest.hash
    assert leaky.record.parents == honest.record.parents


def test_kinds_of_teacher(context: Context, sessions: list[Any], tmp_path: Path) -> None:
    """A causal one hears nothing of the future, a random one has the weights it was drawn with."""
    session, teachers = sessions[0], {}
    for kind in ("bidirectional", "causal", "random"):
        options = train("student", "finetune") if kind == "random" else train("teacher", "student", "finetune")
        decoder = RealmStudent("tiny", {"teacher": kind}, options)
        [hashed] = decoder.pretrain(sessions, context).record.parents
        teachers[kind] = RealmEncoder(decoder.teacher_config(session)).eval()
        load_arrays_into(teachers[kind], load_arrays(tmp_path / f"realm-teacher-{hashed}.safetensors")[0])
    x, mask = torch.randn(1, 60, session.channels, session.features), torch.from_numpy(session.mask)[None]
    changed = torch.cat([x[:, :40], torch.randn_like(x[:, 40:])], dim=1)
    with torch.no_grad():
        moved = {kind: (net(x, mask) - net(changed, mask))[:, :40].abs().max() for kind, net in teachers.items()}
    assert moved["causal"] < 1e-5
    assert moved["bidirectional"] > 1e-3
    config = decoder.teacher_config(session)
    seed = stream_seed(0, "realm-teacher", "initial weights")
    fresh = drawn(lambda: MaskedAutoencoder(config, decoder.options.masking), seed).encoder
    for name, value in fresh.state_dict().items():
        torch.testing.assert_close(teachers["random"].state_dict()[name], value, rtol=0, atol=0)


def test_sizes_share_the_teacher(context: Context, sessions: list[Any]) -> None:
    options = train("teacher", "student", "finetune")
    students = [DECODERS.get(name)("tiny", {}, options) for name in ("realm-student", "realm-student-s", "realm-bi")]
    records = [student.pretrain(sessions, context).record for student in students]
    assert len({record.parents for record in records}) == 1
    assert records[1].parameters < records[0].parameters


def test_backbones_need_their_options(context: Context, sessions: list[Any]) -> None:
    with pytest.raises(OptionError, match="backbone=attention needs it"):
        RealmStudent("tiny", {"backbone": "attention"})
    with pytest.raises(OptionError, match="others have none"):
        RealmStudent("tiny", {"attention_s": 1.0})
    recurrent = RealmStudent("tiny", {"backbone": "gru"}, train("teacher", "student", "finetune"))
    artifact = recurrent.pretrain(sessions, context)
    assert any("gru.weight_hh_l0" in name for name in artifact.arrays)


def test_more_aligned_layers_than_there_are(context: Context, sessions: list[Any]) -> None:
    decoder = RealmStudent("tiny", {"distillation.aligned_layers": 2}, train("teacher", "student", "finetune"))
    with pytest.raises(OptionError, match="aligned_layers=2, but teacher or student has 1 only"):
        decoder.pretrain(sessions, context)


def test_shuffled_teacher_looks_at_another_window(sessions: list[Any]) -> None:
    decoder = RealmStudent("tiny")
    torch.manual_seed(0)
    teacher = RealmEncoder(decoder.teacher_config(sessions[0])).eval()
    student = Student(decoder.encoder_config(sessions[0]), 2).eval()
    from realmbench.seeds import stream
    from realmbench.training.windows import WindowSampler

    batch = WindowSampler(sessions, 1.0, 4, stream(0, "w"), "cpu").draw()
    weights = DistillationOptions(alignment=1, task=0, reconstruction=0, shuffled=True)
    with torch.no_grad():
        mine = student.network.encoder.encode(student.network.encoder.tokenize(batch.x, batch.mask)).layers[-1]
        order = [3, 0, 1, 2]
        seen, mask = batch.x[order], batch.mask[order]
        target = teacher.encode(teacher.tokenize(seen, mask)).layers[-1]
        cosine = torch.nn.functional.cosine_similarity(mine, target, dim=-1)
        torch.testing.assert_close(distillation_loss(student, teacher, weights, batch), (1 - cosine).mean())
