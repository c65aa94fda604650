"""Decoders that learn from their own guesses: what is fitted to them, what labels count, and that none is seen."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from realmbench.artifact import Artifact
from realmbench.decoder import Context
from realmbench.errors import OptionError
from realmbench.realm.guesses import RealmStudentMixed, RealmStudentUnlabelled, guessed, mixed
from realmbench.realm.plus import validation_r2
from realmbench.realm.plus_decoder import RealmStudentPlus
from realmbench.realm.read_in import ReadInOptions, Weights, fit_read_in, with_read_in
from realmbench.session import Segment, SessionData
from realmbench.steady import steadied

STAGE = {"updates": 6, "evaluate_every": 3, "window_s": 1.0}
TRAIN = {f"{stage}.{key}": value for stage in ("teacher", "task", "student") for key, value in STAGE.items()}
FINETUNE = {f"finetune.{key}": value for key, value in STAGE.items()}


@pytest.fixture
def artifact(context: Context, sessions: list[Any]) -> Artifact:
    return RealmStudentUnlabelled("tiny", {}, TRAIN).pretrain(sessions, context)


def adapted(session: SessionData, context: Context, artifact: Artifact, **options: Any) -> RealmStudentUnlabelled:
    decoder = RealmStudentUnlabelled("tiny", options, TRAIN)
    decoder.adapt(session, context, artifact)
    return decoder


def in_its_own_words(decoder: RealmStudentUnlabelled, session: SessionData) -> SessionData:
    """Return the session with the decoder's predictions of raw frames, in its network's units, as its targets."""
    units = decoder.plus_network.units
    scale, shift = units.scale.numpy(), units.shift.numpy()

    def said(segment: Segment) -> Segment:
        return replace(segment, y=(decoder.predict(segment.x, session) - shift) / scale)

    train, validation = (tuple(said(segment) for segment in part) for part in (session.train, session.validation))
    return replace(session, train=train, validation=validation)


def test_pretraining_is_that_of_the_student_with_labels(
    context: Context, sessions: list[Any], artifact: Artifact
) -> None:
    assert RealmStudentPlus("tiny", {}, {**TRAIN, **FINETUNE}).pretrain(sessions, context).hash == artifact.hash


def test_each_round_fits_to_what_the_one_before_predicts(
    context: Context, artifact: Artifact, session_maker: Any
) -> None:
    """Silent, once and twice fitted: the next read-in is the ridge regression of that decoder's predictions."""
    session = session_maker(name="held-out", seed=9)
    rounds = [adapted(session, context, artifact, rounds=number) for number in range(3)]
    for before, after in pairwise(rounds):
        expected = fit_read_in(steadied(in_its_own_words(before, session), 30.0), ReadInOptions()).weights
        read_in = after.plus_network.read_in
        np.testing.assert_allclose(read_in.weight, expected.weight, atol=1e-4)
        np.testing.assert_allclose(read_in.offset, expected.offset, atol=1e-4)
        assert expected.weight.any()
    assert not np.allclose(rounds[1].arrays()["read_in.weight"], rounds[2].arrays()["read_in.weight"], atol=1e-3)


def test_without_rounds_and_without_frames_it_is_what_pretraining_left(
    context: Context, artifact: Artifact, session_maker: Any
) -> None:
    session = session_maker(name="held-out", seed=9)
    for decoder in (
        adapted(session, context, artifact, rounds=0),
        adapted(replace(session, train=()), context, artifact),
    ):
        kept = {name for name, array in decoder.arrays().items() if np.array_equal(array, artifact.arrays[name])}
        assert set(artifact.arrays) - kept <= {"units.scale", "units.shift"}


def test_guesses_of_a_head_that_has_learnt_nothing_are_warned_of(
    context: Context, artifact: Artifact, sessions: list[Any], session_maker: Any
) -> None:
    session = session_maker(name="held-out", seed=9)
    adapted(session, context, artifact)
    assert context.warnings == []
    drawn = RealmStudentUnlabelled("tiny", {}, {"student.updates": 0})
    drawn.adapt(session, context, drawn.pretrain(sessions, context))
    assert context.warnings == ["train.student.updates=0: guesses are those of a head as it was drawn"]


def relabelled(session: SessionData) -> SessionData:
    """Return the session with targets of another place, size and course."""
    generator = np.random.default_rng(4)

    def other(segment: Segment) -> Segment:
        return replace(segment, y=generator.standard_normal(segment.y.shape).astype(np.float32))

    train, validation = (tuple(other(segment) for segment in part) for part in (session.train, session.validation))
    own = session.normaliser
    normaliser = replace(own, y_mean=own.y_mean + 7, y_deviation=3 * own.y_deviation)
    return replace(session, train=train, validation=validation, normaliser=normaliser)


def test_no_label_is_looked_at(context: Context, sessions: list[Any], artifact: Artifact, session_maker: Any) -> None:
    """Predictions in the behaviour's own units stay where they are; those of what learns from labels do not."""
    session = session_maker(name="held-out", seed=9)
    x = session.validation[0].x

    def moved(decoder: RealmStudentPlus) -> float:
        predictions = []
        for labels in (session, relabelled(session)):
            decoder.adapt(labels, context, artifact)
            predictions.append(labels.normaliser.physical(decoder.predict(x, labels)))
        return float(np.abs(predictions[0] - predictions[1]).max() / predictions[0].std())

    assert moved(RealmStudentUnlabelled("tiny", {}, TRAIN)) < 1e-4
    assert moved(RealmStudentPlus("tiny", {}, {**TRAIN, **FINETUNE})) > 0.1


