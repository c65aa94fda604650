"""REALM's decoders: student, its sizes and variants, the teacher, and the controls without a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel
from torch import nn

from realmbench.artifact import Artifact
from realmbench.decoder import DEFAULT_PRESET, Context, Preset
from realmbench.errors import OptionError, ProtocolError
from realmbench.options import changed_leaves
from realmbench.search import Choice, Range, SearchDimension
from realmbench.seeds import stream
from realmbench.session import Session, SessionData
from realmbench.training.network_decoder import NetworkDecoder, load_arrays_into, supervised

from .distillation import SOURCES as STAGES
from .distillation import distil_student, train_pooled
from .encoder import EncoderConfig, RealmEncoder, RealmNetwork
from .options import (
    AdaptedOptions,
    FinetuneTrainOptions,
    NetworkOptions,
    PooledOptions,
    PooledTrainOptions,
    StudentOptions,
    StudentTrainOptions,
    TeacherOptions,
    TeacherTrainOptions,
)
from .presets import pooled_presets, sized, stage_presets, student_presets
from .pretraining import pretrain_teacher
from .read_out import STACKED_FRAMES, fit_read_out
from .sizes import published_session, published_sizes

# What decides whether an old result still holds; what decides it for an old teacher or student, its stage says.
SOURCES = (*STAGES, *(f"realmbench.realm.{name}" for name in ("options", "pretrained", "read_out", "sizes")))

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
        idle = {"decoder.energy_s": "a network that looks both ways has no causal channel gate"}
        return {} if self.has_causal_network else idle

    @property
    def has_causal_network(self) -> bool:
        """Whether its network, or one that it learns from, is causal."""
        return self.look_ahead_s < float("inf")

    def idle_teacher_options(self, updates: int, layers: int) -> dict[str, str]:
        """Return of `idle_options` what an untrained masked autoencoder, or one of a single block, leaves idle."""
        idle = {"decoder.drop_path": "a teacher's only block is never left out"} if layers == 1 else {}
        if not updates:
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


class RealmScratch(RealmBase):
    """Control: the student's network trained on the held-out session alone; at ``paper`` the second version's."""

    Options: ClassVar[type[BaseModel]] = NetworkOptions
    # Found by `realmbench tune` (results/tuning).
    presets: ClassVar[Mapping[str, Preset]] = stage_presets(
        found={"train.learning_rate": 0.00894, "train.weight_decay": 0.0263, "decoder.dropout": 0.3}
    )
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        "train.learning_rate": Range(3e-4, 1e-2, log=True),
        "train.weight_decay": Range(1e-4, 1e-1, log=True),
        "decoder.dropout": DROPOUTS,
    }

    def build(self, session: Session) -> nn.Module:
        return RealmNetwork(RealmEncoder(self.encoder_config(session)), session.outputs, skip=False)

    def sizes(self) -> Mapping[str, int]:
        return published_sizes(self.encoder_config(published_session()), is_teacher=False, keeps_skip=False)


class _Pretrained(RealmBase):
    """What the decoders share that begin from pretraining, which the held-out session fine-tunes or reads out."""

    multi_session: ClassVar[bool] = True
    options: AdaptedOptions
    train_options: FinetuneTrainOptions  # type: ignore[assignment]

    def idle_options(self) -> dict[str, str]:
        names = ("freeze_tokenizer", "frozen_layers", "fresh_head", "fresh_skip")
        trained_only = (*(f"decoder.{name}" for name in names), "train.finetune.")
        why = "decoder.adaptation=ridge trains no network"
        return super().idle_options() | (dict.fromkeys(trained_only, why) if self.options.adaptation == "ridge" else {})

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


class RealmPooled(_Pretrained):
    """Control that matters: the student's network, sessions, labels and updates, and no teacher."""

    Options: ClassVar[type[BaseModel]] = PooledOptions
    TrainOptions: ClassVar[type[BaseModel]] = PooledTrainOptions
    presets: ClassVar[Mapping[str, Preset]] = pooled_presets()
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        "train.student.learning_rate": Range(3e-4, 1e-2, log=True),
        **FINETUNE_SPACE,
    }
    options: PooledOptions
    train_options: PooledTrainOptions

    @property
    def keeps_head(self) -> bool:
        return super().keeps_head and not self.options.fresh_head

    @property
    def has_skip(self) -> bool:
        return super().has_skip or (self.options.adaptation == "finetune" and self.options.fresh_skip)

    def idle_options(self) -> dict[str, str]:
        idle = super().idle_options()
        if not self.options.fresh_head:
            idle["decoder.fresh_skip"] = "decoder.fresh_head=false keeps the head and its skip"
        if self.options.variant != "paper":
            idle["decoder.fresh_skip"] = "only decoder.variant=paper has a skip"
        return idle

    @property
    def zero_shot(self) -> bool:
        return self.keeps_head

    def sizes(self) -> Mapping[str, int]:
        return published_sizes(self.encoder_config(published_session()), is_teacher=False, keeps_skip=self.has_skip)

    def pretrain(self, sessions: Sequence[SessionData], context: Context) -> Artifact:
        chosen = self.pretraining_sessions(sessions, context)
        return train_pooled(self.encoder_config(chosen[0]), self.train_options.student, chosen, context)


