"""Exact estimation in linear-Gaussian models: Kalman filter, fixed look-ahead, smoother, and their error covariances.

    x_t = A x_(t-1) + w_t,  w ~ N(0, Q)        y_t = C x_t + v_t,  v ~ N(0, R)

Everything here is the stationary solution: gains are those of a filter that has run for a long time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .errors import RealmbenchError


@dataclass(frozen=True)
class LinearGaussian:
    """A stable linear-Gaussian state-space model.

    Attributes
    ----------
    A, Q : (d, d) transition and covariance of its noise.
    C, R : (m, d) emission and (m, m) covariance of its noise.
    """

    A: np.ndarray
    Q: np.ndarray
    C: np.ndarray
    R: np.ndarray

    @cached_property
    def stationary_covariance(self) -> np.ndarray:
        """Covariance of the state without any observation, (d, d)."""
        from scipy.linalg import solve_discrete_lyapunov

        return solve_discrete_lyapunov(self.A, self.Q)

    @cached_property
    def predicted_covariance(self) -> np.ndarray:
        """Error covariance of the state given the observations before it, (d, d): the discrete Riccati equation.

        Raises
        ------
        RealmbenchError : the equation has no stabilising solution; the model is not detectable.
        """
        from scipy.linalg import LinAlgError, solve_discrete_are

        try:
            covariance = solve_discrete_are(self.A.T, self.C.T, self.Q, self.R)
        except LinAlgError as error:
            raise RealmbenchError(f"the Riccati equation has no stabilising solution ({error})") from error
        return (covariance + covariance.T) / 2

    @cached_property
    def gain(self) -> np.ndarray:
        """Kalman gain (d, m), from the innovation to the filtered state."""
        predicted = self.predicted_covariance
        innovation = self.C @ predicted @ self.C.T + self.R
        return np.linalg.solve(innovation, self.C @ predicted).T

    @cached_property
    def filtered_covariance(self) -> np.ndarray:
        """Error covariance of the state given the observations up to it, (d, d)."""
        filtered = self.predicted_covariance - self.gain @ self.C @ self.predicted_covariance
        return (filtered + filtered.T) / 2

    @cached_property
    def smoothing_gain(self) -> np.ndarray:
        """Gain (d, d) of the backward pass (Rauch, Tung & Striebel 1965, equation 3.30)."""
        return self.filtered_covariance @ self.A.T @ np.linalg.pinv(self.predicted_covariance, hermitian=True)

    def error_covariance(self, look_ahead: int | None = 0) -> np.ndarray:
        """Error covariance of the state given the observations up to ``look_ahead`` steps after it.

        Parameters
        ----------
        look_ahead : steps of future; None means all of it.
        """
        filtered, predicted, gain = self.filtered_covariance, self.predicted_covariance, self.smoothing_gain
        covariance, step = filtered, 0
        while look_ahead is None or step < look_ahead:
            following = filtered + gain @ (covariance - predicted) @ gain.T
            settled = np.abs(following - covariance).max() <= 1e-12 * np.abs(filtered).max()
            covariance, step = following, step + 1
            if settled:
                break
        return covariance

    def explained(self, readout: np.ndarray, look_ahead: int | None = 0) -> np.ndarray:
        """Return per row of ``readout`` (k, d) the share of its variance that the best estimator explains, (k,).

        In expectation this is the highest R2 of any estimator of ``readout @ x_t``, linear or not, that sees no more
        than ``look_ahead`` steps of future.
        """
        error = np.einsum("kd,de,ke->k", readout, self.error_covariance(look_ahead), readout)
        total = np.einsum("kd,de,ke->k", readout, self.stationary_covariance, readout)
        return 1 - error / total

    def estimate(self, y: np.ndarray, look_ahead: int | None = 0) -> np.ndarray:
        """Return the best estimate of every state, (T, d), from (T, m) observations up to ``look_ahead`` steps later.

        The filter starts from a state of zero with its stationary gain; near the end the look-ahead is cut short.
        """
        A, gain = self.A, self.gain
        forward = A - gain @ self.C @ A
        driven = y @ gain.T
        filtered = np.empty((len(y), len(A)))
        state = np.zeros(len(A))
        for t in range(len(y)):
            state = forward @ state + driven[t]
            filtered[t] = state
        if look_ahead == 0:
            return filtered
        back = self.smoothing_gain
        own = filtered - filtered @ A.T @ back.T
        if look_ahead is None:
            smoothed = filtered.copy()
            for t in range(len(y) - 2, -1, -1):
                smoothed[t] = own[t] + back @ smoothed[t + 1]
            return smoothed
        estimate = filtered
        for _ in range(look_ahead):
            estimate = np.concatenate([own[:-1] + estimate[1:] @ back.T, filtered[-1:]])
        return estimate
