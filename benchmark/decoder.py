"""The decoder contract: what a method must offer to be benchmarked, and what the harness promises it.

A single-session decoder implements `adapt`, `predict`, `arrays` and `restore`, and `stream` unless it needs the whole
record. One that learns across sessions implements `pretrain` too. Everything handed in is already cut, run through the
front end and normalised; test samples are not reachable.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from .artifact import Artifact, ArtifactStore, Trained, load_arrays, save_arrays
from .errors import OptionError, RealmbenchError, unknown_name
from .options import NoOptions, as_recorded, build_options, changed_leaves, leaves
from .registry import Registry
from .search import SearchDimension
from .session import Session, SessionData

DEFAULT_PRESET = "small"
# The weights in a checkpoint's folder, where transformers looks for them.
WEIGHTS = "model.safetensors"
Part = TypeVar("Part")


class Preset(BaseModel):
    """Values that a preset gives to a decoder's own and to its training options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decoder: dict[str, Any] = {}
    train: dict[str, Any] = {}


def tuned(
    presets: Mapping[str, Preset], values: Mapping[str, Any], sizes: Collection[str] = ("tiny", "small")
) -> dict[str, Preset]:
    """Return presets with what tuning found put into some of them; ``paper`` keeps what was published.

    Parameters
    ----------
    values : by the names of ``--set``, as in ``{"train.finetune.learning_rate": 1e-3}``; `realmbench.tuning.unfrozen`
        compares them with the records in results/tuning.
    sizes : the presets that take them; those that are not there are left out.
    """
    changed = {}
    for name, preset in presets.items():
        content = copy.deepcopy(preset.model_dump())
        for key, value in values.items() if name in sizes else ():
            *parents, last = key.split(".")
            level = content
            for parent in parents:
                level = level.setdefault(parent, {})
            level[last] = value
        changed[name] = Preset(**content)
    return changed


@dataclass
class Context:
    """What the harness lends a decoder while it learns.

    Attributes
    ----------
    seed : root seed; derive named streams from it with `realmbench.seeds.stream`.
    device : ``"cpu"``, ``"cuda"``, ...
    artifacts : the store through which pretraining results are shared.
    checkpoints : folder for unfinished training, so that a killed run resumes.
    on_progress : called with a sentence and the share done.
    selection : held-out sessions on which a published method stops its pretraining; only leaky protocols hand them out.
    """

    seed: int
    device: str
    artifacts: ArtifactStore
    checkpoints: Path
    on_progress: Callable[[str, float], None] = lambda _text, _share: None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    selection: Sequence[SessionData] | None = None

    def checkpoint(
        self, stage: str, config: Mapping[str, Any], sessions: Sequence[SessionData], sources: Sequence[str] = ()
    ) -> Path:
        """Return the file for a stage's unfinished training, named by everything that shapes it.

        The device is part of that: another one draws dropout and masks otherwise.

        Parameters
        ----------
        sources : as of `ArtifactStore.key`.
        """
        key = self.artifacts.key(stage, config, [session.key for session in sessions], self.seed, sources)
        place = "" if self.device == "cpu" else f"-{self.device.partition(':')[0]}"
        return self.checkpoints / f"{stage.replace(' ', '-')}-{key}{place}.pt"

    def artifact(
        self,
        kind: str,
        config: Mapping[str, Any],
        sessions: Sequence[SessionData],
        build: Callable[[], Trained],
        parents: Sequence[Artifact] = (),
        sources: Sequence[str] = (),
    ) -> Artifact:
        """Return what a stage of pretraining leaves, trained now or taken from the store.

        What the training warned of stands in ``warnings`` either way. Parameters as of `ArtifactStore.get_or_build`.
        """

        def warned() -> Trained:
            before = len(self.warnings)
            trained = build()
            return replace(trained, warnings=self.warnings[before:])

        artifact = self.artifacts.get_or_build(
            kind, config, sessions, self.seed, self.device, warned, parents=parents, sources=sources
        )
        self.warnings.extend(warning for warning in artifact.record.warnings if warning not in self.warnings)
        return artifact

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to ``seconds[name]``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


@dataclass(frozen=True)
class ParameterCount:
    """Numbers a fitted decoder consists of.

    Attributes
    ----------
    deployed : needed to predict.
    trained : of those, changed by the last fit on the held-out session.
    """

    deployed: int
    trained: int


@dataclass(frozen=True)
class FlopCount:
    """Floating-point operations per frame.

    Attributes
    ----------
    per_step : of matrix products, convolutions and attention; a multiply-add counts two.
    uncounted : names of operations in neither number.
    elementwise : of everything else, one per element and operation.
    """

    per_step: int
    uncounted: tuple[str, ...] = ()
    elementwise: int = 0


