"""The stages of `realm-student-plus`: a teacher that has learnt the task, and a student that learns its outputs too.

Masked autoencoding never sees what is to be decoded, so that its teacher need not hold it. Here that teacher is
trained on the task as well, on the pretraining sessions and in both directions of time; the student learns, besides the
task and the teacher's representation, the teacher's own outputs: the target without what no past can tell (Hinton et
al. 2015, arXiv 1503.02531, for targets that a teacher softens).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from torch.nn import functional

from realmbench.artifact import Artifact, Trained
from realmbench.decoder import Context
from realmbench.seeds import stable_hash, stream_seed
from realmbench.session import Normaliser, SessionData
from realmbench.steady import SteadyNormaliser, SteadyState, steadied
from realmbench.training.loop import FitResult, TrainOptions, fit, window_sampler
from realmbench.training.network_decoder import drawn, load_arrays_into, module_arrays
from realmbench.training.windows import Batch, ValidationR2

from .alignment import UNWATCHED, AlignmentWatch, cosine
from .encoder import EncoderConfig, EncoderOutput, EncoderState, RealmEncoder, SteppedNetwork
from .pretraining import SOURCES as PRETRAINING_SOURCES
from .read_in import ReadIn, ReadInOptions, rehearsals

# The modules that decide what these stages leave.
SOURCES = (
    *PRETRAINING_SOURCES,
    *(f"realmbench.realm.{name}" for name in ("alignment", "plus", "read_in")),
)


class HandDownOptions(BaseModel):
    """Weights of what the student learns.

    Attributes
    ----------
    task : squared error of the normalised target.
    outputs : squared difference from the teacher's outputs.
    alignment : one minus the cosine between the last residual streams.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: float = Field(1.0, ge=0)
    outputs: float = Field(1.0, ge=0)
    alignment: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _head_learns(self) -> HandDownOptions:
        if not (self.task or self.outputs):
            raise ValueError("task and outputs both have weight 0; the head would learn nothing")
        return self

    @property
    def from_teacher(self) -> bool:
        """Whether a teacher is needed at all."""
        return bool(self.outputs or self.alignment)


class PlusConfig(BaseModel):
    """What makes a network, besides what it was trained on.

    Attributes
    ----------
    encoder : of the network.
    read_in : what the session's read-in says.
    steady_s : time constant of the normaliser that goes on learning; None leaves it out.
    outputs : D.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: EncoderConfig
    read_in: ReadInOptions
    steady_s: float | None
    outputs: int


class PlusState(NamedTuple):
    """Memory of a stream."""

    steady: SteadyState
    encoder: EncoderState


class TargetUnits(nn.Module):
    """The units in which a network predicts: other sessions' target statistics, mixed with the session's own.

    Means and deviations of a dozen seconds of movement are far from the session's, and whatever is predicted in them is
    as wrong as they are; other sessions know better how large movements are.

    Parameters
    ----------
    outputs : D.
    """

    mean: torch.Tensor
    deviation: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(outputs))  # in the behaviour's own units, as the next
        self.register_buffer("deviation", torch.ones(outputs))
        self.register_buffer("scale", torch.ones(outputs))  # from here to the session's normalised target
        self.register_buffer("shift", torch.zeros(outputs))

    def begin(self, sessions: Sequence[SessionData]) -> None:
        """Take over the pooled statistics of pretraining sessions."""
        pooled, _ = Normaliser.pooled(sessions)
        self.mean.copy_(torch.from_numpy(pooled.y_mean))
        self.deviation.copy_(torch.from_numpy(pooled.y_deviation))

    def meet(self, session: SessionData, share: float) -> None:
        """Mix in a session's own statistics with a share between 0 and 1, and predict for that session from now on."""
        own_mean, own_deviation = (
            torch.from_numpy(array).to(self.mean)
            for array in (session.normaliser.y_mean, session.normaliser.y_deviation)
        )
        self.mean.lerp_(own_mean, share)
        self.deviation.copy_(self.deviation.square().lerp(own_deviation.square(), share).sqrt())
        self.scale.copy_(self.deviation / own_deviation)
        self.shift.copy_((self.mean - own_mean) / own_deviation)

    def forward(self, prediction: torch.Tensor) -> torch.Tensor:
        """Map (..., D) from these units to the session's normalised target."""
        return prediction * self.scale + self.shift

    def given(self, session: SessionData) -> SessionData:
        """Return the session with its targets in these units; its key says so."""
        scale, shift = self.scale.cpu().numpy(), self.shift.cpu().numpy()
        train, validation = (
            tuple(replace(segment, y=(segment.y - shift) / scale) for segment in part)
            for part in (session.train, session.validation)
        )
        key = stable_hash([session.key, "units", scale.tolist(), shift.tolist()])
        return replace(session, train=train, validation=validation, key=key)


