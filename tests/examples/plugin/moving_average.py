"""Least squares on the mean of the last frames: a decoder in a package of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from realmbench.artifact import Artifact
from realmbench.decoder import Context, Decoder, FlopCount, Stream
from realmbench.search import Choice, SearchDimension
from realmbench.session import Session, SessionData


class MovingAverageOptions(BaseModel):
    """What `--set decoder.` may change.

    Attributes
    ----------
    frames : how many frames are averaged, the present one among them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    frames: int = Field(5, ge=1)


class MovingAverage(Decoder):
    """Ordinary least squares on the mean of the last frames."""

    causal: ClassVar[bool] = True
    Options: ClassVar[type[BaseModel]] = MovingAverageOptions
    search_space: ClassVar[Mapping[str, SearchDimension]] = {"decoder.frames": Choice((1, 2, 5, 10, 20))}
    options: MovingAverageOptions
    _weights: np.ndarray | None = None

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        """Fit the weights, (C * F, D)."""
        with context.phase("fit"):
            x = np.concatenate([self._means(segment.x) for segment in session.train])
            y = np.concatenate([segment.y for segment in session.train])
            self._weights = np.linalg.lstsq(x, y, rcond=None)[0]

    def predict(self, x: np.ndarray, session: Session) -> np.ndarray:
        session.check_frames(x)
        return self._means(x) @ self.fitted(self._weights)

    def stream(self, session: Session) -> Stream:
        return _Stream(self.fitted(self._weights), self.options.frames)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"weights": self.fitted(self._weights)}

    def restore(self, arrays: Mapping[str, np.ndarray], session: Session) -> None:
        self._weights = arrays["weights"]

    def flops(self, session: Session) -> FlopCount:
        """Count one multiply-add per weight; the sum over frames adds one operation per frame and input."""
        weights = self.fitted(self._weights)
        return FlopCount(2 * weights.size, elementwise=self.options.frames * len(weights))

    def _means(self, x: np.ndarray) -> np.ndarray:
        """Return (T, C * F) means of the last frames, of fewer where a segment begins."""
        frames = x.reshape(len(x), -1)
        sums = frames.copy()
        for lag in range(1, min(self.options.frames, len(x))):
            sums[lag:] += frames[:-lag]
        counts = np.minimum(np.arange(1, len(x) + 1), self.options.frames)
        return sums / counts[:, None].astype(np.float32)


class _Stream(Stream):
    def __init__(self, weights: np.ndarray, frames: int) -> None:
        self._weights = weights
        self._last: deque[np.ndarray] = deque(maxlen=frames)

    def step(self, frame: np.ndarray) -> np.ndarray:
        self._last.append(frame.ravel())
        return np.mean(self._last, axis=0) @ self._weights
