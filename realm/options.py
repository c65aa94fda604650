"""Options of REALM's decoders and the presets that set them: sizes, recipes as published, and what tuning found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from realmbench.decoder import Preset, tuned
from realmbench.training.loop import TrainOptions
from realmbench.training.masking import MaskingOptions

from .distillation import DistillationOptions
from .encoder import PRESETS, Backbone, Variant
from .pretraining import ScheduledOptions


class NetworkOptions(BaseModel):
    """The network.

    Attributes
    ----------
    variant : ``mamba2`` has standard blocks, ``paper`` the published ones with their skip from the frame to the output.
    d_model, layers, expand, headdim, d_state : width, depth, inner width, head width and state of the blocks.
    dropout : on the output of every block.
    energy_s : time constant of the causal channel gate in seconds; null averages from the start on, as published.
    memory_s : longest time constant of the states of Mamba-2 blocks in seconds, shorter than the training windows; null
        leaves them unbounded, as published.
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
    sessions : how many of the pretraining sessions are used, drawn by the seed; null takes all.
    """

    adaptation: Literal["finetune", "ridge"] = "finetune"
    freeze_tokenizer: bool = True
    sessions: int | None = Field(None, ge=1)


class PooledOptions(AdaptedOptions):
    """The network, its adaptation, and what becomes of the head that pretraining left.

    Attributes
    ----------
    fresh_head : fine-tuning starts from a new linear head, in the ``paper`` variant without the skip (second version).
    """

    fresh_head: bool = False


class TeacherOptions(AdaptedOptions):
    """The network, its adaptation, and masked autoencoding.

    Attributes
    ----------
    masking : corruptions of masked autoencoding.
    drop_path : probability with which the teacher's last block is left out in training; the first never is.
    """

    masking: MaskingOptions = MaskingOptions()
    drop_path: float = Field(0.0, ge=0, lt=1)


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


class AheadOptions(StudentOptions):
    """Everything, and the seconds of future that a prediction waits for."""

    look_ahead_s: float = Field(0.1, gt=0)


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


TINY_STAGE = {"updates": 200, "evaluate_every": 25, "window_s": 3.0, "patience": 4}
SMALL_STAGE = {"updates": 1000, "evaluate_every": 50}
# Fine-tuning takes smaller steps than training from scratch: it must not unlearn what other sessions taught.
TINY_FINETUNE = {**TINY_STAGE, "updates": 100, "learning_rate": 5e-4}
SMALL_FINETUNE = {"updates": 400, "evaluate_every": 25, "learning_rate": 5e-4}

# The authors' rates and batches; their epochs as updates on as many windows as their sessions have.
PAPER_STAGE = {"updates": 20_000, "evaluate_every": 250, "learning_rate": 5e-4, "weight_decay": 1e-5, "batch_size": 32}
PAPER_FINETUNE = {**PAPER_STAGE, "updates": 1500, "evaluate_every": 50}
# Second version: 16 x 24 windows; 30 of 300 epochs of warm-up from 0.3 of the rate, then 0.995 per epoch.
PAPER_TEACHER = {
    **PAPER_STAGE,
    "updates": 11_000,
    "evaluate_every": 110,  # with a patience of ten looks, the published 30 epochs
    "batch_size": 384,
    "learning_rate": 1.53e-3,
    "schedule": "exponential",
    "final_share": round(0.995**270, 4),
    "warm_up_share": 0.1,
    "warm_up_from": 0.3,
}
PAPER_TEACHER_V1 = {**PAPER_STAGE, "learning_rate": 6.25e-4}
# What the published network and recipe set; the second version of the code is the authors' current one.
PAPER_BLOCKS = {"variant": "paper", "energy_s": None, "memory_s": None}
PAPER_NETWORK = {**PAPER_BLOCKS, "freeze_tokenizer": True}
PAPER_V2 = {"distillation": {"task": 0.0, "alignment": 1.0, "reconstruction": 1.0}, "fresh_head": True}
PAPER_V1 = {
    "distillation": {"task": 1.0, "alignment": 1.0, "reconstruction": 0.1, "aligned_layers": 2},
    "freeze_tokenizer": False,  # as the command in their first README; the code's default froze four layers
}

# Found by `realmbench tune` for realm-student (results/tuning). Student, teacher and controls share it: a comparison
# with a control is of the recipe only if everything else is the same, and one teacher serves all.
FAMILY = {
    "train.student.learning_rate": 0.00894,
    "train.task.learning_rate": 0.00894,  # the same windows and the same loss as the student's
    "train.finetune.learning_rate": 0.00136,
    "train.teacher.learning_rate": 0.00672,
    "decoder.dropout": 0.3,
    "decoder.freeze_tokenizer": False,
}


def stage_presets(*stages: str, found: dict[str, Any] | None = None) -> dict[str, Preset]:
    """Build the presets of a decoder that trains in these stages; none means one fit on the session alone.

    Parameters
    ----------
    found : what tuning found; what was found for the family by default.
    """
    presets = {}
    for name, stage, finetune in (
        ("tiny", TINY_STAGE, TINY_FINETUNE),
        ("small", SMALL_STAGE, SMALL_FINETUNE),
        ("paper", PAPER_STAGE, PAPER_FINETUNE),
    ):
        train: dict[str, Any] = {key: finetune if key == "finetune" else stage for key in stages}
        decoder: dict[str, Any] = dict(PRESETS[name])
        if name == "paper":
            decoder |= PAPER_NETWORK if stages else PAPER_BLOCKS
            if "teacher" in stages:
                decoder["drop_path"] = 0.1
                train["teacher"] = PAPER_TEACHER
        presets[name] = Preset(decoder=decoder, train=train or stage)
    prefixes = ("decoder.", *(f"train.{stage}." for stage in stages))
    if found is None:
        found = {key: value for key, value in FAMILY.items() if key.startswith(prefixes)}
    return tuned(presets, found)


def pooled_presets() -> dict[str, Preset]:
    """Build the presets of the student's control: of both recipes it has all but the distillation."""
    base = stage_presets("student", "finetune")
    recipes = {"paper": PAPER_V2, "paper-v1": PAPER_V1}
    kept = {
        version: {key: value for key, value in recipe.items() if key != "distillation"}
        for version, recipe in recipes.items()
    }
    return {**base, **{version: _with(base["paper"], changes) for version, changes in kept.items()}}


