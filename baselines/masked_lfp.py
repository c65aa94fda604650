"""masked-lfp: the non-causal state of the art's recipe, and its version distilled from a spike teacher.

Erturk, Hashemi & Shanechi (2025, NeurIPS, "Cross-modal distillation"): a Transformer over channel patches is
pretrained on many sessions by masked autoencoding, without labels; the distilled version learns instead to represent
what a teacher, pretrained in the same way on the spikes recorded beside the LFP, represents. A session's read-out is a
ridge regression on the frozen representation; training of the whole network may follow, with the read-out as its start
(Kumar et al. 2022, arXiv 2202.10054).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn import functional

from realmbench.artifact import Artifact, Trained
from realmbench.decoder import Context, Preset, tuned
from realmbench.metrics import r2_for_selection
from realmbench.search import Choice, Range, SearchDimension
from realmbench.seeds import stream_seed
from realmbench.session import Segment, Session, SessionData
from realmbench.training.loop import FitResult, TrainOptions, fit, window_sampler
from realmbench.training.masking import MaskingOptions, block_mask, corrupt
from realmbench.training.multi_session import load_pretrained
from realmbench.training.network_decoder import NetworkDecoder, drawn, load_arrays_into, module_arrays, supervised
from realmbench.training.windows import Batch, validation_batches

from .lagged import normal_equations, ridge_solution
from .masked_network import MaskedAutoencoder, MaskedNetwork, MaskedOptions, PatchEncoder

# Ridge strengths of the read-out, chosen by validation R2.
STRENGTHS = tuple(float(f"1e{power}") for power in range(-1, 6))


class MaskedLfpOptions(MaskedOptions):
    """The network and its corruptions."""

    masking: MaskingOptions = MaskingOptions()


class DistilledOptions(MaskedLfpOptions):
    """The student's network, the spike teacher's patches, and the distillation loss.

    Attributes
    ----------
    spike_patch : units of a token of the teacher.
    alignment : weight of ``1 - cos`` between student and teacher, per frame; reconstruction of the frames weighs 1.
    """

    spike_patch: int = Field(64, ge=1)
    alignment: float = Field(5.0, gt=0)


class MaskedTrainOptions(BaseModel):
    """Masked autoencoding on pretraining sessions, then the task on the held-out one (0 updates: read-out alone)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pretrain: TrainOptions = TrainOptions()
    finetune: TrainOptions = TrainOptions()


class DistilledTrainOptions(MaskedTrainOptions):
    """The spike teacher's masked autoencoding (``teacher``), distillation (``pretrain``), the held-out session."""

    teacher: TrainOptions = TrainOptions()


# As many updates as REALM's stages have.
TINY_STAGE = {"updates": 200, "evaluate_every": 25, "window_s": 3.0, "patience": 4}
# Short windows and more of them: attention over three tokens a frame costs the square of the window.
SMALL_STAGE = {"updates": 1000, "evaluate_every": 50, "window_s": 2.5, "batch_size": 32}
PAPER_STAGE = {
    "updates": 20_000,
    "evaluate_every": 250,
    "learning_rate": 6.25e-4,
    "weight_decay": 0.1,
    "batch_size": 64,
}


def _presets(*stages: str) -> dict[str, Preset]:
    sizes = {
        "tiny": (
            {"width": 32, "heads": 2, "layers": 1, "window_s": 3.0},
            TINY_STAGE,
            {**TINY_STAGE, "updates": 100, "learning_rate": 5e-4},
        ),
        "small": (
            {"window_s": 2.5},
            SMALL_STAGE,
            {**SMALL_STAGE, "updates": 400, "learning_rate": 5e-4, "evaluate_every": 25},
        ),
        "paper": (
            {"width": 256, "heads": 8, "layers": 10, "predictor_layers": 4},
            PAPER_STAGE,
            {**PAPER_STAGE, "updates": 1500, "batch_size": 32},
        ),
    }
    return {
        name: Preset(decoder=decoder, train={**dict.fromkeys(stages, stage), "finetune": finetune})
        for name, (decoder, stage, finetune) in sizes.items()
    }


