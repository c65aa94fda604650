"""A normaliser that goes on learning: it removes what drifts slowly, causally and in constant memory.

Frames come normalised by the statistics of the session's training part, or, of a session that nothing is known of, by
those of others. Gains and offsets drift within hours and jump between days. Two exponential means, of every feature and
of its squared distance from that, begin at what the normaliser promises (0 and 1) and forget it with a time constant
that is long against movements and short against drift.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from realmbench.session import SessionData

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
    x : (B, T, N); start : (B, N).
    """
    steps = torch.arange(CHUNK, dtype=torch.float64, device=x.device)
    kernel = ((1 - decay) * decay ** (steps[:, None] - steps)).tril().to(x.dtype)  # (Q, Q)
    fading = (decay ** (steps + 1)).to(x.dtype)[:, None]  # (Q, 1)
    parts = []
    for block in x.split(CHUNK, dim=1):
        length = block.shape[1]
        parts.append(kernel[:length, :length] @ block + fading[:length] * start[:, None])
        start = parts[-1][:, -1]
    return torch.cat(parts, dim=1)


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
def steadied(session: SessionData, seconds: float | None) -> SessionData:
    """Return the session with every segment as the normaliser gives it, its memory starting afresh."""
    if seconds is None:
        return session
    normaliser = SteadyNormaliser(seconds, session.rate)
    train, validation = (
        tuple(replace(segment, x=normaliser(torch.from_numpy(segment.x)[None])[0].numpy()) for segment in part)
        for part in (session.train, session.validation)
    )
    return replace(session, train=train, validation=validation)
