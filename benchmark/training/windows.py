"""Random training windows that never leave a training segment, and validation scores on whole blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from realmbench.errors import OptionError, ProtocolError
from realmbench.metrics import r2_for_selection
from realmbench.session import Segment, SessionData


@dataclass(frozen=True)
class Batch:
    """One batch of windows.

    Attributes
    ----------
    x : (B, T, C, F) normalised input.
    y : (B, T, D) normalised target.
    mask : (B, C) bool, True for usable channels.
    session : (B,) which of the sessions that are trained on, counted from 0.
    privileged : (B, T, C', F') frames of the decoder's ``privileged`` front end, empty where it has none.
    """

    x: torch.Tensor
    y: torch.Tensor
    mask: torch.Tensor
    session: torch.Tensor
    privileged: torch.Tensor


class WindowSampler:
    """Draws windows of one length, each inside one training segment, every possible start equally likely.

    Parameters
    ----------
    sessions : their ``train`` segments are drawn from.
    window_s : length; cut to the shortest segment where that is shorter.
    generator : numpy generator; its state is all the state there is.

    Attributes
    ----------
    wanted, window : frames of ``window_s``, and of the windows that are drawn.
    """

    def __init__(
        self,
        sessions: Sequence[SessionData],
        window_s: float,
        batch_size: int,
        generator: np.random.Generator,
        device: str,
    ) -> None:
        self.generator = generator
        self.batch_size = batch_size
        self.device = device
        self._segments: list[tuple[Segment, np.ndarray, int]] = [
            (segment, session.mask, number) for number, session in enumerate(sessions) for segment in session.train
        ]
        if not self._segments:
            raise ProtocolError("there is no training segment to draw windows from")
        shortest = min(len(segment) for segment, _, _ in self._segments)
        self.wanted = round(window_s * sessions[0].rate)
        self.window = min(self.wanted, shortest)
        if self.window < 2:
            raise OptionError(f"training windows of {window_s:g} s hold fewer than two frames; lengthen window_s")
        starts = np.array([len(segment) - self.window + 1 for segment, _, _ in self._segments])
        self._ends = np.cumsum(starts)

    def draw(self) -> Batch:
        """Draw one batch."""
        picks = self.generator.integers(self._ends[-1], size=self.batch_size)
        indices = np.searchsorted(self._ends, picks, side="right")
        starts = picks - np.concatenate([[0], self._ends])[indices]
        rows = []
        for index, start in zip(indices, starts):
            segment, mask, number = self._segments[index]
            inside = slice(start, start + self.window)
            rows.append((segment.x[inside], segment.y[inside], mask, number, segment.privileged[inside]))
        return Batch(*(torch.from_numpy(np.stack(part)).to(self.device) for part in zip(*rows)))


def validation_batches(session: SessionData, device: str, number: int = 0) -> list[tuple[Batch, int]]:
    """Return the session's validation segments, those of equal length stacked, each with its warm-up.

    ``number`` is the session's place among those that are trained on.
    """
    groups: dict[tuple[int, int], list[Segment]] = {}
    for segment in session.validation:
        groups.setdefault((len(segment), segment.warm_up), []).append(segment)
    batches = []
    for (_, warm_up), segments in groups.items():
        x, y, privileged = (
            torch.from_numpy(np.stack([getattr(segment, name) for segment in segments])).to(device)
            for name in ("x", "y", "privileged")
        )
        mask = torch.from_numpy(session.mask).to(device).expand(len(segments), -1)
        numbers = torch.full((len(segments),), number, device=device)
        batches.append((Batch(x, y, mask, numbers, privileged), warm_up))
    return batches


def all_validation_batches(sessions: Sequence[SessionData], device: str) -> list[Batch]:
    """Return those of several sessions, one behind the other, for scores without labels, which are of warm-ups too."""
    return [
        batch for number, session in enumerate(sessions) for batch, _ in validation_batches(session, device, number)
    ]


class ValidationR2:
    """Validation score of a network: R2 (axis mean) on each session's validation blocks, averaged over sessions.

    It is not a number where a prediction is none: the network has diverged.

    Parameters
    ----------
    predict : a batch to (B, T, D), called without gradient.
    """

    def __init__(
        self,
        sessions: Sequence[SessionData],
        predict: Callable[[Batch], torch.Tensor],
        device: str,
    ) -> None:
        self._batches = [validation_batches(session, device, number) for number, session in enumerate(sessions)]
        self._predict = predict

    @torch.no_grad()
    def __call__(self) -> float:
        scores = []
        for batches in self._batches:
            truth, prediction = [], []
            for batch, warm_up in batches:
                output = self._predict(batch)[:, warm_up:]
                truth.append(batch.y[:, warm_up:].flatten(0, 1).cpu().numpy())
                prediction.append(output.flatten(0, 1).float().cpu().numpy())
                if not np.isfinite(prediction[-1]).all():
                    return math.nan
            scores.append(r2_for_selection(np.concatenate(truth), np.concatenate(prediction)))
        return float(np.mean(scores))
