"""REALM's decoders: student, teacher, and the two controls without a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from realmbench.artifact import Artifact
from realmbench.decoder import Context, Preset, tuned
from realmbench.search import Choice, Range, SearchDimension
from realmbench.session import Session, SessionData
from realmbench.training.loop import TrainOptions
from realmbench.training.masking import MaskingOptions
from realmbench.training.network_decoder import NetworkDecoder, load_arrays_into, supervised

from .distillation import DistillationOptions, distil_student, train_pooled
from .encoder import PRESETS, EncoderConfig, RealmEncoder, RealmNetwork
from .pretraining import pretrain_teacher


class ScratchOptions(BaseModel):
    """The network: width, depth and state of its Mamba-2 blocks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    d_model: int = Field(64, ge=8)
    layers: int = Field(2, ge=1)
    expand: int = Field(2, ge=1)
    headdim: int = Field(32, ge=1)
    d_state: int = Field(32, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_fit(self) -> ScratchOptions:
        if (self.d_model * self.expand) % self.headdim:
            raise ValueError(f"headdim={self.headdim} must divide d_model * expand = {self.d_model * self.expand}")
        return self


class PooledOptions(ScratchOptions):
    """The network, and how the held-out session changes it."""

    freeze_tokenizer: bool = True


class TeacherOptions(PooledOptions):
    """The network, its fine-tuning, and the corruptions of masked autoencoding."""

    masking: MaskingOptions = MaskingOptions()


class StudentOptions(TeacherOptions):
    """Everything: the network of student and teacher, masking, distillation and fine-tuning."""

    distillation: DistillationOptions = DistillationOptions()


class TransformerStudentOptions(StudentOptions):
    """Everything, and how far back an attention layer of the student looks."""

    attention_s: float = Field(2.0, gt=0)


class FinetuneTrainOptions(BaseModel):
    """Training on the held-out session (``finetune``), which every pretrained decoder has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    finetune: TrainOptions = TrainOptions()


class PooledTrainOptions(FinetuneTrainOptions):
    """Training on the pretraining sessions (``student``), then on the held-out session."""

    student: TrainOptions = TrainOptions()


class TeacherTrainOptions(FinetuneTrainOptions):
    """Masked autoencoding (``teacher``), then training on the held-out session."""

    teacher: TrainOptions = TrainOptions()


class StudentTrainOptions(PooledTrainOptions):
    """Training of all three stages."""

    teacher: TrainOptions = TrainOptions()


DROPOUTS = Choice((0.0, 0.1, 0.2, 0.3))
TINY_STAGE = {"updates": 200, "evaluate_every": 25, "window_s": 3.0, "patience": 4}
SMALL_STAGE = {"updates": 1000, "evaluate_every": 50}
# Fine-tuning takes smaller steps than training from scratch: it must not unlearn what other sessions taught.
TINY_FINETUNE = {**TINY_STAGE, "updates": 100, "learning_rate": 5e-4}
SMALL_FINETUNE = {"updates": 400, "evaluate_every": 25, "learning_rate": 5e-4}


# The authors' rates and batches; their epochs as updates.
PAPER_STAGE = {"updates": 20_000, "evaluate_every": 250, "learning_rate": 5e-4, "weight_decay": 1e-5, "batch_size": 32}
PAPER_FINETUNE = {**PAPER_STAGE, "updates": 1500, "evaluate_every": 50}


# Found by `realmbench tune` for realm-student (results/tuning). Student, teacher and controls share it: a comparison
# with a control is of the recipe only if everything else is the same, and one teacher serves all.
FAMILY = {
    "train.student.learning_rate": 0.00894,
    "train.finetune.learning_rate": 0.00136,
    "train.teacher.learning_rate": 0.00672,
    "decoder.dropout": 0.3,
    "decoder.freeze_tokenizer": False,
}


def _pretrained_presets(*stages: str) -> dict[str, Preset]:
    """Build the presets of a decoder that has these stages, with what was found for them."""
    prefixes = ("decoder.", *(f"train.{stage}." for stage in stages))
    return tuned(_presets(*stages), {key: value for key, value in FAMILY.items() if key.startswith(prefixes)})


def _presets(*stages: str) -> dict[str, Preset]:
    """Build the presets for a decoder that has these stages; no stage means one fit on the session alone."""
    presets = {}
    for name, stage, finetune in (
        ("tiny", TINY_STAGE, TINY_FINETUNE),
        ("small", SMALL_STAGE, SMALL_FINETUNE),
        ("paper", PAPER_STAGE, PAPER_FINETUNE),
    ):
        train: dict[str, Any] = {key: finetune if key == "finetune" else stage for key in stages}
        presets[name] = Preset(decoder=PRESETS[name], train=train or stage)
    return presets


class _Realm(NetworkDecoder):
    """What REALM's decoders share: one kind of network."""

    depends_on: ClassVar[tuple[str, ...]] = ("realmbench.training", "realmbench.networks", "realmbench.realm")
    causal: ClassVar[bool] = True
    options: ScratchOptions

    def encoder_config(self, session: Session, causal: bool) -> EncoderConfig:
        """Describe the encoder for sessions of this shape."""
        options = self.options
        return EncoderConfig(
            channels=session.channels,
            features=session.features,
            rate=session.rate,
            causal=causal,
            d_model=options.d_model,
            layers=options.layers,
            expand=options.expand,
            headdim=options.headdim,
            d_state=options.d_state,
            dropout=options.dropout,
        )

    def build(self, session: Session) -> nn.Module:
        return RealmNetwork(RealmEncoder(self.encoder_config(session, self.causal)), session.outputs)


class RealmScratch(_Realm):
    """Control: the student's network trained on the held-out session alone."""

    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        "train.learning_rate": Range(3e-4, 1e-2, log=True),
        "train.weight_decay": Range(1e-4, 1e-1, log=True),
        "decoder.dropout": DROPOUTS,
    }

    Options: ClassVar[type[BaseModel]] = ScratchOptions
    # Found by `realmbench tune` (results/tuning).
    presets: ClassVar[Mapping[str, Preset]] = tuned(
        _presets(),
        {
            "train.learning_rate": 0.00894,
            "train.weight_decay": 0.0263,
            "decoder.dropout": 0.3,
        },
    )


