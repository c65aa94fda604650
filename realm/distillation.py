"""Stage 2: the causal student learns the teacher's representation and the task on the pretraining sessions.

The loss is the published sum (Wu et al. 2026): alignment of the last residual streams step by step, the squared error
of the task (in the first version only), and the reconstruction of the frames at random steps. With no teacher the same
function is the control: same network, sessions, labels and updates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

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
from realmbench.training.windows import Batch, ValidationR2, all_validation_batches

from .alignment import ALIGNMENTS, UNWATCHED, AlignmentWatch
from .encoder import EncoderConfig, EncoderOutput, RealmEncoder, RealmNetwork, parameter_count
from .pretraining import SOURCES as PRETRAINING_SOURCES
from .pretraining import reconstruction_error

# The modules that decide what this stage leaves.
SOURCES = (*PRETRAINING_SOURCES, "realmbench.realm.alignment", "realmbench.realm.distillation")
# Share of the steps on which the student reconstructs its input.
RECONSTRUCTED_SHARE = 0.3


class DistillationOptions(BaseModel):
    """The distillation loss; the defaults are the weights of the first published version.

    Attributes
    ----------
    alignment : weight of the alignment between the student's and the teacher's residual streams.
    kind : of the alignment; the published one is ``cosine``.
    aligned_layers : how many of the last layers are aligned, from the last one back; of n the last counts n times as
        much as the first.
    shuffled : control; the teacher looks at another window than the student.
    task : weight of the squared error of the normalised target.
    reconstruction : weight of the squared error of the frames at random steps.
    copy_tokenizer : start the student's tokenizer from the teacher's weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    alignment: float = Field(1.0, ge=0)
    kind: Literal["cosine", "mse", "cka", "infonce"] = "cosine"
    aligned_layers: int = Field(1, ge=1)
    shuffled: bool = False
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
    teacher: tuple[EncoderConfig, Artifact] | None,
    selection: Sequence[SessionData] | None = None,
) -> Artifact:
    """Return the distilled network, trained now or taken from the store.

    Parameters
    ----------
    teacher : its network and what pretraining left of it; None where the weights take nothing from one.
    selection : sessions whose validation segments choose the best weights; the pretraining sessions by default.

    Raises
    ------
    OptionError : teacher and student cannot be aligned, or nothing is left to learn.
    """
    if teacher is not None:
        _check_alignment(config, teacher[0], weights)
    if not (weights.alignment or weights.task or weights.reconstruction):
        raise OptionError("alignment, task and reconstruction all have weight 0; the student would learn nothing")
    full: dict[str, Any] = {
        "encoder": config.model_dump(),
        "weights": weights.model_dump(),
        "train": options.model_dump(),
    }
    if selection is not None:
        full["selection"] = [session.key for session in selection]

    parents = [] if teacher is None else [teacher[1]]

    def build() -> Trained:
        frozen = None if teacher is None else _frozen(*teacher, context)
        keyed = {**full, "teacher": [parent.hash for parent in parents]}
        return _train("realm-student", config, options, sessions, context, keyed, weights, frozen, selection)

    return context.artifact("realm-student", full, sessions, build, parents=parents, sources=SOURCES)


def _check_alignment(config: EncoderConfig, teacher: EncoderConfig, weights: DistillationOptions) -> None:
    if not weights.alignment:
        return
    if teacher.d_model != config.d_model:
        raise OptionError(
            f"teacher and student must be equally wide to be aligned step by step, not {teacher.d_model} "
            f"and {config.d_model}"
        )
    shallower = min(config.layers, teacher.layers)
    if weights.aligned_layers > shallower:
        raise OptionError(
            f"decoder.distillation.aligned_layers={weights.aligned_layers}, but teacher or student has {shallower} only"
        )


def _frozen(config: EncoderConfig, artifact: Artifact, context: Context) -> RealmEncoder:
    encoder = RealmEncoder(config)
    load_arrays_into(encoder, artifact.arrays)
    return encoder.to(context.device).eval().requires_grad_(False)


def train_pooled(
    config: EncoderConfig, options: TrainOptions, sessions: Sequence[SessionData], context: Context
) -> Artifact:
    """Return the control: the student's network trained on the task alone, with the student's sessions and updates."""
    full = {"encoder": config.model_dump(), "train": options.model_dump()}
    weights = DistillationOptions(alignment=0, task=1, reconstruction=0, copy_tokenizer=False)

    def build() -> Trained:
        return _train("realm-pooled", config, options, sessions, context, full, weights)

    return context.artifact("realm-pooled", full, sessions, build, sources=SOURCES)


