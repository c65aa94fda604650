"""Wiener filters: ridge regression on lagged frames, alone, with a static nonlinearity, and with a look-ahead."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from realmbench.artifact import Artifact
from realmbench.decoder import Context, Decoder, FlopCount, ParameterCount, Preset, Stream, tuned
from realmbench.metrics import r2_for_selection
from realmbench.search import Choice, SearchDimension
from realmbench.session import Segment, Session, SessionData

from .lagged import LagStream, apply_lagged, normal_equations, ridge_solution
from .refit import all_segments, part

# Highest power of the cascade's polynomial (Flint et al. 2012 use the third for LFP).
HIGHEST_DEGREE = 3
SMOOTHER_LOOK_AHEAD_S = 0.42


class WienerOptions(BaseModel):
    """Options of the Wiener decoder.

    Attributes
    ----------
    histories_s : how far back the lags may reach, to choose from by validation R2.
    lag_step : frames between lags (3 frames are 60 ms at 50 Hz, the width of the smoothed band powers).
    strengths : ridge strengths to choose from by validation R2, in units of one training frame's squared deviation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    histories_s: tuple[Annotated[float, Field(ge=0)], ...] = Field((0.06, 0.12, 0.24, 0.42), min_length=1)
    lag_step: int = Field(3, ge=1)
    strengths: tuple[float, ...] = Field(tuple(float(f"1e{power}") for power in range(-1, 7)), min_length=1)


class Wiener(Decoder):
    """Causal Wiener filter: ridge regression from the frames of the last moments to the target.

    How far back it looks and the ridge strength are chosen on the validation part, and then all is fitted to both
    parts; the normal equations are solved in float64.
    """

    causal: ClassVar[bool] = True
    depends_on: ClassVar[tuple[str, ...]] = ("realmbench.baselines.lagged", "realmbench.baselines.refit")
    Options: ClassVar[type[BaseModel]] = WienerOptions
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        "decoder.lag_step": Choice((2, 3, 5)),
    }
    # Found by `realmbench tune` (results/tuning).
    presets: ClassVar[Mapping[str, Preset]] = tuned(Decoder.presets, {"decoder.lag_step": 5})
    options: WienerOptions
    _weights: np.ndarray | None = None
    _strength: float

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        with context.phase("fit"):
            self._lags, self._strength = self._choose(session, context)
            self._weights, self._offset = self._fit(self._all(session))

    def _all(self, session: SessionData) -> list[Segment]:
        return all_segments(session, reach=int(self._lags[-1]))

    def _fit(self, segments: Sequence[Segment]) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights (P, D) and the offset (D,) for the chosen lags and strength."""
        gram, cross, x_mean, y_mean = normal_equations(segments, self._lags)
        weights = ridge_solution(gram, cross, self._strength)
        return weights.astype(np.float32), (y_mean - x_mean @ weights).astype(np.float32)

    def _choose(self, session: SessionData, context: Context) -> tuple[np.ndarray, float]:
        """Return the lags and the ridge strength with which a fit to the training part does best on validation."""
        lags = self.lags(session.rate)
        gram, cross, x_mean, y_mean = normal_equations(session.train, lags, context.on_progress)
        width = len(gram) // len(lags)
        histories, strengths = sorted(self.options.histories_s), self.options.strengths
        most = len(histories) + 2 * len(strengths)
        scores: dict[tuple[float, float], float] = {}

        def kept(history: float) -> np.ndarray:
            return lags[lags <= round(history * session.rate)]

        def try_all(histories: Sequence[float], strengths: Sequence[float]) -> tuple[float, float]:
            """Solve and score what has not been tried; return the best history and strength so far."""
            for pair in itertools.product(histories, strengths):
                if pair not in scores:
                    # Lags increase, so that the equations of a shorter history are the first of the longest.
                    first = slice(0, len(kept(pair[0])) * width)
                    weights = ridge_solution(gram[first, first], cross[first], pair[1])
                    offset = y_mean - x_mean[first] @ weights
                    scores[pair] = r2_for_selection(*self._on_validation(session, kept(pair[0]), weights, offset))
                context.on_progress("wiener: choosing history and ridge strength", len(scores) / most)
            return max(scores, key=lambda pair: scores[pair])

        # The strength where it is cheap, the history with it, and the strength again.
        _, strength = try_all(histories[:1], strengths)
        history, _ = try_all(histories, [strength])
        history, strength = try_all([history], strengths)
        if len(strengths) > 1 and strength in (min(strengths), max(strengths)):
            context.warnings.append(f"wiener: the chosen ridge strength {strength:g} is at the edge of its range")
        return kept(history), strength

    @staticmethod
    def _on_validation(
        session: SessionData, lags: np.ndarray, weights: np.ndarray, offset: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return truth and prediction (N, D) of the validation part, warm-up left out."""
        truths = [segment.y[segment.warm_up :] for segment in session.validation]
        predictions = [
            apply_lagged(segment.x, lags, weights, offset)[segment.warm_up :] for segment in session.validation
        ]
        return np.concatenate(truths), np.concatenate(predictions)

    def lags(self, rate: int) -> np.ndarray:
        """Return the lags of the longest history in frames, increasing."""
        return np.arange(0, round(max(self.options.histories_s) * rate) + 1, self.options.lag_step)

    def predict(self, x: np.ndarray, session: Session) -> np.ndarray:
        weights = self.fitted(self._weights)
        session.check_frames(x)
        return apply_lagged(x, self._lags, weights, self._offset)

    def stream(self, session: Session) -> Stream:
        return LagStream(self._lags, self.fitted(self._weights), self._offset, (session.channels, session.features))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"weights": self.fitted(self._weights), "offset": self._offset, "lags": self._lags}

    def restore(self, arrays: Mapping[str, np.ndarray], session: Session) -> None:
        self._weights, self._offset, self._lags = arrays["weights"], arrays["offset"], arrays["lags"]

    def parameters(self) -> ParameterCount:
        count = self.fitted(self._weights).size + self._offset.size
        return ParameterCount(count, count)

    def flops(self, session: Session) -> FlopCount:
        return FlopCount(2 * self.fitted(self._weights).size, elementwise=self._offset.size)