class MaskedLfp(NetworkDecoder):
    """Multi-session masked-autoencoding LFP Transformer, bidirectional (recipe of Erturk et al. 2025)."""

    causal: ClassVar[bool] = False
    look_ahead_s: ClassVar[float] = float("inf")
    multi_session: ClassVar[bool] = True
    depends_on: ClassVar[tuple[str, ...]] = (
        "realmbench.training",
        "realmbench.networks",
        "realmbench.baselines.masked_network",
        "realmbench.baselines.lagged",
    )
    Options: ClassVar[type[BaseModel]] = MaskedLfpOptions
    TrainOptions: ClassVar[type[BaseModel]] = MaskedTrainOptions
    # Found by `realmbench tune` (results/tuning).
    presets: ClassVar[Mapping[str, Preset]] = tuned(
        _presets("pretrain"),
        {
            "train.pretrain.learning_rate": 0.00894,
            "train.finetune.learning_rate": 0.00411,
            "decoder.dropout": 0.3,
            "decoder.masking.share": 0.6,
        },
    )
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        "train.pretrain.learning_rate": Range(3e-4, 1e-2, log=True),
        "train.finetune.learning_rate": Range(1e-4, 1e-2, log=True),
        "decoder.dropout": Choice((0.0, 0.1, 0.2, 0.3)),
        "decoder.masking.share": Choice((0.4, 0.6, 0.75)),
    }
    options: MaskedLfpOptions
    train_options: MaskedTrainOptions  # type: ignore[assignment]

    def encoder(self, session: Session, sessions: int = 1) -> PatchEncoder:
        """Make the untrained encoder of the LFP."""
        return PatchEncoder(session.channels, session.features, session.rate, sessions, self.options)

    def build(self, session: Session) -> nn.Module:
        return MaskedNetwork(self.encoder(session), session.outputs)

    def pretrain(self, sessions: Sequence[SessionData], context: Context) -> Artifact:
        full = {"network": self.options.model_dump(), "train": self.train_options.pretrain.model_dump()}
        return context.artifact(
            "masked-lfp",
            full,
            sessions,
            lambda: autoencode(
                "masked-lfp",
                lambda: self.encoder(sessions[0], len(sessions)),
                self.options,
                self.train_options.pretrain,
                sessions,
                context,
                full,
            ),
        )

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        """Read the frozen representation out by ridge regression, then train everything from there."""
        artifact = self.pretrained(artifact)
        with context.phase("fit"):
            network = self.network = self.fresh(session, context, "fit")
            assert isinstance(network, MaskedNetwork)
            load_pretrained(network.encoder, artifact.arrays)
            network.eval()
            _read_out(network, session, context)
            supervised(
                network,
                [session],
                self.train_options.finetune,
                context,
                f"fine-tuning on {session.name}",
                {**self.identity, "start": artifact.hash},
                start_counts=True,
            )


