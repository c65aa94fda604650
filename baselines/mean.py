"""The floor of every table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from realmbench.artifact import Artifact
from realmbench.decoder import Context, Decoder, FlopCount, Stream
from realmbench.session import Session, SessionData


class Mean(Decoder):
    """Predicts the mean of the training target, which is 0 in normalised units."""

    causal: ClassVar[bool] = True
    _mean: np.ndarray | None = None

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        with context.phase("fit"):
            self._mean = np.concatenate([segment.y for segment in session.train]).mean(0)

    def predict(self, x: np.ndarray, session: Session) -> np.ndarray:
        session.check_frames(x)
        return np.tile(self.fitted(self._mean), (len(x), 1))

    def stream(self, session: Session) -> Stream:
        return _ConstantStream(self.fitted(self._mean))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"mean": self.fitted(self._mean)}

    def restore(self, arrays: Mapping[str, np.ndarray], session: Session) -> None:
        self._mean = arrays["mean"]

    def flops(self, session: Session) -> FlopCount:
        return FlopCount(0)


class _ConstantStream(Stream):
    def __init__(self, value: np.ndarray) -> None:
        self._value = value

    def step(self, frame: np.ndarray) -> np.ndarray:
        return self._value