class CascadeOptions(WienerOptions):
    """Options of the Wiener cascade.

    Attributes
    ----------
    degrees : of the polynomial, to choose from by validation R2; the linear prediction as it is is one more.
    """

    degrees: tuple[Annotated[int, Field(ge=1, le=HIGHEST_DEGREE)], ...] = Field((1, 2, 3), min_length=1)


class WienerCascade(Wiener):
    """Wiener cascade: a Wiener filter and, on each of its outputs, a polynomial (Hunter & Korenberg 1986).

    The polynomial is fitted on predictions of filters that have not seen the segment they predict: a ridge shrinks the
    others, and a polynomial would undo it. Linear predictions are clipped to the range of these, because a cubic runs
    away beyond it. Where no polynomial does better on validation, the Wiener filter is left as it is.
    """

    Options: ClassVar[type[BaseModel]] = CascadeOptions
    options: CascadeOptions
    _powers: np.ndarray | None = None
    _range: np.ndarray

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        super().adapt(session, context)
        with context.phase("fit"):
            # The pieces that are left out in turn: where a session has one training segment, its halves.
            pieces = replace(session, train=tuple(_at_least_two(session.train)))
            degree = self._choose_degree(session, pieces)
            if degree is None:
                # The line as it is: no bend and no limit.
                self._powers = np.zeros((HIGHEST_DEGREE + 1, session.outputs), np.float32)
                self._powers[1] = 1
                self._range = np.full((2, session.outputs), [[-np.inf], [np.inf]], np.float32)
            else:
                self._powers, self._range = _polynomial(*self._held_out_predictions(self._all(pieces)), degree)

    def _choose_degree(self, session: SessionData, pieces: SessionData) -> int | None:
        """Return the degree with which a fit to the training part does best on validation; None for no polynomial."""
        known, unbent = self._on_validation(session, self._lags, *self._fit(session.train))
        linear, truth = self._held_out_predictions(pieces.train)
        best, chosen = r2_for_selection(known, unbent), None
        for degree in self.options.degrees:
            score = r2_for_selection(known, _bend(unbent, *_polynomial(linear, truth, degree)))
            if score > best:
                best, chosen = score, degree
        return chosen

    def _held_out_predictions(self, segments: Sequence[Segment]) -> tuple[np.ndarray, np.ndarray]:
        """Return predictions of every segment by the filter fitted to the others, and the truth."""
        reach = int(self._lags[-1])
        predictions, truths = [], []
        for number, segment in enumerate(segments):
            weights, offset = self._fit([*segments[:number], *segments[number + 1 :]])
            predictions.append(apply_lagged(segment.x, self._lags, weights, offset)[reach:])
            truths.append(segment.y[reach:])
        return np.concatenate(predictions), np.concatenate(truths)

    def predict(self, x: np.ndarray, session: Session) -> np.ndarray:
        return _bend(super().predict(x, session), self.fitted(self._powers), self._range)

    def stream(self, session: Session) -> Stream:
        return _CascadeStream(super().stream(session), self.fitted(self._powers), self._range)

    def arrays(self) -> dict[str, np.ndarray]:
        return {**super().arrays(), "powers": self.fitted(self._powers), "range": self._range}

    def restore(self, arrays: Mapping[str, np.ndarray], session: Session) -> None:
        super().restore(arrays, session)
        self._powers, self._range = arrays["powers"], arrays["range"]

    def parameters(self) -> ParameterCount:
        count = super().parameters().deployed + self.fitted(self._powers).size + self._range.size
        return ParameterCount(count, count)

    def flops(self, session: Session) -> FlopCount:
        linear = super().flops(session)
        # Horner's rule: one product and one sum per power and output, and the clip.
        return FlopCount(linear.per_step, elementwise=linear.elementwise + (2 * HIGHEST_DEGREE + 2) * session.outputs)


