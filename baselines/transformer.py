"""Causal Transformer on one session: transformers' layers with a window, streamed from a key-value memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from realmbench.decoder import Preset, tuned
from realmbench.networks.attention import AttentionState, TransformerLayer
from realmbench.search import Choice, Range, SearchDimension
from realmbench.session import Session
from realmbench.training.network_decoder import NetworkDecoder


class TransformerOptions(BaseModel):
    """Options of the causal Transformer.

    Attributes
    ----------
    width, heads, layers : of the layers; the gated perceptron is ``expand`` times as wide.
    window_s : how far back a layer looks; ``layers`` windows reach ``layers`` times as far.
    dropout : on the projected frames and on what every layer adds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(64, ge=4)
    heads: int = Field(4, ge=1)
    layers: int = Field(2, ge=1)
    expand: float = Field(2.0, gt=0)
    window_s: float = Field(1.0, gt=0)
    dropout: float = Field(0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_fit(self) -> TransformerOptions:
        if self.width % (2 * self.heads):
            raise ValueError(f"width={self.width} must be a multiple of twice heads={self.heads}")
        return self


class TransformerNetwork(nn.Module):
    """Linear -> windowed layers -> norm -> linear.

    Parameters
    ----------
    inputs, outputs : C * F input values and D targets per frame.
    rate : frames per second, which turns the window into frames.
    """

    def __init__(self, inputs: int, outputs: int, rate: int, options: TransformerOptions) -> None:
        super().__init__()
        window = max(1, round(options.window_s * rate))
        hidden = round(options.expand * options.width)
        self.input = nn.Linear(inputs, options.width)
        self.dropout = nn.Dropout(options.dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(options.width, options.heads, hidden, window, options.dropout)
            for _ in range(options.layers)
        )
        self.norm = nn.RMSNorm(options.width)
        self.output = nn.Linear(options.width, outputs)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (B, T, C, F) to (B, T, D); masked channels arrive as zeros and need no further treatment."""
        hidden = self.dropout(self.input(x.flatten(2)))  # (B, T, d)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.output(self.norm(hidden))

    def initial_state(self, batch: int) -> list[AttentionState]:
        """Return the memory of a stream that has seen nothing."""
        return [layer.initial_state(batch) for layer in self._layers()]

    def step(
        self, frame: torch.Tensor, mask: torch.Tensor, state: list[AttentionState]
    ) -> tuple[torch.Tensor, list[AttentionState]]:
        """Map one (B, C, F) frame to (B, D) and carry the memory on."""
        hidden, after = self.input(frame.flatten(1)), []  # (B, d)
        for layer, memory in zip(self._layers(), state):
            hidden, memory = layer.step(hidden, memory)
            after.append(memory)
        return self.output(self.norm(hidden)), after

    def _layers(self) -> list[TransformerLayer]:
        return cast(list[TransformerLayer], list(self.layers))


class Transformer(NetworkDecoder):
    """Causal Transformer with rotary positions and a window (Vaswani et al. 2017; Jiang et al. 2023), one session."""

    causal: ClassVar[bool] = True
    depends_on: ClassVar[tuple[str, ...]] = ("realmbench.training", "realmbench.networks")
    Options: ClassVar[type[BaseModel]] = TransformerOptions
    options: TransformerOptions
    # Found by `realmbench tune` (results/tuning).
    presets: ClassVar[Mapping[str, Preset]] = tuned(
        {
            "tiny": Preset(
                decoder={"width": 32, "layers": 1}, train={"updates": 200, "evaluate_every": 25, "window_s": 3.0}
            ),
            "small": Preset(decoder={"width": 64}, train={"updates": 1000}),
            "paper": Preset(decoder={"width": 256, "heads": 8, "layers": 4, "window_s": 2.0}, train={"updates": 3000}),
        },
        {
            "train.learning_rate": 0.00894,
            "train.weight_decay": 0.0263,
            "decoder.dropout": 0.3,
            "decoder.window_s": 0.5,
        },
    )
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        "train.learning_rate": Range(3e-4, 1e-2, log=True),
        "train.weight_decay": Range(1e-4, 1e-1, log=True),
        "decoder.dropout": Choice((0.0, 0.1, 0.2, 0.3, 0.5)),
        "decoder.window_s": Choice((0.5, 1.0, 2.0)),
    }

    def build(self, session: Session) -> nn.Module:
        return TransformerNetwork(session.channels * session.features, session.outputs, session.rate, self.options)
