"""Layers that take a causal Mamba-2 block's place at its number of parameters: attention and a gated recurrent unit."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from realmbench.errors import OptionError
from realmbench.networks.attention import TransformerLayer

# Width of a head of attention layers.
HEAD_WIDTH = 32


def attention_block(width: int, parameters: int, dropout: float, window: float) -> TransformerLayer:
    """Make a causal Transformer layer with a wanted number of parameters.

    Attention and norms are what the width makes them; the gated perceptron takes the rest.

    Parameters
    ----------
    window : frames that a query sees.

    Raises
    ------
    OptionError : attention alone is larger.
    """
    hidden = round((parameters - 4 * width**2 - 2 * width) / (3 * width))
    if hidden < 1:
        raise OptionError(
            f"a Mamba-2 block of {parameters:,} parameters leaves none to a perceptron; raise decoder.expand"
        )
    return TransformerLayer(width, max(1, width // HEAD_WIDTH), hidden, max(1, round(window)), dropout)


class GruBlock(nn.Module):
    """Pre-norm residual block with torch's gated recurrent unit and a projection back to the width."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gru = nn.GRU(width, hidden, batch_first=True)
        self.out_proj = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.gru(self.norm(x))  # (B, T, h)
        return x + self.dropout(self.out_proj(hidden))

    def initial_state(self, batch: int) -> torch.Tensor:
        """Return the hidden state (1, B, h) of a stream that has seen nothing."""
        return self.out_proj.weight.new_zeros(1, batch, self.gru.hidden_size)

    def step(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map one step (B, d) to (B, d) and carry the hidden state on."""
        hidden, state = self.gru(self.norm(x)[:, None], state)
        return x + functional.linear(hidden[:, 0], self.out_proj.weight), state


def gru_block(width: int, parameters: int, dropout: float) -> GruBlock:
    """Make a `GruBlock` with the number of parameters nearest to the wanted one.

    With h hidden units it has ``3 h (d + h + 2) + h d + 2 d`` parameters, which is solved for h.

    Raises
    ------
    OptionError : not even one unit fits.
    """
    linear, rest = 4 * width + 6, 2 * width - parameters
    hidden = round((-linear + math.sqrt(linear**2 - 12 * rest)) / 6) if rest < 0 else 0
    if hidden < 1:
        raise OptionError(f"{parameters:,} parameters are too few for a recurrent block of width {width}")
    return GruBlock(width, hidden, dropout)
