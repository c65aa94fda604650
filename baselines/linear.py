"""Linear decoders on lagged frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from realmbench.artifact import Artifact
from realmbench.decoder import Context, Decoder, FlopCount, ParameterCount, Stream
from realmbench.errors import RealmbenchError
from realmbench.metrics import r2_axis_mean
from realmbench.session import Segment, Session, SessionData

# Rows of the lagged matrix handled at once; bounds the memory.
CHUNK_ROWS = 4096


class WienerOptions(BaseModel):
    """Options of the Wiener decoder.

    Attributes
    ----------
    history_s : how far back the lags reach.
    lag_step : frames between lags (3 frames are 60 ms at 50 Hz, the width of the smoothed band powers).
    strengths : ridge strengths to choose from by validation R2, in units of one training frame's squared deviation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    history_s: float = Field(0.42, ge=0)
    lag_step: int = Field(3, ge=1)
    strengths: tuple[float, ...] = Field(tuple(float(f"1e{power}") for power in range(-1, 7)), min_length=1)


class Wiener(Decoder):
    """Causal Wiener filter: ridge regression from the frames of the last 420 ms to the target.

    The ridge strength is chosen on the validation part; the normal equations are solved in float64.
    """

    causal: ClassVar[bool] = True
    Options: ClassVar[type[BaseModel]] = WienerOptions
    options: WienerOptions
    _weights: np.ndarray | None = None

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        with context.phase("fit"):
            lags = self.lags(session.rate)
            # A training segment's first rows reach back before its start and are not learnt from.
            training = [(segment, int(lags[-1])) for segment in session.train]
            gram, cross, x_mean, y_mean = normal_equations(training, lags, context.on_progress)
            best = (-np.inf, 0.0, np.zeros_like(cross))
            for number, strength in enumerate(self.options.strengths):
                weights = ridge_solution(gram, cross, strength)
                score = self._validation_score(session, lags, weights, x_mean, y_mean)
                best = max(best, (score, strength, weights), key=lambda candidate: candidate[0])
                context.on_progress("wiener: choosing the ridge strength", (number + 1) / len(self.options.strengths))
            _, strength, weights = best
            if not np.isfinite(best[0]):
                raise RealmbenchError("wiener: no ridge strength gives a finite validation R2; is the target constant?")
            if len(self.options.strengths) > 1 and strength in (
                min(self.options.strengths),
                max(self.options.strengths),
            ):
                context.warnings.append(f"wiener: the chosen ridge strength {strength:g} is at the edge of its range")
            self._weights = weights.astype(np.float32)
            self._offset = (y_mean - x_mean @ weights).astype(np.float32)
            self._lags = lags

    def lags(self, rate: int) -> np.ndarray:
        """Return the lags in frames, 0 first."""
        return np.arange(0, round(self.options.history_s * rate) + 1, self.options.lag_step)

    def predict(self, x: np.ndarray, session: Session) -> np.ndarray:
        weights = self.fitted(self._weights)
        session.check_frames(x)
        return _apply(x, self._lags, weights, self._offset)

    def stream(self, session: Session) -> Stream:
        return _LagStream(self._lags, self.fitted(self._weights), self._offset, (session.channels, session.features))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"weights": self.fitted(self._weights), "offset": self._offset, "lags": self._lags}

    def restore(self, arrays: Mapping[str, np.ndarray], session: Session) -> None:
        self._weights, self._offset, self._lags = arrays["weights"], arrays["offset"], arrays["lags"]

    def parameters(self) -> ParameterCount:
        count = self.fitted(self._weights).size + self._offset.size
        return ParameterCount(count, count)

    def flops(self, session: Session) -> FlopCount:
        return FlopCount(2 * self.fitted(self._weights).size, elementwise=self._offset.size)

    def _validation_score(
        self, session: SessionData, lags: np.ndarray, weights: np.ndarray, x_mean: np.ndarray, y_mean: np.ndarray
    ) -> float:
        offset = y_mean - x_mean @ weights
        truth = [segment.y[segment.warm_up :] for segment in session.validation]
        predictions = [_apply(segment.x, lags, weights, offset)[segment.warm_up :] for segment in session.validation]
        return r2_axis_mean(np.concatenate(truth), np.concatenate(predictions))


