"""What a decoder is handed: one session's frames, cut by the protocol and normalised with training statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .errors import RecordingError

# Normalised inputs are clipped here: a 250 µV artefact must not move a network further than ten standard deviations.
CLIP_DEVIATIONS = 10.0


@dataclass(frozen=True)
class Segment:
    """A contiguous stretch of frames.

    Attributes
    ----------
    x : (T, C, F) float32 normalised input.
    y : (T, D) float32 normalised target.
    warm_up : number of leading frames, of a gap between blocks, that only bring a decoder's state up: their labels are
        neither learnt from nor scored.
    start : index of the first frame on the recording's frame clock.
    privileged : (T, C', F') float32 frames of the decoder's ``privileged`` front end, which it may learn from and never
        predicts from; (T, 0, 0) where it has none.
    """

    x: np.ndarray
    y: np.ndarray
    warm_up: int
    start: int
    privileged: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))

    def __post_init__(self) -> None:
        if not self.privileged.size:
            object.__setattr__(self, "privileged", np.zeros((len(self.x), 0, 0), np.float32))

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Normaliser:
    """Means and standard deviations of a session's training frames.

    Attributes
    ----------
    x_mean, x_deviation : (C, F).
    y_mean, y_deviation : (D,) in the behaviour's own units.
    """

    x_mean: np.ndarray
    x_deviation: np.ndarray
    y_mean: np.ndarray
    y_deviation: np.ndarray

    @classmethod
    def fit(cls, x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> Normaliser:
        """Fit on lists of (T, C, F) frames and (T, D) targets; constants get a deviation of 1."""

        def moments(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            count = sum(len(part) for part in parts)
            mean = sum(part.sum(0, dtype=np.float64) for part in parts) / count
            variance = sum(np.square(part - mean).sum(0, dtype=np.float64) for part in parts) / count
            deviation = np.sqrt(variance)
            return mean.astype(np.float32), np.where(deviation > 1e-6, deviation, 1.0).astype(np.float32)

        return cls(*moments(x), *moments(y))

    @classmethod
    def pooled(cls, sessions: Sequence[SessionData]) -> tuple[Normaliser, np.ndarray]:
        """Pool the statistics of other sessions, each counting the same, for one without a sample of its own.

        A channel's come from the sessions in which it is usable.

        Returns
        -------
        the normaliser, and the (C,) mask of channels that are usable in at least half of the sessions.
        """
        masks = np.stack([session.mask for session in sessions])
        usable = np.maximum(masks.sum(0), 1)[:, None]

        def pool(means: np.ndarray, deviations: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            mean = (weights * means).sum(0)
            squares = (weights * (np.square(deviations) + np.square(means))).sum(0)
            deviation = np.sqrt(np.maximum(squares - np.square(mean), 0))
            return mean.astype(np.float32), np.where(deviation > 1e-6, deviation, 1.0).astype(np.float32)

        def stacked(name: str) -> np.ndarray:
            return np.stack([np.asarray(getattr(session.normaliser, name), np.float64) for session in sessions])

        alike = np.full((len(sessions), 1), 1 / len(sessions))
        pooled = cls(
            *pool(stacked("x_mean"), stacked("x_deviation"), masks[:, :, None] / usable),
            *pool(stacked("y_mean"), stacked("y_deviation"), alike),
        )
        return pooled, masks.mean(0) >= 0.5

    def input(self, frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Normalise (..., C, F) frames; clip them; set masked channels to 0."""
        scaled = (frames - self.x_mean) / self.x_deviation
        np.clip(scaled, -CLIP_DEVIATIONS, CLIP_DEVIATIONS, out=scaled)
        return np.where(mask[:, None], scaled, np.float32(0))

    def target(self, behaviour: np.ndarray) -> np.ndarray:
        """Normalise (T, D) behaviour."""
        return (behaviour - self.y_mean) / self.y_deviation

    def physical(self, prediction: np.ndarray) -> np.ndarray:
        """Bring (T, D) normalised predictions back to the behaviour's units."""
        return prediction * self.y_deviation + self.y_mean


@dataclass(frozen=True)
class Session:
    """Identity of a session and how its frames were made; all that `predict` and `stream` need besides frames.

    Attributes
    ----------
    rate : frames per second.
    mask : (C,) bool, True for usable channels; the others are zero in every frame.
    """

    dataset: str
    subject: str
    name: str
    rate: int
    mask: np.ndarray
    normaliser: Normaliser
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]

    def check_frames(self, x: np.ndarray) -> None:
        """Refuse frames that are not this session's; every `Decoder.predict` calls it first.

        Raises
        ------
        RecordingError : a wrong shape or NaN; the message says what is expected.
        """
        expected = (self.channels, self.features)
        if x.ndim != 3 or x.shape[1:] != expected:
            raise RecordingError(
                f"{self.name}: frames must be (frames, {expected[0]} channels, {expected[1]} features), not {x.shape}"
            )
        if not np.isfinite(x).all():
            raise RecordingError(f"{self.name}: frames hold NaN or infinite values; front ends never give any")

    @property
    def channels(self) -> int:
        return len(self.mask)

    @property
    def features(self) -> int:
        return len(self.feature_names)

    @property
    def outputs(self) -> int:
        return len(self.target_names)


@dataclass(frozen=True)
class SessionData(Session):
    """A session with its training and validation segments. Test samples are not reachable from here.

    Attributes
    ----------
    train : segments without warm-up; none in a zero-shot stage, which only decoders with ``zero_shot`` meet.
    validation : segments that begin with the unscored warm-up of the protocol's gap.
    key : hash of everything that made these arrays (data, front end, split); part of artifact keys.
    """

    train: tuple[Segment, ...] = ()
    validation: tuple[Segment, ...] = ()
    key: str = ""