class Stream(ABC):
    """A decoder as it runs on a device: one frame in, one prediction out, constant memory.

    Attributes
    ----------
    delay : frames by which its predictions lag: that of a step is of the frame so many steps before. 0 if it is causal.
    """

    delay: int = 0

    @abstractmethod
    def step(self, frame: np.ndarray) -> np.ndarray:
        """Take one normalised (C, F) frame and return a (D,) normalised prediction; NaN in the first ``delay``."""


class Decoder(ABC):
    """Base class of every decoder.

    Attributes
    ----------
    causal : predictions use the present and the past only.
    look_ahead_s : seconds of future that a prediction needs (0 for causal, infinity for whole-record decoders).
    inputs : kinds of front end that it accepts.
    multi_session : it learns across sessions in `pretrain`.
    accelerated : it can use another device than the CPU.
    privileged : name of a second front end whose frames come with the training and validation segments
        (`Segment.privileged`), to learn from; predictions never see them (Vapnik & Vashist 2009). Same frame rate.
    search_space : options that `realmbench tune` may change, as in ``{"train.learning_rate": Range(1e-4, 1e-2)}``.
    presets : sizes by name; every decoder has ``tiny`` and ``small``.
    Options, TrainOptions : pydantic models behind ``--set decoder.`` and ``--set train.``.
    depends_on : packages whose source, besides the decoder's own module, decides whether old results still hold.

    Parameters
    ----------
    preset : a key of ``presets``.
    options, train : values that override the preset's.

    Raises
    ------
    UnknownNameError, OptionError : no such preset or option, a wrong value, or an option that changes nothing.
    """

    causal: ClassVar[bool]
    look_ahead_s: ClassVar[float] = 0.0
    inputs: ClassVar[tuple[str, ...]] = ("bands", "broadband")
    multi_session: ClassVar[bool] = False
    accelerated: ClassVar[bool] = False
    privileged: ClassVar[str | None] = None
    search_space: ClassVar[Mapping[str, SearchDimension]] = {}
    presets: ClassVar[Mapping[str, Preset]] = {"tiny": Preset(), "small": Preset(), "paper": Preset()}
    Options: ClassVar[type[BaseModel]] = NoOptions
    TrainOptions: ClassVar[type[BaseModel]] = NoOptions
    depends_on: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        preset: str = DEFAULT_PRESET,
        options: Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
    ) -> None:
        if preset not in self.presets:
            raise unknown_name(f"preset of {type(self).__name__}", preset, self.presets)
        values = self.presets[preset]
        self.preset = preset
        self.options = build_options(self.Options, options or {}, "decoder", values.decoder)
        self.train_options = build_options(self.TrainOptions, train or {}, "train", values.train)
        if train:
            self._refuse_idle()

    def _refuse_idle(self) -> None:
        """Refuse options of a training that makes no update: they change nothing."""
        values = leaves(self.config)
        for name in changed_leaves(self.config, type(self)(self.preset).config):
            stage, _, option = name.rpartition(".")
            if name.startswith("train.") and option != "updates" and values.get(f"{stage}.updates") == 0:
                raise OptionError(f"{name}: {stage}.updates=0 trains nothing")

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this decoder from every other: class and configuration."""
        return {"class": f"{type(self).__module__}.{type(self).__qualname__}", **self.config}

    @property
    def config(self) -> dict[str, Any]:
        """The full configuration as JSON values (`as_recorded`)."""
        usual = self.presets[self.preset]
        return {
            "decoder": as_recorded(self.options, usual.decoder),
            "train": as_recorded(self.train_options, usual.train),
        }

    @property
    def zero_shot(self) -> bool:
        """Whether it can predict a session of which it has seen nothing; `adapt` then gets no training segment."""
        return False

    def pretrain(self, sessions: Sequence[SessionData], context: Context) -> Artifact:
        """Learn from the fold's pretraining sessions. Multi-session decoders implement this."""
        raise RealmbenchError(f"{type(self).__name__} learns from one session alone and has no pretraining")

    @abstractmethod
    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        """Fit to the held-out session, starting from what `pretrain` returned.

        ``session.train`` is there to learn from, ``session.validation`` to choose by and then to learn from as well.
        """

    @abstractmethod
    def predict(self, x: np.ndarray, session: Session) -> np.ndarray:
        """Decode (T, C, F) normalised frames of any length to (T, D) normalised predictions, state starting afresh.

        Raises
        ------
        RealmbenchError : the decoder is not fitted, or the frames are not this session's (`Session.check_frames`).
        """

    @property
    def streams(self) -> bool:
        """Whether it runs in real time: what a prediction needs of the future has an end."""
        return self.look_ahead_s < float("inf")

    def stream(self, session: Session) -> Stream:
        """Start a stream. All but decoders of the whole record implement this; it must equal `predict`."""
        kind = "has not implemented" if self.streams else "needs the whole record and cannot have"
        raise RealmbenchError(f"{type(self).__name__} {kind} a stream")

    def streamed(self, frames: Iterable[np.ndarray], session: Session) -> np.ndarray:
        """Step a stream through (C, F) frames; return the (T - delay, D) predictions: of all but the last frames.

        Raises
        ------
        RealmbenchError : the stream lags by more than the declared look-ahead, a step has a wrong shape, the first
            ``delay`` steps, which are of no frame, say something, or there are no more frames than that.
        """
        running, name = self.stream(session), type(self).__name__
        if running.delay > self.look_ahead_s * session.rate + 1e-6:
            raise RealmbenchError(
                f"the stream of {name} lags by {running.delay / session.rate:g} s, more than its declared look-ahead "
                f"of {self.look_ahead_s:g} s"
            )
        # Neither a frame nor an output shares memory with the next: an edit in place or a buffer used again is no leak.
        steps = [np.array(running.step(np.array(frame))) for frame in frames]
        if shapes := {step.shape for step in steps} - {(session.outputs,)}:
            raise RealmbenchError(f"a step of {name}'s stream returned {shapes.pop()}, expected {(session.outputs,)}")
        outputs = np.stack(steps)
        if len(outputs) <= running.delay:
            raise RealmbenchError(f"{len(outputs)} frames are too few for the stream of {name}: {running.delay} late")
        if not np.isnan(outputs[: running.delay]).all():
            raise RealmbenchError(f"the first {running.delay} steps of {name}'s stream are of no frame and must be NaN")
        return outputs[running.delay :]

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything that was fitted, as named arrays."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, np.ndarray], session: Session) -> None:
        """Take back what `arrays` returned; afterwards `predict` gives the same numbers."""

    def parameters(self) -> ParameterCount:
        """Count the numbers in `arrays`; decoders with parts they do not use, or do not train, say so here."""
        count = sum(array.size for array in self.arrays().values())
        return ParameterCount(count, count)

    def sizes(self) -> Mapping[str, int]:
        """Count parameters by part at the shape of the data that the method was published on, for `show`."""
        return {}

    def fitted(self, what: Part | None) -> Part:
        """Return what a fit leaves.

        Raises
        ------
        RealmbenchError : it is None; says what to call first.
        """
        if what is None:
            raise RealmbenchError(f"{type(self).__name__} is not fitted yet; call adapt or restore first")
        return what

    def pretrained(self, artifact: Artifact | None) -> Artifact:
        """Return the artifact of pretraining that `adapt` was given.

        Raises
        ------
        RealmbenchError : there is none.
        """
        if artifact is None:
            raise RealmbenchError(f"{type(self).__name__} needs the artifact of its pretraining to adapt")
        return artifact

    @abstractmethod
    def flops(self, session: Session) -> FlopCount:
        """Count the floating-point operations of one frame."""

    def save(self, path: Path, session: Session) -> Path:
        """Write the fitted decoder and its configuration into one safetensors file."""
        metadata = {"class": type(self).__name__, "preset": self.preset, **self.config, "session": session.name}
        return save_arrays(path, self.arrays(), metadata)

    def export(self, folder: Path, session: Session, front_end: str) -> None:
        """Write the fitted decoder into a checkpoint's folder, as the users of its method load it."""
        self.save(folder / WEIGHTS, session)

    def export_artifact(self, folder: Path, artifact: Artifact, session: Session, front_end: str) -> None:
        """Write what `pretrain` returned into a checkpoint's folder; ``session`` is any of its sessions."""
        save_arrays(folder / WEIGHTS, artifact.arrays, {"class": type(self).__name__, **self.config})

    def import_arrays(self, folder: Path) -> dict[str, np.ndarray]:
        """Read back the arrays of the artifact that `export_artifact` wrote.

        Raises
        ------
        RealmbenchError : the file is missing or damaged.
        """
        return load_arrays(folder / WEIGHTS)[0]

    @classmethod
    def load(cls, path: Path, session: Session) -> Decoder:
        """Read a fitted decoder back.

        Raises
        ------
        RealmbenchError : missing or damaged file, or one of another decoder.
        """
        arrays, metadata = load_arrays(path)
        if metadata.get("class") != cls.__name__:
            raise RealmbenchError(f"{path} holds a {metadata.get('class')}, not a {cls.__name__}")
        decoder = cls(metadata["preset"], metadata["decoder"], metadata["train"])
        decoder.restore(arrays, session)
        return decoder


DECODERS: Registry[Decoder] = Registry(
    "model",
    "realmbench.decoders",
    ("realmbench.baselines:DECODERS", "realmbench.realm:DECODERS"),
    "realmbench.decoder:Decoder",
)
