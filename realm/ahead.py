"""Decoders with a delay: they wait for a little of the future before they predict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from realmbench.decoder import DEFAULT_PRESET
from realmbench.errors import OptionError
from realmbench.options import whole_frames
from realmbench.session import Session

from .base import RealmBase
from .decoders import RealmStudent
from .encoder import EncoderConfig
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
        for stage in ("student", "finetune"):
            training = getattr(self.train_options, stage)
            is_trained = training.updates and f"train.{stage}." not in self.idle_options()
            if is_trained and self.options.look_ahead_s >= training.window_s:
                raise OptionError(
                    f"decoder.look_ahead_s={self.options.look_ahead_s:g} is not shorter than the training windows: "
                    f"train.{stage}.window_s={training.window_s:g}"
                )
        self.look_ahead_s = self.options.look_ahead_s  # type: ignore[misc]  # the class declares the default

    def encoder_config(self, session: Session, causal: bool | None = None, **changes: Any) -> EncoderConfig:
        """Describe a causal encoder whose outputs lag behind its input."""
        frames = whole_frames("decoder.look_ahead_s", self.options.look_ahead_s, session.rate)
        causal = True if causal is None else causal
        return super().encoder_config(session, causal, **{"look_ahead": frames, **changes})


class RealmAhead(Delayed, RealmStudent):
    """The student with a delay: it waits for ``look_ahead_s`` of the future before it predicts."""

    depends_on: ClassVar[tuple[str, ...]] = (*RealmStudent.depends_on, "realmbench.realm.decoders")
    Options: ClassVar[type[BaseModel]] = AheadOptions
    options: AheadOptions
