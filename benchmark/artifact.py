"""Artifacts: what pretraining leaves behind, addressed by what made it, trained once and shared by many runs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from .errors import RealmbenchError
from .files import locked, write_text_whole, write_whole
from .fingerprint import code_of
from .options import leaves
from .others_code import others_code
from .pretrainings import ArtifactRecord
from .seeds import stable_hash


@dataclass(frozen=True)
class Artifact:
    """Named arrays and the record of their making."""

    arrays: Mapping[str, np.ndarray]
    record: ArtifactRecord

    @property
    def hash(self) -> str:
        return self.record.hash


@dataclass(frozen=True)
class Trained:
    """What a build function returns.

    Attributes
    ----------
    arrays, parameters : what was trained, and how many parameters it holds.
    history : of the training's scores and losses.
    earlier_seconds : spent before a kill from which the build resumed.
    warnings : of the training.
    """

    arrays: Mapping[str, np.ndarray]
    parameters: int
    history: Sequence[Mapping[str, float]]
    earlier_seconds: float = 0.0
    warnings: Sequence[str] = ()


class ArtifactStore:
    """A folder of artifacts.

    Parameters
    ----------
    folder : where they lie; made on the first write.
    code : fingerprint of the decoder's code; part of every key whose stage does not name its own sources.
    versions : versions to be written into new records.
    """

    def __init__(self, folder: Path, code: str, versions: Mapping[str, str]) -> None:
        self.folder = folder
        self._code = code
        self._versions = dict(versions)
        self._given: dict[str, ArtifactRecord] = {}
        self._asked_for: set[str] = set()
        self._expected: dict[str, ArtifactRecord] | None = None

    def give(self, artifact: Artifact, ancestors: Sequence[ArtifactRecord] = ()) -> None:
        """Take in an artifact from elsewhere; no other of its kind will be built.

        Parameters
        ----------
        ancestors : records of what it was made from.

        Raises
        ------
        RealmbenchError : its arrays are not those that its record speaks of, or the store holds others that were made
            in the same way, as another machine's rounding makes them.
        """
        if digest_of(artifact.arrays) != artifact.record.digest:
            raise RealmbenchError(
                f"the given {artifact.record.kind} {artifact.hash} holds other weights than it was made with"
            )
        for record in (*ancestors, artifact.record):
            path = self._arrays_path(record.kind, record.hash)
            with locked(path):
                self._take_in(path, record, artifact.arrays if record is artifact.record else None)
        self._given[artifact.record.kind] = artifact.record

    def _take_in(self, path: Path, record: ArtifactRecord, arrays: Mapping[str, np.ndarray] | None) -> None:
        """Write what is given, the arrays before the record; where it stands already it must be the same."""
        if path.exists() and path.with_suffix(".json").exists():
            own = _read_record(path.with_suffix(".json"))
            if own.digest != record.digest:
                raise RealmbenchError(
                    f"{path} holds another {record.kind} that was made in the same way, on {own.device}, than the one "
                    f"given, made on {record.device}; delete it to use the given one, or name another $REALMBENCH_CACHE"
                )
            return
        if arrays is not None:
            save_arrays(path, arrays)
        write_text_whole(path.with_suffix(".json"), record.model_dump_json(indent=1))

    def _arrays_path(self, kind: str, key: str) -> Path:
        return self.folder / f"{kind}-{key}.safetensors"

    def key(
        self, kind: str, config: Mapping[str, Any], data_keys: Sequence[str], seed: int, sources: Sequence[str] = ()
    ) -> str:
        """Return the content address: a hash of kind, configuration, data, seed and code.

        Parameters
        ----------
        sources : modules that hold the stage's code; the decoder's by default.
        """
        code = code_of(sources) if sources else self._code
        return stable_hash([kind, dict(config), list(data_keys), seed, code])

    def expect(self, records: Sequence[ArtifactRecord]) -> None:
        """Answer with these records, without their arrays, and refuse all else: would the same be made here?"""
        self._expected = {record.kind: record for record in records}

    def given_in_vain(self) -> list[str]:
        """Return the kinds of given artifacts that nothing has asked for."""
        return sorted(set(self._given) - self._asked_for)

    def get_or_build(
        self,
        kind: str,
        config: Mapping[str, Any],
        sessions: Sequence[Any],
        seed: int,
        device: str,
        build: Callable[[], Trained],
        parents: Sequence[Artifact] = (),
        sources: Sequence[str] = (),
    ) -> Artifact:
        """Return the artifact if it stands whole in the store, else build and store it.

        Parameters
        ----------
        kind : name of the stage, for example ``"realm-teacher"``.
        config : everything that shapes the result besides data and seed.
        sessions : the `SessionData` it is trained on.
        build : trains and returns the arrays; called at most once.
        parents : artifacts that the build uses; their hashes become part of the key.
        sources : modules that hold the stage's code, where several decoders are to share what it leaves.

        Raises
        ------
        RealmbenchError : an artifact of this kind was given (`give`) that is another; says how it differs. Or another
            was to be expected (`expect`).
        """
        full_config = {**config, "parents": [parent.hash for parent in parents]}
        key = self.key(kind, full_config, [session.key for session in sessions], seed, sources)
        if self._expected is not None:
            if kind not in self._expected or self._expected[kind].hash != key:
                raise RealmbenchError(f"the {kind} that would be made here is another")
            return Artifact({}, self._expected[kind])
        given = self._given.get(kind)
        self._asked_for.add(kind)
        if given is not None and given.hash != key:
            names = tuple(session.name for session in sessions)
            raise RealmbenchError(
                f"the given {kind} is not the one that is asked for: {_how(given, full_config, names, seed)}"
            )
        arrays_path = self._arrays_path(kind, key)
        record_path = arrays_path.with_suffix(".json")
        # Processes that want the same artifact wait for the first to train it.
        with locked(arrays_path):
            if record_path.exists() and arrays_path.exists():
                return Artifact(load_arrays(arrays_path)[0], _read_record(record_path))
            started = time.perf_counter()
            with others_code(f"training {kind}"):
                trained = build()
            record = ArtifactRecord(
                kind=kind,
                hash=key,
                config=full_config,
                dataset=sessions[0].dataset,
                sessions=tuple(session.name for session in sessions),
                seed=seed,
                parents=tuple(parent.hash for parent in parents),
                parameters=trained.parameters,
                seconds=time.perf_counter() - started + trained.earlier_seconds,
                device=device,
                history=[dict(entry) for entry in trained.history],
                digest=digest_of(trained.arrays),
                warnings=tuple(trained.warnings),
                versions=self._versions,
                created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            )
            save_arrays(arrays_path, trained.arrays)
            # The record comes last: where it stands, the artifact is whole.
            write_text_whole(record_path, record.model_dump_json(indent=1))
            return Artifact(trained.arrays, record)

    def record_of(self, key: str) -> ArtifactRecord:
        """Return the record of a stored artifact by its hash, without reading its arrays.

        Raises
        ------
        RealmbenchError : it is not in the store any more, or damaged.
        """
        for path in self.folder.glob(f"*-{key}.json"):
            return _read_record(path)
        raise RealmbenchError(
            f"artifact {key} is not in {self.folder}; delete the artifacts made from it and run again"
        )


def _how(given: ArtifactRecord, config: Mapping[str, Any], sessions: tuple[str, ...], seed: int) -> str:
    """Say in what a given artifact differs from what is asked for."""
    theirs, ours = leaves(given.config), leaves(json.loads(json.dumps(config)))
    reasons = [
        f"{name} is {theirs.get(name)!r}, not {ours.get(name)!r}"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    ]
    if given.sessions != sessions:
        reasons.append(f"it was trained on {', '.join(given.sessions)}, not on {', '.join(sessions)}")
    if given.seed != seed:
        reasons.append(f"its seed is {given.seed}, not {seed}")
    return "; ".join(reasons) or "it was trained by other code or on other versions of the data"


def _read_record(path: Path) -> ArtifactRecord:
    try:
        return ArtifactRecord.model_validate_json(path.read_text())
    except ValidationError as error:
        raise RealmbenchError(f"{path} is damaged; delete it and run again") from error


def digest_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash named arrays: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any] | None = None) -> Path:
    """Write named arrays and JSON metadata whole into one safetensors file.

    Raises
    ------
    RealmbenchError : it cannot be written, for example because the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = {"realmbench": json.dumps(dict(metadata or {}))}
    try:
        return write_whole(path, lambda temporary: save_file(contiguous, temporary, metadata=text))
    except SafetensorError as error:  # its own word for a disk that is full
        raise RealmbenchError(f"cannot write {path}: {error}") from error


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read named arrays and metadata back.

    Raises
    ------
    RealmbenchError : the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise RealmbenchError(f"{path} does not exist")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            metadata = json.loads((file.metadata() or {}).get("realmbench", "{}"))
    except SafetensorError as error:
        raise RealmbenchError(
            f"{path} is damaged ({error}); copy or write it again, or, in the cache, delete it and run again"
        ) from error
    return arrays, metadata
