"""Where files go, and how they are written so that no reader ever meets half of one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import RealmbenchError

if TYPE_CHECKING:
    from filelock import BaseFileLock


def cache_dir() -> Path:
    """Folder for what can be made again: generated recordings, features, artifacts (``$REALMBENCH_CACHE``)."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("REALMBENCH_CACHE") or f"{base}/realmbench").expanduser()


def default_data_root() -> Path:
    """Folder that holds one folder per dataset (``$REALMBENCH_DATA``, else below the cache folder)."""
    return Path(os.environ.get("REALMBENCH_DATA") or cache_dir() / "data").expanduser()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time make what stands at ``path``; the others wait here and then find it made."""
    with _lock_of(path):
        yield


def lock_if_free(path: Path) -> BaseFileLock | None:
    """Take the lock of `locked`, to be released by the caller; None where another has it."""
    from filelock import Timeout

    lock = _lock_of(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _lock_of(path: Path) -> BaseFileLock:
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RealmbenchError(f"cannot write below {path.parent}: {error.strerror or error}") from error
    return FileLock(path.with_name(f".{path.name}.lock"))


def write_whole(path: Path, write: Callable[[Path], None]) -> Path:
    """Write a file through a temporary neighbour and a rename, so that it appears whole or not at all.

    Parameters
    ----------
    path : where the file shall stand; its folder is made.
    write : called with the temporary path, which keeps the suffix of ``path``.

    Raises
    ------
    RealmbenchError : the folder cannot be written or the disk is full.
    """
    # The suffix stays last because some writers (numpy.save) choose a format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        readable_by_all(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise RealmbenchError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def readable_by_all(path: Path) -> None:
    """Let others read a file, as far as the umask lets them: some libraries write for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def write_text_whole(path: Path, text: str) -> Path:
    """Write text whole, in UTF-8."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    return write_whole(path, write)