class PlusNetwork(SteppedNetwork[PlusState]):
    """Encoder and head, with a session's read-in beside its tokenizer, behind a normaliser that goes on learning.

    Parameters
    ----------
    steady_s : time constant of the normaliser in seconds; None leaves it out.
    horizons : how many the read-in has.
    outputs : D.
    """

    def __init__(self, encoder: RealmEncoder, steady_s: float | None, horizons: int, outputs: int) -> None:
        super().__init__()
        config = encoder.config
        said = horizons * outputs
        self.steady = SteadyNormaliser(steady_s, config.rate)
        self.encoder = encoder
        self.read_in = ReadIn(config.channels * config.features, said)
        # A read-in without horizons says nothing.
        self.enter = nn.Linear(said, config.d_model) if said else None
        self.head = nn.Linear(config.d_model, outputs)
        self.direct = nn.Linear(said, outputs) if said else None
        self.units = TargetUnits(outputs)

    def encode(self, x: torch.Tensor, mask: torch.Tensor, said: torch.Tensor) -> EncoderOutput:
        """Map steadied frames (B, T, C, F), channel mask (B, C) and read-in outputs (B, T, K) to hidden states."""
        # After the last frame come zeros here as well.
        said = functional.pad(said, (0, 0, 0, self.encoder.config.look_ahead))  # (B, T + look-ahead, K)
        return self.encoder.encode(self.encoder.tokenize(x, mask) + self._entering(said))

    def decode(self, x: torch.Tensor, mask: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """Map steadied frames, mask and read-in outputs to (B, T, D), in the network's units."""
        return self.read_out(self.encode(x, mask, said).final, said)

    def read_out(self, hidden: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """Map hidden states (..., d) and read-in outputs (..., K) to (..., D)."""
        return self.head(hidden) if self.direct is None else self.head(hidden) + self.direct(said)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (B, T, C, F) frames to (B, T, D) normalised predictions."""
        x = self.steady(x)
        return self.units(self.decode(x, mask, self.read_in(x)))

    def start(self, batch: int) -> PlusState:
        encoder = self.encoder.initial_state(batch)
        steady = self.steady.initial_state(encoder.tokenizer.frames[:, 0])
        return PlusState(steady, encoder)

    def advance(
        self, frame: torch.Tensor, mask: torch.Tensor, state: PlusState
    ) -> tuple[torch.Tensor, torch.Tensor, PlusState]:
        frame, steady = self.steady.step(frame, state.steady)
        said = self.read_in(frame)
        hidden, encoder = self.encoder.step(frame, mask, state.encoder, self._entering(said))
        return hidden, said, PlusState(steady, encoder)

    def answer(self, hidden: torch.Tensor, beside: torch.Tensor, state: PlusState) -> tuple[torch.Tensor, PlusState]:
        return self.units(self.read_out(hidden, beside)), state

    def _entering(self, said: torch.Tensor) -> torch.Tensor | float:
        """Return what read-in outputs (..., K) add to tokens (..., d)."""
        return 0.0 if self.enter is None else self.enter(said)


class Rehearsed:
    """Pretraining sessions as all of their `rehearsals`, with the outputs of read-ins; fitted when first asked for."""

    def __init__(
        self, sessions: Sequence[SessionData], options: ReadInOptions, steady_s: float | None, context: Context
    ) -> None:
        self._sessions, self._options, self._steady_s, self._context = sessions, options, steady_s, context
        self._fitted: list[SessionData] = []

    def __call__(self) -> list[SessionData]:
        if not self._fitted:
            for number, session in enumerate(self._sessions):
                self._context.on_progress(f"read-in of {session.name}", number / len(self._sessions))
                self._fitted += rehearsals(steadied(session, self._steady_s), self._options)
        return self._fitted


def train_task_teacher(
    config: PlusConfig,
    options: TrainOptions,
    rehearsed: Rehearsed,
    sessions: Sequence[SessionData],
    context: Context,
    masked: Artifact,
) -> Artifact:
    """Return the bidirectional network, begun with the masked autoencoder's encoder and trained on the task."""
    full = {"network": config.model_dump(), "train": options.model_dump()}
    kind = "realm-task-teacher"

    def build() -> Trained:
        network = _new(config, sessions, context, kind)
        load_arrays_into(network.encoder, masked.arrays)
        checked = context.checkpoint(kind, {**full, "masked": masked.hash}, sessions, SOURCES)
        result = learn(network, rehearsed(), options, context, kind, checked)
        return Trained(module_arrays(network), _count(network), *result)

    return context.artifact(kind, full, sessions, build, parents=[masked], sources=SOURCES)


def hand_down(
    config: PlusConfig,
    weights: HandDownOptions,
    options: TrainOptions,
    rehearsed: Rehearsed,
    sessions: Sequence[SessionData],
    context: Context,
    teacher: tuple[PlusConfig, Artifact] | None,
) -> Artifact:
    """Return the causal student that has learnt the task, and the outputs and the representation of the teacher.

    Parameters
    ----------
    teacher : its network and what training left of it; None where the weights take nothing from one.
    """
    full = {
        "network": config.model_dump(),
        "weights": weights.model_dump(),
        "train": options.model_dump(),
    }
    kind = "realm-student-plus"
    parents = [] if teacher is None else [teacher[1]]

    def build() -> Trained:
        network = _new(config, sessions, context, kind)
        checked = context.checkpoint(kind, {**full, "teacher": [parent.hash for parent in parents]}, sessions, SOURCES)
        above = None if teacher is None else _frozen(*teacher, context)
        loss = partial(hand_down_loss, network, above, weights)
        watch = UNWATCHED
        if above is not None and weights.alignment:
            watch = AlignmentWatch(partial(_last_stream, above))
        result = learn(network, rehearsed(), options, context, kind, checked, loss, watch=watch)
        return Trained(module_arrays(network), _count(network), *result)

    return context.artifact(kind, full, sessions, build, parents=parents, sources=SOURCES)


def _frozen(config: PlusConfig, artifact: Artifact, context: Context) -> PlusNetwork:
    network = make_network(config)
    load_arrays_into(network, artifact.arrays)
    return network.to(context.device).eval().requires_grad_(False)


def hand_down_loss(
    student: PlusNetwork, teacher: PlusNetwork | None, weights: HandDownOptions, batch: Batch
) -> torch.Tensor:
    """Return the weighted sum of the task, the distance from the teacher's outputs, and the alignment.

    Without a teacher the task is all there is.
    """
    said = batch.privileged.flatten(2)  # (B, T, K)
    code = student.encode(batch.x, batch.mask, said)
    prediction = student.read_out(code.final, said)  # (B, T, D)
    loss = weights.task * nn.functional.mse_loss(prediction, batch.y)
    if teacher is None:
        return loss
    with torch.no_grad():
        target = teacher.encode(batch.x, batch.mask, said)
        output = teacher.read_out(target.final, said)  # (B, T, D)
    return (
        loss
        + weights.outputs * nn.functional.mse_loss(prediction, output)
        + weights.alignment * cosine(code.layers[-1], target.layers[-1])
    )


def learn(
    network: PlusNetwork,
    sessions: Sequence[SessionData],
    options: TrainOptions,
    context: Context,
    stage: str,
    checkpoint: Path,
    loss: Callable[[Batch], torch.Tensor] | None = None,
    *,
    start_counts: bool = False,
    watch: AlignmentWatch = UNWATCHED,
) -> FitResult:
    """Train on sessions that carry read-in outputs, on the task unless told otherwise, until validation R2 stops."""
    return fit(
        network,
        loss or (lambda batch: nn.functional.mse_loss(_predict(network, batch), batch.y)),
        validation_r2(network, sessions, context.device, watch),
        window_sampler(sessions, options, context, stage),
        options,
        stream_seed(context.seed, stage, "dropout"),
        checkpoint,
        lambda share, best: context.on_progress(f"{stage}: validation R2 {best:.3f}", share),
        start_counts=start_counts,
        beside=watch,
    )


def validation_r2(
    network: PlusNetwork, sessions: Sequence[SessionData], device: str, watch: AlignmentWatch = UNWATCHED
) -> ValidationR2:
    """Return the score of a network on sessions that carry read-in outputs; the watch looks on."""
    return ValidationR2(sessions, lambda batch: _predict(network, batch, watch), device)


def _predict(network: PlusNetwork, batch: Batch, watch: AlignmentWatch = UNWATCHED) -> torch.Tensor:
    code = _encode(network, batch)
    watch.note(batch, code.layers[-1])
    return network.read_out(code.final, batch.privileged.flatten(2))


def _encode(network: PlusNetwork, batch: Batch) -> EncoderOutput:
    return network.encode(batch.x, batch.mask, batch.privileged.flatten(2))


def _last_stream(network: PlusNetwork, batch: Batch) -> torch.Tensor:
    return _encode(network, batch).layers[-1]  # (B, T, d)


def _new(config: PlusConfig, sessions: Sequence[SessionData], context: Context, stage: str) -> PlusNetwork:
    seed = stream_seed(context.seed, stage, "initial weights")
    network = drawn(lambda: make_network(config), seed).to(context.device)
    network.read_in.silence()  # it is each session's own
    network.units.begin(sessions)
    return network


def make_network(config: PlusConfig) -> PlusNetwork:
    """Make the untrained network."""
    return PlusNetwork(RealmEncoder(config.encoder), config.steady_s, len(config.read_in.horizons_s), config.outputs)


def _count(network: nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.state_dict().values())  # read-in and units are buffers
