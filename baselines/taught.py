"""Decoders whose network is trained on the task of other sessions before it sees the held-out one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from realmbench.artifact import Artifact, Trained
from realmbench.decoder import Context
from realmbench.seeds import stream_seed
from realmbench.session import SessionData
from realmbench.training.loop import TrainOptions
from realmbench.training.multi_session import load_pretrained, train_on_sessions
from realmbench.training.network_decoder import NetworkDecoder, drawn, supervised
from realmbench.training.windows import Batch


class StagedTrainOptions(BaseModel):
    """Training on the pretraining sessions (``pretrain``), then on the held-out session (``finetune``)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pretrain: TrainOptions = TrainOptions()
    finetune: TrainOptions = TrainOptions()


class TaughtDecoder(NetworkDecoder):
    """Pretraining on the task: all sessions' windows in one training, and from its weights on the held-out session.

    Attributes
    ----------
    kind : of the artifact that pretraining leaves.
    """

    kind: ClassVar[str]
    multi_session: ClassVar[bool] = True
    depends_on: ClassVar[tuple[str, ...]] = (*NetworkDecoder.depends_on, "realmbench.baselines.taught")
    TrainOptions: ClassVar[type[BaseModel]] = StagedTrainOptions
    train_options: StagedTrainOptions  # type: ignore[assignment]

    @property
    def zero_shot(self) -> bool:
        return True

    def build_for_all(self, sessions: Sequence[SessionData]) -> nn.Module:
        """Make the untrained network for the pretraining sessions."""
        return self.build(sessions[0])

    def pretraining_output(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """Run the network for all on a batch of their windows, to (B, T, D)."""
        return network(batch.x, batch.mask)

    def train_on(self, name: str, network: nn.Module, train: Callable[..., None]) -> None:
        """Train the pretrained network on the held-out session, by calls of ``train(options, stage=...)``."""
        train(self.train_options.finetune, stage=f"fine-tuning on {name}")

    def pretrain(self, sessions: Sequence[SessionData], context: Context) -> Artifact:
        options = self.train_options.pretrain
        config = {"network": self.options.model_dump(), "train": options.model_dump()}
        seed = stream_seed(context.seed, self.kind, "initial weights")

        def build() -> Trained:
            network = drawn(lambda: self.build_for_all(sessions), seed).to(context.device)
            output = partial(self.pretraining_output, network)
            return train_on_sessions(network, output, self.kind, options, sessions, context, config)

        return context.artifact(self.kind, config, sessions, build)

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        """Train the pretrained network on; on validation the result is never below it."""
        artifact = self.pretrained(artifact)
        with context.phase("fit"):
            network = self.network = self.fresh(session, context, "fit")
            load_pretrained(network, artifact.arrays)
            if not session.train:
                network.eval()
                return
            config = {**self.identity, "start": artifact.hash}
            train = partial(supervised, network, [session], context=context, config=config, start_counts=True)
            self.train_on(session.name, network, train)
