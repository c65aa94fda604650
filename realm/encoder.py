"""REALM's encoder: tokenizer and a stack of pre-norm blocks, bidirectional (teacher) or causal (student)."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn
from torch.nn import functional

from realmbench.errors import OptionError, RealmbenchError

from .backbones import attention_block, gru_block
from .mamba2 import BidirectionalMixer, Mamba2Mixer, Mixer, MixerState, RealmMixer
from .tokenizer import NeuralTokenizer, TokenizerState

Variant = Literal["mamba2", "paper"]
Backbone = Literal["mamba", "attention", "gru"]
State = TypeVar("State")

# Sizes by preset; teacher and student are equally wide.
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
    variant : ``mamba2`` has standard blocks, ``paper`` the authors' and their skip from the frames to the output.
    d_model, layers, expand, headdim, d_state : of the blocks.
    dropout : on the output of every block; in the ``paper`` variant on the tokens too.
    drop_path : probability with which the last block is left out of a window in training; it grows linearly from none
        at the first (Huang et al. 2016, arXiv 1603.09382).
    energy_s : time constant of the causal channel gate; None averages from the first frame on.
    memory_s : longest time constant of the states of Mamba-2 blocks; None leaves them unbounded.
    backbone : ``mamba``, or attention or recurrent layers with as many parameters in its place; causal encoders only.
    attention_s : how far back attention looks; None with every other backbone.
    look_ahead : frames by which the outputs of a causal encoder lag behind its input.
    precision : of the blocks' projections in training; the scan, norms and everything outside training are ``float32``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int
    features: int
    rate: int
    causal: bool
    variant: Variant = "mamba2"
    d_model: int
    layers: int
    expand: int
    headdim: int
    d_state: int
    dropout: float
    drop_path: float = 0.0
    energy_s: float | None = 2.0
    memory_s: float | None = 1.0
    backbone: Backbone = "mamba"
    attention_s: float | None = None
    look_ahead: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"

    @property
    def memory(self) -> float:
        """Longest time constant in steps."""
        return math.inf if self.memory_s is None else self.memory_s * self.rate


class EncoderOutput(NamedTuple):
    """The normed output (B, T, d) and the residual stream after every block, before the last norm."""

    final: torch.Tensor
    layers: list[torch.Tensor]


class EncoderState(NamedTuple):
    """Memory of a stream."""

    tokenizer: TokenizerState
    blocks: list[Any]


def parameter_count(module: nn.Module) -> int:
    """Count the numbers that training changes."""
    return sum(parameter.numel() for parameter in module.parameters())


def mixer_kind(variant: Variant) -> type[Mamba2Mixer] | type[RealmMixer]:
    """Return the class of a variant's Mamba-2 blocks."""
    return RealmMixer if variant == "paper" else Mamba2Mixer


