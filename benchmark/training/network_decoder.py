"""Base class of decoders that are torch networks: prediction, streaming, saving and supervised fitting in one place."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn

from realmbench.artifact import Artifact
from realmbench.decoder import Context, Decoder, FlopCount, ParameterCount, Stream
from realmbench.errors import RealmbenchError
from realmbench.seeds import stream_seed
from realmbench.session import Session, SessionData

from . import loop
from .flops import count_flops
from .windows import Batch, ValidationR2

Made = TypeVar("Made")
# Frames that run before a stream's step is counted (10 s at 50 Hz), and the record (a minute) by which the operations
# of a decoder without a stream are counted: long enough for what its first window costs to average out.
FILLING_FRAMES, COUNTED_FRAMES = 500, 3000


class NetworkDecoder(Decoder):
    """A decoder whose fitted part is one `torch.nn.Module`.

    The network maps (B, T, C, F) frames and a (B, C) channel mask to (B, T, D). Unless it needs the whole
    record it also has ``initial_state(batch)`` and ``step(frame (B, C, F), mask, state) -> ((B, D), state)``; one that
    waits for ``look_ahead`` frames (an attribute; 0 where there is none) answers so many steps late, at first with NaN.
    """

    TrainOptions: ClassVar[type[BaseModel]] = loop.TrainOptions
    accelerated: ClassVar[bool] = True
    depends_on: ClassVar[tuple[str, ...]] = ("realmbench.training",)
    # Names the random stream of initial weights; the class's own name where it is None.
    drawn_as: ClassVar[str | None] = None
    train_options: loop.TrainOptions
    network: nn.Module | None = None

    @abstractmethod
    def build(self, session: Session) -> nn.Module:
        """Make the untrained network for sessions of this shape."""

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        """Fit a fresh network to the session's training part."""
        with context.phase("fit"):
            self.network = self.fresh(session, context, "fit")
            supervised(self.network, [session], self.train_options, context, "fit", self.identity, start_counts=False)

    def fresh(self, session: Session, context: Context, stage: str) -> nn.Module:
        """Build a network with weights drawn from the named stream of the stage."""
        seed = stream_seed(context.seed, self.drawn_as or type(self).__name__, stage, "initial weights")
        return drawn(lambda: self.build(session), seed).to(context.device)

    def predict(self, x: np.ndarray, session: Session) -> np.ndarray:
        network = self.fitted(self.network)
        session.check_frames(x)
        device = next(network.parameters()).device
        mask = torch.from_numpy(session.mask).to(device)[None]
        with torch.no_grad():
            output = network(torch.from_numpy(np.ascontiguousarray(x)).to(device)[None], mask)
        return output[0].float().cpu().numpy()

    def stream(self, session: Session) -> Stream:
        if not self.streams:
            return super().stream(session)
        network = self.fitted(self.network)
        if not hasattr(network, "step"):
            raise RealmbenchError(f"{type(network).__name__} needs initial_state and step to stream")
        return NetworkStream(network, session.mask)

    def arrays(self) -> dict[str, np.ndarray]:
        return module_arrays(self.fitted(self.network))

    def restore(self, arrays: Mapping[str, np.ndarray], session: Session) -> None:
        self.network = self.build(session)
        load_arrays_into(self.network, arrays)
        self.network.eval()

    def parameters(self) -> ParameterCount:
        network = self.fitted(self.network)
        deployed = sum(parameter.numel() for parameter in network.parameters())
        trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        return ParameterCount(deployed, trained)

    def flops(self, session: Session) -> FlopCount:
        if self.streams:
            running = self.stream(session)
            frame = np.zeros((session.channels, session.features), np.float32)
            for _ in range(FILLING_FRAMES + running.delay):
                running.step(frame)  # attention costs its full price once its window is full
            return count_flops(lambda: running.step(frame))
        frames = np.zeros((COUNTED_FRAMES, session.channels, session.features), np.float32)
        return count_flops(lambda: self.predict(frames, session), COUNTED_FRAMES)


class NetworkStream(Stream):
    """Steps a network frame by frame."""

    def __init__(self, network: Any, mask: np.ndarray) -> None:
        self.delay = getattr(network, "look_ahead", 0)
        self._network = network
        self._device = next(network.parameters()).device
        self._mask = torch.from_numpy(mask).to(self._device)[None]
        self._state = network.initial_state(1)

    @torch.no_grad()
    def step(self, frame: np.ndarray) -> np.ndarray:
        inputs = torch.from_numpy(np.ascontiguousarray(frame)).to(self._device)[None]
        output, self._state = self._network.step(inputs, self._mask, self._state)
        return output[0].float().cpu().numpy()


def supervised(
    network: nn.Module,
    sessions: Sequence[SessionData],
    options: loop.TrainOptions,
    context: Context,
    stage: str,
    config: Mapping[str, Any],
    *,
    start_counts: bool,
) -> None:
    """Train a network on the mean squared error of the normalised target, stopping by validation R2.

    Parameters
    ----------
    stage : names the random streams, the checkpoint and the progress line.
    config : everything that shapes the training; decides whether a checkpoint may be resumed.
    start_counts : the network has been trained before (`loop.fit`).
    """

    def predict(batch: Batch) -> torch.Tensor:
        return network(batch.x, batch.mask)

    result = loop.fit(
        network,
        lambda batch: nn.functional.mse_loss(predict(batch), batch.y),
        ValidationR2(sessions, predict, context.device),
        loop.window_sampler(sessions, options, context, stage),
        options,
        stream_seed(context.seed, stage, "dropout"),
        context.checkpoint(stage, config, sessions),
        lambda share, best: context.on_progress(f"{stage}: validation R2 {best:.3f}", share),
        start_counts=start_counts,
    )
    conclude(result, context, stage, start_counts=start_counts)


def conclude(result: loop.FitResult, context: Context, stage: str, *, start_counts: bool) -> None:
    """Count the seconds before a kill that a fit resumed from, and warn of one that came to nothing."""
    context.seconds["fit"] = context.seconds.get("fit", 0.0) + result.earlier_seconds
    start, *later = result.history
    if not later:
        if not start_counts:
            context.warnings.append(f"{stage}: trained with no update; its weights, or some, are as they were drawn")
        return
    best = loop.best_score(later)
    if best == -math.inf:
        context.warnings.append(
            f"{stage}: it diverged, no validation score is a finite number; the weights are those it began with; "
            "a lower learning rate may help"
        )
    elif start_counts and not best > start["score"]:
        context.warnings.append(
            f"{stage}: no update improved the validation score; the weights are those it began with"
        )
    elif best <= 0:
        context.warnings.append(f"{stage}: no better than a constant on validation (R2 {best:.3f})")


def drawn(make: Callable[[], Made], seed: int) -> Made:
    """Make modules whose initial weights come from a seed of their own, torch's global generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def module_arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """Return a module's state as named numpy arrays."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def load_arrays_into(module: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Load what `module_arrays` returned; names and shapes must match exactly."""
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
