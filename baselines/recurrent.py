"""Recurrent networks on one session: torch's own GRU and LSTM between a linear input and a linear output layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from realmbench.decoder import Preset, tuned
from realmbench.search import Choice, Range, SearchDimension
from realmbench.session import Session
from realmbench.training.network_decoder import NetworkDecoder


class RecurrentOptions(BaseModel):
    """Options of recurrent decoders.

    Attributes
    ----------
    hidden : width of the input layer and of each recurrent layer.
    layers : stacked recurrent layers.
    dropout : on the input frames' projection and on the recurrent output.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: int = Field(64, ge=1)
    layers: int = Field(1, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)


class RecurrentNetwork(nn.Module):
    """Linear -> recurrent layers -> linear.

    Parameters
    ----------
    cell : `torch.nn.GRU` or `torch.nn.LSTM`.
    inputs, outputs : C * F input values and D targets per frame.
    """

    def __init__(
        self,
        cell: type[nn.GRU] | type[nn.LSTM],
        inputs: int,
        outputs: int,
        options: RecurrentOptions,
        bidirectional: bool,
    ) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, options.hidden)
        self.dropout = nn.Dropout(options.dropout)
        self.recurrent = cell(
            options.hidden, options.hidden, options.layers, batch_first=True, bidirectional=bidirectional
        )
        self.output = nn.Linear(options.hidden * (1 + bidirectional), outputs)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (B, T, C, F) to (B, T, D); masked channels arrive as zeros and need no further treatment."""
        hidden, _ = self.recurrent(self._project(x))  # (B, T, H)
        return self.output(self.dropout(hidden))  # (B, T, D)

    def initial_state(self, batch: int) -> Any:
        """None: torch's recurrent layers start from zeros."""
        return None

    def step(self, frame: torch.Tensor, mask: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """Map one (B, C, F) frame to (B, D) and carry the state on."""
        hidden, state = self.recurrent(self._project(frame[:, None]), state)  # (B, 1, H)
        return self.output(hidden[:, 0]), state

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.input(x.flatten(2)))  # (B, T, H)


SIZES = {
    "tiny": Preset(decoder={"hidden": 32}, train={"updates": 200, "evaluate_every": 25, "window_s": 3.0}),
    "small": Preset(decoder={"hidden": 64}, train={"updates": 1000}),
    "paper": Preset(decoder={"hidden": 256, "layers": 2}, train={"updates": 3000}),
}


class _Recurrent(NetworkDecoder):
    """What the recurrent decoders share."""

    cell: ClassVar[type[nn.GRU] | type[nn.LSTM]]
    causal: ClassVar[bool] = True
    Options: ClassVar[type[BaseModel]] = RecurrentOptions
    options: RecurrentOptions
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        "train.learning_rate": Range(3e-4, 1e-2, log=True),
        "train.weight_decay": Range(1e-4, 1e-1, log=True),
        "decoder.dropout": Choice((0.0, 0.1, 0.2, 0.3, 0.5)),
        "decoder.layers": Choice((1, 2)),
    }

    def build(self, session: Session) -> nn.Module:
        return RecurrentNetwork(
            self.cell, session.channels * session.features, session.outputs, self.options, bidirectional=not self.causal
        )


class Gru(_Recurrent):
    """Causal gated recurrent network (Cho et al. 2014), trained on the held-out session alone."""

    cell = nn.GRU
    # Found by `realmbench tune` (results/tuning).
    presets: ClassVar[Mapping[str, Preset]] = tuned(
        SIZES,
        {
            "train.learning_rate": 0.002,
            "train.weight_decay": 0.01,
            "decoder.dropout": 0.2,
            "decoder.layers": 1,
        },
    )


class Lstm(_Recurrent):
    """Causal long short-term memory network (Hochreiter & Schmidhuber 1997; for LFP Ahmadi et al. 2019)."""

    cell = nn.LSTM
    presets: ClassVar[Mapping[str, Preset]] = tuned(
        SIZES,
        {
            "train.learning_rate": 0.00269,
            "train.weight_decay": 0.000116,
            "decoder.dropout": 0.3,
            "decoder.layers": 1,
        },
    )


class SpikeGru(Gru):
    """Reference: the same GRU on spike counts in bins of 20 ms, for what giving spikes up costs."""

    inputs: ClassVar[tuple[str, ...]] = ("spikes",)
    presets: ClassVar[Mapping[str, Preset]] = tuned(
        SIZES,
        {
            "train.learning_rate": 0.00681,
            "train.weight_decay": 0.0587,
            "decoder.dropout": 0.2,
            "decoder.layers": 2,
        },
    )


class BiGru(_Recurrent):
    """Bidirectional GRU: sees the whole block, so that the difference to `gru` is what the future is worth."""

    cell = nn.GRU
    causal: ClassVar[bool] = False
    look_ahead_s: ClassVar[float] = float("inf")
    presets: ClassVar[Mapping[str, Preset]] = tuned(
        SIZES,
        {
            "train.learning_rate": 0.00681,
            "train.weight_decay": 0.0587,
            "decoder.dropout": 0.2,
            "decoder.layers": 2,
        },
    )
