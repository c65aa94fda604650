"""The neural tokenizer: frames of all channels to one token per frame.

A small convolution shared by all channels, a gate per channel (efficient channel attention, Wang et al. 2020,
arXiv 1910.03151), and a projection. REALM's causal gate averages each channel's energy from the start of the segment:
on a device that mean never forgets, and training has only ever seen its first five seconds. Unless the published mean
is asked for, the causal mean is an exponential one with a time constant that training windows cover; a stream then
meets nothing that training did not. Both run in constant memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from realmbench.steady import exponential_mean

# Convolution taps in time, features per channel, and taps of the gate across channels (Wu et al. 2026).
TIME_TAPS = 3
CHANNEL_WIDTH = 8
GATE_TAPS = 5


class MeanState(NamedTuple):
    """Memory of a mean over time: its value (B, C) and the decayed number of steps in it (a scalar tensor).

    In double precision: after a million steps of a mean that forgets nothing, single would have lost its digits.
    """

    value: torch.Tensor
    weight: torch.Tensor


class TokenizerState(NamedTuple):
    """Memory of a stream: the last frames (B, K - 1, C, F) and the energy mean."""

    frames: torch.Tensor
    mean: MeanState


def causal_mean(x: torch.Tensor, decay: float) -> torch.Tensor:
    """Causal mean over time, exact from the first step on: ``sum decay^(t-s) x_s / sum decay^(t-s)``.

    Parameters
    ----------
    x : (B, T, C), any length.
    decay : factor per step, above 0; 1 weighs all steps from the first on alike.
    """
    counts = torch.arange(1, x.shape[1] + 1, dtype=torch.float64, device=x.device)[:, None]  # (T, 1)
    if decay == 1:
        return (x.double().cumsum(1) / counts).to(x.dtype)
    return exponential_mean(x, decay, torch.zeros_like(x[:, 0])) / (1 - decay**counts).to(x.dtype)


class NeuralTokenizer(nn.Module):
    """(B, T, C, F) frames to (B, T, d) tokens.

    Parameters
    ----------
    channels, features : C and F of the frames.
    causal : no token depends on later frames.
    rate : frames per second, which turns the time constant into steps.
    energy_s : time constant of the causal mean of each channel's energy, shorter than the training windows; None
        averages from the first frame on, as published.
    """

    def __init__(
        self, channels: int, features: int, d_model: int, causal: bool, rate: int, energy_s: float | None
    ) -> None:
        super().__init__()
        self.causal = causal
        self.decay = 1.0 if energy_s is None else math.exp(-1 / (energy_s * rate))
        self.channel = nn.Conv1d(features, CHANNEL_WIDTH, TIME_TAPS)
        self.gate = nn.Conv1d(1, 1, GATE_TAPS, bias=False)
        self.project = nn.Linear(channels * CHANNEL_WIDTH, d_model)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map frames (B, T, C, F) and the channel mask (B, C) to tokens (B, T, d)."""
        before = TIME_TAPS - 1 if self.causal else TIME_TAPS // 2
        padded = functional.pad(x, (0, 0, 0, 0, before, TIME_TAPS - 1 - before))  # (B, T + K - 1, C, F)
        # Over time, every channel with the same weights: a K x 1 convolution of an image of F colours, of which memory
        # already holds the colours last. Nothing is copied, which on a CPU is three times as fast as a linear layer.
        image = functional.conv2d(padded.permute(0, 3, 1, 2), self.channel.weight[..., None], self.channel.bias)
        features = functional.gelu(image.permute(0, 2, 3, 1))  # (B, T, C, 8)
        energy = self._energy(features, mask)  # (B, T, C)
        mean = causal_mean(energy, self.decay) if self.causal else energy.mean(1, keepdim=True)
        return self._tokens(features, mean, mask)

    def initial_state(self, batch: int) -> TokenizerState:
        """Return the memory of a stream that has seen nothing."""
        weight = self.project.weight
        channels = self.project.in_features // CHANNEL_WIDTH
        mean = MeanState(weight.new_zeros(batch, channels).double(), weight.new_zeros(()).double())
        return TokenizerState(weight.new_zeros(batch, TIME_TAPS - 1, channels, self.channel.in_channels), mean)

    def step(
        self, frame: torch.Tensor, mask: torch.Tensor, state: TokenizerState
    ) -> tuple[torch.Tensor, TokenizerState]:
        """Map one frame (B, C, F) to a token (B, d) and carry the memory on."""
        frames = torch.cat([state.frames, frame[:, None]], dim=1)  # (B, K, C, F)
        taps = frames.movedim(1, -1).flatten(2)  # (B, C, F K)
        features = functional.gelu(functional.linear(taps, self.channel.weight.flatten(1), self.channel.bias))[:, None]
        energy = self._energy(features, mask)[:, 0]  # (B, C)
        weight = self.decay * state.mean.weight + 1
        mean = state.mean.value + (energy - state.mean.value) / weight  # a sum would outgrow its digits
        token = self._tokens(features, mean[:, None].to(features.dtype), mask)[:, 0]
        return token, TokenizerState(frames[:, 1:], MeanState(mean, weight))

    def _energy(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        # A sum, because the gradient of a mean would be written out once more in full size.
        return features.sum(-1) * (mask[:, None] / CHANNEL_WIDTH)  # (B, T, C)

    def _tokens(self, features: torch.Tensor, mean: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Gate (B, T, C, 8) features by their energy means (B, T or 1, C) and project them.

        The mask closes the gate: after the convolution's bias a dead channel must not speak.
        """
        # A product with the unfolded row: torch's own convolution of one channel takes three times as long on a CPU.
        neighbours = functional.pad(mean, (GATE_TAPS // 2, GATE_TAPS // 2)).unfold(-1, GATE_TAPS, 1)  # (B, T, C, 5)
        gate = (neighbours @ self.gate.weight[0, 0, :, None])[..., 0].sigmoid() * mask[:, None]  # (B, T, C)
        return self.norm(self.project((features * gate[..., None]).flatten(2)))
