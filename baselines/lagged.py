"""Ridge regression on lagged frames: design matrices, normal equations in chunks, solution, and its stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from realmbench.decoder import Stream
from realmbench.errors import RealmbenchError
from realmbench.session import Segment

# Rows of the lagged matrix handled at once; bounds the memory.
CHUNK_ROWS = 4096


def lagged(x: np.ndarray, lags: Sequence[int] | np.ndarray, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Stack lagged frames: row t holds x[t - lag] for every lag, zeros before the first frame and after the last.

    Parameters
    ----------
    x : (T, C, F).
    lags : L frame counts; negative ones look ahead.
    start, stop : rows wanted.

    Returns
    -------
    (stop - start, L * C * F).
    """
    stop = len(x) if stop is None else stop
    flat = x.reshape(len(x), -1)
    out = np.zeros((stop - start, len(lags), flat.shape[1]), x.dtype)
    for index, lag in enumerate(lags):
        first, last = max(start, int(lag)), min(stop, len(x) + int(lag))
        if first < last:
            out[first - start : last - start, index] = flat[first - lag : last - lag]
    return out.reshape(stop - start, -1)


def normal_equations(
    segments: Sequence[Segment],
    lags: np.ndarray,
    on_progress: Callable[[str, float], None] = lambda _text, _share: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Accumulate the centred normal equations over segments without ever holding the whole lagged matrix.

    Parameters
    ----------
    segments : rows that reach beyond either end of their segment are left out.
    on_progress : called with a sentence and the share done.

    Returns
    -------
    gram (P, P), cross (P, D), x_mean (P,), y_mean (D,), all float64.

    Raises
    ------
    RealmbenchError : no row is left.
    """
    width = len(lags) * segments[0].x[0].size
    outputs = segments[0].y.shape[1]
    gram, cross = np.zeros((width, width)), np.zeros((width, outputs))
    x_sum, y_sum, rows = np.zeros(width), np.zeros(outputs), 0
    total = sum(len(_whole_rows(segment, lags)) for segment in segments)
    for x, y in _chunks(segments, lags):
        # Products in float32 on normalised inputs, sums in float64: exact to about 1e-6 and twice as fast.
        gram += x.T @ x
        cross += x.T @ y
        x_sum += x.sum(0, dtype=np.float64)
        y_sum += y.sum(0, dtype=np.float64)
        rows += len(x)
        on_progress("normal equations", rows / total)
    if rows == 0:
        raise RealmbenchError("every training segment is shorter than the lags reach; shorten decoder.histories_s")
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


def _whole_rows(segment: Segment, lags: np.ndarray) -> range:
    """Return the rows all of whose lagged frames lie inside the segment."""
    return range(max(0, int(lags.max())), len(segment) + min(0, int(lags.min())))


def _chunks(segments: Sequence[Segment], lags: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for segment in segments:
        rows = _whole_rows(segment, lags)
        for start in rows[::CHUNK_ROWS]:
            stop = min(start + CHUNK_ROWS, rows.stop)
            yield lagged(segment.x, lags, start, stop), segment.y[start:stop]


def apply_lagged(x: np.ndarray, lags: np.ndarray, weights: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Map (T, C, F) frames to (T, D): the lagged frames times (L * C * F, D) weights, plus the (D,) offset."""
    parts = [
        lagged(x, lags, start, min(start + CHUNK_ROWS, len(x))) @ weights + offset
        for start in range(0, len(x), CHUNK_ROWS)
    ]
    return np.concatenate(parts).astype(np.float32)


class LagStream(Stream):
    """A ring of the last frames; it waits for those that negative lags ask for."""

    def __init__(self, lags: np.ndarray, weights: np.ndarray, offset: np.ndarray, shape: tuple[int, int]) -> None:
        self.delay = self._missing = max(0, -int(lags[0]))
        self._ages, self._weights, self._offset = lags + self.delay, weights, offset
        self._ring = np.zeros((int(self._ages[-1]) + 1, shape[0] * shape[1]), np.float32)
        self._now = 0

    def step(self, frame: np.ndarray) -> np.ndarray:
        self._ring[self._now] = frame.ravel()
        row = self._ring[(self._now - self._ages) % len(self._ring)]
        self._now = (self._now + 1) % len(self._ring)
        if self._missing:
            self._missing -= 1
            return np.full(len(self._offset), np.nan, np.float32)
        return row.ravel() @ self._weights + self._offset
