"""The one training loop: every network of the benchmark is trained by these lines."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from realmbench.decoder import Context
from realmbench.errors import RealmbenchError
from realmbench.files import write_whole
from realmbench.seeds import stream
from realmbench.session import SessionData

from .windows import Batch, WindowSampler

CHECKPOINT_EVERY_S = 20.0


class TrainOptions(BaseModel):
    """Options of the training loop.

    Attributes
    ----------
    updates : optimiser steps at most.
    batch_size, window_s : windows per step and their length in seconds.
    learning_rate, weight_decay, clip_norm : AdamW and gradient clipping.
    warm_up_share : share of the updates over which the learning rate rises before its cosine decay.
    evaluate_every : updates between validation scores.
    patience : scores without improvement before training stops.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    updates: int = Field(1000, ge=0)
    batch_size: int = Field(16, ge=1)
    window_s: float = Field(5.0, gt=0)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    warm_up_share: float = Field(0.05, ge=0, lt=1)
    evaluate_every: int = Field(50, ge=1)
    patience: int = Field(10, ge=1)

    def rate_at(self, update: int) -> float:
        """Return the learning rate of one update: linear warm-up, then a cosine down to a hundredth."""
        warm_up = self.warm_up_share * self.updates
        if update < warm_up:
            return self.learning_rate * (update + 1) / (warm_up + 1)
        progress = (update - warm_up) / max(1.0, self.updates - warm_up)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


class FitResult(NamedTuple):
    """What training leaves besides the weights.

    Attributes
    ----------
    history : one dict per validation: ``update``, ``score``, mean training ``loss`` since the last one, and what was
        measured beside them.
    earlier_seconds : spent before a kill from which this call resumed.
    """

    history: list[dict[str, float]]
    earlier_seconds: float


def window_sampler(
    sessions: Sequence[SessionData], options: TrainOptions, context: Context, stage: str
) -> WindowSampler:
    """Return the sampler of a training stage, drawing from the stage's own named stream; warn where windows are cut."""
    generator = stream(context.seed, stage, "windows")
    sampler = WindowSampler(sessions, options.window_s, options.batch_size, generator, context.device)
    if options.updates and sampler.window < sampler.wanted:
        context.warnings.append(
            f"{stage}: windows of {sampler.window / sessions[0].rate:g} s instead of {options.window_s:g}, "
            "which is longer than the shortest training segment"
        )
    return sampler


