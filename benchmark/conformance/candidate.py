"""A decoder under test: its sessions, its raw samples, and fitted instances, made as the checks ask for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from realmbench import leaks
from realmbench.artifact import Artifact, ArtifactStore
from realmbench.bank import arrays_of, checksum
from realmbench.dataset import Dataset
from realmbench.decoder import DECODERS, Context, Decoder
from realmbench.errors import OptionError
from realmbench.front_end import FrontEnd, front_end
from realmbench.manifest import SessionRole
from realmbench.preparation import prepare_session
from realmbench.protocol import PROTOCOLS, Protocol
from realmbench.protocols import CalibrationV1
from realmbench.session import SessionData

from .rehearsal import Rehearsal
from .report import Failed

# Seconds of raw LFP on which leaks are looked for.
EXCERPT_S = 20.0
PROTOCOL = "blocked-v1"
# Training is cut to this: a decoder is checked for what it is, not for how well it decodes.
SHORT_TRAINING = {"updates": 4, "evaluate_every": 2, "window_s": 1.0}


class Candidate:
    """A decoder under test: its sessions, and fitted instances made as the checks ask for them.

    Parameters
    ----------
    model : registered name or ``file.py:Class``.
    dataset : None takes the small simulated one.
    chain : the front end.
    short : fewer times, shorter streams.
    folder : for artifacts and checkpoints.
    device : where it is fitted and predicts.
    zero_shot : it adapts to no second of the held-out session, whose frames other sessions' statistics normalise.

    Attributes
    ----------
    seconds : what the last fit counted of its time (`Context.phase`).
    """

    def __init__(
        self,
        model: str,
        dataset: Dataset | None,
        chain: FrontEnd,
        short: bool,
        folder: Path,
        device: str = "cpu",
        zero_shot: bool = False,
    ) -> None:
        self.cls: type[Decoder] = DECODERS.get(model)
        self.dataset = dataset or Rehearsal()
        self.folder = folder
        self.device = device
        self.times = 3 if short else 32
        self.stream_frames = 2_000 if short else 10_000
        self.generator = np.random.default_rng(0)
        self.protocol: Protocol = PROTOCOLS.get(PROTOCOL)()
        self.front_end = chain
        self.saved = folder / "decoder.safetensors"
        self.zero_shot = zero_shot
        self.seconds: dict[str, float] = {}
        fold = self.dataset.folds()[0]
        self.session_name, self.pretraining_names = fold.held_out[0], fold.pretrain[:2]

    @property
    def horizon_s(self) -> float:
        """Seconds of future that the checks permit: the declared look-ahead, none to a decoder of the whole record."""
        return 0.0 if np.isinf(self.cls.look_ahead_s) else self.cls.look_ahead_s

    @cached_property
    def session(self) -> SessionData:
        """The held-out session."""
        if not self.zero_shot:
            return self._prepared(self.session_name, "held-out")
        references = [self._prepared(name, "pretrain") for name in self.pretraining_names]
        return prepare_session(
            self.dataset, self.session_name, CalibrationV1(0.0), self.front_end, references=references
        ).data

    @cached_property
    def elsewhere(self) -> SessionData | None:
        """Another session to adapt to; None where the dataset has no other."""
        names = [info.name for info in self.dataset.sessions() if info.name != self.session_name]
        return self._prepared(names[0], "held-out") if names else None

    @cached_property
    def raw(self) -> np.ndarray:
        """Raw samples of the held-out session, (T, C): LFP, or spike counts for a spike decoder."""
        return self._raw(self.session_name)

    @cached_property
    def other(self) -> np.ndarray:
        """Raw samples of another session; of another part of the same one where the dataset has no other."""
        names = [info.name for info in self.dataset.sessions() if info.name != self.session_name]
        return self._raw(names[0]) if names else self.raw[::-1].copy()

    def _raw(self, session: str) -> np.ndarray:
        signal, sampling_rate = self.dataset.load(session).signal(self.front_end.kind)
        return np.asarray(signal[: round(EXCERPT_S * sampling_rate)], np.float32)

    def _prepared(self, session: str, role: SessionRole) -> SessionData:
        return prepare_session(
            self.dataset, session, self.protocol, self.front_end, role, privileged=self.cls.privileged
        ).data

    @cached_property
    def sampling_rate(self) -> float:
        return self.dataset.load(self.session_name).signal(self.front_end.kind)[1]

    @cached_property
    def decoder(self) -> Decoder:
        """Fitted with seed 0."""
        return self.fit(0, "first")

    @cached_property
    def pipeline(self) -> leaks.Pipeline:
        """From raw samples to predictions."""
        return leaks.pipeline(self.decoder, self.session, self.front_end, self.sampling_rate)

    def new(self) -> Decoder:
        """Return an unfitted decoder whose training is short."""
        return self.cls("tiny", {}, _shortened(self.cls.TrainOptions))

    def fit(self, seed: int, place: str, session: SessionData | None = None) -> Decoder:
        """Pretrain, and adapt to the held-out session or what stands in its place, from nothing."""
        folder = self.folder / place
        context = Context(seed, self.device, ArtifactStore(folder / "artifacts", "check", {}), folder / "checkpoints")
        decoder, artifact = self.new(), None
        if decoder.multi_session:
            sessions = [self._prepared(name, "pretrain") for name in self.pretraining_names]
            with _left_alone("pretrain", {f"sessions[{i}]": each for i, each in enumerate(sessions)}):
                artifact = decoder.pretrain(sessions, context)
            if not isinstance(artifact, Artifact):
                raise Failed(f"pretrain returned {type(artifact).__name__}, not an Artifact")
        session = session or self.session
        context.seconds.clear()
        with _left_alone("adapt", {"session": session}, artifact):
            decoder.adapt(session, context, artifact)
        self.seconds = context.seconds
        return decoder

    def decoded(self, decoder: Decoder, x: np.ndarray) -> np.ndarray:
        """Return predictions that the decoder's next call cannot change."""
        return np.array(decoder.predict(x, self.session))

    def frames(self, count: int) -> np.ndarray:
        """Return (count, C, F) normalised frames: noise, zero on masked channels."""
        shape = (count, self.session.channels, self.session.features)
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        return np.where(self.session.mask[:, None], x, np.float32(0))

    def cut_times(self) -> list[int]:
        """Raw sample indices at which the future is replaced."""
        count = len(self.raw)
        return sorted(self.generator.integers(count // 4, count, size=self.times).tolist())


@contextmanager
def _left_alone(method: str, sessions: Mapping[str, SessionData], artifact: Artifact | None = None) -> Iterator[None]:
    """Fail where a decoder's method writes into what it is handed."""

    def sums() -> dict[str, int]:
        handed = {f"{name}.{array}": each for name, data in sessions.items() for array, each in arrays_of(data).items()}
        if artifact is not None:
            handed |= {f"artifact.arrays[{name!r}]": array for name, array in artifact.arrays.items()}
        return {name: checksum(array) for name, array in handed.items()}

    before = sums()
    yield
    if changed := [name for name, each in sums().items() if each != before[name]]:
        raise Failed(f"{method} writes into {changed[0]}, which others use too; let it work on a copy")


def accepted_front_ends(model: str, chain: str | None = None) -> list[FrontEnd]:
    """Return the front ends on which a decoder is checked: all that it accepts, or the one asked for.

    Raises
    ------
    OptionError : it accepts none of them.
    """
    cls = DECODERS.get(model)
    names = PROTOCOLS.get(PROTOCOL).front_ends if chain is None else (chain,)
    accepted = [front_end(name) for name in names if front_end(name).kind in cls.inputs]
    if not accepted:
        raise OptionError(f"{model} accepts {' or '.join(cls.inputs)} input, not that of {', '.join(names)}")
    return accepted


def _shortened(options: type[BaseModel]) -> dict[str, Any]:
    """Return the ``train.`` options that cut every stage of our training loop short; others stay as they are."""
    fields = options.model_fields
    if set(SHORT_TRAINING) <= set(fields):
        return dict(SHORT_TRAINING)
    stages = {
        name: field.annotation
        for name, field in fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    return {
        f"{stage}.{key}": value
        for stage, annotation in stages.items()
        if set(SHORT_TRAINING) <= set(annotation.model_fields)
        for key, value in SHORT_TRAINING.items()
    }