def student_presets(
    tiny: dict[str, Any] | None = None, small: dict[str, Any] | None = None, paper: dict[str, Any] | None = None
) -> dict[str, Preset]:
    """Build the presets of a student that differs from REALM by these options, and both published recipes.

    A preset whose student is smaller or larger than the teacher keeps the teacher of `realm-student`.
    """
    base = stage_presets("teacher", "student", "finetune")
    paper_v1 = base["paper"].model_copy(update={"train": {**base["paper"].train, "teacher": PAPER_TEACHER_V1}})
    return {
        "tiny": _with(base["tiny"], tiny),
        "small": _with(base["small"], small),
        "paper": _with(base["paper"], {**PAPER_V2, **(paper or {})}),
        "paper-v1": _with(paper_v1, {**PAPER_V1, **(paper or {})}),
    }


def _with(preset: Preset, changes: dict[str, Any] | None) -> Preset:
    return preset.model_copy(update={"decoder": {**preset.decoder, **(changes or {})}})


def sized(layers: Sequence[int], teacher: Sequence[int], expand: int) -> dict[str, dict[str, int]]:
    """Describe students of other depths and inner widths at ``tiny``, ``small`` and ``paper`` and the same teacher."""
    return {
        name: {"layers": own, "expand": expand, "teacher_layers": theirs, "teacher_expand": 2}
        for name, own, theirs in zip(("tiny", "small", "paper"), layers, teacher)
    }
