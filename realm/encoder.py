"""REALM's encoder: tokenizer and a stack of pre-norm Mamba-2 blocks, bidirectional (teacher) or causal (student)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from realmbench.errors import OptionError, RealmbenchError
from realmbench.networks.attention import TransformerLayer

from .mamba2 import BidirectionalMixer, Mamba2Mixer, MixerState
from .tokenizer import NeuralTokenizer, TokenizerState

# Width of a head of attention layers.
HEAD_WIDTH = 32
# Sizes by preset; teacher and student are equally wide and deep.
PRESETS = {
    "tiny": {"d_model": 32, "layers": 1, "headdim": 32, "d_state": 16},
    "small": {"d_model": 64, "layers": 2, "headdim": 64, "d_state": 32},
    "paper": {"d_model": 256, "layers": 10, "headdim": 64, "d_state": 64},
}


class EncoderConfig(BaseModel):
    """Shape of an encoder.

    Attributes
    ----------
    channels, features, rate : of the frames.
    causal : causal student or bidirectional teacher.
    d_model, layers, expand, headdim, d_state : of the blocks.
    dropout : on the output of every block.
    attention_s : None for Mamba-2 blocks; else a causal encoder has attention layers with as many parameters, and this
        is their window.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int
    features: int
    rate: int
    causal: bool
    d_model: int
    layers: int
    expand: int
    headdim: int
    d_state: int
    dropout: float
    attention_s: float | None = None


class EncoderOutput(NamedTuple):
    """The normed output (B, T, d) and the residual stream after every block, before the last norm."""

    final: torch.Tensor
    layers: list[torch.Tensor]


class EncoderState(NamedTuple):
    """Memory of a stream."""

    tokenizer: TokenizerState
    blocks: list[Any]


class Block(nn.Module):
    """Pre-norm residual block: ``x + dropout(mixer(norm(x)))``."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        mixer: type[Mamba2Mixer | BidirectionalMixer] = Mamba2Mixer if config.causal else BidirectionalMixer
        self.norm = nn.LayerNorm(config.d_model)
        self.mixer = mixer(config.d_model, config.d_state, config.expand, config.headdim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.dropout(self.mixer(self.norm(x)))

    def step(self, x: torch.Tensor, state: MixerState) -> tuple[torch.Tensor, MixerState]:
        assert isinstance(self.mixer, Mamba2Mixer)
        y, state = self.mixer.step(self.norm(x), state)
        return x + y, state

    def initial_state(self, batch: int) -> MixerState:
        assert isinstance(self.mixer, Mamba2Mixer)
        return self.mixer.initial_state(batch)


def attention_block(config: EncoderConfig) -> TransformerLayer:
    """Make a causal Transformer layer with as many parameters as a Mamba-2 block of this configuration.

    Attention and norms are what the width makes them; the gated perceptron takes the rest.

    Raises
    ------
    OptionError : attention alone is larger than the block.
    """
    assert config.attention_s is not None
    width = config.d_model
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in Block(config).parameters())
    hidden = round((wanted - 4 * width**2 - 2 * width) / (3 * width))
    if hidden < 1:
        raise OptionError(f"a Mamba-2 block of {wanted:,} parameters leaves none to a perceptron; raise decoder.expand")
    heads = max(1, width // HEAD_WIDTH)
    return TransformerLayer(width, heads, hidden, max(1, round(config.attention_s * config.rate)), config.dropout)


class RealmEncoder(nn.Module):
    """Frames to hidden states, one per frame."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = NeuralTokenizer(config.channels, config.features, config.d_model, config.causal, config.rate)
        make = Block if config.attention_s is None else attention_block
        self.blocks = nn.ModuleList(make(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model)

    def tokenize(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (B, T, C, F) frames and the (B, C) channel mask to (B, T, d) tokens."""
        return self.tokenizer(x, mask)

    def encode(self, tokens: torch.Tensor) -> EncoderOutput:
        """Map (B, T, d) tokens to hidden states."""
        layers = []
        for block in self.blocks:
            tokens = block(tokens)
            layers.append(tokens)
        return EncoderOutput(self.norm(tokens), layers)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (B, T, C, F) frames to (B, T, d) hidden states."""
        return self.encode(self.tokenize(x, mask)).final

    def initial_state(self, batch: int) -> EncoderState:
        """Return the memory of a stream that has seen nothing.

        Raises
        ------
        RealmbenchError : the encoder is bidirectional.
        """
        if not self.config.causal:
            raise RealmbenchError("a bidirectional encoder needs the whole sequence and cannot stream")
        return EncoderState(
            self.tokenizer.initial_state(batch), [block.initial_state(batch) for block in self._blocks()]
        )

    def step(self, frame: torch.Tensor, mask: torch.Tensor, state: EncoderState) -> tuple[torch.Tensor, EncoderState]:
        """Map one (B, C, F) frame to its (B, d) hidden state and carry the memory on."""
        x, tokenizer_state = self.tokenizer.step(frame, mask, state.tokenizer)
        blocks = []
        for block, block_state in zip(self._blocks(), state.blocks):
            x, block_state = block.step(x, block_state)
            blocks.append(block_state)
        return self.norm(x), EncoderState(tokenizer_state, blocks)

    def _blocks(self) -> list[Any]:
        return list(self.blocks)  # Mamba-2 or attention, which step alike


class RealmNetwork(nn.Module):
    """Encoder and linear head: what is deployed."""

    def __init__(self, encoder: RealmEncoder, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.d_model, outputs)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (B, T, C, F) frames to (B, T, D) normalised predictions."""
        return self.head(self.encoder(x, mask))

    def initial_state(self, batch: int) -> EncoderState:
        """Return the memory of a stream that has seen nothing."""
        return self.encoder.initial_state(batch)

    def step(self, frame: torch.Tensor, mask: torch.Tensor, state: EncoderState) -> tuple[torch.Tensor, EncoderState]:
        """Map one (B, C, F) frame to its (B, D) prediction and carry the memory on."""
        hidden, state = self.encoder.step(frame, mask, state)
        return self.head(hidden), state