class MaskedLfpDistilled(MaskedLfp):
    """masked-lfp whose representation is distilled from a teacher of the spikes recorded beside the LFP."""

    # Spike counts come at 50 frames per second, as band powers do.
    inputs: ClassVar[tuple[str, ...]] = ("bands",)
    privileged: ClassVar[str | None] = "spikes50"
    Options: ClassVar[type[BaseModel]] = DistilledOptions
    TrainOptions: ClassVar[type[BaseModel]] = DistilledTrainOptions
    presets: ClassVar[Mapping[str, Preset]] = tuned(
        _presets("teacher", "pretrain"),
        {
            "train.pretrain.learning_rate": 0.00894,
            "train.finetune.learning_rate": 0.00411,
            "decoder.dropout": 0.3,
            "decoder.masking.share": 0.6,
        },
    )
    options: DistilledOptions
    train_options: DistilledTrainOptions

    def pretrain(self, sessions: Sequence[SessionData], context: Context) -> Artifact:
        sessions = _equal_units(sessions)
        spikes = [_spikes_of(session) for session in sessions]
        options = self.options.model_copy(update={"patch": self.options.spike_patch})

        def teacher_encoder() -> PatchEncoder:
            return PatchEncoder(spikes[0].channels, 1, spikes[0].rate, len(spikes), options)

        stage = self.train_options.teacher
        teacher_config = {"network": options.model_dump(), "train": stage.model_dump()}
        teacher = context.artifact(
            "masked-spikes",
            teacher_config,
            spikes,
            lambda: autoencode("masked-spikes", teacher_encoder, options, stage, spikes, context, teacher_config),
        )
        config = {"network": self.options.model_dump(), "train": self.train_options.pretrain.model_dump()}

        def build() -> Trained:
            frozen = teacher_encoder()
            load_arrays_into(frozen, teacher.arrays)
            frozen.to(context.device).eval().requires_grad_(False)
            return self._distil(frozen, sessions, context, {**config, "teacher": teacher.hash})

        return context.artifact("masked-lfp-distilled", config, sessions, build, parents=[teacher])

    def _distil(
        self, teacher: PatchEncoder, sessions: Sequence[SessionData], context: Context, config: Mapping[str, Any]
    ) -> Trained:
        kind, shape = "masked-lfp-distilled", (sessions[0].channels, sessions[0].features)

        def make() -> tuple[PatchEncoder, nn.Linear]:
            return self.encoder(sessions[0], len(sessions)), nn.Linear(self.options.width, shape[0] * shape[1])

        encoder, frames = drawn(make, stream_seed(context.seed, kind, "initial weights"))
        student = nn.ModuleList([encoder, frames]).to(context.device)

        def loss(batch: Batch) -> torch.Tensor:
            code = encoder(batch.x, batch.session)  # (B, T, d)
            with torch.no_grad():
                wanted = teacher(batch.privileged, batch.session)  # (B, T, d)
            difference = frames(code).unflatten(-1, shape) - batch.x  # (B, T, C, F)
            error = _mean_where(difference.square().mean(-1), batch.mask[:, None])
            return error + self.options.alignment * (1 - functional.cosine_similarity(code, wanted, dim=-1).mean())

        options = self.train_options.pretrain
        result = _fitted(student, kind, loss, loss, options, sessions, context, config)
        return Trained(module_arrays(encoder), sum(part.numel() for part in encoder.parameters()), *result)


