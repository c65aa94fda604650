"""The Wiener decoder against scikit-learn's ridge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
from realmbench.session import Segment


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(0, "cpu", ArtifactStore(tmp_path, "code", {}), tmp_path)


def rows(segment: Segment, lags: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Lagged frames and targets of what may be learnt from: no row reaches out of the segment, none is warm-up."""
    first = max(lags[-1], segment.warm_up)
    return lagged(segment.x, lags)[first:].astype(np.float64), segment.y[first:].astype(np.float64)


def ridge(segments: Sequence[Segment], lags: list[int], strength: float) -> Ridge:
    x, y = zip(*(rows(segment, lags) for segment in segments))
    return Ridge(alpha=strength).fit(np.concatenate(x), np.concatenate(y))


def test_equals_scikit_learns_ridge(session_maker: Any, context: Context) -> None:
    """Of training and validation; what warms a decoder up for validation is input of lags and never a row."""
    session = session_maker()
    decoder = Wiener("tiny", {"strengths": [30.0], "histories_s": [0.1], "lag_step": 2})
    decoder.adapt(session, context)
    lags = [0, 2, 4]
    reference = ridge([*session.train, *session.validation], lags, 30.0)
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


def test_the_strength_is_chosen_by_fits_that_have_not_seen_validation(session_maker: Any, context: Context) -> None:
    """Of 4 s and 40 values any weak ridge learns its samples by heart; seen in training they would choose it."""
    session = session_maker(seconds=4.0, channels=20)
    strengths, lags = [0.1, 1.0, 10.0, 100.0, 1000.0], [0, 1, 2]

    def best(segments: Sequence[Segment]) -> float:
        x, y = rows(session.validation[0], lags)
        return max(strengths, key=lambda strength: r2_axis_mean(y, ridge(segments, lags, strength).predict(x)))

    chosen = Wiener("tiny", {"strengths": strengths, "histories_s": [0.04], "lag_step": 1})
    chosen.adapt(session, context)
    assert chosen._strength == best(session.train)
    assert chosen._strength != best([*session.train, *session.validation])  # control


@pytest.mark.parametrize("segments", [1, 2])
def test_the_cascade_is_fitted_to_validation_too(segments: int, session_maker: Any, context: Context) -> None:
    """Its polynomial is of every piece predicted by the ridge of the others; a lone training segment is two pieces."""
    session = session_maker(seconds=30.0)
    for segment in (*session.train, *session.validation):
        segment.y[:] = np.tanh(2 * segment.y)
    session = replace(session, train=session.train[:segments])
    options = {"strengths": [30.0], "histories_s": [0.04], "lag_step": 1, "degrees": [3]}
    decoder = WienerCascade("tiny", options)
    decoder.adapt(session, context)

    lags = [0, 1, 2]
    pieces = [*session.train, *session.validation]
    if segments == 1:
        whole, middle = session.train[0], len(session.train[0]) // 2
        halves = [replace(whole, x=whole.x[half], y=whole.y[half], privileged=whole.privileged[half])
                  for half in (slice(None, middle), slice(middle, None))]  # fmt: skip
        pieces = [*halves, *session.validation]
    linear, truth = [], []
    for number, piece in enumerate(pieces):
        x, y = rows(piece, lags)
        linear.append(ridge(pieces[:number] + pieces[number + 1 :], lags, 30.0).predict(x))
        truth.append(y)
    linear, truth = np.concatenate(linear), np.concatenate(truth)
    expected = np.stack([np.polyfit(linear[:, axis], truth[:, axis], 3)[::-1] for axis in range(2)], axis=1)
    np.testing.assert_allclose(decoder.arrays()["powers"], expected, atol=2e-4)
    np.testing.assert_allclose(decoder.arrays()["range"], [linear.min(0), linear.max(0)], atol=1e-4)


def test_the_degree_is_chosen_by_fits_that_have_not_seen_validation(session_maker: Any, context: Context) -> None:
    """Validation, the longer part, is bent upwards and training downwards: only who saw validation would bend."""
    validation = tuple(session_maker(seconds=20.0, seed=seed).validation[0] for seed in range(3))
    session = replace(session_maker(seconds=8.0), validation=validation)
    for segments, sign in ((session.train, -1), (session.validation, 1)):
        for segment in segments:
            segment.y[:] += sign * segment.y**2
    decoder = WienerCascade("tiny", {"strengths": [30.0], "histories_s": [0.04], "lag_step": 1, "degrees": [2]})
    decoder.adapt(session, context)
    assert not np.isfinite(decoder.arrays()["range"]).any()
    seen = replace(session, train=(*session.train, *session.validation))  # control
    decoder.adapt(seen, context)
    assert np.isfinite(decoder.arrays()["range"]).all()