class _Pretrained(_Realm):
    """What the decoders share that begin from pretraining: the held-out session fine-tunes what it left."""

    multi_session: ClassVar[bool] = True
    options: PooledOptions
    train_options: FinetuneTrainOptions  # type: ignore[assignment]

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        """Fine-tune; the pretrained start is a candidate, so that on validation the result is never below it."""
        artifact = self.pretrained(artifact)
        with context.phase("fit"):
            network = self.network = self.fresh(session, context, "fit")
            assert isinstance(network, RealmNetwork)
            load_arrays_into(self.pretrained_part(network), artifact.arrays)
            network.encoder.tokenizer.requires_grad_(not self.options.freeze_tokenizer)
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
            )

    def pretrained_part(self, network: RealmNetwork) -> nn.Module:
        """Return the part of the network that pretraining has trained."""
        return network


class RealmPooled(_Pretrained):
    """Control that matters: the student's network, sessions, labels and updates, and no teacher."""

    Options: ClassVar[type[BaseModel]] = PooledOptions
    TrainOptions: ClassVar[type[BaseModel]] = PooledTrainOptions
    presets: ClassVar[Mapping[str, Preset]] = _pretrained_presets("student", "finetune")
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        "train.student.learning_rate": Range(3e-4, 1e-2, log=True),
        "train.finetune.learning_rate": Range(5e-5, 3e-3, log=True),
        "decoder.dropout": DROPOUTS,
        "decoder.freeze_tokenizer": Choice((True, False)),
    }
    options: PooledOptions
    train_options: PooledTrainOptions

    @property
    def zero_shot(self) -> bool:
        return True

    def pretrain(self, sessions: Sequence[SessionData], context: Context) -> Artifact:
        return train_pooled(self.encoder_config(sessions[0], True), self.train_options.student, sessions, context)


class RealmStudent(RealmPooled):
    """Causal Mamba-2 student distilled from the masked-autoencoding teacher, then fine-tuned (Wu et al. 2026)."""

    Options: ClassVar[type[BaseModel]] = StudentOptions
    TrainOptions: ClassVar[type[BaseModel]] = StudentTrainOptions
    presets: ClassVar[Mapping[str, Preset]] = _pretrained_presets("teacher", "student", "finetune")
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        **RealmPooled.search_space,
        "train.teacher.learning_rate": Range(3e-4, 1e-2, log=True),
    }
    options: StudentOptions
    train_options: StudentTrainOptions

    @property
    def zero_shot(self) -> bool:
        """Only where distillation has trained the head as well."""
        return self.options.distillation.task > 0

    def pretrain(self, sessions: Sequence[SessionData], context: Context) -> Artifact:
        teacher_config = self.encoder_config(sessions[0], False)
        teacher = pretrain_teacher(teacher_config, self.options.masking, self.train_options.teacher, sessions, context)
        return distil_student(
            self.encoder_config(sessions[0], True),
            self.options.distillation,
            self.train_options.student,
            sessions,
            context,
            teacher,
            teacher_config,
        )


class RealmStudentTransformer(RealmStudent):
    """Control: the same teacher, recipe and number of parameters with an attention backbone in Mamba-2's place."""

    Options: ClassVar[type[BaseModel]] = TransformerStudentOptions
    options: TransformerStudentOptions
    presets: ClassVar[Mapping[str, Preset]] = _pretrained_presets("teacher", "student", "finetune")

    def encoder_config(self, session: Session, causal: bool) -> EncoderConfig:
        """Describe the student with attention layers; the teacher is everybody's."""
        config = super().encoder_config(session, causal)
        return config.model_copy(update={"attention_s": self.options.attention_s}) if causal else config


class RealmTeacher(_Pretrained):
    """The bidirectional teacher itself, fine-tuned with a fresh head: sees the whole block, an upper reference."""

    causal: ClassVar[bool] = False
    look_ahead_s: ClassVar[float] = float("inf")
    Options: ClassVar[type[BaseModel]] = TeacherOptions
    TrainOptions: ClassVar[type[BaseModel]] = TeacherTrainOptions
    presets: ClassVar[Mapping[str, Preset]] = _pretrained_presets("teacher", "finetune")
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        "train.teacher.learning_rate": Range(3e-4, 1e-2, log=True),
        "train.finetune.learning_rate": Range(5e-5, 3e-3, log=True),
        "decoder.dropout": DROPOUTS,
        "decoder.freeze_tokenizer": Choice((True, False)),
    }
    options: TeacherOptions
    train_options: TeacherTrainOptions

    def pretrain(self, sessions: Sequence[SessionData], context: Context) -> Artifact:
        config = self.encoder_config(sessions[0], False)
        return pretrain_teacher(config, self.options.masking, self.train_options.teacher, sessions, context)

    def pretrained_part(self, network: RealmNetwork) -> nn.Module:
        return network.encoder
