"""REALM's decoders: student, its sizes and variants, the teacher, and the controls without a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel
from torch import nn

from realmbench.artifact import Artifact
from realmbench.decoder import Context, Preset
from realmbench.errors import ProtocolError
from realmbench.search import Range, SearchDimension
from realmbench.session import Session, SessionData
from realmbench.training.network_decoder import load_arrays_into

from .base import DROPOUTS, FINETUNE_SPACE, Pretrained, RealmBase, Trainings
from .distillation import distil_student, train_pooled
from .encoder import EncoderConfig, RealmEncoder, RealmNetwork
from .options import (
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
from .sizes import published_session, published_sizes


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


class RealmPooled(Pretrained):
    """Control that matters: the student's network, sessions, labels and updates, and no teacher."""

    Options: ClassVar[type[BaseModel]] = PooledOptions
    TrainOptions: ClassVar[type[BaseModel]] = PooledTrainOptions
    presets: ClassVar[Mapping[str, Preset]] = pooled_presets()
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        "train.student.learning_rate": Range(3e-4, 1e-2, log=True),
        **FINETUNE_SPACE,
    }
    # What is new on the held-out session, a head or a skip, is drawn alike for the student and its control.
    drawn_as: ClassVar[str | None] = "RealmStudent"
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
        return self.keeps_head and self.train_options.student.updates > 0

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
        return super().zero_shot and self.options.distillation.task > 0

    @property
    def has_causal_network(self) -> bool:
        options = self.options
        return super().has_causal_network or (self.has_teacher and options.teacher == "causal")

    @property
    def has_teacher(self) -> bool:
        """Whether it takes anything from a teacher: the tokenizer at once, the rest by training."""
        weights = self.options.distillation
        return weights.copy_tokenizer or (weights.alignment > 0 and self.train_options.student.updates > 0)

    def trainings(self) -> Trainings:
        trainings = super().trainings()
        if not self.has_teacher or self.options.teacher == "random":
            del trainings["train.teacher"]
        return trainings

    def idle_options(self) -> dict[str, str]:
        options, idle = self.options, super().idle_options()
        training, layers = self.train_options.teacher, options.teacher_layers or options.layers
        masked_autoencoding = ("decoder.masking.", "decoder.embed_sessions", "decoder.drop_path", "train.teacher.")
        idle |= self.idle_teacher_options(training, layers)
        if not training.updates:
            idle["decoder.drop_path"] = "train.teacher.updates=0 does not train the teacher"
        if not self.train_options.student.updates:
            names = ("alignment", "kind", "aligned_layers", "shuffled", "task", "reconstruction")
            distilled = ("decoder.select_on", *(f"decoder.distillation.{name}" for name in names))
            idle |= dict.fromkeys(distilled, "train.student.updates=0 distils nothing")
        if options.backbone != "mamba" and not self.has_teacher:
            idle["decoder.memory_s"] = f"backbone={options.backbone} has no states, and there is no teacher"
        if not options.distillation.alignment:
            aligned = (f"decoder.distillation.{name}" for name in ("kind", "aligned_layers", "shuffled"))
            idle |= dict.fromkeys(aligned, "decoder.distillation.alignment=0 aligns nothing")
        if not self.has_teacher:
            taught = ("decoder.teacher", *masked_autoencoding)
            why = "nothing is aligned and distillation.copy_tokenizer=false: there is no teacher"
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
        teacher = self.teach(chosen, context) if self.has_teacher else None
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


class RealmTeacher(Pretrained):
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
        return super().idle_options() | self.idle_teacher_options(self.train_options.teacher, self.options.layers)

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