def lagged(x: np.ndarray, lags: Sequence[int] | np.ndarray, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Stack lagged frames: row t holds x[t - lag] for every lag, zeros before the first frame.

    Parameters
    ----------
    x : (T, C, F).
    lags : L non-negative frame counts.
    start, stop : rows wanted.

    Returns
    -------
    (stop - start, L * C * F).
    """
    stop = len(x) if stop is None else stop
    flat = x.reshape(len(x), -1)
    out = np.zeros((stop - start, len(lags), flat.shape[1]), x.dtype)
    for index, lag in enumerate(lags):
        first = max(start, int(lag))
        if first < stop:
            out[first - start :, index] = flat[first - lag : stop - lag]
    return out.reshape(stop - start, -1)


def normal_equations(
    segments: Sequence[tuple[Segment, int]],
    lags: np.ndarray,
    on_progress: Callable[[str, float], None] = lambda _text, _share: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Accumulate the centred normal equations over segments without ever holding the whole lagged matrix.

    Parameters
    ----------
    segments : each with the number of leading rows to leave out.
    on_progress : called with a sentence and the share done.

    Returns
    -------
    gram (P, P), cross (P, D), x_mean (P,), y_mean (D,), all float64.

    Raises
    ------
    RealmbenchError : no row is left.
    """
    width = len(lags) * segments[0][0].x[0].size
    outputs = segments[0][0].y.shape[1]
    gram, cross = np.zeros((width, width)), np.zeros((width, outputs))
    x_sum, y_sum, rows = np.zeros(width), np.zeros(outputs), 0
    total = sum(max(0, len(segment) - skipped) for segment, skipped in segments)
    for x, y in _chunks(segments, lags):
        # Products in float32 on normalised inputs, sums in float64: exact to about 1e-6 and twice as fast.
        gram += x.T @ x
        cross += x.T @ y
        x_sum += x.sum(0, dtype=np.float64)
        y_sum += y.sum(0, dtype=np.float64)
        rows += len(x)
        on_progress("normal equations", rows / total)
    if rows == 0:
        raise RealmbenchError("wiener: every training segment is shorter than the history; shorten decoder.history_s")
    x_mean, y_mean = x_sum / rows, y_sum / rows
    gram -= rows * np.outer(x_mean, x_mean)
    cross -= rows * np.outer(x_mean, y_mean)
    return gram, cross, x_mean, y_mean


def ridge_solution(gram: np.ndarray, cross: np.ndarray, strength: float) -> np.ndarray:
    """Solve ``(gram + strength I) w = cross`` by Cholesky: the ridge estimate (Hoerl & Kennard 1970)."""
    from scipy.linalg import cho_factor, cho_solve

    damped = gram.copy()
    damped.flat[:: len(gram) + 1] += strength
    return cho_solve(cho_factor(damped, overwrite_a=True, check_finite=False), cross, check_finite=False)


def _chunks(segments: Sequence[tuple[Segment, int]], lags: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for segment, skipped in segments:
        for start in range(skipped, len(segment), CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, len(segment))
            yield lagged(segment.x, lags, start, stop), segment.y[start:stop]


def _apply(x: np.ndarray, lags: np.ndarray, weights: np.ndarray, offset: np.ndarray) -> np.ndarray:
    parts = [
        lagged(x, lags, start, min(start + CHUNK_ROWS, len(x))) @ weights + offset
        for start in range(0, len(x), CHUNK_ROWS)
    ]
    return np.concatenate(parts).astype(np.float32)


class _LagStream(Stream):
    """A ring of the last frames."""

    def __init__(self, lags: np.ndarray, weights: np.ndarray, offset: np.ndarray, shape: tuple[int, int]) -> None:
        self._lags, self._weights, self._offset = lags, weights, offset
        self._ring = np.zeros((int(lags[-1]) + 1, shape[0] * shape[1]), np.float32)
        self._now = 0

    def step(self, frame: np.ndarray) -> np.ndarray:
        self._ring[self._now] = frame.ravel()
        row = self._ring[(self._now - self._lags) % len(self._ring)]
        self._now = (self._now + 1) % len(self._ring)
        return row.ravel() @ self._weights + self._offset
