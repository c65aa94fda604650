"""Kalman filter and smoother: the movement as a linear dynamical system, the frames as its noisy observation.

With the velocity ``v_t`` (or whatever the D targets are) and the usable values ``z_t`` of a frame,

    v_t = a_1 v_(t-1) + ... + a_p v_(t-p) + w_t                      w ~ N(0, W)
    z_t = h_0 v_(t+lead) + ... + h_(p-1) v_(t+lead-p+1) + e_t        e_t = r e_(t-1) + u_t,  u ~ N(0, U)

(Wu et al. 2006, Neural Computation 18:80, for p = 1 and r = 0). All of it is estimated by least squares. Two things
keep the filter honest about LFP, whose noise is neither white nor independent: its memory r is taken out by
differencing (Bryson & Henrikson 1968), and U is shrunk towards its diagonal and scaled up by factors. These are chosen
on validation after a fit to the training part; the last fit is to both. The filter is the stationary one (Malik et al.
2011).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from realmbench.artifact import Artifact
from realmbench.decoder import Context, Decoder, FlopCount, ParameterCount, Preset, Stream, tuned
from realmbench.errors import RealmbenchError
from realmbench.linear_gaussian import LinearGaussian
from realmbench.metrics import r2_for_selection
from realmbench.search import Choice, SearchDimension
from realmbench.session import Segment, Session, SessionData

from .lagged import lagged
from .refit import all_segments


class KalmanOptions(BaseModel):
    """Options of the Kalman decoders.

    Attributes
    ----------
    order : p, velocities that drive the next one and that a frame shows.
    lead_s : time by which the LFP runs ahead of the movement.
    coloured : estimate the noise's memory r; False takes it for white.
    shrinkages : of the noise covariance towards its diagonal, to choose from by validation R2.
    inflations : factors of the noise covariance, to choose from by validation R2; 1 believes the estimate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: int = Field(2, ge=1)
    lead_s: float = Field(0.0, ge=0)
    coloured: bool = True
    shrinkages: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field((0.003, 0.03, 0.3, 1.0), min_length=1)
    inflations: tuple[Annotated[float, Field(gt=0)], ...] = Field((1.0, 3.0, 10.0, 30.0, 100.0), min_length=1)


class Movement(NamedTuple):
    """The fitted state space before the noise covariance is settled.

    Attributes
    ----------
    transition, noise : (S, S) of a state of S = states * D velocities, the latest first.
    emission : (m, S) of a differenced frame.
    memory : (m,) the noise's memory r.
    residual : (m, m) covariance U of the differenced noise.
    x_mean, y_mean : (m,) and (D,).
    """

    transition: np.ndarray
    noise: np.ndarray
    emission: np.ndarray
    memory: np.ndarray
    residual: np.ndarray
    x_mean: np.ndarray
    y_mean: np.ndarray


class Reduced(NamedTuple):
    """The q <= S numbers per frame that hold all it says of the state, with unit noise.

    Attributes
    ----------
    emission : (q, S) of these numbers.
    projection : (q, m) from a differenced frame to them.
    """

    emission: np.ndarray
    projection: np.ndarray


