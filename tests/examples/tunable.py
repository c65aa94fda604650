"""Decoders for the tests of tuning: least squares times a gain, of which the best is about 1."""

from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from realmbench.artifact import Trained
from realmbench.decoder import Decoder, FlopCount
from realmbench.errors import RealmbenchError
from realmbench.search import Choice, Range


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    gain: float = 0.2
    how: str = "well"
    channels: tuple[int, ...] = (0,)
    share: float = 1.0
    by_heart: bool = False


class Gain(Decoder):
    "One session."

    causal: ClassVar = True
    Options: ClassVar = Options
    search_space: ClassVar = {"decoder.gain": Range(0.0, 2.0)}

    def adapt(self, session, context, artifact=None):
        if self.options.how == "raises":
            raise RealmbenchError("broken on purpose")
        if self.options.how == "runs out":
            raise MemoryError("no memory left")
        if self.options.how == "exits":
            raise SystemExit("no licence")
        x = np.concatenate([segment.x for segment in session.train])
        y = np.concatenate([segment.y for segment in session.train])
        self.weights = np.linalg.lstsq(x.reshape(len(x), -1), y, rcond=None)[0]

    def predict(self, x, session):
        found = self.options.gain * (x.reshape(len(x), -1) @ self.weights)
        return found * np.nan if self.options.how == "nan" else found

    def arrays(self):
        return {"weights": self.weights}

    def restore(self, arrays, session):
        self.weights = arrays["weights"]

    def flops(self, session):
        return FlopCount(2 * self.weights.size)


class Breaks(Gain):
    "Fails in every way."

    search_space: ClassVar = {"decoder.how": Choice(("well", "raises", "runs out", "exits", "nan"))}


class AlwaysBreaks(Gain):
    "Never works."

    search_space: ClassVar = {"decoder.how": Choice(("raises", "nan"))}


class Lists(Gain):
    "Its options are lists."

    search_space: ClassVar = {"decoder.channels": Choice(((0,), (0, 1), (1, 2, 3)))}

    def adapt(self, session, context, artifact=None):
        self.channels = list(self.options.channels)
        super().adapt(session, context, artifact)


class Two(Gain):
    "Two options are declared."

    search_space: ClassVar = {"decoder.gain": Range(0.0, 2.0), "decoder.channels": Choice(((0,), (0, 1)))}


class Across(Gain):
    "Learns across sessions: what it pretrains on is written into its artifact."

    multi_session: ClassVar = True

    def pretrain(self, sessions, context):
        names = [session.name for session in sessions]
        made = context.artifact(
            "across",
            self.config,
            sessions,
            lambda: Trained({"empty": np.zeros(1, np.float32)}, 1, []),
        )
        assert made.record.sessions == tuple(names)
        return made

    def adapt(self, session, context, artifact=None):
        assert artifact is not None
        assert session.name not in artifact.record.sessions
        super().adapt(session, context, artifact)


class ByHeart(Gain):
    "May learn its validation part by heart: frames that it has seen have their own target, others noise."

    search_space: ClassVar = {"decoder.by_heart": Choice((False, True))}

    def adapt(self, session, context, artifact=None):
        super().adapt(session, context, artifact)
        self.known = {
            frame.tobytes(): target
            for segment in session.validation
            for frame, target in zip(segment.x, segment.y, strict=True)
        }

    def predict(self, x, session):
        found = super().predict(x, session)
        if not self.options.by_heart:
            return found
        noise = np.random.default_rng(0).standard_normal(found.shape)
        return np.stack([self.known.get(frame.tobytes(), other) for frame, other in zip(x, noise, strict=True)])


class Interrupts(Gain):
    "The user loses patience with any gain but the default."

    def adapt(self, session, context, artifact=None):
        if self.options.gain != 0.2:
            raise KeyboardInterrupt
        super().adapt(session, context, artifact)


class Plain(Gain):
    "Declares nothing."

    search_space: ClassVar = {}


class Wrong(Gain):
    "Declares an option that it does not have."

    search_space: ClassVar = {"decoder.gian": Range(0.0, 1.0)}
