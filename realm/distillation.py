"""Stage 2: the causal student learns the teacher's representation and the task on the pretraining sessions.

The loss is the published sum (Wu et al. 2026, first version): alignment ``1 - cos(student, teacher)`` per step on the
last residual stream, the squared error of the task, and a small reconstruction of the frames. With no teacher the same
function is the control: same network, sessions, labels and updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from realmbench.artifact import Artifact, Trained
from realmbench.decoder import Context
from realmbench.errors import OptionError
from realmbench.seeds import stream_seed
from realmbench.session import SessionData
from realmbench.training.loop import TrainOptions, fit, window_sampler
from realmbench.training.network_decoder import drawn, load_arrays_into, module_arrays
from realmbench.training.windows import Batch, ValidationR2, validation_batches

from .encoder import EncoderConfig, RealmEncoder, RealmNetwork
from .pretraining import reconstruction_error

# Share of the steps on which the student reconstructs its input.
RECONSTRUCTED_SHARE = 0.3


class DistillationOptions(BaseModel):
    """Weights of the distillation loss.

    Attributes
    ----------
    alignment : of ``1 - cos`` between the student's and the teacher's last residual stream.
    task : of the squared error of the normalised target.
    reconstruction : of the squared error of the frames at random steps.
    copy_tokenizer : start the student's tokenizer from the teacher's weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    alignment: float = Field(1.0, ge=0)
    task: float = Field(1.0, ge=0)
    reconstruction: float = Field(0.1, ge=0)
    copy_tokenizer: bool = True


class Student(nn.Module):
    """The deployed network and the reconstruction head that only distillation needs."""

    def __init__(self, config: EncoderConfig, outputs: int) -> None:
        super().__init__()
        width = config.d_model
        self.network = RealmNetwork(RealmEncoder(config), outputs)
        self.reconstruction = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, config.channels * config.features)
        )


def distil_student(
    config: EncoderConfig,
    weights: DistillationOptions,
    options: TrainOptions,
    sessions: Sequence[SessionData],
    context: Context,
    teacher: Artifact,
    teacher_config: EncoderConfig,
) -> Artifact:
    """Return the distilled network, trained now or taken from the store."""
    if teacher_config.d_model != config.d_model:
        raise OptionError(
            f"teacher and student must be equally wide to be aligned step by step, not {teacher_config.d_model} "
            f"and {config.d_model}"
        )
    full = {"encoder": config.model_dump(), "weights": weights.model_dump(), "train": options.model_dump()}

    def build() -> Trained:
        frozen = RealmEncoder(teacher_config)
        load_arrays_into(frozen, teacher.arrays)
        frozen.to(context.device).eval().requires_grad_(False)
        return _train(
            "realm-student", config, options, sessions, context, {**full, "teacher": teacher.hash}, weights, frozen
        )

    return context.artifacts.get_or_build(
        "realm-student", full, sessions, context.seed, context.device, build, parents=[teacher]
    )


def train_pooled(
    config: EncoderConfig, options: TrainOptions, sessions: Sequence[SessionData], context: Context
) -> Artifact:
    """Return the control: the student's network trained on the task alone, with the student's sessions and updates."""
    full = {"encoder": config.model_dump(), "train": options.model_dump()}
    weights = DistillationOptions(alignment=0, task=1, reconstruction=0, copy_tokenizer=False)

    def build() -> Trained:
        return _train("realm-pooled", config, options, sessions, context, full, weights, None)

    return context.artifacts.get_or_build("realm-pooled", full, sessions, context.seed, context.device, build)


def _train(
    kind: str,
    config: EncoderConfig,
    options: TrainOptions,
    sessions: Sequence[SessionData],
    context: Context,
    full: Mapping[str, Any],
    weights: DistillationOptions,
    teacher: RealmEncoder | None,
) -> Trained:
    # Student and control start from the same weights and see the same windows: one stream name for both.
    seed = stream_seed(context.seed, "realm-student", "initial weights")
    student = drawn(lambda: Student(config, sessions[0].outputs), seed).to(context.device)
    if teacher is not None and weights.copy_tokenizer:
        student.network.encoder.tokenizer.load_state_dict(teacher.tokenizer.state_dict())

    def loss(batch: Batch) -> torch.Tensor:
        return _loss(student, teacher, weights, batch)

    result = fit(
        student,
        loss,
        _score(student, teacher, weights, sessions, context.device),
        window_sampler(sessions, options, context.seed, "realm-student", context.device),
        options,
        stream_seed(context.seed, "realm-student", "dropout"),
        context.checkpoint(kind, full, sessions),
        lambda share, best: context.on_progress(f"{kind.removeprefix('realm-')}: validation score {best:.3f}", share),
    )
    arrays = module_arrays(student.network)
    return Trained(arrays, sum(parameter.numel() for parameter in student.network.parameters()), *result)


def _loss(student: Student, teacher: RealmEncoder | None, weights: DistillationOptions, batch: Batch) -> torch.Tensor:
    encoder = student.network.encoder
    code = encoder.encode(encoder.tokenize(batch.x, batch.mask))
    total = batch.x.new_zeros(())
    if weights.task:
        total = total + weights.task * nn.functional.mse_loss(student.network.head(code.final), batch.y)
    if weights.reconstruction:
        frames = student.reconstruction(code.layers[-1]).unflatten(-1, batch.x.shape[2:])  # (B, T, C, F)
        steps = torch.rand(batch.x.shape[:2], device=batch.x.device) < RECONSTRUCTED_SHARE
        steps[:, 0] = True  # never empty
        total = total + weights.reconstruction * reconstruction_error(frames, batch.x, steps, batch.mask)
    if teacher is not None and weights.alignment:
        with torch.no_grad():
            target = teacher.encode(teacher.tokenize(batch.x, batch.mask)).layers[-1]  # (B, T, d)
        similarity = nn.functional.cosine_similarity(code.layers[-1], target, dim=-1)  # (B, T)
        total = total + weights.alignment * (1 - similarity).mean()
    return total


def _score(
    student: Student,
    teacher: RealmEncoder | None,
    weights: DistillationOptions,
    sessions: Sequence[SessionData],
    device: str,
) -> Any:
    """Validation R2 where the task is part of the loss, else the negative validation loss."""
    if weights.task:
        return ValidationR2(sessions, lambda batch: student.network(batch.x, batch.mask), device)
    batches = [batch for session in sessions for batch, _ in validation_batches(session, device)]

    @torch.no_grad()
    def score() -> float:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same reconstructed steps at every validation
            return -sum(_loss(student, teacher, weights, batch).item() for batch in batches) / len(batches)

    return score
