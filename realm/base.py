"""What REALM's decoders share: one kind of network, and how a held-out session changes a pretrained one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from realmbench.artifact import Artifact
from realmbench.decoder import DEFAULT_PRESET, Context
from realmbench.errors import OptionError
from realmbench.options import changed_leaves
from realmbench.search import Choice, Range, SearchDimension
from realmbench.seeds import stream
from realmbench.session import Session, SessionData
from realmbench.training.loop import TrainOptions
from realmbench.training.network_decoder import NetworkDecoder, load_arrays_into, supervised

from .distillation import SOURCES as STAGES
from .encoder import EncoderConfig, RealmEncoder, RealmNetwork
from .options import AdaptedOptions, FinetuneTrainOptions, NetworkOptions
from .pretraining import ScheduledOptions
from .read_out import STACKED_FRAMES, fit_read_out

# What decides whether an old result still holds; what decides it for an old teacher or student, its stage says.
SOURCES = (*STAGES, *(f"realmbench.realm.{name}" for name in ("base", "options", "pretrained", "read_out", "sizes")))

# Options of trainings by the beginning of their names, as in ``train.finetune``.
Trainings = dict[str, TrainOptions]

DROPOUTS = Choice((0.0, 0.1, 0.2, 0.3))
FINETUNE_SPACE: Mapping[str, SearchDimension] = {
    "train.finetune.learning_rate": Range(5e-5, 3e-3, log=True),
    "decoder.dropout": DROPOUTS,
    "decoder.freeze_tokenizer": Choice((True, False)),
}


class RealmBase(NetworkDecoder):
    """What REALM's decoders share: one kind of network."""

    depends_on: ClassVar[tuple[str, ...]] = SOURCES
    causal: ClassVar[bool] = True
    options: NetworkOptions

    def __init__(
        self,
        preset: str = DEFAULT_PRESET,
        options: Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(preset, options, train)
        if not (options or train):
            return
        changed = changed_leaves(self.config, type(self)(preset).config)
        for beginning, why in self.idle_options().items():
            idle = [name for name in changed if name.startswith(beginning)]
            if idle:
                raise OptionError(f"{', '.join(idle)}: {why}")

    def idle_options(self) -> dict[str, str]:
        """Return the options that change nothing as the others stand: the beginnings of their names, and why."""
        idle: dict[str, str] = {}
        if not self.has_causal_network:
            idle["decoder.energy_s"] = "a network that looks both ways has no causal channel gate"
        trainings = self.trainings()
        for stage, training in trainings.items():
            if not training.updates:
                others = (name for name in type(training).model_fields if name != "updates")
                idle |= dict.fromkeys((f"{stage}.{name}" for name in others), f"{stage}.updates=0 trains nothing")
        if "train.finetune" in trainings and not trainings["train.finetune"].updates:
            frozen = ("decoder.freeze_tokenizer", "decoder.frozen_layers")
            idle |= dict.fromkeys(frozen, "train.finetune.updates=0 trains nothing")
        if not any(training.updates for training in trainings.values()):
            in_training = ("decoder.dropout", "decoder.drop_path", "decoder.precision")
            idle |= dict.fromkeys(in_training, "nothing is trained")
        return idle

    def trainings(self) -> Trainings:
        """Return the options of every training that is asked for."""
        if isinstance(self.train_options, TrainOptions):
            return {"train": self.train_options}
        stages = {f"train.{name}": training for name, training in self.train_options}
        return {name: training for name, training in stages.items() if isinstance(training, TrainOptions)}

    @property
    def has_causal_network(self) -> bool:
        """Whether its network, or one that it learns from, is causal."""
        return self.look_ahead_s < float("inf")

    def idle_teacher_options(self, training: ScheduledOptions, layers: int) -> dict[str, str]:
        """Return of `idle_options` what an untrained masked autoencoder, or one of a single block, leaves idle."""
        idle = {"decoder.drop_path": "a teacher's only block is never left out"} if layers == 1 else {}
        if not training.warm_up_share:
            idle["train.teacher.warm_up_from"] = "train.teacher.warm_up_share=0 has no warm-up"
        if not training.updates:
            masked = ("decoder.masking.", "decoder.embed_sessions")
            idle |= dict.fromkeys(masked, "train.teacher.updates=0 leaves masked autoencoding out")
        return idle

    def encoder_config(self, session: Session, causal: bool | None = None, **changes: Any) -> EncoderConfig:
        """Describe the encoder for sessions of this shape, as causal as the decoder unless said otherwise."""
        options = self.options
        causal = self.causal if causal is None else causal
        described: dict[str, Any] = {
            "channels": session.channels,
            "features": session.features,
            "rate": session.rate,
            "causal": causal,
            "variant": options.variant,
            "d_model": options.d_model,
            "layers": options.layers,
            "expand": options.expand,
            "headdim": options.headdim,
            "d_state": options.d_state,
            "dropout": options.dropout,
            "energy_s": options.energy_s if causal else None,
            "memory_s": options.memory_s,
            "precision": options.precision,
        }
        return EncoderConfig(**{**described, **changes})

    def export(self, folder: Path, session: Session, front_end: str) -> None:
        """Write the fitted network so that `realmbench.realm.pretrained.RealmForDecoding` loads it."""
        from .pretrained import save_network

        network = self.fitted(self.network)
        assert isinstance(network, RealmNetwork)
        save_network(folder, network, self.arrays(), front_end, session)

    def import_arrays(self, folder: Path) -> dict[str, np.ndarray]:
        from .pretrained import without_prefix

        return without_prefix(super().import_arrays(folder))


class Pretrained(RealmBase):
    """What the decoders share that begin from pretraining, which the held-out session fine-tunes or reads out."""

    multi_session: ClassVar[bool] = True
    options: AdaptedOptions
    train_options: FinetuneTrainOptions  # type: ignore[assignment]

    def idle_options(self) -> dict[str, str]:
        idle = super().idle_options()
        if not any(training.updates for name, training in self.trainings().items() if name != "train.finetune"):
            idle["decoder.sessions"] = "nothing is trained on other sessions"
        if self.options.adaptation == "ridge":
            names = ("freeze_tokenizer", "frozen_layers", "fresh_head", "fresh_skip")
            trained_only = (*(f"decoder.{name}" for name in names), "train.finetune.")
            idle |= dict.fromkeys(trained_only, "decoder.adaptation=ridge trains no network")
        return idle

    def trainings(self) -> Trainings:
        trainings = super().trainings()
        if self.options.adaptation == "ridge":
            del trainings["train.finetune"]
        return trainings

    @property
    def keeps_head(self) -> bool:
        """Whether the held-out session starts with the head that pretraining left."""
        return self.options.adaptation == "finetune"

    @property
    def has_skip(self) -> bool:
        """Whether the ``paper`` variant has its skip on the held-out session."""
        return self.keeps_head

    def build(self, session: Session) -> nn.Module:
        encoder = RealmEncoder(self.encoder_config(session))
        history = STACKED_FRAMES if self.options.adaptation == "ridge" else 1
        return RealmNetwork(encoder, session.outputs, history, skip=self.has_skip)

    def pretraining_sessions(self, sessions: Sequence[SessionData], context: Context) -> Sequence[SessionData]:
        """Return the sessions that are used: all, or a part that grows with ``sessions`` and depends on the seed."""
        wanted = self.options.sessions
        if wanted is None:
            return sessions
        if wanted > len(sessions):
            raise OptionError(f"decoder.sessions={wanted}, but the fold has {len(sessions)} to pretrain on")
        order = stream(context.seed, "realm", "pretraining sessions").permutation(len(sessions))
        return [sessions[index] for index in sorted(order[:wanted])]

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        """Fine-tune, with the start a candidate where its head is pretrained too; or fit the label-free read-out."""
        artifact = self.pretrained(artifact)
        with context.phase("fit"):
            network = self.network = self.fresh(session, context, "fit")
            assert isinstance(network, RealmNetwork)
            self._start(network, artifact)
            if self.options.adaptation == "ridge":
                fit_read_out(network, session, context)
                return
            network.encoder.tokenizer.requires_grad_(not self.options.freeze_tokenizer)
            network.encoder.blocks[: self.options.frozen_layers].requires_grad_(False)
            if not session.train:
                network.eval()
                return
            supervised(
                network,
                [session],
                self.train_options.finetune,
                context,
                f"fine-tuning on {session.name}",
                {**self.identity, "start": artifact.hash},
                start_counts=self.zero_shot,  # else its head is noise
            )

    def export_artifact(self, folder: Path, artifact: Artifact, session: Session, front_end: str) -> None:
        """Write the pretrained network so that `realmbench.realm.pretrained.RealmForDecoding` loads it."""
        from .pretrained import save_network

        network = RealmNetwork(RealmEncoder(self.encoder_config(session)), session.outputs)
        save_network(folder, network, artifact.arrays, front_end, None)

    def _start(self, network: RealmNetwork, artifact: Artifact) -> None:
        """Load what pretraining left: a whole network, or of it, where the head is new, the encoder."""
        if self.keeps_head:
            load_arrays_into(network, artifact.arrays)
        else:
            prefix = "encoder."
            arrays = {name.removeprefix(prefix): x for name, x in artifact.arrays.items() if name.startswith(prefix)}
            load_arrays_into(network.encoder, arrays)
