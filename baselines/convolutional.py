"""Temporal convolutional network on one session: dilated causal convolutions (Bai, Kolter & Koltun 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn import functional

from realmbench.decoder import Preset, tuned
from realmbench.search import Choice, Range, SearchDimension
from realmbench.session import Session
from realmbench.training.network_decoder import NetworkDecoder


class TcnOptions(BaseModel):
    """Options of the temporal convolutional network.

    Attributes
    ----------
    width : channels of every convolution.
    blocks : residual blocks; block b is dilated by 2^b, so that all together see ``2 (kernel - 1) (2^blocks - 1)``
        frames of the past.
    kernel : taps of a convolution.
    dropout : on the projected frames and inside every block.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(64, ge=1)
    blocks: int = Field(4, ge=1)
    kernel: int = Field(3, ge=2)
    dropout: float = Field(0.2, ge=0, lt=1)


class CausalConvolution(nn.Module):
    """Dilated convolution over the past: (B, T, W) to (B, T, W)."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.reach = (kernel - 1) * dilation
        self.convolution = nn.Conv1d(width, width, kernel, dilation=dilation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(x.transpose(1, 2), (self.reach, 0))  # (B, W, reach + T)
        return self.convolution(padded).transpose(1, 2)

    def step(self, x: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map one frame (B, W), given the (B, W, reach) frames before it."""
        frames = torch.cat([past, x[..., None]], dim=-1)  # (B, W, reach + 1)
        return self.convolution(frames)[..., 0], frames[..., 1:]


class Block(nn.Module):
    """Residual block of two convolutions, normed first, which lets blocks be stacked without weight normalisation."""

    def __init__(self, options: TcnOptions, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(options.width)
        self.first = CausalConvolution(options.width, options.kernel, dilation)
        self.second = CausalConvolution(options.width, options.kernel, dilation)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.dropout(functional.relu(self.first(self.norm(x))))
        return x + self.dropout(functional.relu(self.second(hidden)))

    def step(self, x: torch.Tensor, state: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        hidden, before = self.first.step(self.norm(x), state[0])
        added, between = self.second.step(functional.relu(hidden), state[1])
        return x + functional.relu(added), [before, between]


class TcnNetwork(nn.Module):
    """Linear -> dilated residual blocks -> linear.

    Parameters
    ----------
    inputs, outputs : C * F input values and D targets per frame.
    """

    def __init__(self, inputs: int, outputs: int, options: TcnOptions) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, options.width)
        self.dropout = nn.Dropout(options.dropout)
        self.blocks = nn.ModuleList(Block(options, 2**number) for number in range(options.blocks))
        self.norm = nn.LayerNorm(options.width)
        self.output = nn.Linear(options.width, outputs)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (B, T, C, F) to (B, T, D); masked channels arrive as zeros and need no further treatment."""
        hidden = self.dropout(self.input(x.flatten(2)))  # (B, T, W)
        for block in self.blocks:
            hidden = block(hidden)
        return self.output(self.norm(hidden))

    def initial_state(self, batch: int) -> list[list[torch.Tensor]]:
        """Return the memory of a stream that has seen nothing: zeros, as the padding of a whole record."""
        width = self.input.out_features
        return [
            [self.input.weight.new_zeros(batch, width, part.reach) for part in (block.first, block.second)]
            for block in self._blocks()
        ]

    def step(
        self, frame: torch.Tensor, mask: torch.Tensor, state: list[list[torch.Tensor]]
    ) -> tuple[torch.Tensor, list[list[torch.Tensor]]]:
        """Map one (B, C, F) frame to (B, D) and carry the memory on."""
        hidden, after = self.input(frame.flatten(1)), []  # (B, W)
        for block, memory in zip(self._blocks(), state):
            hidden, memory = block.step(hidden, memory)
            after.append(memory)
        return self.output(self.norm(hidden)), after

    def _blocks(self) -> list[Block]:
        return cast(list[Block], list(self.blocks))


SIZES = {
    "tiny": Preset(decoder={"width": 32, "blocks": 3}, train={"updates": 200, "evaluate_every": 25, "window_s": 3.0}),
    "small": Preset(decoder={"width": 64}, train={"updates": 1000}),
    "paper": Preset(decoder={"width": 256, "blocks": 6}, train={"updates": 3000}),
}


class Tcn(NetworkDecoder):
    """Causal temporal convolutional network (Bai, Kolter & Koltun 2018), trained on the held-out session alone."""

    causal: ClassVar[bool] = True
    Options: ClassVar[type[BaseModel]] = TcnOptions
    options: TcnOptions
    # Found by `realmbench tune` (results/tuning).
    presets: ClassVar[Mapping[str, Preset]] = tuned(
        SIZES,
        {
            "train.learning_rate": 0.00089,
            "train.weight_decay": 0.0144,
            "decoder.dropout": 0.1,
            "decoder.kernel": 5,
        },
    )
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        "train.learning_rate": Range(3e-4, 1e-2, log=True),
        "train.weight_decay": Range(1e-4, 1e-1, log=True),
        "decoder.dropout": Choice((0.0, 0.1, 0.2, 0.3, 0.5)),
        "decoder.kernel": Choice((2, 3, 5)),
    }

    def build(self, session: Session) -> nn.Module:
        return TcnNetwork(session.channels * session.features, session.outputs, self.options)
