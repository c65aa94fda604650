"""Stage 1: the teacher learns by masked autoencoding on many sessions, without labels.

Blocks of tokens are replaced by a learnt mask token, and the network reconstructs the clean frames at the masked
steps (Wu et al. 2026; He et al. 2022, arXiv 2111.06377, for the idea).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from realmbench.artifact import Artifact, Trained
from realmbench.decoder import Context
from realmbench.seeds import stream_seed
from realmbench.session import SessionData
from realmbench.training.loop import TrainOptions, fit, window_sampler
from realmbench.training.masking import MaskingOptions, block_mask, corrupt
from realmbench.training.network_decoder import drawn, module_arrays
from realmbench.training.windows import Batch, all_validation_batches

from .encoder import EncoderConfig, RealmEncoder, mixer_kind, parameter_count
from .mamba2 import BidirectionalMixer

# The modules that decide what this stage leaves.
SOURCES = (
    "realmbench.training",
    "realmbench.networks",
    "realmbench.steady",
    *(
        f"realmbench.realm.{name}"
        for name in ("backbones", "encoder", "fused", "kernels", "mamba2", "pretraining", "ssd", "tokenizer")
    ),
)


class ScheduledOptions(TrainOptions):
    """Training with the published teacher's choice of learning-rate schedules.

    Attributes
    ----------
    schedule : ``cosine`` falls to ``final_share`` as half a cosine, ``exponential`` by the same factor every update.
    final_share : share of the learning rate at the last update.
    warm_up_from : share of the learning rate at the first.
    """

    schedule: Literal["cosine", "exponential"] = "cosine"
    final_share: float = Field(0.01, gt=0, le=1)
    warm_up_from: float = Field(0.0, ge=0, le=1)

    def rate_at(self, update: int) -> float:
        """Return the learning rate of one update."""
        warm_up = self.warm_up_share * self.updates
        if update < warm_up:
            share = (update + 1) / (warm_up + 1)
            return self.learning_rate * (self.warm_up_from + (1 - self.warm_up_from) * share)
        progress = (update - warm_up) / max(1.0, self.updates - warm_up)
        if self.schedule == "exponential":
            return self.learning_rate * self.final_share**progress
        fall = 0.5 * (1 + math.cos(math.pi * progress))
        return self.learning_rate * (self.final_share + (1 - self.final_share) * fall)


class MaskedAutoencoder(nn.Module):
    """The teacher's encoder with a mask token and a predictor that exists during pretraining only.

    The predictor is one bidirectional block and a small perceptron, from the encoder's output to all frames; it looks
    both ways behind a causal encoder too. In the ``paper`` variant the perceptron's residual is normed, as published.

    Parameters
    ----------
    sessions : how many have a learnt vector of their own that is added to their tokens; 0 adds none.
    """

    def __init__(self, config: EncoderConfig, masking: MaskingOptions, sessions: int = 0) -> None:
        super().__init__()
        width = config.d_model
        self.masking = masking
        self.rate = config.rate
        self.encoder = RealmEncoder(config)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.mixer = BidirectionalMixer(
            mixer_kind(config.variant),
            width,
            config.d_state,
            expand=1,
            headdim=math.gcd(config.headdim, width),
            memory=config.memory,
        )
        self.as_published = config.variant == "paper"
        self.norm_before = nn.LayerNorm(width) if self.as_published else nn.Identity()
        self.norm = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.LayerNorm(2 * width), nn.Linear(2 * width, width)
        )
        self.output = nn.Linear(width, config.channels * config.features)
        self.sessions = nn.Embedding(sessions, width) if sessions else None

    def forward(self, x: torch.Tensor, mask: torch.Tensor, hidden: torch.Tensor, session: torch.Tensor) -> torch.Tensor:
        """Reconstruct (B, T, C, F) frames of the sessions (B,) from tokens of which those in ``hidden`` are masked.

        ``hidden`` is (B, T) bool. A masked token knows nothing, of the session neither.
        """
        tokens = self.encoder.tokenize(x, mask)  # (B, T, d)
        if self.sessions is not None:
            tokens = tokens + self.sessions(session)[:, None]
        tokens = torch.where(hidden[..., None], self.mask_token, tokens)
        code = self.encoder.encode(tokens).final
        code = code + self.mixer(self.norm_before(code))
        normed = self.norm(code)
        code = (normed if self.as_published else code) + self.perceptron(normed)
        return self.output(code).unflatten(-1, x.shape[2:])  # (B, T, C, F)


def reconstruction_error(
    prediction: torch.Tensor, target: torch.Tensor, steps: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Mean squared error over chosen steps and usable channels.

    Parameters
    ----------
    prediction, target : (B, T, C, F).
    steps : (B, T) bool, the steps that count.
    mask : (B, C) bool, the channels that count.
    """
    weights = steps[:, :, None] & mask[:, None]  # (B, T, C)
    return (prediction - target).square().mean(-1)[weights].mean()


def pretrain_teacher(
    config: EncoderConfig,
    masking: MaskingOptions,
    options: TrainOptions,
    sessions: Sequence[SessionData],
    context: Context,
    embed_sessions: bool = False,
) -> Artifact:
    """Return the teacher's encoder, trained now or taken from the store; no updates leave it as it was drawn.

    Parameters
    ----------
    embed_sessions : every session has a learnt vector of its own in training; the encoder that is left does without.
    """
    parts = {"encoder": config, "masking": masking, "train": options}
    full: dict[str, Any] = {name: part.model_dump() for name, part in parts.items()}
    if embed_sessions:
        full["embedded_sessions"] = len(sessions)

    def build() -> Trained:
        seed = stream_seed(context.seed, "realm-teacher", "initial weights")
        model = drawn(lambda: MaskedAutoencoder(config, masking, len(sessions) if embed_sessions else 0), seed)
        return _train(model.to(context.device), options, sessions, context, full)

    return context.artifact("realm-teacher", full, sessions, build, sources=SOURCES)


def _train(
    model: MaskedAutoencoder,
    options: TrainOptions,
    sessions: Sequence[SessionData],
    context: Context,
    full: Mapping[str, Any],
) -> Trained:
    masking = model.masking

    def loss(batch: Batch) -> torch.Tensor:
        hidden = block_mask(len(batch.x), batch.x.shape[1], model.rate, masking).to(batch.x.device)
        prediction = model(corrupt(batch.x, batch.mask, masking), batch.mask, hidden, batch.session)
        return reconstruction_error(prediction, batch.x, hidden, batch.mask)

    batches = all_validation_batches(sessions, context.device)

    @torch.no_grad()
    def score() -> float:
        # The same masks at every validation, so that scores differ by the weights alone.
        generator = torch.Generator().manual_seed(stream_seed(context.seed, "realm-teacher", "validation masks"))
        errors = []
        for batch in batches:
            hidden = block_mask(len(batch.x), batch.x.shape[1], model.rate, masking, generator).to(batch.x.device)
            prediction = model(batch.x, batch.mask, hidden, batch.session)
            errors.append(reconstruction_error(prediction, batch.x, hidden, batch.mask).item())
        return -sum(errors) / len(errors)

    result = fit(
        model,
        loss,
        score,
        window_sampler(sessions, options, context, "realm-teacher"),
        options,
        stream_seed(context.seed, "realm-teacher", "dropout and masks"),
        context.checkpoint("realm-teacher", full, sessions, SOURCES),
        lambda share, best: context.on_progress(f"teacher: masked error {-best:.3f}", share),
        start_counts=False,
    )
    return Trained(module_arrays(model.encoder), parameter_count(model.encoder), *result)
