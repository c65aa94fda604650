"""`realm-student-plus`: what its stages share, what the student learns, and what the held-out session may change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from realmbench.artifact import ArtifactStore
from realmbench.decoder import Context
from realmbench.errors import OptionError
from realmbench.realm.decoders import RealmStudent
from realmbench.realm.plus import (
    HandDownOptions,
    PlusNetwork,
    TargetUnits,
    hand_down_loss,
    make_network,
    validation_r2,
)
from realmbench.realm.plus_ahead import RealmStudentPlusAhead
from realmbench.realm.plus_decoder import RealmStudentPlus, RealmTeacherPlus
from realmbench.realm.read_in import ReadInOptions, Weights, fit_read_in, no_weights, with_read_in
from realmbench.seeds import stream
from realmbench.steady import steadied
from realmbench.training.network_decoder import load_arrays_into
from realmbench.training.windows import WindowSampler

STAGE = {"updates": 6, "evaluate_every": 3, "window_s": 1.0}
READ_IN = ReadInOptions()


def train(*stages: str, **changes: Any) -> dict[str, Any]:
    return {f"{stage}.{key}": value for stage in stages for key, value in {**STAGE, **changes}.items()}


ALL = train("teacher", "task", "student", "finetune")
TAUGHT = train("teacher", "task", "finetune")


def test_masked_teacher_is_the_one_of_the_student(context: Context, sessions: list[Any]) -> None:
    """Though the code of the decoders differs, as the harness tells the store."""
    other = replace(context, artifacts=ArtifactStore(context.artifacts.folder, "code of another decoder", {}))
    student = RealmStudent("tiny", {}, train("teacher", "student", "finetune")).pretrain(sessions, other)
    plus = RealmStudentPlus("tiny", {}, ALL).pretrain(sessions, context)
    [task_teacher] = plus.record.parents
    assert context.artifacts.record_of(task_teacher).parents == student.record.parents
    again = RealmStudentPlus("tiny", {}, ALL).pretrain(sessions, context)
    assert again.hash == plus.hash


def test_pretraining_leaves_a_silent_read_in(context: Context, sessions: list[Any]) -> None:
    """The network has met sessions that said something; what it hands on says nothing of any of them."""
    plus = RealmStudentPlus("tiny", {}, ALL).pretrain(sessions, context)
    said = {name: array.any() for name, array in plus.arrays.items() if name in ("enter.weight", "direct.weight")}
    assert said == {"enter.weight": True, "direct.weight": True}
    assert not any(plus.arrays[name].any() for name in ("read_in.weight", "read_in.offset"))


def test_teacher_is_the_one_of_the_student(context: Context, sessions: list[Any], session_maker: Any) -> None:
    plus = RealmStudentPlus("tiny", {}, ALL).pretrain(sessions, context)
    decoder = RealmTeacherPlus("tiny", {}, TAUGHT)
    teacher = decoder.pretrain(sessions, context)
    assert plus.record.parents == (teacher.hash,)
    session = session_maker(name="held-out", seed=9)
    decoder.adapt(session, context, teacher)
    x = np.concatenate([segment.x for segment in session.validation])
    changed = x.copy()
    changed[-1] += 1
    # It looks ahead, as it says: the last frame changes what came before.
    assert not np.allclose(decoder.predict(x, session)[-10:-5], decoder.predict(changed, session)[-10:-5], atol=1e-6)
    assert decoder.look_ahead_s == float("inf")
    assert not decoder.causal


def test_delay_shifts_the_network_but_not_what_the_read_in_says_at_once(
    context: Context, sessions: list[Any], session_maker: Any
) -> None:
    """The causal network's hidden states of L frames later, and the present read-in; the teacher waits for nothing."""
    ahead, causal = RealmStudentPlusAhead("tiny", {"look_ahead_s": 0.1}), RealmStudentPlus("tiny")
    session = sessions[0]
    assert not ahead.causal
    assert ahead.look_ahead_s == 0.1
    assert ahead.teacher_config(session) == causal.teacher_config(session)
    torch.manual_seed(0)
    delayed, network = ahead.build(session).eval(), causal.build(session).eval()
    network.load_state_dict(delayed.state_dict())
    assert isinstance(network, PlusNetwork)
    mask = torch.from_numpy(session.mask)[None]
    x = torch.randn(1, 60, session.channels, session.features)
    with torch.no_grad():
        steadied = network.steady(x)
        said = network.read_in(steadied)
        hidden = network.encode(steadied, mask, said).final
        expected = network.head(hidden[:, 5:]) + network.direct(said[:, :-5])  # type: ignore[misc]  # there are horizons
        torch.testing.assert_close(delayed(x, mask)[:, :-5], network.units(expected), rtol=0, atol=1e-5)
        beyond = torch.cat([x[:, :36], torch.randn_like(x[:, 36:])], dim=1)
        moved = (delayed(beyond, mask) - delayed(x, mask))[0].abs().amax(1)
    assert moved[:31].max() < 1e-6  # frame 30 sees up to frame 35
    assert moved[31] > 1e-6
    trained = RealmStudentPlusAhead("tiny", {}, ALL)
    held_out = session_maker()
    trained.adapt(held_out, context, trained.pretrain(sessions, context))
    frames = held_out.validation[0].x
    assert trained.stream(held_out).delay == 5
    np.testing.assert_allclose(trained.streamed(frames, held_out), trained.predict(frames, held_out)[:-5], atol=1e-5)


