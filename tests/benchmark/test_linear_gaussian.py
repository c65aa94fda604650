"""The exact estimators against dense conditioning of one big Gaussian, and against a scalar closed form."""

from __future__ import annotations

import numpy as np
import pytest

from realmbench.linear_gaussian import LinearGaussian


@pytest.fixture
def model() -> LinearGaussian:
    generator = np.random.default_rng(3)
    A = generator.standard_normal((4, 4))
    A *= 0.9 / np.abs(np.linalg.eigvals(A)).max()
    noise, emission = generator.standard_normal((4, 4)), generator.standard_normal((3, 3))
    return LinearGaussian(A, noise @ noise.T, generator.standard_normal((3, 4)), emission @ emission.T + np.eye(3))


def joint_covariances(model: LinearGaussian, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return Cov(all y, all y) and, per time, Cov(x_t, all y), from the autocovariance A^k P alone."""
    P = np.zeros_like(model.Q)
    for _ in range(500):  # the stationary covariance by plain iteration
        P = model.A @ P @ model.A.T + model.Q
    powers = [np.linalg.matrix_power(model.A, lag) @ P for lag in range(steps)]

    def state(t: int, s: int) -> np.ndarray:
        return powers[t - s] if t >= s else powers[s - t].T

    yy = np.block([[model.C @ state(t, s) @ model.C.T for s in range(steps)] for t in range(steps)])
    yy += np.kron(np.eye(steps), model.R)
    xy = np.stack([np.hstack([state(t, s) @ model.C.T for s in range(steps)]) for t in range(steps)])
    return yy, xy


@pytest.mark.parametrize("look_ahead", [0, 1, 3, None])
def test_explained_share_equals_dense_gaussian_conditioning(model: LinearGaussian, look_ahead: int | None) -> None:
    steps, t = 80, 40
    yy, xy = joint_covariances(model, steps)
    seen = slice(0, 3 * (steps if look_ahead is None else t + look_ahead + 1))
    explained = np.linalg.solve(yy[seen, seen], xy[t, :, seen].T).T @ xy[t, :, seen].T
    readout = np.array([[1.0, 0.5, 0.0, -1.0], [0.0, 0.0, 1.0, 0.0]])
    expected = np.diag(readout @ explained @ readout.T) / np.diag(readout @ model.stationary_covariance @ readout.T)
    np.testing.assert_allclose(model.explained(readout, look_ahead), expected, rtol=1e-6)


@pytest.mark.parametrize("look_ahead", [0, 2, None])
def test_estimates_equal_dense_gaussian_conditioning(model: LinearGaussian, look_ahead: int | None) -> None:
    steps, t = 120, 80
    yy, xy = joint_covariances(model, steps)
    y = np.linalg.cholesky(yy) @ np.random.default_rng(0).standard_normal(len(yy))
    seen = slice(0, 3 * (steps if look_ahead is None else t + look_ahead + 1))
    expected = xy[t, :, seen] @ np.linalg.solve(yy[seen, seen], y[seen])
    estimate = model.estimate(y.reshape(steps, 3), look_ahead)[t]
    np.testing.assert_allclose(estimate, expected, rtol=1e-5, atol=1e-7)


def test_scalar_filter_has_the_textbook_variance() -> None:
    """For a random walk in noise the predicted variance solves p^2 = q p + q r."""
    q, r = 0.3, 2.0
    model = LinearGaussian(np.eye(1), q * np.eye(1), np.eye(1), r * np.eye(1))
    predicted = (q + np.sqrt(q**2 + 4 * q * r)) / 2
    assert model.predicted_covariance[0, 0] == pytest.approx(predicted)
    assert model.gain[0, 0] == pytest.approx(predicted / (predicted + r))
