"""The neural tokenizer: frames of all channels to one token per frame.

A small convolution shared by all channels, a gate per channel (efficient channel attention, Wang et al. 2020,
arXiv 1910.03151), and a projection. REALM's causal gate averages each channel's energy from the start of the segment:
on a device that mean never forgets, and training has only ever seen its first five seconds. Here the causal mean is an
exponential one with a fixed time constant, which training windows cover; streams then run in constant memory and meet
nothing that training did not.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

# Convolution taps in time, features per channel, and taps of the gate across channels (Wu et al. 2026).
TIME_TAPS = 3
CHANNEL_WIDTH = 8
GATE_TAPS = 5
# Time constant of the causal energy mean; shorter than the training windows.
ENERGY_S = 2.0
# Steps handled by one matrix product of the exponential mean.
MEAN_CHUNK = 64


class MeanState(NamedTuple):
    """Memory of an exponential mean: the decayed sum (B, C) and the decayed count (a scalar tensor)."""

    total: torch.Tensor
    weight: torch.Tensor


class TokenizerState(NamedTuple):
    """Memory of a stream: the last frames (B, K - 1, C, F) and the energy mean."""

    frames: torch.Tensor
    mean: MeanState


def exponential_mean(x: torch.Tensor, decay: float) -> torch.Tensor:
    """Causal exponential mean over time, exact from the first step on: ``sum decay^(t-s) x_s / sum decay^(t-s)``.

    Parameters
    ----------
    x : (B, T, C), any length.
    decay : factor per step, between 0 and 1.
    """
    batch, length, channels = x.shape
    padding = -length % MEAN_CHUNK
    blocks = functional.pad(x, (0, 0, 0, padding)).reshape(batch, -1, MEAN_CHUNK, channels)  # (B, K, Q, C)
    steps = torch.arange(MEAN_CHUNK, dtype=x.dtype, device=x.device)
    distance = steps[:, None] - steps
    kernel = torch.where(distance >= 0, decay ** distance.clamp(min=0), 0)  # (Q, Q)
    inside = kernel @ blocks  # (B, K, Q, C)
    carry = x.new_zeros(batch, channels)
    carries = []
    for block in inside.unbind(1):
        carries.append(carry)
        carry = carry * decay**MEAN_CHUNK + block[:, -1]
    entering = decay ** (steps + 1)  # (Q,)
    totals = inside + torch.stack(carries, dim=1)[:, :, None] * entering[:, None]
    weights = (1 - decay ** torch.arange(1, length + 1, dtype=x.dtype, device=x.device)) / (1 - decay)
    return totals.flatten(1, 2)[:, :length] / weights[:, None]


class NeuralTokenizer(nn.Module):
    """(B, T, C, F) frames to (B, T, d) tokens.

    Parameters
    ----------
    channels, features : C and F of the frames.
    causal : no token depends on later frames.
    rate : frames per second, which turns the time constant into steps.
    """

    def __init__(self, channels: int, features: int, d_model: int, causal: bool, rate: int) -> None:
        super().__init__()
        self.causal = causal
        self.decay = math.exp(-1 / (ENERGY_S * rate))
        self.channel = nn.Linear(TIME_TAPS * features, CHANNEL_WIDTH)
        self.gate = nn.Conv1d(1, 1, GATE_TAPS, padding=GATE_TAPS // 2, bias=False)
        self.project = nn.Linear(channels * CHANNEL_WIDTH, d_model)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map frames (B, T, C, F) and the channel mask (B, C) to tokens (B, T, d)."""
        length = x.shape[1]
        before = TIME_TAPS - 1 if self.causal else TIME_TAPS // 2
        padded = functional.pad(x, (0, 0, 0, 0, before, TIME_TAPS - 1 - before))
        taps = torch.cat([padded[:, tap : tap + length] for tap in range(TIME_TAPS)], dim=-1)  # (B, T, C, K F)
        features = self._features(taps, mask[:, None])  # (B, T, C, 8)
        energy = features.mean(-1)  # (B, T, C)
        mean = exponential_mean(energy, self.decay) if self.causal else energy.mean(1, keepdim=True)
        return self._tokens(features, mean)

    def initial_state(self, batch: int) -> TokenizerState:
        """Return the memory of a stream that has seen nothing."""
        weight = self.project.weight
        features = self.channel.in_features // TIME_TAPS
        channels = self.project.in_features // CHANNEL_WIDTH
        mean = MeanState(weight.new_zeros(batch, channels), weight.new_zeros(()))
        return TokenizerState(weight.new_zeros(batch, TIME_TAPS - 1, channels, features), mean)

    def step(
        self, frame: torch.Tensor, mask: torch.Tensor, state: TokenizerState
    ) -> tuple[torch.Tensor, TokenizerState]:
        """Map one frame (B, C, F) to a token (B, d) and carry the memory on."""
        frames = torch.cat([state.frames, frame[:, None]], dim=1)  # (B, K, C, F)
        features = self._features(frames.transpose(1, 2).flatten(2), mask)  # (B, C, 8)
        total = self.decay * state.mean.total + features.mean(-1)
        weight = self.decay * state.mean.weight + 1
        token = self._tokens(features[:, None], (total / weight)[:, None])[:, 0]
        return token, TokenizerState(frames[:, 1:], MeanState(total, weight))

    def _features(self, taps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        # Masked again after the bias: a dead channel must not speak.
        return functional.gelu(self.channel(taps)) * mask[..., None]

    def _tokens(self, features: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """Gate (B, T, C, 8) features by their energy means (B, T or 1, C) and project them."""
        gate = self.gate(mean.flatten(0, 1)[:, None]).unflatten(0, mean.shape[:2])[:, :, 0]  # (B, T, C)
        return self.norm(self.project((features * gate.sigmoid()[..., None]).flatten(2)))