class Kalman(Decoder):
    """Stationary Kalman filter with a velocity state and estimated, coloured noise."""

    causal: ClassVar[bool] = True
    Options: ClassVar[type[BaseModel]] = KalmanOptions
    depends_on: ClassVar[tuple[str, ...]] = (
        "realmbench.linear_gaussian",
        "realmbench.baselines.lagged",
        "realmbench.baselines.refit",
    )
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        "decoder.order": Choice((1, 2, 3, 5, 8, 12)),
        "decoder.lead_s": Choice((0.0, 0.06, 0.12, 0.2)),
        "decoder.coloured": Choice((True, False)),
    }
    # Found by `realmbench tune` (results/tuning).
    presets: ClassVar[Mapping[str, Preset]] = tuned(
        Decoder.presets,
        {
            "decoder.order": 5,
            "decoder.lead_s": 0.0,
            "decoder.coloured": False,
        },
    )
    options: KalmanOptions
    # Frames after the present that an estimate uses; None means all.
    _look_ahead: ClassVar[int | None] = 0
    _model: LinearGaussian | None = None

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        with context.phase("fit"):
            self._used = np.flatnonzero(np.repeat(session.mask, session.features))
            self._lead = round(self.options.lead_s * session.rate)
            shrinkage, inflation = self._choose(session, context)
            usable = [segment for segment in all_segments(session) if len(segment) > self._shortest]
            fitted = self._fit(usable)
            self._settle(fitted, _reduced(fitted, shrinkage), inflation)

    def _choose(self, session: SessionData, context: Context) -> tuple[float, float]:
        """Return the shrinkage and the inflation with which a fit to the training part does best on validation."""
        fitted = self._fit(session.train)
        truth = np.concatenate([segment.y[segment.warm_up :] for segment in session.validation])
        scores: dict[tuple[float, float], float] = {}
        shrinkages, inflations = self.options.shrinkages, self.options.inflations
        for number, shrinkage in enumerate(shrinkages, 1):
            reduced = _reduced(fitted, shrinkage)
            for inflation in inflations:
                self._settle(fitted, reduced, inflation)
                parts = [self._decode(part.x)[part.warm_up :] for part in session.validation]
                scores[shrinkage, inflation] = r2_for_selection(truth, np.concatenate(parts))
            context.on_progress("kalman: choosing the noise", number / len(shrinkages))
        chosen = max(scores, key=lambda pair: scores[pair])
        if len(inflations) > 1 and chosen[1] == max(inflations):
            context.warnings.append(f"kalman: the chosen inflation {chosen[1]:g} is at the edge of its range")
        return chosen

    def _settle(self, fitted: Movement, reduced: Reduced, inflation: float) -> None:
        """Make the filter of a fitted state space, its reduced frames and a factor of their noise."""
        self._memory, self._x_mean, self._y_mean = fitted.memory, fitted.x_mean, fitted.y_mean
        self._projection = reduced.projection
        noise = inflation * np.eye(len(reduced.emission))
        self._model = LinearGaussian(fitted.transition, fitted.noise, reduced.emission, noise)

    def predict(self, x: np.ndarray, session: Session) -> np.ndarray:
        self.fitted(self._model)
        session.check_frames(x)
        return self._decode(x).astype(np.float32)

    def stream(self, session: Session) -> Stream:
        model = self.fitted(self._model)
        forward = model.A - model.gain @ model.C @ model.A
        return _FilterStream(
            forward, model.gain @ self._projection, self._memory, self._x_mean, self._y_mean, self._used, self._place
        )

    def arrays(self) -> dict[str, np.ndarray]:
        model = self.fitted(self._model)
        return {
            "transition": model.A,
            "noise": model.Q,
            "emission": model.C,
            "emission_noise": model.R,
            "projection": self._projection,
            "memory": self._memory,
            "x_mean": self._x_mean,
            "y_mean": self._y_mean,
            "used": self._used,
            "lead": np.array([self._lead]),
        }

    def restore(self, arrays: Mapping[str, np.ndarray], session: Session) -> None:
        self._model = LinearGaussian(*(arrays[name] for name in ("transition", "noise", "emission", "emission_noise")))
        self._projection, self._memory = arrays["projection"], arrays["memory"]
        self._x_mean, self._y_mean = arrays["x_mean"], arrays["y_mean"]
        self._used, self._lead = arrays["used"], int(arrays["lead"][0])

    def flops(self, session: Session) -> FlopCount:
        states, values = len(self.fitted(self._model).A), len(self._used)
        # State times transition, frame times gain; difference, mean and sum are element by element.
        return FlopCount(2 * states * (states + values), elementwise=3 * values + states + len(self._y_mean))

    def parameters(self) -> ParameterCount:
        """Count what a step needs: transition and gain, the noise's memory, means and the values that are used."""
        states, values = len(self.fitted(self._model).A), len(self._used)
        count = states * (states + values) + 3 * values + len(self._y_mean)
        return ParameterCount(count, count)

    @property
    def _shortest(self) -> int:
        """Frames of a segment that is too short to fit to."""
        return 2 * (self.options.order + self._lead + 1)

    @property
    def _place(self) -> slice:
        """Where in the state the present velocity stands."""
        outputs = len(self._y_mean)
        return slice(self._lead * outputs, (self._lead + 1) * outputs)

    def _decode(self, x: np.ndarray) -> np.ndarray:
        """Map (T, C, F) frames to (T, D)."""
        model = self.fitted(self._model)
        observed = _differenced(x, self._used, self._memory, self._x_mean) @ self._projection.T
        return model.estimate(observed, self._look_ahead)[:, self._place] + self._y_mean

    def _fit(self, segments: Sequence[Segment]) -> Movement:
        """Estimate everything by least squares."""
        order, lead, outputs = self.options.order, self._lead, segments[0].y.shape[1]
        if min(map(len, segments)) <= self._shortest:
            raise RealmbenchError("kalman: a segment is shorter than the state; shorten decoder.lead_s")
        values = [segment.x.reshape(len(segment), -1)[:, self._used].astype(np.float64) for segment in segments]
        y_mean = np.concatenate([segment.y for segment in segments]).mean(0, dtype=np.float64)
        x_mean = np.concatenate(values).mean(0)

        # Movement: regress each velocity on those before it.
        past, now = [], []
        # Emission: regress each frame on the velocities around it.
        windows, seen = [], []
        for segment, z in zip(segments, values):
            v = (segment.y - y_mean)[:, None]  # (T, 1, D)
            past.append(lagged(v, range(1, order + 1))[order:])
            now.append(v[order:, 0])
            rows = slice(max(0, order - 1 - lead), len(v) - lead)
            window = lagged(v, range(order))[rows.start + lead : rows.stop + lead]
            windows.append(window)
            seen.append(z[rows] - x_mean)
        coefficients = np.linalg.lstsq(np.concatenate(past), np.concatenate(now), rcond=None)[0]
        drive = np.cov((np.concatenate(now) - np.concatenate(past) @ coefficients).T, bias=True).reshape(outputs, -1)
        shown = np.linalg.lstsq(np.concatenate(windows), np.concatenate(seen), rcond=None)[0].T  # (m, p D)
        noises = [z - window @ shown.T for z, window in zip(seen, windows)]
        if self.options.coloured:
            products = sum((noise[1:] * noise[:-1]).sum(0) for noise in noises)
            memory = products / np.maximum(sum(np.square(noise).sum(0) for noise in noises), 1e-12)
        else:
            memory = np.zeros(len(self._used))
        fresh = np.concatenate([noise[1:] - memory * noise[:-1] for noise in noises])

        states = max(order + 1, lead + 1)
        size = states * outputs
        transition, noise = np.eye(size, k=-outputs), np.zeros((size, size))
        transition[:outputs, : order * outputs] = coefficients.T
        noise[:outputs, :outputs] = drive
        emission = np.zeros((len(self._used), size))
        emission[:, : order * outputs] = shown
        emission[:, outputs : (order + 1) * outputs] -= memory[:, None] * shown
        return Movement(transition, noise, emission, memory, fresh.T @ fresh / len(fresh), x_mean, y_mean)