class RealmStudent(RealmPooled):
    """Causal Mamba-2 student distilled from the masked-autoencoding teacher, then fine-tuned (Wu et al. 2026)."""

    Options: ClassVar[type[BaseModel]] = StudentOptions
    TrainOptions: ClassVar[type[BaseModel]] = StudentTrainOptions
    presets: ClassVar[Mapping[str, Preset]] = student_presets()
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        **RealmPooled.search_space,
        "train.teacher.learning_rate": Range(3e-4, 1e-2, log=True),
    }
    options: StudentOptions
    train_options: StudentTrainOptions

    @property
    def zero_shot(self) -> bool:
        """Only where distillation has trained the head as well."""
        return self.keeps_head and self.options.distillation.task > 0

    @property
    def has_causal_network(self) -> bool:
        options = self.options
        return super().has_causal_network or (options.distillation.from_teacher and options.teacher == "causal")

    def idle_options(self) -> dict[str, str]:
        options, idle = self.options, super().idle_options()
        updates, layers = self.train_options.teacher.updates, options.teacher_layers or options.layers
        masked_autoencoding = ("decoder.masking.", "decoder.embed_sessions", "decoder.drop_path", "train.teacher.")
        idle |= self.idle_teacher_options(updates, layers)
        if not updates:
            idle["decoder.drop_path"] = "train.teacher.updates=0 does not train the teacher"
        if options.backbone != "mamba" and not options.distillation.from_teacher:
            idle["decoder.memory_s"] = f"backbone={options.backbone} has no states, and there is no teacher"
        if not options.distillation.alignment:
            aligned = (f"decoder.distillation.{name}" for name in ("kind", "aligned_layers", "shuffled"))
            idle |= dict.fromkeys(aligned, "decoder.distillation.alignment=0 aligns nothing")
        if not options.distillation.from_teacher:
            taught = ("decoder.teacher", *masked_autoencoding)
            why = "distillation.alignment=0 and distillation.copy_tokenizer=false leave the teacher out"
            idle |= dict.fromkeys(taught, why)
        if options.teacher == "random":
            idle |= dict.fromkeys(masked_autoencoding, "decoder.teacher=random is not trained")
        return idle

    def encoder_config(self, session: Session, causal: bool | None = None, **changes: Any) -> EncoderConfig:
        """Describe the student; with another backbone where one is asked for."""
        backbone = {"backbone": self.options.backbone, "attention_s": self.options.attention_s}
        return super().encoder_config(session, causal, **{**backbone, **changes})

    def teacher_config(self, session: Session) -> EncoderConfig:
        """Describe the teacher: Mamba-2 whatever the student is, and as deep and wide as asked for."""
        options = self.options
        return self.encoder_config(
            session,
            causal=options.teacher == "causal",
            backbone="mamba",
            attention_s=None,
            look_ahead=0,
            layers=options.teacher_layers or options.layers,
            expand=options.teacher_expand or options.expand,
            drop_path=options.drop_path,
        )

    def pretrain(self, sessions: Sequence[SessionData], context: Context) -> Artifact:
        options, chosen = self.options, self.pretraining_sessions(sessions, context)
        selection = None
        if options.select_on == "held-out":
            if context.selection is None:
                raise ProtocolError(
                    "decoder.select_on=held-out stops training where it suits the held-out sessions; an honest "
                    "protocol does not hand them out. Leave the option away."
                )
            selection = context.selection
        teacher = self.teach(chosen, context) if options.distillation.from_teacher else None
        config, training = self.encoder_config(chosen[0]), self.train_options.student
        return distil_student(config, options.distillation, training, chosen, context, teacher, selection)

    def teach(self, sessions: Sequence[SessionData], context: Context) -> tuple[EncoderConfig, Artifact]:
        """Return the teacher's network and what masked autoencoding left of it."""
        training = self.train_options.teacher
        if self.options.teacher == "random":
            training = training.model_copy(update={"updates": 0})
        options, config = self.options, self.teacher_config(sessions[0])
        return config, pretrain_teacher(config, options.masking, training, sessions, context, options.embed_sessions)