def targets_of(session: SessionData) -> list[np.ndarray]:
    return [segment.y for segment in (*session.train, *session.validation)]


def test_mean_of_targets_by_hand(sessions: list[Any]) -> None:
    expected = [0.25 * own + 0.75 * other for own, other in zip(*map(targets_of, sessions))]
    for got, wanted in zip(targets_of(mixed(*sessions, 0.25)), expected):
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    own = [segment.x for segment in sessions[0].train]
    assert all(segment.x is x for segment, x in zip(mixed(*sessions, 0.25).train, own))


def test_labels_count_by_their_seconds(context: Context, artifact: Artifact, session_maker: Any) -> None:
    """Nothing is trained: the read-in is the ridge regression of targets that are labels by 40 of 40 + 10 seconds."""
    session = session_maker(name="held-out", seed=9)
    assert sum(len(segment) for segment in session.train) / session.rate == 40
    unlabelled = adapted(session, context, artifact)
    guess = steadied(in_its_own_words(unlabelled, session), 30.0)
    labels = unlabelled.plus_network.units.given(steadied(session, 30.0))
    decoder = RealmStudentMixed("tiny", {"guess_s": 10}, {**TRAIN, "finetune.updates": 0})
    decoder.adapt(session, context, artifact)
    expected = fit_read_in(mixed(labels, guess, 0.8), ReadInOptions()).weights
    np.testing.assert_allclose(decoder.arrays()["read_in.weight"], expected.weight, atol=1e-4)
    # Positive control: neither of the two alone.
    for alone in (labels, guess):
        other = fit_read_in(alone, ReadInOptions()).weights
        assert not np.allclose(other.weight, expected.weight, atol=1e-3)


@pytest.mark.parametrize("misleading", [False, True])
def test_fine_tuning_never_ends_below_its_start_on_validation(
    context: Context, artifact: Artifact, session_maker: Any, misleading: bool
) -> None:
    session = session_maker(name="held-out", seed=9)
    if misleading:  # the training part says the opposite of validation: whatever is learnt from it is worse
        session = replace(session, train=tuple(replace(segment, y=-segment.y) for segment in session.train))

    def trained(options: dict[str, Any]) -> RealmStudentMixed:
        decoder = RealmStudentMixed("tiny", {}, {**TRAIN, **options})
        decoder.adapt(session, context, artifact)
        return decoder

    start, end = trained({"finetune.updates": 0}), trained({**FINETUNE, "finetune.learning_rate": 3e-3})
    steady = steadied(session, 30.0)
    guess = guessed(adapted(session, context, artifact).plus_network, steady)

    def score(decoder: RealmStudentMixed) -> float:
        network = decoder.plus_network
        targets = mixed(network.units.given(steady), guess, 40 / 70)
        weights = Weights(network.read_in.weight.numpy(), network.read_in.offset.numpy())
        return validation_r2(network, [with_read_in(targets, weights)], "cpu")()

    assert score(end) >= score(start) - 1e-6
    changed = [name for name, array in end.arrays().items() if not np.array_equal(array, start.arrays()[name])]
    assert bool(changed) != misleading


def test_what_the_session_changes(context: Context, artifact: Artifact, session_maker: Any) -> None:
    """Without labels the read-in alone, and nothing at all without rounds; a frozen tokenizer stays with labels too."""
    session = session_maker(name="held-out", seed=9)
    for rounds, changed in ((0, 0), (2, 4 * 2 * (3 * 2 + 1))):  # horizons, outputs, channels and features, offset
        counted = adapted(session, context, artifact, rounds=rounds).parameters()
        assert (counted.deployed, counted.trained) == (artifact.record.parameters, changed)
    for frozen in (True, False):
        decoder = RealmStudentMixed("tiny", {"freeze_tokenizer": frozen}, {**TRAIN, **FINETUNE})
        decoder.adapt(session, context, artifact)
        kept = all(
            np.array_equal(array, artifact.arrays[name])
            for name, array in decoder.arrays().items()
            if name.startswith("encoder.tokenizer.")
        )
        assert kept == frozen


def test_options_that_need_labels_or_training_are_refused() -> None:
    for options, train, message in (
        ({"freeze_tokenizer": True}, {}, "nothing is trained on the held-out session"),
        ({"target_prior_s": 5}, {}, "stays in the units of the pretraining sessions"),
        ({"rounds": 2, "read_in.horizons_s": []}, {}, "there is no read-in"),
        ({}, {"finetune.updates": 5}, "unknown option"),
    ):
        with pytest.raises(OptionError, match=message):
            RealmStudentUnlabelled("tiny", options, train)
    with pytest.raises(OptionError, match="stays in the units of the pretraining sessions"):
        RealmStudentMixed("tiny", {"target_prior_s": 5})


def test_rounds_of_guesses_that_do_not_count_are_refused() -> None:
    with pytest.raises(OptionError, match=r"decoder\.rounds: decoder\.guess_s=0 leaves guesses out"):
        RealmStudentMixed("tiny", {"guess_s": 0, "rounds": 1})
    RealmStudentMixed("tiny", {"guess_s": 10, "rounds": 1})