class KalmanSmoother(Kalman):
    """Kalman smoother (Rauch, Tung & Striebel 1965) of the same model: sees the whole block."""

    causal: ClassVar[bool] = False
    look_ahead_s: ClassVar[float] = float("inf")
    presets: ClassVar[Mapping[str, Preset]] = tuned(
        Decoder.presets,
        {
            "decoder.order": 8,
            "decoder.lead_s": 0.0,
            "decoder.coloured": False,
        },
    )
    _look_ahead: ClassVar[int | None] = None

    def parameters(self) -> ParameterCount:
        """Count the filter's, and the gain of the backward pass."""
        count = super().parameters().deployed + len(self.fitted(self._model).A) ** 2
        return ParameterCount(count, count)

    def flops(self, session: Session) -> FlopCount:
        # Backwards: the filtered state's own part, and the gain times the smoothed state after it.
        states, forward = len(self.fitted(self._model).A), super().flops(session)
        return FlopCount(forward.per_step + 4 * states**2, elementwise=forward.elementwise + 2 * states)

    def stream(self, session: Session) -> Stream:
        return Decoder.stream(self, session)


def _differenced(x: np.ndarray, used: np.ndarray, memory: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return ``z_t - r z_(t-1)`` of the used values, their means taken off; before the first frame is the mean."""
    values = x.reshape(len(x), -1)[:, used] - mean
    before = np.concatenate([np.zeros((1, values.shape[1])), values[:-1]])
    return values - memory * before


def _reduced(fitted: Movement, shrinkage: float) -> Reduced:
    """Return a sufficient statistic of the state, for a noise covariance shrunk towards its diagonal.

    With noise covariance U = L L', the projection is the left singular vectors of L^-1 H times L^-1: a filter of
    hundreds of values then costs no more than one of a few.
    """
    from scipy.linalg import solve_triangular

    variances = np.maximum(np.diag(fitted.residual), 1e-9)
    covariance = (1 - shrinkage) * fitted.residual + shrinkage * np.diag(variances)
    root = np.linalg.cholesky(covariance)
    left, strengths, right = np.linalg.svd(solve_triangular(root, fitted.emission, lower=True), full_matrices=False)
    return Reduced(strengths[:, None] * right, solve_triangular(root, left, lower=True, trans="T").T)


class _FilterStream(Stream):
    """The state and the last frame."""

    def __init__(
        self,
        forward: np.ndarray,
        gain: np.ndarray,
        memory: np.ndarray,
        x_mean: np.ndarray,
        y_mean: np.ndarray,
        used: np.ndarray,
        place: slice,
    ) -> None:
        self._forward, self._gain, self._memory = forward, gain, memory
        self._x_mean, self._y_mean, self._used, self._place = x_mean, y_mean, used, place
        self._before = np.zeros(len(used))
        self._state = np.zeros(len(forward))

    def step(self, frame: np.ndarray) -> np.ndarray:
        value = frame.ravel()[self._used] - self._x_mean
        self._state = self._forward @ self._state + self._gain @ (value - self._memory * self._before)
        self._before = value
        return (self._state[self._place] + self._y_mean).astype(np.float32)
