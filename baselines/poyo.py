"""POYO-style decoder: one Transformer for all sessions, whose unit and session embeddings are fitted to a new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from torch import nn

from realmbench.artifact import Artifact, Trained
from realmbench.decoder import Context, Preset, tuned
from realmbench.search import Choice, Range, SearchDimension
from realmbench.seeds import stream_seed
from realmbench.session import Session, SessionData
from realmbench.training.loop import TrainOptions
from realmbench.training.multi_session import SessionTable, load_pretrained, train_on_sessions
from realmbench.training.network_decoder import NetworkDecoder, drawn, supervised

from .poyo_network import PoyoNetwork, PoyoOptions


class PoyoTrainOptions(BaseModel):
    """Training on the pretraining sessions, then on the held-out one: its embeddings alone (``identify``), then all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pretrain: TrainOptions = TrainOptions()
    identify: TrainOptions = TrainOptions()
    finetune: TrainOptions = TrainOptions()


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


class Poyo(NetworkDecoder):
    """POYO-style multi-session Transformer (Azabou et al. 2023) for a continuous signal; sees the whole window."""

    causal: ClassVar[bool] = False
    look_ahead_s: ClassVar[float] = float("inf")
    multi_session: ClassVar[bool] = True
    depends_on: ClassVar[tuple[str, ...]] = (
        "realmbench.training",
        "realmbench.networks",
        "realmbench.baselines.poyo_network",
    )
    Options: ClassVar[type[BaseModel]] = PoyoOptions
    TrainOptions: ClassVar[type[BaseModel]] = PoyoTrainOptions
    # Found by `realmbench tune` (results/tuning).
    presets: ClassVar[Mapping[str, Preset]] = tuned(
        PRESETS,
        {
            "train.pretrain.learning_rate": 0.00894,
            "train.finetune.learning_rate": 0.00411,
            "decoder.dropout": 0.3,
            "decoder.patch_s": 0.1,
        },
    )
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        "train.pretrain.learning_rate": Range(3e-4, 1e-2, log=True),
        "train.finetune.learning_rate": Range(1e-4, 1e-2, log=True),
        "decoder.dropout": Choice((0.0, 0.1, 0.2, 0.3)),
        "decoder.patch_s": Choice((0.06, 0.1, 0.2)),
    }
    options: PoyoOptions
    train_options: PoyoTrainOptions  # type: ignore[assignment]

    @property
    def zero_shot(self) -> bool:
        return True

    def build(self, session: Session) -> nn.Module:
        return self._network(session, 1)

    def pretrain(self, sessions: Sequence[SessionData], context: Context) -> Artifact:
        options = self.train_options.pretrain
        config = {"network": self.options.model_dump(), "train": options.model_dump()}
        seed = stream_seed(context.seed, "poyo", "initial weights")

        def build() -> Trained:
            network = drawn(lambda: self._network(sessions[0], len(sessions)), seed).to(context.device)
            return train_on_sessions(
                network,
                lambda batch: network(batch.x, batch.mask, batch.session),
                "poyo",
                options,
                sessions,
                context,
                config,
            )

        return context.artifacts.get_or_build("poyo", config, sessions, context.seed, context.device, build)

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        """Learn the session's embeddings with all else frozen, as the paper does for new units, then train all."""
        artifact = self.pretrained(artifact)
        with context.phase("fit"):
            network = self.network = self.fresh(session, context, "fit")
            load_pretrained(network, artifact.arrays)
            if not session.train:
                network.eval()
                return
            config = {**self.identity, "start": artifact.hash}
            network.requires_grad_(False)
            for module in network.modules():
                if isinstance(module, SessionTable):
                    module.requires_grad_(True)
            train = partial(supervised, network, [session], context=context, config=config, start_counts=True)
            train(self.train_options.identify, stage=f"identifying the units of {session.name}")
            network.requires_grad_(True)
            train(self.train_options.finetune, stage=f"fine-tuning on {session.name}")

    def _network(self, session: Session, sessions: int) -> PoyoNetwork:
        return PoyoNetwork(session.channels, session.features, session.outputs, session.rate, sessions, self.options)
