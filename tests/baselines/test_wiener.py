"""The Wiener decoder against scikit-learn's ridge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from realmbench.artifact import ArtifactStore
from realmbench.baselines.lagged import lagged
from realmbench.baselines.wiener import Wiener, WienerCascade, WienerSmoother
from realmbench.decoder import Context
from realmbench.errors import RealmbenchError
from realmbench.metrics import r2_axis_mean


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(0, "cpu", ArtifactStore(tmp_path, "code", {}), tmp_path)


def test_equals_scikit_learns_ridge(session_maker: Any, context: Context) -> None:
    session = session_maker()
    decoder = Wiener("tiny", {"strengths": [30.0], "histories_s": [0.1], "lag_step": 2})
    decoder.adapt(session, context)
    lags = [0, 2, 4]
    rows = [lagged(segment.x, lags)[4:] for segment in session.train]
    reference = Ridge(alpha=30.0).fit(
        np.concatenate(rows).astype(np.float64), np.concatenate([segment.y[4:] for segment in session.train])
    )
    test = session.validation[0].x
    expected = reference.predict(lagged(test, lags))
    np.testing.assert_allclose(decoder.predict(test, session), expected, atol=1e-5)


def test_lags_by_hand() -> None:
    x = np.arange(1, 6, dtype=np.float32).reshape(5, 1, 1)
    expected = [[1, 0, 0], [2, 1, 0], [3, 2, 0], [4, 3, 1], [5, 4, 2]]
    np.testing.assert_array_equal(lagged(x, [0, 1, 3]), expected)
    np.testing.assert_array_equal(lagged(x, [0, 1, 3], 2, 4), expected[2:4])


def test_strength_is_chosen_on_validation(session_maker: Any, context: Context) -> None:
    """With noise alone as training target, the strongest ridge is best and its edge is reported."""
    session = session_maker()
    generator = np.random.default_rng(1)
    for segment in session.train:
        segment.y[:] = generator.standard_normal(segment.y.shape)
    Wiener("tiny").adapt(session, context)
    assert "at the edge of its range" in context.warnings[0]


def test_reaches_the_best_linear_score(session_maker: Any, context: Context) -> None:
    session = session_maker()
    decoder = Wiener("tiny", {"lag_step": 1})
    decoder.adapt(session, context)
    segment = session.validation[0]
    error = np.square(decoder.predict(segment.x, session) - segment.y).mean(0)
    np.testing.assert_allclose(1 - error / segment.y.var(0), 0.917, atol=0.03)


def test_history_longer_than_the_segments_is_refused(session_maker: Any, context: Context) -> None:
    with pytest.raises(RealmbenchError, match=r"shorten decoder\.histories_s"):
        Wiener("tiny", {"histories_s": [30.0]}).adapt(session_maker(), context)


def test_smoother_equals_scikit_learns_ridge_on_frames_from_both_sides(session_maker: Any, context: Context) -> None:
    session = session_maker()
    decoder = WienerSmoother("tiny", {"strengths": [30.0], "histories_s": [0.1], "lag_step": 5})
    decoder.adapt(session, context)
    lags = [-20, -15, -10, -5, 0, 5]
    np.testing.assert_array_equal(decoder.lags(50), lags)

    def rows(x: np.ndarray) -> np.ndarray:
        return np.stack([np.roll(x, lag, axis=0) for lag in lags], axis=1).reshape(len(x), -1)[5:-20]

    inputs = np.concatenate([rows(segment.x) for segment in session.train]).astype(np.float64)
    reference = Ridge(alpha=30.0).fit(inputs, np.concatenate([segment.y[5:-20] for segment in session.train]))
    test = session.validation[0].x
    np.testing.assert_allclose(decoder.predict(test, session)[5:-20], reference.predict(rows(test)), atol=1e-5)


def test_cascade_finds_the_nonlinearity(session_maker: Any, context: Context) -> None:
    """Where the target is a saturating function of a linear one, the polynomial explains what the line cannot."""
    session = session_maker(seconds=60.0)
    for segment in (*session.train, *session.validation):
        segment.y[:] = np.tanh(2 * segment.y)
    segment = session.validation[0]
    scores = {}
    for cls in (Wiener, WienerCascade):
        decoder = cls("tiny", {"lag_step": 1})
        decoder.adapt(session, context)
        scores[cls] = r2_axis_mean(segment.y, decoder.predict(segment.x, session))
    assert scores[WienerCascade] > scores[Wiener] + 0.02


def test_cascade_of_a_linear_target_stays_a_line(session_maker: Any, context: Context) -> None:
    """Nothing is bent where nothing is to be bent: not even the ridge's shrinkage is undone."""
    session = session_maker(seconds=60.0)
    cascade, line = WienerCascade("tiny", {"strengths": [1e4]}), Wiener("tiny", {"strengths": [1e4]})
    cascade.adapt(session, context)
    line.adapt(session, context)
    segment = session.validation[0]
    scores = [r2_axis_mean(segment.y[100:], each.predict(segment.x, session)[100:]) for each in (cascade, line)]
    assert scores[0] >= scores[1]  # on validation, by its choice of degree
    assert np.abs(cascade.arrays()["powers"][2:]).max() < 0.05