class RealmStudentSmall(RealmStudent):
    """REALM-S: a student of eight layers of half the inner width at ``paper``, the same teacher."""

    presets: ClassVar[Mapping[str, Preset]] = student_presets(**sized((1, 2, 8), (1, 2, 10), expand=1))


class RealmStudentLarge(RealmStudent):
    """REALM-L: a student of 22 layers at ``paper``, the same teacher."""

    presets: ClassVar[Mapping[str, Preset]] = student_presets(**sized((2, 4, 22), (1, 2, 10), expand=2))


class RealmStudentTransformer(RealmStudent):
    """Control: the same teacher, recipe and number of parameters with an attention backbone in Mamba-2's place."""

    presets: ClassVar[Mapping[str, Preset]] = student_presets(
        *({"backbone": "attention", "attention_s": 2.0} for _ in range(3))
    )


class RealmBidirectional(RealmStudent):
    """REALM-bi: a bidirectional student of the same recipe; sees the whole block, an upper reference."""

    causal: ClassVar[bool] = False
    look_ahead_s: ClassVar[float] = float("inf")
    presets: ClassVar[Mapping[str, Preset]] = student_presets(**sized((1, 2, 8), (1, 2, 10), expand=1))


class RealmTeacher(_Pretrained):
    """The bidirectional teacher itself, fine-tuned with a fresh head: sees the whole block, an upper reference."""

    causal: ClassVar[bool] = False
    look_ahead_s: ClassVar[float] = float("inf")
    Options: ClassVar[type[BaseModel]] = TeacherOptions
    TrainOptions: ClassVar[type[BaseModel]] = TeacherTrainOptions
    presets: ClassVar[Mapping[str, Preset]] = stage_presets("teacher", "finetune")
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        "train.teacher.learning_rate": Range(3e-4, 1e-2, log=True),
        **FINETUNE_SPACE,
    }
    options: TeacherOptions
    train_options: TeacherTrainOptions

    @property
    def keeps_head(self) -> bool:
        """There is none: the teacher has never seen a label."""
        return False

    def idle_options(self) -> dict[str, str]:
        idle = self.idle_teacher_options(self.train_options.teacher.updates, self.options.layers)
        return super().idle_options() | idle

    def sizes(self) -> Mapping[str, int]:
        return published_sizes(self.encoder_config(published_session()), is_teacher=True)

    def encoder_config(self, session: Session, causal: bool | None = None, **changes: Any) -> EncoderConfig:
        return super().encoder_config(session, causal, **{"drop_path": self.options.drop_path, **changes})

    def pretrain(self, sessions: Sequence[SessionData], context: Context) -> Artifact:
        chosen = self.pretraining_sessions(sessions, context)
        config = self.encoder_config(chosen[0])
        options, training = self.options, self.train_options.teacher
        return pretrain_teacher(config, options.masking, training, chosen, context, options.embed_sessions)

    def export_artifact(self, folder: Path, artifact: Artifact, session: Session, front_end: str) -> None:
        """Write the encoder so that `realmbench.realm.pretrained.RealmModel` loads it."""
        from .pretrained import save_encoder

        save_encoder(folder, self.encoder_config(session), artifact.arrays, front_end)

    def _start(self, network: RealmNetwork, artifact: Artifact) -> None:
        load_arrays_into(network.encoder, artifact.arrays)