class Block(nn.Module):
    """Pre-norm residual block: ``x + drop_path(dropout(mixer(norm(x))))``."""

    def __init__(self, config: EncoderConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        kind = mixer_kind(config.variant)
        size = (config.d_model, config.d_state, config.expand, config.headdim)
        memory = config.memory
        self.norm = nn.LayerNorm(config.d_model)
        self.mixer: Mixer | BidirectionalMixer = (
            kind(*size, memory=memory) if config.causal else BidirectionalMixer(kind, *size, memory)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.drop_path = drop_path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.dropout(self.mixer(self.norm(x)))  # (B, T, d)
        if self.training and self.drop_path:
            kept = torch.rand(len(x), 1, 1, device=x.device) >= self.drop_path
            branch = branch * kept / (1 - self.drop_path)
        return x + branch

    def step(self, x: torch.Tensor, state: MixerState) -> tuple[torch.Tensor, MixerState]:
        assert isinstance(self.mixer, Mixer)
        y, state = self.mixer.step(self.norm(x), state)
        return x + y, state

    def initial_state(self, batch: int) -> MixerState:
        assert isinstance(self.mixer, Mixer)
        return self.mixer.initial_state(batch)


class RealmEncoder(nn.Module):
    """Frames to hidden states, one per frame.

    Raises
    ------
    OptionError : a backbone in Mamba-2's place cannot be as large as it.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = NeuralTokenizer(
            config.channels, config.features, config.d_model, config.causal, config.rate, config.energy_s
        )
        self.blocks = nn.ModuleList(self._block(config, depth) for depth in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model)

    def _block(self, config: EncoderConfig, depth: int) -> nn.Module:
        if config.backbone == "mamba":
            return Block(config, config.drop_path * depth / max(1, config.layers - 1))
        if not config.causal:
            raise OptionError(f"a bidirectional encoder has Mamba-2 blocks, not backbone {config.backbone}")
        with torch.device("meta"):
            wanted = parameter_count(Block(config))
        if config.backbone == "gru":
            return gru_block(config.d_model, wanted, config.dropout)
        assert config.attention_s is not None
        return attention_block(config.d_model, wanted, config.dropout, config.attention_s * config.rate)

    def tokenize(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (B, T, C, F) frames and the (B, C) channel mask to (B, T + look-ahead, d) tokens.

        After the last frame come zeros, the mean.
        """
        return self.tokenizer(functional.pad(x, (0, 0, 0, 0, 0, self.config.look_ahead)), mask)

    def encode(self, tokens: torch.Tensor) -> EncoderOutput:
        """Map (B, T + look-ahead, d) tokens to the hidden states of T frames."""
        ahead = self.config.look_ahead
        if self.config.variant == "paper":
            tokens = functional.dropout(tokens, self.config.dropout, self.training)
        layers = []
        half = self.training and self.config.precision == "bfloat16"
        with torch.autocast(tokens.device.type, torch.bfloat16) if half else nullcontext():
            for block in self.blocks:
                tokens = block(tokens)
                layers.append(tokens[:, ahead:])
        return EncoderOutput(self.norm(layers[-1]), layers)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (B, T, C, F) frames to (B, T, d) hidden states."""
        return self.encode(self.tokenize(x, mask)).final

    def initial_state(self, batch: int) -> EncoderState:
        """Return the memory of a stream that has seen nothing.

        Raises
        ------
        RealmbenchError : the encoder looks both ways.
        """
        if not self.config.causal:
            raise RealmbenchError("an encoder that needs all of the future cannot stream")
        return EncoderState(
            self.tokenizer.initial_state(batch), [block.initial_state(batch) for block in self._blocks()]
        )

    def step(
        self, frame: torch.Tensor, mask: torch.Tensor, state: EncoderState, beside: torch.Tensor | float = 0.0
    ) -> tuple[torch.Tensor, EncoderState]:
        """Take one (B, C, F) frame, return the (B, d) hidden state of that ``look_ahead`` before, carry the memory on.

        The first ``look_ahead`` are of no frame.

        Parameters
        ----------
        beside : (B, d), added to the frame's token.
        """
        x, tokenizer_state = self.tokenizer.step(frame, mask, state.tokenizer)
        x = x + beside
        blocks = []
        for block, block_state in zip(self._blocks(), state.blocks):
            x, block_state = block.step(x, block_state)
            blocks.append(block_state)
        return self.norm(x), EncoderState(tokenizer_state, blocks)

    def _blocks(self) -> list[Any]:
        return list(self.blocks)  # of whatever backbone: all step alike


def stacked(hidden: torch.Tensor, frames: int) -> torch.Tensor:
    """Stack every hidden state of (B, T, d) behind those before it: (B, T, frames * d), the oldest first.

    Before the first stands the first.
    """
    before = hidden[:, :1].expand(-1, frames - 1, -1)
    return torch.cat([before, hidden], dim=1).unfold(1, frames, 1).transpose(2, 3).flatten(2)


class NetworkState(NamedTuple):
    """Memory of a stream: the encoder's, and the last hidden states (B, history - 1, d); none at the start."""

    encoder: EncoderState
    hidden: torch.Tensor | None


class LateState(NamedTuple):
    """Memory of a stream that answers late: what carries it on, and what is read beside hidden states to come."""

    state: Any
    beside: tuple[torch.Tensor, ...]


class SteppedNetwork(nn.Module, Generic[State]):
    """A network around an encoder that runs frame by frame: first the encoder, then what answers from its state."""

    encoder: RealmEncoder
    head: nn.Linear

    @property
    def look_ahead(self) -> int:
        """Frames by which `step` answers late."""
        return self.encoder.config.look_ahead

    def start(self, batch: int) -> State:
        """Return the memory of the parts before anything was seen."""
        raise NotImplementedError

    def advance(
        self, frame: torch.Tensor, mask: torch.Tensor, state: State
    ) -> tuple[torch.Tensor, torch.Tensor, State]:
        """Carry the memory on by one (B, C, F) frame.

        Returns
        -------
        hidden : (B, d), the encoder's state of the frame; with a look-ahead, of the one so many steps before.
        beside : what `answer` reads beside the hidden state of this frame.
        state : the memory.
        """
        raise NotImplementedError

    def answer(self, hidden: torch.Tensor, beside: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """Map a frame's (B, d) hidden state, and what is read beside it, to its (B, D) prediction; carry memory on."""
        raise NotImplementedError

    def initial_state(self, batch: int) -> State | LateState:
        """Return the memory of a stream that has seen nothing."""
        state = self.start(batch)
        return LateState(state, ()) if self.look_ahead else state

    def step(
        self, frame: torch.Tensor, mask: torch.Tensor, state: State | LateState
    ) -> tuple[torch.Tensor, State | LateState]:
        """Map one (B, C, F) frame to its (B, D) prediction and carry the memory on.

        With a look-ahead the prediction is of the frame so many steps before, and NaN while there is none.
        """
        if not isinstance(state, LateState):
            return self.answer(*self.advance(frame, mask, state))
        hidden, beside, inner = self.advance(frame, mask, state.state)
        first, *waiting = (*state.beside, beside)
        if len(waiting) < self.look_ahead:
            nothing = hidden.new_full((len(hidden), self.head.out_features), torch.nan)
            return nothing, LateState(inner, (first, *waiting))
        output, inner = self.answer(hidden, first, inner)
        return output, LateState(inner, tuple(waiting))


class RealmNetwork(SteppedNetwork[NetworkState]):
    """Encoder and linear head, and in the ``paper`` variant a linear skip from the frame: what is deployed.

    Parameters
    ----------
    outputs : D.
    history : how many hidden states, from the present back, the head sees.
    skip : whether the ``paper`` variant has its skip.
    """

    def __init__(self, encoder: RealmEncoder, outputs: int, history: int = 1, skip: bool = True) -> None:
        super().__init__()
        config = encoder.config
        self.encoder = encoder
        self.history = history
        self.head = nn.Linear(history * config.d_model, outputs)
        with_skip = skip and config.variant == "paper"
        self.skip = nn.Linear(config.channels * config.features, outputs) if with_skip else None

    def read_out(self, hidden: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Map (..., history * d) hidden states, and (..., C, F) frames for the skip, to (..., D) normalised outputs."""
        y = self.head(hidden)
        return y if self.skip is None else y + self.skip(x.flatten(-2))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (B, T, C, F) frames to (B, T, D) normalised predictions."""
        return self.decode(self.encoder(x, mask), x)

    def decode(self, hidden: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Map (B, T, d) hidden states, and the frames that they come from, to (B, T, D) normalised predictions."""
        return self.read_out(stacked(hidden, self.history) if self.history > 1 else hidden, x)

    def start(self, batch: int) -> NetworkState:
        return NetworkState(self.encoder.initial_state(batch), None)

    def advance(
        self, frame: torch.Tensor, mask: torch.Tensor, state: NetworkState
    ) -> tuple[torch.Tensor, torch.Tensor, NetworkState]:
        hidden, encoder = self.encoder.step(frame, mask, state.encoder)
        return hidden, frame, NetworkState(encoder, state.hidden)

    def answer(
        self, hidden: torch.Tensor, beside: torch.Tensor, state: NetworkState
    ) -> tuple[torch.Tensor, NetworkState]:
        if self.history == 1:
            return self.read_out(hidden, beside), state
        before = hidden[:, None].expand(-1, self.history - 1, -1) if state.hidden is None else state.hidden
        frames = torch.cat([before, hidden[:, None]], dim=1)  # (B, history, d)
        return self.read_out(frames.flatten(1), beside), NetworkState(state.encoder, frames[:, 1:])
