"""The Kalman decoders against known parameters, the textbook's recursion and the exact ceiling."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from realmbench.baselines.kalman import Kalman, KalmanSmoother, _reduced
from realmbench.dataset import Dataset, open_dataset
from realmbench.decoder import Context
from realmbench.errors import RealmbenchError
from realmbench.evaluation import evaluate
from realmbench.front_end import front_end
from realmbench.metrics import r2_axis_mean
from realmbench.preparation import prepare_session
from realmbench.protocols import BlockedV1
from realmbench.session import Segment, SessionData
from realmbench.uncertainty import block_sums, errors_above_ceiling

ONE_NOISE = {"shrinkages": [0.3], "inflations": [2.0]}


def linear_session(session_maker: Any, memory: float = 0.6, lead: int = 3, seed: int = 0) -> SessionData:
    """Two damped velocities; six values that show them ``lead`` frames before they happen, in noise with a memory."""
    generator = np.random.default_rng(seed)
    session = session_maker(seconds=400.0)
    mixing = np.random.default_rng(7).standard_normal((2, 6))

    def segment(old: Segment) -> Segment:
        count = len(old) + 100
        velocity, noise = np.zeros((count, 2)), np.zeros((count, 6))
        for t in range(2, count):
            velocity[t] = 1.6 * velocity[t - 1] - 0.65 * velocity[t - 2] + 0.2 * generator.standard_normal(2)
            noise[t] = memory * noise[t - 1] + generator.standard_normal(6)
        frames = (np.roll(velocity, -lead, axis=0) @ mixing + noise)[50:-50]
        return replace(old, x=frames.reshape(-1, 3, 2).astype(np.float32), y=velocity[50:-50].astype(np.float32))

    return replace(
        session, train=tuple(map(segment, session.train)), validation=tuple(map(segment, session.validation))
    )


def both_parts(session: SessionData) -> list[Segment]:
    [segment] = session.validation
    scored = slice(segment.warm_up, None)
    rest = replace(segment, x=segment.x[scored], y=segment.y[scored], privileged=segment.privileged[scored], warm_up=0)
    return [*session.train, rest]


def test_finds_the_parameters_of_a_known_system(session_maker: Any, context: Context) -> None:
    session = linear_session(session_maker)
    decoder = Kalman("tiny", {"order": 2, "lead_s": 0.06, "coloured": True})
    decoder.adapt(session, context)
    fitted = decoder._fit(session.train)
    np.testing.assert_allclose(fitted.transition[:2, :4], np.kron([[1.6, -0.65]], np.eye(2)), atol=0.02)
    np.testing.assert_allclose(fitted.noise[:2, :2], 0.04 * np.eye(2), atol=0.002)
    np.testing.assert_allclose(fitted.memory, 0.6, atol=0.03)
    np.testing.assert_allclose(np.diag(fitted.residual), 1.0, atol=0.05)
    assert not np.any(fitted.transition[2:] - np.eye(8, k=-2)[2:])


def test_equals_the_textbook_recursion_in_float64(session_maker: Any, context: Context) -> None:
    """The whole covariance recursion over all values of a frame, without reduction and without a stationary gain."""
    session = linear_session(session_maker)
    decoder = Kalman("tiny", {"order": 2, "coloured": True, "lead_s": 0.06, **ONE_NOISE})
    decoder.adapt(session, context)
    fitted = decoder._fit(both_parts(session))
    noise = 2.0 * (0.7 * fitted.residual + 0.3 * np.diag(np.diag(fitted.residual)))
    values = session.validation[0].x.reshape(-1, 6).astype(np.float64) - fitted.x_mean
    state, covariance = np.zeros(len(fitted.transition)), 10 * np.eye(len(fitted.transition))
    expected, before = [], np.zeros(6)
    for value in values[:500]:
        state = fitted.transition @ state
        covariance = fitted.transition @ covariance @ fitted.transition.T + fitted.noise
        innovation = fitted.emission @ covariance @ fitted.emission.T + noise
        gain = covariance @ fitted.emission.T @ np.linalg.inv(innovation)
        state = state + gain @ (value - fitted.memory * before - fitted.emission @ state)
        covariance = covariance - gain @ fitted.emission @ covariance
        before = value
        expected.append(state[6:8] + fitted.y_mean)
    prediction = decoder.predict(session.validation[0].x, session)[:500]
    # Once the covariance has settled, nothing but rounding to float32 is left.
    np.testing.assert_allclose(prediction[200:], np.array(expected)[200:], atol=1e-6)


def test_targets_of_the_warm_up_are_not_learnt_from(session_maker: Any, context: Context) -> None:
    session = linear_session(session_maker)
    first, second = Kalman("tiny", ONE_NOISE), Kalman("tiny", ONE_NOISE)
    first.adapt(session, context)
    [segment] = session.validation
    segment.y[: segment.warm_up] += 1000
    second.adapt(session, context)
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(array, second.arrays()[name], err_msg=name)
    segment.y[segment.warm_up :: 2] += 1000  # control
    second.adapt(session, context)
    assert np.abs(first.arrays()["transition"] - second.arrays()["transition"]).max() > 0.1


def test_the_noise_is_chosen_by_a_fit_that_has_not_seen_validation(session_maker: Any, context: Context) -> None:
    """Where all targets are noise, nothing is to be believed; a fit that has seen validation believes itself."""
    session = session_maker(seconds=3.0, channels=20)
    generator = np.random.default_rng(0)
    for segment in (*session.train, *session.validation):
        segment.y[:] = generator.standard_normal(segment.y.shape)
    decoder = Kalman("tiny")
    decoder._used, decoder._lead = np.arange(40), 0
    [validation] = session.validation

    def best(segments: Sequence[Segment]) -> tuple[float, float]:
        scores, fitted = {}, decoder._fit(segments)
        for pair in itertools.product(decoder.options.shrinkages, decoder.options.inflations):
            decoder._settle(fitted, _reduced(fitted, pair[0]), pair[1])
            prediction = decoder.predict(validation.x, session)
            scores[pair] = r2_axis_mean(validation.y[validation.warm_up :], prediction[validation.warm_up :])
        return max(scores, key=lambda pair: scores[pair])

    assert decoder._choose(session, context) == best(session.train)
    assert best(session.train) != best(both_parts(session))  # control


def test_a_validation_segment_too_short_to_fit_to_is_left_out(session_maker: Any, context: Context) -> None:
    session = linear_session(session_maker)
    [segment] = session.validation
    short = replace(segment, x=segment.x[:112], y=segment.y[:112], privileged=segment.privileged[:112])
    decoder = Kalman("tiny", {"order": 5, **ONE_NOISE})
    decoder.adapt(replace(session, validation=(short,)), context)  # 12 frames, of which the state takes all
    expected = decoder._fit(session.train)
    np.testing.assert_array_equal(decoder.arrays()["transition"], expected.transition)


def test_what_was_estimated_is_worth_having(session_maker: Any, context: Context) -> None:
    """Each part of the model pays on data that have it: the lead, the noise's memory, and the smoother's future."""
    session = linear_session(session_maker, memory=0.85)
    segment = linear_session(session_maker, memory=0.85, seed=1).validation[0]

    def error(cls: type[Kalman], **options: Any) -> float:
        decoder = cls("tiny", {"order": 2, "coloured": True, **options})
        decoder.adapt(session, context)
        return float(np.square(decoder.predict(segment.x, session) - segment.y)[100:-100].mean())

    best = error(Kalman, lead_s=0.06)
    assert best < 0.95 * error(Kalman, lead_s=0.0)
    assert best < 0.98 * error(Kalman, lead_s=0.06, coloured=False)
    assert error(KalmanSmoother, lead_s=0.06) < best


def test_left_out_channels_have_no_part_in_the_model(session_maker: Any, context: Context) -> None:
    session = linear_session(session_maker)
    session = replace(session, mask=np.array([True, False, True]))
    decoder = Kalman("tiny")
    decoder.adapt(session, context)
    assert decoder.arrays()["memory"].shape == (4,)


def test_segments_shorter_than_the_state_are_refused(session_maker: Any, context: Context) -> None:
    with pytest.raises(RealmbenchError, match=r"shorten decoder\.lead_s"):
        Kalman("tiny", {"lead_s": 20.0}).adapt(session_maker(), context)


def errors_from_ceiling(dataset: Dataset, cls: type[Kalman], sessions: list[str], context: Context) -> float:
    """Fit on each session through the harness; return by how many standard errors the mean exceeds the ceiling."""
    sums, ceilings = [], []
    for name in sessions:
        prepared = prepare_session(dataset, name, BlockedV1(), front_end("lfp100"))
        decoder = cls("small", {"order": 4, "lead_s": 0.12, "coloured": False})
        decoder.adapt(prepared.data, context)
        sums.append(block_sums([evaluate(decoder, prepared).blocks]))
        ceilings.append(dataset.ceiling(name, decoder.look_ahead_s))
    errors = errors_above_ceiling(sums, [ceiling for ceiling in ceilings if ceiling is not None])
    assert errors is not None
    print(f"{cls.__name__}: {errors:.2f} standard errors from the ceiling {np.mean(ceilings):.4f}")
    return errors


@pytest.mark.parametrize("cls", [Kalman, KalmanSmoother])
def test_reaches_the_ceiling_of_its_own_world(cls: type[Kalman], context: Context) -> None:
    """Learnt from minutes of LFP behind an anti-alias filter, within three standard errors of the exact optimum."""
    dataset = open_dataset("synthetic-lds:velocity")
    assert -3 < errors_from_ceiling(dataset, cls, ["s0-test-0", "s1-test-0"], context) < 3


def test_the_true_lead_is_worth_something_on_the_twin(context: Context) -> None:
    """The ceiling is reached within errors of any lead near the true 120 ms; which one is right, the scores tell."""
    prepared = prepare_session(open_dataset("synthetic-lds:velocity"), "s1-test-3", BlockedV1(), front_end("lfp100"))
    scores = []
    for lead in (0.12, 0.0):
        decoder = Kalman("small", {"order": 4, "lead_s": lead, "coloured": False})
        decoder.adapt(prepared.data, context)
        scores.append(evaluate(decoder, prepared).metrics["r2_axis_mean"])
    assert scores[0] > scores[1] + 0.005


@pytest.mark.slow
@pytest.mark.parametrize("cls", [Kalman, KalmanSmoother])
def test_reaches_the_ceiling_in_all_sessions(cls: type[Kalman], context: Context) -> None:
    dataset = open_dataset("synthetic-lds:velocity")
    sessions = [name for fold in dataset.folds() for name in fold.held_out]
    assert -3 < errors_from_ceiling(dataset, cls, sessions, context) < 3