def test_loss_by_hand(sessions: list[Any]) -> None:
    decoder = RealmStudentPlus("tiny")
    torch.manual_seed(0)
    student, teacher = (
        make_network(config(sessions[0])).eval() for config in (decoder.plus_config, decoder.teacher_config)
    )
    carried = [fit_read_in(session, READ_IN).session for session in sessions]
    batch = WindowSampler(carried, 1.0, 4, stream(0, "w"), "cpu").draw()
    said = batch.privileged[..., 0]
    with torch.no_grad():
        ours, theirs = (network.decode(batch.x, batch.mask, said) for network in (student, teacher))
        residuals = [network.encode(batch.x, batch.mask, said).layers[-1] for network in (student, teacher)]
        cosine = torch.nn.functional.cosine_similarity(*residuals, dim=-1).mean()
        parts = {"task": (ours - batch.y).square().mean(), "outputs": (ours - theirs).square().mean()}
        for weights, expected in (
            ({"task": 1, "outputs": 0, "alignment": 0}, parts["task"]),
            ({"task": 0, "outputs": 1, "alignment": 0}, parts["outputs"]),
            ({"task": 1, "outputs": 0, "alignment": 1}, parts["task"] + 1 - cosine),
            ({"task": 1, "outputs": 2, "alignment": 3}, parts["task"] + 2 * parts["outputs"] + 3 * (1 - cosine)),
        ):
            loss = hand_down_loss(student, teacher, HandDownOptions(**weights), batch)
            torch.testing.assert_close(loss, expected)
        alone = hand_down_loss(student, None, HandDownOptions(task=3, outputs=0, alignment=0), batch)
        torch.testing.assert_close(alone, 3 * parts["task"])


def test_alignment_on_validation_is_noted_beside_the_score(context: Context, sessions: list[Any]) -> None:
    decoder = RealmStudentPlus("tiny", {}, {**ALL, "student.evaluate_every": 6})
    artifact = decoder.pretrain(sessions, context)
    start, end = artifact.record.history
    student, teacher = (make_network(config(sessions[0])) for config in (decoder.plus_config, decoder.teacher_config))
    load_arrays_into(student, artifact.arrays)
    load_arrays_into(teacher, RealmTeacherPlus("tiny", {}, TAUGHT).pretrain(sessions, context).arrays)
    distances = []
    for session in decoder.rehearsed(sessions, context)():
        [segment] = session.validation
        x, said = (torch.from_numpy(part)[None] for part in (segment.x, segment.privileged[..., 0]))
        mask = torch.from_numpy(session.mask)[None]
        with torch.no_grad():
            ours, theirs = (net.eval().encode(x, mask, said).layers[-1] for net in (student, teacher))
        distances.append((1 - torch.cosine_similarity(ours, theirs, dim=-1)).mean().item())
    assert len(distances) == 4  # of each session silent and whole
    assert end["alignment"] == pytest.approx(np.mean(distances), rel=1e-5)
    assert end["alignment"] < start["alignment"]
    [above] = artifact.record.parents
    assert not any("alignment" in entry for entry in context.artifacts.record_of(above).history)


def test_without_a_hand_down_no_teacher_is_trained(context: Context, sessions: list[Any]) -> None:
    none = {"hand_down.outputs": 0, "hand_down.alignment": 0}
    plus = RealmStudentPlus("tiny", none, train("student", "finetune")).pretrain(sessions, context)
    assert plus.record.parents == ()
    with pytest.raises(OptionError, match=r"train\.task\.updates.*leave the teacher out"):
        RealmStudentPlus("tiny", none, {"task.updates": 5})
    with pytest.raises(OptionError, match="the head would learn nothing"):
        RealmStudentPlus("tiny", {"hand_down.outputs": 0, "hand_down.task": 0})
    with pytest.raises(OptionError, match=r"masking.*leaves masked autoencoding out"):
        RealmStudentPlus("tiny", {"masking.share": 0.4}, {"teacher.updates": 0})