def test_cascade_is_fitted_to_predictions_that_the_filter_was_not_fitted_to(
    session_maker: Any, context: Context
) -> None:
    """With noise for a target a filter's own segments look well predicted; others show that there is nothing."""
    session = session_maker(seconds=10.0, channels=20)
    generator = np.random.default_rng(0)
    for segment in session.train:
        segment.y[:] = generator.standard_normal(segment.y.shape)
    decoder = WienerCascade("tiny", {"strengths": [0.1], "degrees": [1], "histories_s": [0.2], "lag_step": 2})
    decoder.adapt(session, context)
    linear, truth = decoder._held_out_predictions(session.train)
    own = np.concatenate([Wiener.predict(decoder, segment.x, session) for segment in session.train])
    assert np.corrcoef(own[:, 0], np.concatenate([part.y for part in session.train])[:, 0])[0, 1] > 0.3
    assert abs(np.corrcoef(linear[:, 0], truth[:, 0])[0, 1]) < 0.15


def test_polynomial_is_numpys_and_does_not_run_away(session_maker: Any, context: Context) -> None:
    session = session_maker(seconds=60.0)
    for segment in (*session.train, *session.validation):
        segment.y[:] = np.tanh(2 * segment.y)
    decoder = WienerCascade("tiny", {"degrees": [3], "lag_step": 1})
    decoder.adapt(session, context)
    x = session.validation[0].x
    linear = np.clip(Wiener.predict(decoder, x, session), *decoder.arrays()["range"])
    powers = decoder.arrays()["powers"]
    expected = np.stack([np.polyval(powers[::-1, axis], linear[:, axis]) for axis in range(2)], axis=1)
    np.testing.assert_allclose(decoder.predict(x, session), expected, atol=1e-5)
    assert np.abs(decoder.predict(100 * x, session)).max() < 10  # a cubic of a hundredfold would be a million


def test_lags_that_look_ahead_by_hand() -> None:
    x = np.arange(1, 6, dtype=np.float32).reshape(5, 1, 1)
    np.testing.assert_array_equal(lagged(x, [-2, 1]), [[3, 0], [4, 1], [5, 2], [0, 3], [0, 4]])
    np.testing.assert_array_equal(lagged(x, [-2, 1], 1, 4), [[4, 1], [5, 2], [0, 3]])


def test_history_is_chosen_on_validation_and_its_equations_are_those_of_that_history_alone(
    session_maker: Any, context: Context
) -> None:
    """The target is a sum of the last two frames: 20 ms of history are enough, as good as asking for them alone."""
    session = session_maker(seconds=60.0)
    options = {"lag_step": 1, "strengths": [10.0]}
    chosen = Wiener("tiny", {**options, "histories_s": [0.0, 0.02, 0.4]})
    alone = Wiener("tiny", {**options, "histories_s": [0.02]})
    for decoder in (chosen, alone):
        decoder.adapt(session, context)
    np.testing.assert_array_equal(chosen.arrays()["lags"], [0, 1])
    # Not bit for bit: the longer history leaves out a few more rows at the start of every segment.
    np.testing.assert_allclose(chosen.arrays()["weights"], alone.arrays()["weights"], atol=5e-3)
