"""A normaliser that goes on learning: it removes what drifts slowly, causally and in constant memory.

Frames come normalised by the statistics of the session's training part, or, of a session that nothing is known of, by
those of others. Gains and offsets drift within hours and jump between days. Two exponential means, of every feature and
of its squared distance from that, begin at what the normaliser promises (0 and 1) and forget it with a time constant
that is long against movements and short against drift. `SteadyInput` puts it before any decoder that is a network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .artifact import Artifact
from .decoder import Context, Stream
from .seeds import stable_hash
from .session import Session, SessionData
from .training.network_decoder import NetworkDecoder

# Steps handled by one matrix product.
CHUNK = 64
# Deviations are never taken to be smaller: a channel that is silent for a while must not be blown up.
LEAST_VARIANCE = 0.05


class SteadyState(NamedTuple):
    """Memory of a stream: mean and variance (B, C, F) so far."""

    mean: torch.Tensor
    variance: torch.Tensor


def exponential_mean(x: torch.Tensor, decay: float, start: torch.Tensor) -> torch.Tensor:
    """Compute ``m_t = decay m_(t-1) + (1 - decay) x_t`` with ``m_(-1) = start``.

    Parameters
    ----------
    x : (B, T, N), any length; start : (B, N).
    decay : between 0 and 1.
    """
    batch, length, width = x.shape
    blocks = functional.pad(x, (0, 0, 0, -length % CHUNK)).reshape(batch, -1, CHUNK, width)  # (B, K, Q, N)
    # The powers are taken in double precision: 1 - decay^t would cancel in single.
    steps = torch.arange(CHUNK, dtype=torch.float64, device=x.device)
    kernel = ((1 - decay) * decay ** (steps[:, None] - steps)).tril().to(x.dtype)  # (Q, Q)
    inside = kernel @ blocks  # (B, K, Q, N)
    entering = []
    for block in inside.unbind(1):
        entering.append(start)
        start = start * decay**CHUNK + block[:, -1]
    fading = (decay ** (steps + 1)).to(x.dtype)[:, None]  # (Q, 1)
    return (inside + torch.stack(entering, dim=1)[:, :, None] * fading).flatten(1, 2)[:, :length]


class SteadyNormaliser(nn.Module):
    """(B, T, C, F) frames to frames of the same shape; without parameters.

    Parameters
    ----------
    seconds : time constant; None leaves frames as they are.
    rate : frames per second.
    """

    def __init__(self, seconds: float | None, rate: int) -> None:
        super().__init__()
        self.decay = None if seconds is None else math.exp(-1 / (seconds * rate))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.decay is None:
            return x
        # In double precision, a stream's too: rounding would add up over a time constant, differently in both.
        flat = x.flatten(2).double()  # (B, T, C F)
        mean = exponential_mean(flat, self.decay, torch.zeros_like(flat[:, 0]))
        variance = exponential_mean((flat - mean).square(), self.decay, torch.ones_like(flat[:, 0]))
        return ((flat - mean) * variance.clamp_min(LEAST_VARIANCE).rsqrt()).view_as(x).to(x.dtype)

    def initial_state(self, like: torch.Tensor) -> SteadyState:
        """Return the memory before the first of frames shaped like (B, C, F)."""
        like = like.double()
        return SteadyState(torch.zeros_like(like), torch.ones_like(like))

    def step(self, frame: torch.Tensor, state: SteadyState) -> tuple[torch.Tensor, SteadyState]:
        """Map one (B, C, F) frame to another and carry the memory on."""
        if self.decay is None:
            return frame, state
        mean = self.decay * state.mean + (1 - self.decay) * frame
        variance = self.decay * state.variance + (1 - self.decay) * (frame - mean).square()
        steadied_frame = (frame - mean) * variance.clamp_min(LEAST_VARIANCE).rsqrt()
        return steadied_frame.to(frame.dtype), SteadyState(mean, variance)


@torch.no_grad()
def steadied_frames(x: np.ndarray, seconds: float, rate: int) -> np.ndarray:
    """Return (T, C, F) frames as the normaliser gives them, its memory starting afresh."""
    return SteadyNormaliser(seconds, rate)(torch.from_numpy(np.ascontiguousarray(x))[None])[0].numpy()


def steadied(session: SessionData, seconds: float | None) -> SessionData:
    """Return the session with every segment as the normaliser gives it; its key says so."""
    if seconds is None:
        return session
    train, validation = (
        tuple(replace(segment, x=steadied_frames(segment.x, seconds, session.rate)) for segment in part)
        for part in (session.train, session.validation)
    )
    key = stable_hash([session.key, "steadied", seconds])
    return replace(session, train=train, validation=validation, key=key)


class SteadyInput(NetworkDecoder):
    """The normaliser before a decoder: ``class SteadyGru(SteadyInput, Gru)`` is `Gru` on steadied frames throughout.

    It has no options: a control must not be tuned.

    Attributes
    ----------
    steady_s : time constant in seconds.
    """

    steady_s: ClassVar[float] = 30.0

    def pretrain(self, sessions: Sequence[SessionData], context: Context) -> Artifact:
        if context.selection is not None:
            context = replace(context, selection=[steadied(session, self.steady_s) for session in context.selection])
        return super().pretrain([steadied(session, self.steady_s) for session in sessions], context)

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        super().adapt(steadied(session, self.steady_s), context, artifact)

    def predict(self, x: np.ndarray, session: Session) -> np.ndarray:
        session.check_frames(x)
        return super().predict(steadied_frames(x, self.steady_s, session.rate), session)

    def stream(self, session: Session) -> Stream:
        return SteadyStream(super().stream(session), SteadyNormaliser(self.steady_s, session.rate), session)

    # A checkpoint holds arrays alone: no other library knows of the normaliser.
    def export(self, folder: Path, session: Session, front_end: str) -> None:
        NetworkDecoder.export(self, folder, session, front_end)

    def export_artifact(self, folder: Path, artifact: Artifact, session: Session, front_end: str) -> None:
        NetworkDecoder.export_artifact(self, folder, artifact, session, front_end)

    def import_arrays(self, folder: Path) -> dict[str, np.ndarray]:
        return NetworkDecoder.import_arrays(self, folder)


class SteadyStream(Stream):
    """The normaliser before another stream."""

    def __init__(self, stream: Stream, normaliser: SteadyNormaliser, session: Session) -> None:
        self._stream, self._normaliser = stream, normaliser
        self.delay = stream.delay
        self._state = normaliser.initial_state(torch.zeros(1, session.channels, session.features))

    @torch.no_grad()
    def step(self, frame: np.ndarray) -> np.ndarray:
        inputs = torch.from_numpy(np.ascontiguousarray(frame))[None]
        output, self._state = self._normaliser.step(inputs, self._state)
        return self._stream.step(output[0].numpy())
