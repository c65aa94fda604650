"""Transformer layers for frames: transformers' own modules, rotary positions, and a causal window that streams.

A layer is transformers' Mistral decoder layer (Jiang et al. 2023, arXiv 2310.06825): RMS norm, attention with rotary
positions (Su et al. 2021, arXiv 2104.09864), RMS norm, gated perceptron. In a causal layer every frame sees itself and
the ``window - 1`` frames before it, so that a stream keeps that many keys and values and nothing else. Long records are
decoded chunk by chunk through the very same memory.

Shapes: B batch, T time, d width, H heads, K kept frames.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

# Frames that a causal layer handles at once.
CHUNK = 256
ROTARY_BASE = 10_000.0


class AttentionState(NamedTuple):
    """Memory of a causal layer: rotated keys and values (B, H, K, d / H) of at most window - 1 frames, and the time."""

    keys: torch.Tensor
    values: torch.Tensor
    position: int


class _Memory:
    """What transformers' attention calls a cache: joins the kept keys and values to the new ones."""

    def __init__(self, state: AttentionState) -> None:
        self.keys, self.values = state.keys, state.values

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys = torch.cat([self.keys, keys], dim=2)
        self.values = torch.cat([self.values, values], dim=2)
        return self.keys, self.values


class TransformerLayer(nn.Module):
    """(B, T, d) to the same shape, residuals and norms included.

    Parameters
    ----------
    width, heads : d and H; d is a multiple of 2 H.
    hidden : width of the gated perceptron.
    window : frames that a frame sees, itself included; None sees all, before and after.
    dropout : on what the layer adds to its input.
    """

    def __init__(self, width: int, heads: int, hidden: int, window: int | None, dropout: float) -> None:
        from transformers import MistralConfig
        from transformers.models.mistral.modeling_mistral import MistralDecoderLayer

        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"width {width} is not a multiple of twice the {heads} heads")
        if window is not None and window < 1:
            raise ValueError(f"a window of {window} frames does not even hold the present one")
        config = MistralConfig(
            hidden_size=width,
            intermediate_size=hidden,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            sliding_window=None,  # the masks are made here
        )
        config._attn_implementation = "sdpa"
        self.window = window
        self.heads, self.head_width = heads, width // heads
        self.layer = MistralDecoderLayer(config, layer_idx=0)
        # Without a mask transformers would take the attention for causal.
        self.layer.self_attn.is_causal = False
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        """Map (B, T, d) to (B, T, d); any length in a causal layer.

        ``places`` (B, T) are the times of the tokens of a layer that sees all, where they are not 0, 1, 2, ...
        """
        if self.window is None:
            places = torch.arange(x.shape[1], device=x.device)[None] if places is None else places
            return self._add(x, self._layer(x, places, None, None))
        state = self.initial_state(len(x))
        outputs = []
        for chunk in x.split(CHUNK, dim=1):
            y, state = self._advance(chunk, state)
            outputs.append(y)
        return torch.cat(outputs, dim=1)

    def initial_state(self, batch: int) -> AttentionState:
        """Return the memory of a stream that has seen nothing."""
        empty = self.layer.self_attn.q_proj.weight.new_zeros(batch, self.heads, 0, self.head_width)
        return AttentionState(empty, empty, 0)

    def step(self, x: torch.Tensor, state: AttentionState) -> tuple[torch.Tensor, AttentionState]:
        """Map one frame (B, d) to (B, d) and carry the memory on."""
        y, state = self._advance(x[:, None], state)
        return y[:, 0], state

    def _advance(self, x: torch.Tensor, state: AttentionState) -> tuple[torch.Tensor, AttentionState]:
        """Map a chunk of frames (B, Q, d) that follow what the memory holds."""
        assert self.window is not None
        kept, count = state.keys.shape[2], x.shape[1]
        memory = _Memory(state)
        mask = None
        if count > 1:
            # Row: new frame; column: kept and new frames. True where the age is between 0 and the window.
            age = kept + torch.arange(count, device=x.device)[:, None] - torch.arange(kept + count, device=x.device)
            mask = (age >= 0) & (age < self.window)  # (Q, K + Q)
        places = state.position + torch.arange(count, device=x.device)[None]
        y = self._add(x, self._layer(x, places, mask, memory))
        keep = slice(max(0, kept + count - (self.window - 1)), None)
        position = state.position + count
        return y, AttentionState(memory.keys[:, :, keep], memory.values[:, :, keep], position)

    def _layer(
        self, x: torch.Tensor, places: torch.Tensor, mask: torch.Tensor | None, memory: _Memory | None
    ) -> torch.Tensor:
        return self.layer(
            x,
            attention_mask=None if mask is None else mask[None, None],
            position_embeddings=rotation(places, self.head_width, x),
            past_key_values=memory,
        )

    def _add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + self.dropout(y - x) if self.training else y


def rotation(places: torch.Tensor, width: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines (B, T, width) of the rotary angles of (B, T) positions, typed as ``like``.

    The angles are taken in double precision: after a day of a stream single precision would turn keys at random.
    """
    exponents = torch.arange(0, width, 2, dtype=torch.float64, device=like.device) / width
    angles = places.double()[..., None] * ROTARY_BASE**-exponents  # (B, T, width / 2)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)