def test_the_degree_is_chosen_for_a_line_that_has_not_seen_validation(session_maker: Any, context: Context) -> None:
    """Targets are noise: a flat polynomial mends any line, but of one that knows validation by heart."""
    session = session_maker(seconds=4.0, channels=20)
    generator = np.random.default_rng(0)
    for segment in (*session.train, *session.validation):
        segment.y[:] = generator.standard_normal(segment.y.shape)
    decoder = WienerCascade("tiny", {"strengths": [0.1], "histories_s": [0.04], "lag_step": 1, "degrees": [1]})
    decoder.adapt(session, context)
    assert np.isfinite(decoder.arrays()["range"]).all()
    seen = replace(session, train=(*session.train, *session.validation))  # control
    decoder.adapt(seen, context)
    assert not np.isfinite(decoder.arrays()["range"]).any()


def test_targets_of_the_warm_up_are_not_learnt_from(session_maker: Any, context: Context) -> None:
    session = session_maker()
    options = {"strengths": [30.0], "histories_s": [0.1]}
    first, second = Wiener("tiny", options), Wiener("tiny", options)
    first.adapt(session, context)
    session.validation[0].y[:100] += 1000
    second.adapt(session, context)
    np.testing.assert_array_equal(first.arrays()["weights"], second.arrays()["weights"])
    session.validation[0].y[100:] += 1000 * session.validation[0].x[100:, 0, :1]  # control
    second.adapt(session, context)
    assert np.abs(first.arrays()["weights"] - second.arrays()["weights"]).max() > 1


def test_reaches_the_best_linear_score(session_maker: Any, context: Context) -> None:
    session = session_maker()
    decoder = Wiener("tiny", {"lag_step": 1})
    decoder.adapt(session, context)
    segment = session_maker(seed=1).validation[0]
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

    segments = [(segment, max(0, segment.warm_up - 5)) for segment in (*session.train, *session.validation)]
    inputs = np.concatenate([rows(segment.x[first:]) for segment, first in segments]).astype(np.float64)
    targets = np.concatenate([segment.y[first:][5:-20] for segment, first in segments])
    reference = Ridge(alpha=30.0).fit(inputs, targets)
    test = session.validation[0].x
    np.testing.assert_allclose(decoder.predict(test, session)[5:-20], reference.predict(rows(test)), atol=1e-5)
    running = decoder.stream(session)
    assert running.delay == 20
    assert np.isnan([running.step(frame) for frame in test[:20]]).all()
    streamed = [running.step(frame) for frame in test[20:]]  # of frame 0 when frame 20 has come, and so on
    np.testing.assert_allclose(streamed, decoder.predict(test, session)[:-20], atol=1e-5)


def test_cascade_finds_the_nonlinearity(session_maker: Any, context: Context) -> None:
    """Where the target is a saturating function of a linear one, the polynomial explains what the line cannot."""
    session = session_maker(seconds=60.0)
    unseen = session_maker(seconds=60.0, seed=1)
    for segment in (*session.train, *session.validation, *unseen.validation):
        segment.y[:] = np.tanh(2 * segment.y)
    segment = unseen.validation[0]
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
    segment = session_maker(seconds=60.0, seed=1).validation[0]
    scores = [r2_axis_mean(segment.y[100:], each.predict(segment.x, session)[100:]) for each in (cascade, line)]
    assert scores[0] > scores[1] - 1e-3
    assert np.abs(cascade.arrays()["powers"][2:]).max() < 0.05


def test_cascade_stays_a_line_where_validation_says_so(session_maker: Any, context: Context) -> None:
    """Training saturates, validation does not: every polynomial does worse there, and the filter is left as it is."""
    session = session_maker(seconds=60.0)
    for segment in session.train:
        segment.y[:] = np.tanh(2 * segment.y)
    decoder = WienerCascade("tiny", {"lag_step": 1, "degrees": [3]})
    decoder.adapt(session, context)
    np.testing.assert_array_equal(decoder.arrays()["powers"], [[0, 0], [1, 1], [0, 0], [0, 0]])
    assert not np.isfinite(decoder.arrays()["range"]).any()
    x = session.validation[0].x
    np.testing.assert_array_equal(decoder.predict(x, session), Wiener.predict(decoder, x, session))


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
