"""What the runs of one process share: prepared sessions, and how progress is told."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .dataset import Dataset
from .errors import RealmbenchError, RecordingError
from .files import cache_dir, locked, write_text_whole
from .fingerprint import fingerprint, is_ours
from .front_end import FrontEnd
from .manifest import SessionRole
from .plan import Plan
from .preparation import Prepared, prepare_session
from .protocol import Protocol
from .recording import Recording
from .records import RunRecord
from .seeds import stable_hash
from .session import SessionData

SAMPLES_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Events:
    """How the runner talks to whoever shows its progress.

    Attributes
    ----------
    stage : a sentence and the share done of the work in hand.
    done : a run's record, and whether it was finished before.
    failed : a run's path and the one-line reason.
    note : a plain sentence.
    """

    stage: Callable[[str, float], None] = lambda _text, _share: None
    done: Callable[[RunRecord, bool], None] = lambda _record, _reused: None
    failed: Callable[[Path, str], None] = lambda _path, _reason: None
    note: Callable[[str], None] = lambda _text: None


class SessionBank:
    """Prepared sessions, each made once per process."""

    def __init__(self, dataset: Dataset, on_progress: Callable[[str, float], None]) -> None:
        self.dataset = dataset
        self._on_progress = on_progress
        self._prepared: dict[tuple[Any, ...], Prepared] = {}
        self._stages: dict[tuple[str, str], Sequence[Protocol]] = {}
        self._looked_at: set[str] = set()

    def get(
        self,
        session: str,
        protocol: Protocol,
        frames: FrontEnd,
        role: SessionRole,
        shift_target: bool,
        privileged: str | None = None,
    ) -> Prepared:
        """Return a session prepared for training, or for the last stage of its protocol, on the first call."""
        key = (session, protocol.name, frames.name, role, shift_target, privileged)
        if key not in self._prepared:
            cut = self.stages(session, protocol)[-1] if role == "held-out" else protocol
            self._refuse_other_samples(session)
            self._prepared[key] = prepare_session(
                self.dataset, session, cut, frames, role, shift_target, self._on_progress, privileged=privileged
            )
        return self._prepared[key]

    def _refuse_other_samples(self, session: str) -> None:
        """Refuse a recording that was edited where its fingerprint, which is of some samples, does not look.

        Features from before the edit would be used, and finished runs kept, for neither is told from the new ones. The
        datasets of this package are left out: what is generated is known by its code, published files are not edited.
        """
        cls = type(self.dataset)
        if session in self._looked_at or is_ours(cls.__module__):
            return
        recording = self.dataset.load(session)
        code = [fingerprint(module) for module in (cls.__module__, *self.dataset.depends_on)]
        known_by = [self.dataset.identity, session, recording.fingerprint(), code]
        note, samples = cache_dir() / "samples" / f"{stable_hash(known_by)}.txt", _samples_of(recording)
        with locked(note):
            if not note.exists():
                write_text_whole(note, samples)
            elif note.read_text() != samples:
                raise RecordingError(
                    f"{self.dataset.full_name}, {session}: the LFP is not the one that was read before under version "
                    f"{self.dataset.info.version} of the dataset; raise the version, so that features and runs of "
                    "before are not taken for those of now, or name another $REALMBENCH_CACHE"
                )
        self._looked_at.add(session)

    def of(self, plan: Plan, session: str, role: SessionRole) -> Prepared:
        """Return a session prepared as a plan asks for it."""
        privileged = plan.decoder_class.privileged
        return self.get(session, plan.protocol, plan.front_end, role, plan.request.shift_target, privileged)

    def stages(self, session: str, protocol: Protocol) -> Sequence[Protocol]:
        """Return the cuts that a run of this session goes through."""
        key = (session, protocol.name)
        if key not in self._stages:
            self._stages[key] = protocol.stages(self.dataset.load(session))
        return self._stages[key]

    def keep_only(self, sessions: Iterable[str]) -> None:
        """Forget the sessions of other folds, so that memory holds one fold."""
        wanted = set(sessions)
        self._prepared = {key: value for key, value in self._prepared.items() if key[0] in wanted}

    @contextmanager
    def left_alone(self, model: str, handed: Sequence[Prepared]) -> Iterator[None]:
        """Refuse that a decoder writes into what it is handed: other seeds and the scorer use the same arrays.

        What has been written into is forgotten, whatever happens inside, and prepared anew when it is next asked for.

        Raises
        ------
        RealmbenchError : an array is not what it was; names the first.
        """
        before = [_checksums(prepared) for prepared in handed]
        changed: list[str] = []
        try:
            yield
        finally:
            for prepared, sums in zip(handed, before):
                now = _checksums(prepared)
                if names := [name for name in sums if now[name] != sums[name]]:
                    changed += [f"{prepared.data.name}: {name}" for name in names]
                    self._prepared = {key: value for key, value in self._prepared.items() if value is not prepared}
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise RealmbenchError(
                f"{model} has written into what it was handed ({changed[0]}{more}), which other seeds and the scorer "
                "use too; let it work on a copy"
            )


def _checksums(prepared: Prepared) -> dict[str, int]:
    arrays = arrays_of(prepared.data)
    arrays |= {f"frames of test block {place}": block.x for place, block in enumerate(prepared.test)}
    return {name: checksum(array) for name, array in arrays.items()}


def arrays_of(session: SessionData) -> dict[str, np.ndarray]:
    """Return every array that a decoder is handed of a session, by name."""
    arrays = {"mask": session.mask, **{f"normaliser.{name}": each for name, each in vars(session.normaliser).items()}}
    for part in ("train", "validation"):
        for place, segment in enumerate(getattr(session, part)):
            arrays |= {f"{part}[{place}].{name}": getattr(segment, name) for name in ("x", "y", "privileged")}
    return arrays


def checksum(array: np.ndarray) -> int:
    """Sum up the bytes of an array."""
    return zlib.crc32(np.ascontiguousarray(array).data)


def _samples_of(recording: Recording) -> str:
    """Hash every sample of the LFP."""
    digest = hashlib.sha256()
    for start in range(0, recording.lfp.shape[0], SAMPLES_AT_ONCE):
        digest.update(np.ascontiguousarray(recording.lfp[start : start + SAMPLES_AT_ONCE]).tobytes())
    return digest.hexdigest()[:16]
