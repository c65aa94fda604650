"""The twin: its ceilings are those of its own recordings, and true-parameter estimators reach and never pass them."""

from __future__ import annotations

import numpy as np
import pytest

from realmbench.datasets.synthetic_lds.dataset import SyntheticLds
from realmbench.datasets.synthetic_lds.model import electrodes, simulate, state_space

BLOCK = 2000  # samples in 10 s


def excess_and_error(dataset: SyntheticLds, sessions: list[str], look_ahead_s: float) -> tuple[float, float]:
    """Mean over sessions of R2 - ceiling and its standard error from the sessions' 10-s blocks."""
    excesses, variances = [], []
    for session in sessions:
        truth = dataset.load(session).behaviour[BLOCK:].astype(np.float64)
        error = np.square(truth - dataset.best_estimate(session, look_ahead_s)[BLOCK:])
        total = np.square(truth - truth.mean(0))
        sse, sst = (part.reshape(-1, BLOCK, 2).sum(1) for part in (error, total))
        ratio = sse.sum(0) / sst.sum(0)
        excesses.append(np.mean(1 - ratio) - dataset.ceiling(session, look_ahead_s))
        residual = ((sse - ratio * sst) / sst.mean(0)).mean(1)  # linearised ratio estimator
        variances.append(residual.var(ddof=1) / len(residual))
    return float(np.mean(excesses)), float(np.sqrt(np.sum(variances)) / len(excesses))


@pytest.mark.parametrize("look_ahead_s", [0.0, 0.02, np.inf])
def test_true_parameters_reach_their_ceiling_and_do_not_pass_it(look_ahead_s: float) -> None:
    dataset = SyntheticLds()
    excess, error = excess_and_error(dataset, list(dataset.folds()[1].held_out[:2]), look_ahead_s)
    assert error < 0.02
    assert abs(excess) <= 3 * error


@pytest.mark.slow
@pytest.mark.parametrize("look_ahead_s", [0.0, 0.02, 0.08, np.inf])
def test_true_parameters_reach_their_ceiling_on_every_session(look_ahead_s: float) -> None:
    dataset = SyntheticLds()
    sessions = [session for fold in dataset.folds() for session in fold.held_out]
    excess, error = excess_and_error(dataset, sessions, look_ahead_s)
    print(f"look-ahead {look_ahead_s:g} s: R2 - ceiling {excess:+.4f}, standard error {error:.4f}")
    assert error < 0.01
    assert abs(excess) <= 3 * error


def test_the_smoother_passes_the_causal_ceiling() -> None:
    """Positive control: an estimator that sees the future is far above the causal ceiling."""
    dataset = SyntheticLds()
    session = dataset.folds()[0].held_out[0]
    truth = dataset.load(session).behaviour[BLOCK:]
    error = np.square(truth - dataset.best_estimate(session, np.inf)[BLOCK:]).sum(0)
    r2 = np.mean(1 - error / np.square(truth - truth.mean(0)).sum(0))
    assert r2 > dataset.ceiling(session, 0.0) + 0.1


def test_ceilings_are_about_what_the_documentation_says_and_grow_with_look_ahead() -> None:
    dataset = SyntheticLds()
    sessions = [session for fold in dataset.folds() for session in fold.held_out]
    causal = [dataset.ceiling(session, 0.0) for session in sessions]
    assert np.mean(causal) == pytest.approx(0.59, abs=0.03)
    ceilings = [dataset.ceiling(sessions[0], look_ahead) for look_ahead in (0, 0.02, 0.04, 0.08, 0.16, np.inf)]
    assert np.all(np.diff(ceilings) > 0)


def test_simulated_covariances_are_those_of_the_state_space_model() -> None:
    """The sampled signals and the matrices are two descriptions of one process; neither is derived from the other."""
    dataset = SyntheticLds("tiny")
    config = dataset.config
    seen = electrodes(config, 0, "x")
    lfp, velocity = simulate(config, seen, 0, "x", 4000)
    model, readout = state_space(config, seen)
    P = model.stationary_covariance
    noise = seen.noise_root @ seen.noise_root.T
    a = np.exp(-1 / (config.noise_tau_s * config.sampling_rate))
    whitened = lfp[1:].astype(float) - a * lfp[:-1]
    np.testing.assert_allclose(np.cov(velocity.T), readout @ P @ readout.T, rtol=0.1, atol=3)
    expected = model.C @ P @ model.C.T + (1 - a**2) * noise
    np.testing.assert_allclose(np.cov(whitened.T), expected, rtol=0.05, atol=0.02 * expected.max())
    for lag in (1, 16, 60):  # cross-covariance of velocity and whitened LFP, over the feedback's delay
        measured = whitened[lag:].T @ velocity[1:-lag] / (len(velocity) - lag)
        expected = model.C @ np.linalg.matrix_power(model.A, lag) @ P @ readout.T
        np.testing.assert_allclose(measured, expected, atol=0.1 * np.abs(model.C @ P @ readout.T).max() + 0.5)


def test_sessions_are_deterministic_and_differ() -> None:
    dataset = SyntheticLds("tiny")
    first, again, other = (dataset.load(name).lfp[:] for name in ("s0-test-0", "s0-test-0", "s0-test-1"))
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.corrcoef(first[:, 0], other[:, 0])[0, 1]) < 0.2


def test_ceiling_between_two_samples_is_that_of_the_later_one() -> None:
    dataset = SyntheticLds("tiny")
    assert dataset.ceiling("s0-test-0", 0.012) == dataset.ceiling("s0-test-0", 0.015)