def fit(
    module: nn.Module,
    loss: Callable[[Batch], torch.Tensor],
    score: Callable[[], float],
    sampler: WindowSampler,
    options: TrainOptions,
    seed: int,
    checkpoint: Path,
    on_progress: Callable[[float, float], None],
    *,
    start_counts: bool,
    beside: Callable[[], Mapping[str, float]] = dict,
) -> FitResult:
    """Train a module and leave it with the weights that scored best on validation.

    Training resumes from ``checkpoint`` where one stands, with the same numbers as if it had never stopped.

    Parameters
    ----------
    module : its parameters with ``requires_grad`` are trained.
    loss : called on a batch in training mode.
    score : validation score, larger is better; called in evaluation mode.
    seed : of dropout and masking during training.
    checkpoint : file for the unfinished state; removed at the end.
    on_progress : called with the share of updates done and the best score so far.
    start_counts : the weights it starts with have been learnt and are a candidate too, so that training never ends
        below them on validation. Weights just drawn are none: a network of noise is no method, however it scores.
    beside : measures of every validation that choose nothing, by name; called in evaluation mode, after ``score``.

    Raises
    ------
    RealmbenchError : the score of the start is not a finite number, or none after it is where the start does not count.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=options.weight_decay)
    with torch.random.fork_rng(devices=_cuda_devices(parameters)):
        torch.manual_seed(seed)
        state = _resume(checkpoint, module, optimiser, sampler)
        if state is None:
            start = _evaluated(module, score, beside)
            if not math.isfinite(start["score"]):
                raise RealmbenchError(
                    f"the validation score is {start['score']} before the first update: "
                    "the weights that training starts from give no finite predictions"
                )
            state = {
                "update": 0,
                "best_score": start["score"],
                "best_weights": copy.deepcopy(module.state_dict()) if start_counts else None,
                "stale": 0,
                "history": [{"update": 0.0, **start}],
                "seconds": 0.0,
            }
        earlier, started = state["seconds"], time.monotonic()
        saved_at = started
        losses: list[float] = []
        module.train()
        while state["update"] < options.updates and state["stale"] < options.patience:
            for group in optimiser.param_groups:
                group["lr"] = options.rate_at(state["update"])
            optimiser.zero_grad(set_to_none=True)
            value = loss(sampler.draw())
            value.backward()
            nn.utils.clip_grad_norm_(parameters, options.clip_norm)
            optimiser.step()
            losses.append(value.item())
            state["update"] += 1
            if state["update"] % options.evaluate_every == 0 or state["update"] == options.updates:
                _note(state, module, {"loss": float(np.mean(losses)), **_evaluated(module, score, beside)})
                losses.clear()
                if time.monotonic() - saved_at > CHECKPOINT_EVERY_S:
                    state["seconds"] = earlier + time.monotonic() - started
                    _save(checkpoint, state, module, optimiser, sampler)
                    saved_at = time.monotonic()
            on_progress(state["update"] / options.updates, state["best_score"])
    if state["best_weights"] is not None:
        module.load_state_dict(state["best_weights"])
    elif options.updates:
        raise RealmbenchError(
            f"training diverged: no validation score in {state['update']} updates was a finite number; "
            "a lower learning rate may help"
        )
    module.eval()
    checkpoint.unlink(missing_ok=True)
    return FitResult(state["history"], earlier)


def best_score(history: Iterable[Mapping[str, float]]) -> float:
    """Return the best score of those that are numbers; minus infinity where none is."""
    return max((entry["score"] for entry in history if math.isfinite(entry["score"])), default=-math.inf)


def _note(state: dict[str, Any], module: nn.Module, measured: Mapping[str, float]) -> None:
    """Enter what a validation measured into the state; keep the weights if they are the best so far."""
    state["history"].append({"update": float(state["update"]), **measured})
    score = measured["score"]
    # A score that is not a number (a diverged network) never counts as an improvement.
    if score > state["best_score"] or (state["best_weights"] is None and math.isfinite(score)):
        state["best_score"], state["stale"] = score, 0
        state["best_weights"] = copy.deepcopy(module.state_dict())
    else:
        state["stale"] += 1


def _evaluated(
    module: nn.Module, score: Callable[[], float], beside: Callable[[], Mapping[str, float]]
) -> dict[str, float]:
    module.eval()
    measured = {"score": score(), **beside()}
    module.train()
    return measured


def _save(
    path: Path, state: dict[str, Any], module: nn.Module, optimiser: torch.optim.Optimizer, sampler: WindowSampler
) -> None:
    whole = {
        **state,
        "weights": module.state_dict(),
        "optimiser": optimiser.state_dict(),
        "sampler": sampler.generator.bit_generator.state,
        "torch_rng": torch.get_rng_state(),
        "cuda_rng": [torch.cuda.get_rng_state(device) for device in _cuda_devices(list(module.parameters()))],
    }
    write_whole(path, lambda temporary: torch.save(whole, temporary))


def _resume(
    path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, sampler: WindowSampler
) -> dict[str, Any] | None:
    """Take up the state of a checkpoint; None if there is none."""
    if not path.exists():
        return None
    device = next(module.parameters()).device
    whole = torch.load(path, map_location=device, weights_only=True)
    module.load_state_dict(whole.pop("weights"))
    optimiser.load_state_dict(whole.pop("optimiser"))
    sampler.generator.bit_generator.state = whole.pop("sampler")
    torch.set_rng_state(whole.pop("torch_rng").cpu())
    for number, generator in zip(_cuda_devices(list(module.parameters())), whole.pop("cuda_rng")):
        torch.cuda.set_rng_state(generator.cpu(), number)
    return whole


def _cuda_devices(parameters: list[nn.Parameter]) -> list[int]:
    return sorted({parameter.device.index or 0 for parameter in parameters if parameter.device.type == "cuda"})
