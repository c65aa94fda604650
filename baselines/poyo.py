"""POYO-style decoder: one Transformer for all sessions, whose unit and session embeddings are fitted to a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import BaseModel
from torch import nn

from realmbench.decoder import Preset, tuned
from realmbench.search import Choice, Range, SearchDimension
from realmbench.session import Session, SessionData
from realmbench.training.loop import TrainOptions
from realmbench.training.multi_session import SessionTable
from realmbench.training.windows import Batch

from .poyo_network import PoyoNetwork, PoyoOptions
from .taught import StagedTrainOptions, TaughtDecoder


class PoyoTrainOptions(StagedTrainOptions):
    """Training on the pretraining sessions, then on the held-out one: its embeddings alone (``identify``), then all."""

    identify: TrainOptions = TrainOptions()


TINY_STAGE = {"updates": 200, "evaluate_every": 25, "window_s": 1.0, "batch_size": 32, "patience": 4}
# Windows of a second: more of them, for nearly as many seconds per update as other decoders have (16 of five).
SMALL_STAGE = {"updates": 1000, "evaluate_every": 50, "window_s": 1.0, "batch_size": 64}
PAPER_STAGE = {**SMALL_STAGE, "updates": 20_000, "evaluate_every": 250, "learning_rate": 4e-4, "batch_size": 256}
SMALL_FINETUNE = {**SMALL_STAGE, "updates": 200, "evaluate_every": 25, "learning_rate": 5e-4}
PRESETS = {
    "tiny": Preset(
        decoder={"width": 32, "depth": 1, "head_width": 16, "latents": 4},
        train={
            "pretrain": TINY_STAGE,
            "identify": {**TINY_STAGE, "updates": 50},
            "finetune": {**TINY_STAGE, "updates": 50, "learning_rate": 5e-4},
        },
    ),
    "small": Preset(train={"pretrain": SMALL_STAGE, "identify": SMALL_FINETUNE, "finetune": SMALL_FINETUNE}),
    # The sizes that torch_brain's POYO has by default.
    "paper": Preset(
        decoder={
            "width": 512,
            "depth": 2,
            "head_width": 64,
            "self_heads": 8,
            "latents": 64,
            "latent_dropout": 0.4,
        },
        train={
            "pretrain": PAPER_STAGE,
            "identify": {**PAPER_STAGE, "updates": 1000},
            "finetune": {**PAPER_STAGE, "updates": 1000},
        },
    ),
}


class Poyo(TaughtDecoder):
    """POYO-style multi-session Transformer (Azabou et al. 2023) for a continuous signal; sees the whole window."""

    causal: ClassVar[bool] = False
    look_ahead_s: ClassVar[float] = float("inf")
    kind = "poyo"
    depends_on: ClassVar[tuple[str, ...]] = (
        *TaughtDecoder.depends_on,
        "realmbench.networks",
        "realmbench.baselines.poyo_network",
    )
    Options: ClassVar[type[BaseModel]] = PoyoOptions
    TrainOptions: ClassVar[type[BaseModel]] = PoyoTrainOptions
    # Found by `realmbench tune` (results/tuning). At `tiny` pretraining hardly learns, whatever its rate: that was
    # searched again at `small`.
    presets: ClassVar[Mapping[str, Preset]] = tuned(
        tuned(
            PRESETS,
            {
                "train.pretrain.learning_rate": 0.00894,
                "train.finetune.learning_rate": 0.00411,
                "decoder.dropout": 0.3,
                "decoder.patch_s": 0.1,
            },
        ),
        {"train.pretrain.learning_rate": 0.00481},
        sizes=("small",),
    )
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        "train.pretrain.learning_rate": Range(3e-4, 1e-2, log=True),
        "train.identify.learning_rate": Range(5e-4, 5e-2, log=True),
        "train.finetune.learning_rate": Range(1e-4, 1e-2, log=True),
        "decoder.dropout": Choice((0.0, 0.1, 0.2, 0.3)),
        "decoder.patch_s": Choice((0.06, 0.1, 0.2)),
    }
    options: PoyoOptions
    train_options: PoyoTrainOptions

    def build(self, session: Session) -> nn.Module:
        return self._network(session, 1)

    def build_for_all(self, sessions: Sequence[SessionData]) -> nn.Module:
        return self._network(sessions[0], len(sessions))

    def pretraining_output(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        return network(batch.x, batch.mask, batch.session)

    def train_on(self, name: str, network: nn.Module, train: Callable[..., None]) -> None:
        """Learn the session's embeddings with all else frozen, as the paper does for new units, then train all."""
        network.requires_grad_(False)
        for module in network.modules():
            if isinstance(module, SessionTable):
                module.requires_grad_(True)
        train(self.train_options.identify, stage=f"identifying the units of {name}")
        network.requires_grad_(True)
        super().train_on(name, network, train)

    def _network(self, session: Session, sessions: int) -> PoyoNetwork:
        return PoyoNetwork(session.channels, session.features, session.outputs, session.rate, sessions, self.options)