class WienerSmoother(Wiener):
    """Non-causal Wiener filter: the same ridge regression on the frames of 420 ms before and 420 ms after."""

    causal: ClassVar[bool] = False
    look_ahead_s: ClassVar[float] = SMOOTHER_LOOK_AHEAD_S
    presets: ClassVar[Mapping[str, Preset]] = tuned(Decoder.presets, {"decoder.lag_step": 3})

    def lags(self, rate: int) -> np.ndarray:
        """Return the lags of the longest history in frames, increasing; negative ones look ahead."""
        step, past = self.options.lag_step, super().lags(rate)
        ahead = np.arange(step, round(SMOOTHER_LOOK_AHEAD_S * rate) + 1, step)
        return np.concatenate([-ahead[::-1], past])


def _at_least_two(segments: Sequence[Segment]) -> Sequence[Segment]:
    if len(segments) > 1:
        return segments
    [whole] = segments
    middle = len(whole) // 2
    return [part(whole, 0, middle), part(whole, middle)]


def _polynomial(linear: np.ndarray, truth: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit each output's polynomial to (N, D) pairs; return its powers (4, D) and the limits (2, D) of what it saw."""
    powers = np.zeros((HIGHEST_DEGREE + 1, truth.shape[1]), np.float32)
    for axis in range(truth.shape[1]):
        powers[: degree + 1, axis] = np.polynomial.polynomial.polyfit(linear[:, axis], truth[:, axis], degree)
    return powers, np.stack([linear.min(0), linear.max(0)])


def _bend(linear: np.ndarray, powers: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Apply each output's polynomial: (..., D) linear predictions to the same shape."""
    linear = np.clip(linear, *limits)
    bent = powers[-1]
    for coefficients in powers[-2::-1]:
        bent = bent * linear + coefficients
    return bent


class _CascadeStream(Stream):
    def __init__(self, linear: Stream, powers: np.ndarray, limits: np.ndarray) -> None:
        self._linear, self._powers, self._limits = linear, powers, limits

    def step(self, frame: np.ndarray) -> np.ndarray:
        return _bend(self._linear.step(frame), self._powers, self._limits)