def test_teacher_without_the_task_has_no_outputs_to_hand_down() -> None:
    untaught = {"task.updates": 0}
    with pytest.raises(OptionError, match=r"train\.task\.updates: .*has no outputs to hand down"):
        RealmStudentPlus("tiny", {}, untaught)
    RealmStudentPlus("tiny", {"hand_down.outputs": 0}, untaught)  # it hands its representation down
    assert not RealmTeacherPlus("tiny", {}, untaught).zero_shot


def test_network_that_has_not_learnt_the_task_is_no_zero_shot_network(
    context: Context, sessions: list[Any], session_maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What training leaves is kept, though it is worse than the noise before it, and were that noise perfect."""
    monkeypatch.setattr(RealmStudentPlus, "_zero_shot_score", lambda *_: 1.0)
    decoder = RealmStudentPlus("tiny", {}, {**train("finetune", learning_rate=0.3), "student.updates": 0})
    assert not decoder.zero_shot
    assert RealmStudentPlus("tiny").zero_shot
    session = session_maker(name="held-out", seed=9)
    session = replace(session, train=tuple(replace(segment, y=-segment.y) for segment in session.train))
    artifact = decoder.pretrain(sessions, context)
    assert not artifact.record.parents  # there is no training by which a teacher could hand anything down
    decoder.adapt(session, context, artifact)
    assert not np.array_equal(decoder.arrays()["head.weight"], artifact.arrays["head.weight"])
    assert not any("zero-shot" in warning for warning in context.warnings)


def test_without_horizons_there_is_no_read_in(context: Context, sessions: list[Any], session_maker: Any) -> None:
    """An ablation: the same network behind the same normaliser; what is left streams as it predicts."""
    decoder = RealmStudentPlus("tiny", {"read_in.horizons_s": []}, ALL)
    artifact = decoder.pretrain(sessions, context)
    session = session_maker(name="held-out", seed=9)
    decoder.adapt(session, context, artifact)
    assert isinstance(decoder.network, PlusNetwork)
    assert decoder.network.enter is None
    assert decoder.network.direct is None
    assert not decoder.network.read_in.weight.numel()
    x = np.concatenate([segment.x for segment in session.validation])
    running = decoder.stream(session)
    np.testing.assert_allclose([running.step(frame) for frame in x], decoder.predict(x, session), atol=1e-5)
    with pytest.raises(OptionError, match="there is no read-in"):
        RealmStudentPlus("tiny", {"read_in.horizons_s": [], "read_in.parts": 3})


def test_windows_carry_the_outputs_of_their_own_session(sessions: list[Any]) -> None:
    """A window's read-in outputs are those of its frames; the network alone gives the same where weights are shared."""
    weights = fit_read_in(sessions[1], READ_IN).weights
    decoder = RealmStudentPlus("tiny")
    network = make_network(decoder.plus_config(sessions[0])).eval()
    network.read_in.set(weights)
    carried = with_read_in(steadied(sessions[0], 30.0), weights)
    segment, mask = carried.validation[0], torch.from_numpy(carried.mask)[None]
    x, said = torch.from_numpy(segment.x)[None], torch.from_numpy(segment.privileged[None, :, :, 0])
    raw = torch.from_numpy(sessions[0].validation[0].x)[None]
    with torch.no_grad():
        torch.testing.assert_close(network(raw, mask), network.decode(x, mask, said), rtol=0, atol=1e-5)


@pytest.mark.parametrize("misleading", [False, True])
def test_never_below_the_zero_shot_network_on_validation(
    context: Context, sessions: list[Any], session_maker: Any, misleading: bool
) -> None:
    decoder = RealmStudentPlus("tiny", {}, {**ALL, "finetune.learning_rate": 3e-3})
    artifact = decoder.pretrain(sessions, context)
    session = session_maker(name="held-out", seed=9)
    if misleading:  # the training part says the opposite of validation: whatever is learnt from it is worse
        session = replace(session, train=tuple(replace(segment, y=-segment.y) for segment in session.train))
    decoder.adapt(session, context, artifact)
    assert isinstance(decoder.network, PlusNetwork)
    session = steadied(session, 30.0)
    zero_shot = RealmStudentPlus("tiny", {}, ALL)
    zero_shot.adapt(replace(session, train=()), context, artifact)
    assert isinstance(zero_shot.network, PlusNetwork)
    own = Weights(decoder.network.read_in.weight.numpy(), decoder.network.read_in.offset.numpy())
    for name, value in zero_shot.arrays().items():
        np.testing.assert_array_equal(value, artifact.arrays[name])

    def score(network: PlusNetwork, weights: Weights) -> float:
        """In the session's own units, as the harness asks for them."""
        carried = with_read_in(network.units.given(session), weights)
        return validation_r2(network, [carried], "cpu")()

    zero_shot.network.units.meet(session, 0.0)
    start = score(zero_shot.network, no_weights(session, READ_IN))
    end = score(decoder.network, own)
    assert end >= start - 1e-6 if misleading else end > start + 0.02
    assert any("the zero-shot network" in warning for warning in context.warnings) == misleading
    if misleading:
        assert not own.weight.any()


def with_target(session: Any, mean: float, deviation: float) -> Any:
    """Return the session with other statistics of its target, as those of another stretch of it would be."""
    own = session.normaliser
    normaliser = replace(own, y_mean=np.full_like(own.y_mean, mean), y_deviation=np.full_like(own.y_mean, deviation))
    return replace(session, normaliser=normaliser)


def test_units_of_the_target_by_hand(sessions: list[Any], session_maker: Any) -> None:
    one, two = with_target(sessions[0], 1.0, 3.0), with_target(sessions[1], 3.0, 5.0)
    units = TargetUnits(2)
    units.begin([one, two])
    # Pooled: the mean of the means, and the mean of the squares less its square.
    mean, deviation = 2.0, np.sqrt((3**2 + 1**2 + 5**2 + 3**2) / 2 - 2**2)
    np.testing.assert_allclose(units.mean, [mean] * 2, rtol=1e-6)
    np.testing.assert_allclose(units.deviation, [deviation] * 2, rtol=1e-6)
    session = with_target(session_maker(name="held-out", seed=9), 4.0, 2.0)
    units.meet(session, 0.25)
    mixed, spread = 0.75 * mean + 0.25 * 4, np.sqrt(0.75 * deviation**2 + 0.25 * 2**2)
    prediction = torch.randn(7, 2)
    physical = session.normaliser.physical(units(prediction).numpy())
    np.testing.assert_allclose(physical, mixed + spread * prediction.numpy(), rtol=1e-5, atol=1e-5)
    given = units.given(session)
    for before, after in zip(session.train, given.train):
        np.testing.assert_allclose(units(torch.from_numpy(after.y)), before.y, atol=1e-5)
    assert given.key != session.key


def test_wrong_scale_of_a_few_seconds_does_not_reach_the_predictions(
    context: Context, sessions: list[Any], session_maker: Any
) -> None:
    """Nothing is trained on the session. Its seconds were of large movements by chance: three times the deviation."""
    options = {**train("teacher", "task", "student"), "finetune.updates": 0}
    artifact = RealmStudentPlus("tiny", {}, options).pretrain(sessions, context)
    session = session_maker(name="held-out", seed=9)
    x = session.validation[0].x

    def predicted(target_prior_s: float, deviation: float) -> np.ndarray:
        decoder = RealmStudentPlus("tiny", {"target_prior_s": target_prior_s}, options)
        held_out = with_target(session, 0.0, deviation)
        decoder.adapt(held_out, context, artifact)
        assert isinstance(decoder.network, PlusNetwork)
        decoder.network.read_in.silence()
        return held_out.normaliser.physical(decoder.predict(x, held_out))

    by_own = predicted(0.0, 3.0).std() / predicted(0.0, 1.0).std()
    mixed = predicted(1000.0, 3.0).std() / predicted(1000.0, 1.0).std()
    assert by_own == pytest.approx(3.0, rel=1e-3)
    assert mixed < 1.2


def test_options_of_the_faithful_student_do_not_apply() -> None:
    with pytest.raises(OptionError, match="unknown option"):
        RealmStudentPlus("tiny", {"distillation.alignment": 0})
    with pytest.raises(OptionError, match="unknown option"):
        RealmStudentPlus("tiny", {"adaptation": "ridge"})


def test_read_in_counts_among_the_deployed_parameters(
    context: Context, sessions: list[Any], session_maker: Any
) -> None:
    decoder = RealmStudentPlus("tiny", {}, ALL)
    artifact = decoder.pretrain(sessions, context)
    decoder.adapt(session_maker(name="held-out", seed=9), context, artifact)
    numbers = sum(array.size for array in decoder.arrays().values())
    assert decoder.parameters().deployed == decoder.parameters().trained == numbers == artifact.record.parameters


def test_horizons_are_whole_frames(session_maker: Any) -> None:
    with pytest.raises(OptionError, match=r"decoder.read_in.horizons_s=0.03 is no whole number of frames at 50 Hz"):
        fit_read_in(session_maker(), ReadInOptions(horizons_s=(0.0, 0.03)))