def _train(
    kind: str,
    config: EncoderConfig,
    options: TrainOptions,
    sessions: Sequence[SessionData],
    context: Context,
    full: Mapping[str, Any],
    weights: DistillationOptions,
    teacher: RealmEncoder | None = None,
    selection: Sequence[SessionData] | None = None,
) -> Trained:
    # Student and control start from the same weights and see the same windows: one stream name for both.
    seed = stream_seed(context.seed, "realm-student", "initial weights")
    student = drawn(lambda: Student(config, sessions[0].outputs), seed).to(context.device)
    if teacher is not None and weights.copy_tokenizer:
        student.network.encoder.tokenizer.load_state_dict(teacher.tokenizer.state_dict())

    def loss(batch: Batch) -> torch.Tensor:
        return distillation_loss(student, teacher, weights, batch)

    watch = UNWATCHED
    if teacher is not None and weights.alignment:
        watch = AlignmentWatch(partial(_last_stream, teacher), weights.kind)
    result = fit(
        student,
        loss,
        _score(student, teacher, weights, sessions if selection is None else selection, context.device, watch),
        window_sampler(sessions, options, context, "realm-student"),
        options,
        stream_seed(context.seed, "realm-student", "dropout"),
        context.checkpoint(kind, full, sessions, SOURCES),
        lambda share, best: context.on_progress(f"{kind.removeprefix('realm-')}: validation score {best:.3f}", share),
        start_counts=False,
        beside=watch,
    )
    return Trained(module_arrays(student.network), parameter_count(student.network), *result)


def distillation_loss(
    student: Student, teacher: RealmEncoder | None, weights: DistillationOptions, batch: Batch
) -> torch.Tensor:
    """Return the weighted sum of alignment, task and reconstruction; without a teacher there is no alignment."""
    return _loss_of(_encode(student.network.encoder, batch), student, teacher, weights, batch)


def _encode(encoder: RealmEncoder, batch: Batch) -> EncoderOutput:
    return encoder.encode(encoder.tokenize(batch.x, batch.mask))


def _last_stream(encoder: RealmEncoder, batch: Batch) -> torch.Tensor:
    return _encode(encoder, batch).layers[-1]  # (B, T, d)


def _loss_of(
    code: EncoderOutput, student: Student, teacher: RealmEncoder | None, weights: DistillationOptions, batch: Batch
) -> torch.Tensor:
    total = batch.x.new_zeros(())
    if weights.task:
        prediction = student.network.read_out(code.final, batch.x)  # (B, T, D)
        total = total + weights.task * nn.functional.mse_loss(prediction, batch.y)
    if weights.reconstruction:
        frames = student.reconstruction(code.layers[-1]).unflatten(-1, batch.x.shape[2:])  # (B, T, C, F)
        steps = torch.rand(batch.x.shape[:2], device=batch.x.device) < RECONSTRUCTED_SHARE
        steps[:, 0] = True  # never empty
        total = total + weights.reconstruction * reconstruction_error(frames, batch.x, steps, batch.mask)
    if teacher is not None and weights.alignment:
        seen, mask = batch.x, batch.mask
        if weights.shuffled:
            # Another window; backwards if it is the only one.
            seen, mask = (seen.roll(1, 0), mask.roll(1, 0)) if len(seen) > 1 else (seen.flip(1), mask)
        with torch.no_grad():
            targets = _encode(teacher, replace(batch, x=seen, mask=mask)).layers  # (B, T, d) each
        last = weights.aligned_layers
        pairs = enumerate(zip(code.layers[-last:], targets[-last:]), 1)
        distance = sum(depth * ALIGNMENTS[weights.kind](ours, theirs) for depth, (ours, theirs) in pairs)
        total = total + weights.alignment / (last * (last + 1) / 2) * distance
    return total


def _score(
    student: Student,
    teacher: RealmEncoder | None,
    weights: DistillationOptions,
    sessions: Sequence[SessionData],
    device: str,
    watch: AlignmentWatch,
) -> Callable[[], float]:
    """Validation R2 where the task is part of the loss, else the negative validation loss; the watch looks on."""

    def watched(batch: Batch) -> EncoderOutput:
        code = _encode(student.network.encoder, batch)
        watch.note(batch, code.layers[-1])
        return code

    if weights.task:
        return ValidationR2(sessions, lambda batch: student.network.read_out(watched(batch).final, batch.x), device)
    batches = all_validation_batches(sessions, device)

    @torch.no_grad()
    def score() -> float:
        with torch.random.fork_rng(devices=[torch.device(device)] if device.startswith("cuda") else []):
            torch.manual_seed(0)  # the same reconstructed steps at every validation
            errors = [_loss_of(watched(batch), student, teacher, weights, batch).item() for batch in batches]
        return -sum(errors) / len(errors)

    return score
