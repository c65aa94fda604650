"""The dataset contract: what a loader must offer, and nothing about any particular dataset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from .errors import unknown_name
from .options import NoOptions, build_options
from .recording import Recording
from .registry import Registry
from .seeds import stable_hash


class DatasetInfo(BaseModel):
    """What a reader must know of a dataset before using it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    summary: str
    licence: str
    citation: str
    home: str
    size: str
    task: str
    signals: str
    channels: int
    sampling_rate: float


class SessionInfo(BaseModel):
    """One session as listings show it; ``day`` counts from the subject's first session, where known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    subject: str
    day: float | None = None


class Fold(BaseModel):
    """One fixed division of a dataset's sessions: what pretraining may see, and what is evaluated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    pretrain: tuple[str, ...]
    held_out: tuple[str, ...]


class Dataset(ABC):
    """Base class of every loader.

    A loader names its ``variants`` (the first is the default) and implements ``info``, ``sessions``, ``folds`` and
    ``load``; one that needs files on disk also implements ``prepare``. Raising ``info.version`` invalidates cached
    features and artifacts and marks old results; so does a change of the loader's module or of those it names in
    ``depends_on``.

    Parameters
    ----------
    variant : one of ``variants``; None takes the first.
    data_root : folder that holds one folder per dataset (``<data_root>/open-field`` and so on).
    options : values of ``Options``, as given by ``--set data.NAME=VALUE``.
    """

    variants: ClassVar[Mapping[str, str]] = {"default": "the only variant"}
    depends_on: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[BaseModel]] = NoOptions
    # Whether its recordings hold spike counts.
    spikes: bool = False

    def __init__(
        self, variant: str | None = None, data_root: Path | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        self.variant = variant or next(iter(self.variants))
        if self.variant not in self.variants:
            raise unknown_name(f"variant of {self.info.name}", self.variant, self.variants)
        self.data_root = data_root
        self.options = build_options(self.Options, options or {}, prefix="data")

    @property
    @abstractmethod
    def info(self) -> DatasetInfo:
        """Static facts; must work before any file is there."""

    @abstractmethod
    def sessions(self) -> list[SessionInfo]:
        """List the sessions of this variant without loading them."""

    @abstractmethod
    def folds(self) -> list[Fold]:
        """Return the fixed folds: every held-out session stands in exactly one fold."""

    @abstractmethod
    def load(self, session: str) -> Recording:
        """Load one session.

        Raises
        ------
        RecordingError : a file is missing, truncated or damaged; the message names it and the mend.
        """

    def require(self, session: str) -> None:  # noqa: B027  # most datasets need nothing
        """Raise at once, without reading, what `load` would raise for want of a file.

        Raises
        ------
        RecordingError : a file is missing or has the wrong size; the message says how to get it.
        """

    def prepare(self, from_dir: Path | None = None) -> Path | None:
        """Fetch, or copy from a folder, what ``load`` needs; return where it lies, None if nothing is needed."""
        return None

    def ceiling(self, session: str, look_ahead_s: float) -> float | None:
        """Return the highest R2 (axis mean) that any decoder with this look-ahead can reach in expectation.

        None where it is not known exactly, as for every real recording.
        """
        return None

    def session(self, name: str) -> SessionInfo:
        """Look a session up by name.

        Raises
        ------
        UnknownNameError : no such session in this variant.
        """
        by_name = {session.name: session for session in self.sessions()}
        if name not in by_name:
            raise unknown_name(f"session of {self.full_name}", name, by_name)
        return by_name[name]

    @property
    def full_name(self) -> str:
        """Name with variant, as users write it: ``synthetic-reach:hard``; the default variant is left out."""
        default = next(iter(self.variants))
        return self.info.name if self.variant == default else f"{self.info.name}:{self.variant}"

    @property
    def changed_options(self) -> dict[str, Any]:
        """The options that differ from their defaults, as JSON values."""
        return self.options.model_dump(mode="json", exclude_defaults=True)

    @property
    def suffix(self) -> str:
        """A hash of the changed options after a plus sign; empty where none is changed."""
        return f"+{stable_hash(self.changed_options, 8)}" if self.changed_options else ""

    @property
    def identity(self) -> str:
        """Name, variant, version and changed options: the key of everything computed from this data."""
        return f"{self.info.name}:{self.variant}@{self.info.version}{self.suffix}"


DATASETS: Registry[Dataset] = Registry(
    "dataset", "realmbench.datasets", ("realmbench.datasets:DATASETS",), "realmbench.dataset:Dataset"
)


def open_dataset(name: str, data_root: Path | None = None, options: Mapping[str, Any] | None = None) -> Dataset:
    """Open a dataset by name: ``"open-field"``, ``"synthetic-reach:hard"``, ``"my_loader.py:MyData"``.

    Raises
    ------
    UnknownNameError : unknown dataset or variant.
    OptionError : an unknown or ill-typed ``data.`` option.
    """
    base, variant = name, None
    head, separator, tail = name.rpartition(":")
    # "file.py:Class" names a class; "file.py:Class:variant" and "name:variant" name a variant too.
    if separator and not head.endswith(".py"):
        base, variant = head, tail
    return DATASETS.get(base)(variant, data_root, options)