def autoencode(
    kind: str,
    make_encoder: Callable[[], PatchEncoder],
    options: MaskedLfpOptions,
    train: TrainOptions,
    sessions: Sequence[SessionData],
    context: Context,
    config: Mapping[str, Any],
) -> Trained:
    """Train an encoder by masked autoencoding of the sessions' frames; return its arrays, the predictor left out.

    Blocks of frames are masked patch by patch; the error is that of the masked values of usable channels.

    Parameters
    ----------
    kind : of the artifact; names the random streams, the checkpoint and the progress line.
    make_encoder : makes the untrained encoder, with one row of patch embeddings per session.
    config : everything that shapes the training.
    """
    seed = stream_seed(context.seed, kind, "initial weights")
    model = drawn(lambda: MaskedAutoencoder(make_encoder(), options), seed).to(context.device)
    encoder, rate = model.encoder, sessions[0].rate

    def masked_error(
        clean: torch.Tensor, seen: torch.Tensor, batch: Batch, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        count, steps = clean.shape[:2]
        rows = block_mask(count * encoder.patches, steps, rate, options.masking, generator)
        hidden = rows.view(count, encoder.patches, steps).transpose(1, 2).to(clean.device)  # (B, T, S)
        difference = model(seen, batch.session, hidden) - encoder.patched(clean)  # (B, T, S, W)
        usable = encoder.patched(batch.mask[:, None, :, None].expand_as(clean).float())  # (B, T, S, W)
        return _mean_where(difference.square(), usable * hidden[..., None])

    def validation_error(batch: Batch) -> torch.Tensor:
        # The same masks at every validation, so that scores differ by the weights alone.
        generator = torch.Generator().manual_seed(stream_seed(context.seed, kind, "validation masks"))
        window = min(encoder.window, batch.x.shape[1])
        starts = range(0, batch.x.shape[1] - window + 1, window)
        parts = [batch.x[:, start : start + window] for start in starts]
        return torch.stack([masked_error(part, part, batch, generator) for part in parts]).mean()

    result = _fitted(
        model,
        kind,
        lambda batch: masked_error(batch.x, corrupt(batch.x, batch.mask, options.masking), batch),
        validation_error,
        train,
        sessions,
        context,
        config,
    )
    return Trained(module_arrays(encoder), sum(part.numel() for part in encoder.parameters()), *result)


def _fitted(
    model: nn.Module,
    kind: str,
    loss: Callable[[Batch], torch.Tensor],
    validation_loss: Callable[[Batch], torch.Tensor],
    options: TrainOptions,
    sessions: Sequence[SessionData],
    context: Context,
    config: Mapping[str, Any],
) -> FitResult:
    """Train on a loss that needs no labels, stopped by its mean on the validation blocks."""
    batches = [
        batch
        for number, session in enumerate(sessions)
        for batch, _ in validation_batches(session, context.device, number)
    ]

    @torch.no_grad()
    def score() -> float:
        return -sum(validation_loss(batch).item() for batch in batches) / len(batches)

    return fit(
        model,
        loss,
        score,
        window_sampler(sessions, options, context, kind),
        options,
        stream_seed(context.seed, kind, "dropout and masks"),
        context.checkpoint(kind, config, sessions),
        lambda share, best: context.on_progress(f"{kind}: validation loss {-best:.3f}", share),
        start_counts=False,
    )


def _read_out(network: MaskedNetwork, session: SessionData, context: Context) -> None:
    """Put the ridge regression from the frozen representation to the target into the network's head."""

    @torch.no_grad()
    def represented(segment: Segment) -> Segment:
        code = network.encoder(torch.from_numpy(segment.x).to(context.device)[None])[0]
        return replace(segment, x=code.float().cpu().numpy()[:, None])

    train = [represented(segment) for segment in session.train]
    validation = [represented(segment) for segment in session.validation]
    gram, cross, x_mean, y_mean = normal_equations(train, np.array([0]))
    truth = np.concatenate([segment.y[segment.warm_up :] for segment in validation])
    best = -np.inf
    for strength in STRENGTHS:
        weights = ridge_solution(gram, cross, strength)
        offset = y_mean - x_mean @ weights
        parts = [(segment.x[:, 0] @ weights + offset)[segment.warm_up :] for segment in validation]
        if (score := r2_for_selection(truth, np.concatenate(parts))) > best:
            best = score
            with torch.no_grad():
                network.head.weight.copy_(torch.from_numpy(weights.T))
                network.head.bias.copy_(torch.from_numpy(offset))


def _mean_where(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    weights = weights.expand_as(values).to(values.dtype)
    return (values * weights).sum() / weights.sum()


def _equal_units(sessions: Sequence[SessionData]) -> list[SessionData]:
    """Fill every session's spikes up to the largest number of units."""
    units = max(segment.privileged.shape[1] for session in sessions for segment in session.train)

    def filled(segment: Segment) -> Segment:
        missing = units - segment.privileged.shape[1]
        return replace(segment, privileged=np.pad(segment.privileged, ((0, 0), (0, missing), (0, 0))))

    return [
        replace(session, train=tuple(map(filled, session.train)), validation=tuple(map(filled, session.validation)))
        for session in sessions
    ]


def _spikes_of(session: SessionData) -> SessionData:
    """Return the session with its spikes in the place of the LFP."""

    def turned(segment: Segment) -> Segment:
        return replace(segment, x=segment.privileged)

    train = tuple(map(turned, session.train))
    fires = np.any([np.any(segment.x != 0, axis=(0, 2)) for segment in train], axis=0)
    return replace(
        session, mask=fires, feature_names=("count",), train=train, validation=tuple(map(turned, session.validation))
    )
