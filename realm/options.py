"""Options of REALM's decoders."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from realmbench.options import added_later
from realmbench.training.loop import TrainOptions
from realmbench.training.masking import MaskingOptions

from .distillation import DistillationOptions
from .encoder import Backbone, Variant
from .pretraining import ScheduledOptions


class NetworkOptions(BaseModel):
    """The network.

    Attributes
    ----------
    variant : ``mamba2`` has standard blocks, ``paper`` the published ones; of those a head that pretraining left has
        their skip from the frame to the output.
    d_model, layers, expand, headdim, d_state : width, depth, inner width, head width and state of the blocks.
    dropout : on the output of every block; in the ``paper`` variant on the tokens too.
    energy_s : time constant of the causal channel gate in seconds; null averages from the start on, as published.
    memory_s : longest time constant of the states of Mamba-2 blocks in seconds; null leaves them unbounded, as
        published. Training windows teach nothing of memories longer than themselves.
    precision : ``bfloat16`` trains the blocks' projections in half precision; predictions stay in single.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    variant: Variant = "mamba2"
    d_model: int = Field(64, ge=8)
    layers: int = Field(2, ge=1)
    expand: int = Field(2, ge=1)
    headdim: int = Field(32, ge=1)
    d_state: int = Field(32, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    energy_s: float | None = Field(2.0, gt=0)
    memory_s: float | None = Field(1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _heads_fit(self) -> NetworkOptions:
        if (self.d_model * self.expand) % self.headdim:
            raise ValueError(f"headdim={self.headdim} must divide d_model * expand = {self.d_model * self.expand}")
        if self.variant == "paper" and self.d_state % 2:
            raise ValueError(f"d_state={self.d_state} must be even: rotary positions turn pairs")
        return self


class AdaptedOptions(NetworkOptions):
    """The network, and how the held-out session changes it.

    Attributes
    ----------
    adaptation : ``finetune`` trains the network on the held-out session; ``ridge`` leaves it as it is and fits a ridge
        regression on eleven stacked hidden states, the published label-free evaluation.
    freeze_tokenizer : fine-tuning leaves the tokenizer as it is.
    frozen_layers : fine-tuning leaves so many of the first blocks as they are; the first version's code froze four
        unless told otherwise.
    sessions : how many of the pretraining sessions are used, drawn by the seed; null takes all.
    """

    adaptation: Literal["finetune", "ridge"] = "finetune"
    freeze_tokenizer: bool = True
    sessions: int | None = Field(None, ge=1)
    frozen_layers: int = added_later(0, ge=0)

    @model_validator(mode="after")
    def _layers_are_there(self) -> AdaptedOptions:
        if self.frozen_layers > self.layers:
            raise ValueError(f"frozen_layers={self.frozen_layers}, but the network has layers={self.layers}")
        return self


class PooledOptions(AdaptedOptions):
    """The network, its adaptation, and what becomes of the head that pretraining left.

    Attributes
    ----------
    fresh_head : fine-tuning starts from a new linear head, as published; in the ``paper`` variant without the skip
        (second version).
    fresh_skip : the new head has a new skip beside it (first version); only with ``variant=paper``.
    """

    fresh_head: bool = False
    fresh_skip: bool = added_later(False)


class TeacherOptions(AdaptedOptions):
    """The network, its adaptation, and masked autoencoding.

    Attributes
    ----------
    masking : corruptions of masked autoencoding.
    drop_path : probability with which the teacher's last block is left out in training; the first never is.
    embed_sessions : masked autoencoding adds a learnt vector of its session to every token (first version); nothing
        after it does.
    """

    masking: MaskingOptions = MaskingOptions()
    drop_path: float = Field(0.0, ge=0, lt=1)
    embed_sessions: bool = added_later(False)


class StudentOptions(TeacherOptions, PooledOptions):
    """Everything: student, teacher, masking, distillation and adaptation.

    Attributes
    ----------
    teacher_layers, teacher_expand : depth and inner width of the teacher; null is the student's.
    teacher : what the student learns from: the ``bidirectional`` teacher, one of the same kind that is ``causal``, or
        one with ``random`` weights (a control).
    backbone : what the student has in the place of Mamba-2, with as many parameters.
    attention_s : how far back attention looks; only with ``backbone=attention``.
    select_on : where the best weights of distillation are chosen. ``held-out`` is what the first version published;
        only a leaky protocol hands those sessions out.
    """

    distillation: DistillationOptions = DistillationOptions()
    teacher_layers: int | None = Field(None, ge=1)
    teacher_expand: int | None = Field(None, ge=1)
    teacher: Literal["bidirectional", "causal", "random"] = "bidirectional"
    backbone: Backbone = "mamba"
    attention_s: float | None = Field(None, gt=0)
    select_on: Literal["pretraining", "held-out"] = "pretraining"

    @model_validator(mode="after")
    def _options_apply(self) -> StudentOptions:
        if (self.attention_s is not None) != (self.backbone == "attention"):
            raise ValueError("attention_s is how far attention looks: backbone=attention needs it, others have none")
        width = self.d_model * (self.teacher_expand or self.expand)
        if width % self.headdim:
            raise ValueError(f"headdim={self.headdim} must divide the teacher's inner width {width}")
        return self


class FinetuneTrainOptions(BaseModel):
    """Training on the held-out session (``finetune``), which every pretrained decoder has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    finetune: TrainOptions = TrainOptions()


class PooledTrainOptions(FinetuneTrainOptions):
    """Training on the pretraining sessions (``student``), then on the held-out session."""

    student: TrainOptions = TrainOptions()


class TeacherTrainOptions(FinetuneTrainOptions):
    """Masked autoencoding (``teacher``), then training on the held-out session."""

    teacher: ScheduledOptions = ScheduledOptions()


class StudentTrainOptions(PooledTrainOptions):
    """Training of all three stages."""

    teacher: ScheduledOptions = ScheduledOptions()
