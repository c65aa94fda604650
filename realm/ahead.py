"""Decoders with a delay: they wait for a little of the future before they predict."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel, Field

from realmbench.decoder import DEFAULT_PRESET, Stream
from realmbench.options import whole_frames
from realmbench.session import Session

from .decoders import RealmBase, RealmStudent
from .encoder import EncoderConfig, SteppedNetwork
from .options import NetworkOptions, StudentOptions


class DelayOptions(NetworkOptions):
    """The network, and the seconds of future that a prediction waits for."""

    look_ahead_s: float = Field(0.1, gt=0)


class AheadOptions(StudentOptions, DelayOptions):
    """Everything of `realm-student`, and the delay."""


class Delayed(RealmBase):
    """A student whose outputs lag behind its input, so that what answers for a frame has seen what came after it."""

    causal: ClassVar[bool] = False
    look_ahead_s: ClassVar[float] = 0.1
    options: DelayOptions

    def __init__(
        self,
        preset: str = DEFAULT_PRESET,
        options: Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(preset, options, train)
        self.look_ahead_s = self.options.look_ahead_s  # type: ignore[misc]  # the class declares the default

    def encoder_config(self, session: Session, causal: bool | None = None, **changes: Any) -> EncoderConfig:
        """Describe a causal encoder whose outputs lag behind its input."""
        frames = whole_frames("decoder.look_ahead_s", self.options.look_ahead_s, session.rate)
        causal = True if causal is None else causal
        return super().encoder_config(session, causal, **{"look_ahead": frames, **changes})

    def stream(self, session: Session) -> Stream:
        network = self.fitted(self.network)
        assert isinstance(network, SteppedNetwork)
        return DelayedStream(network, session.mask)


class DelayedStream(Stream):
    """Steps a network with a look-ahead; what is read beside the encoder's states waits until they have come."""

    def __init__(self, network: SteppedNetwork[Any], mask: np.ndarray) -> None:
        self.delay = network.encoder.config.look_ahead
        self._network = network
        self._device = next(network.parameters()).device
        self._mask = torch.from_numpy(mask).to(self._device)[None]
        self._state = network.initial_state(1)
        self._waiting: deque[torch.Tensor] = deque()
        self._nothing = np.full(network.head.out_features, np.nan, np.float32)

    @torch.no_grad()
    def step(self, frame: np.ndarray) -> np.ndarray:
        inputs = torch.from_numpy(np.ascontiguousarray(frame)).to(self._device)[None]
        hidden, beside, self._state = self._network.advance(inputs, self._mask, self._state)
        self._waiting.append(beside)
        if len(self._waiting) <= self.delay:
            return self._nothing
        output, self._state = self._network.answer(hidden, self._waiting.popleft(), self._state)
        return output[0].float().cpu().numpy()


class RealmAhead(Delayed, RealmStudent):
    """The student with a delay: it waits for ``look_ahead_s`` of the future before it predicts."""

    depends_on: ClassVar[tuple[str, ...]] = (*RealmStudent.depends_on, "realmbench.realm.decoders")
    Options: ClassVar[type[BaseModel]] = AheadOptions
    options: AheadOptions
