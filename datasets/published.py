"""Files that a dataset needs as they were published: pinned by SHA-256, copied or downloaded, never left half."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realmbench.errors import RealmbenchError, RecordingError
from realmbench.files import write_whole

# A download that stays silent for so long has failed, seconds.
DOWNLOAD_TIMEOUT = 30


@dataclass(frozen=True)
class SourceFile:
    """One file as published.

    Attributes
    ----------
    size : bytes.
    sha256 : hexadecimal digest.
    address : the folder it is downloaded from, without a slash at the end; None where no public one is known: such
        a file is optional and only copied.
    """

    size: int
    sha256: str
    address: str | None

    def link(self, name: str) -> str:
        """Return the full address of the file that the dataset calls ``name``."""
        return f"{self.address}/{Path(name).name}"


def check_published(dataset: str, name: str, file: SourceFile, folder: Path) -> Path:
    """Return the path of a file, having checked that it is there in its published size (cheap, no hash).

    Raises
    ------
    RecordingError : it is missing or has another size; the message says how to get it.
    """
    path = folder / name
    remedy = f"`realmbench data prepare {dataset}`"
    if not path.is_file():
        raise RecordingError(
            f"{path} is missing; get it with {remedy} (add --from-dir DIR if you have a copy), "
            f"or point --data-root at the folder that holds {dataset}/"
        )
    if (found := path.stat().st_size) != file.size:
        raise RecordingError(f"{path} is damaged: expected {file.size} bytes, found {found}; {remedy} mends it")
    return path


def fetch_published(dataset: str, files: Mapping[str, SourceFile], folder: Path, from_dir: Path | None = None) -> Path:
    """Bring files to a folder; those that are there with the right hash stay as they are.

    Parameters
    ----------
    dataset : its name; also the name of its folder within a data root.
    files : by path relative to the dataset's folder.
    folder : where they shall lie.
    from_dir : copy from this folder, laid out like ``folder``, or from its subfolder ``dataset``; None downloads.

    Returns
    -------
    ``folder``.

    Raises
    ------
    RealmbenchError : a file is absent or has another SHA-256, the download fails, or pooch is not installed.
    """
    source = None if from_dir is None else _find_copy(dataset, files, Path(from_dir).expanduser())
    wanted = {name: file for name, file in files.items() if not _has_digest(folder / name, file.sha256)}
    if source is None:
        _download(dataset, {name: file for name, file in wanted.items() if file.address is not None}, folder)
        return folder
    for name, file in wanted.items():
        if file.address is not None or (source / name).exists():
            _copy(dataset, source / name, folder / name, file)
    return folder


def _find_copy(dataset: str, files: Mapping[str, SourceFile], folder: Path) -> Path:
    for candidate in (folder, folder / dataset):
        if any((candidate / name).is_file() for name in files):
            return candidate
    example = next(iter(files))
    raise RealmbenchError(f"{folder} is no copy of {dataset}: it holds neither {example} nor {dataset}/{example}")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _has_digest(path: Path, sha256: str) -> bool:
    try:
        return path.is_file() and _digest(path) == sha256
    except OSError as error:
        raise RealmbenchError(f"cannot read {path}: {error.strerror or error}") from error


def _copy(dataset: str, source: Path, target: Path, file: SourceFile) -> None:
    """Copy one file whole; the hash is taken from what was written."""
    if not source.is_file():
        raise RealmbenchError(f"{source} is missing; a copy must hold every file of {dataset}")

    def write(temporary: Path) -> None:
        shutil.copyfile(source, temporary)
        if (found := _digest(temporary)) != file.sha256:
            raise RealmbenchError(
                f"{source} is not the published file: expected {file.size} bytes with SHA-256 {file.sha256}, "
                f"found {temporary.stat().st_size} bytes with {found}"
            )

    write_whole(target, write)


def _download(dataset: str, files: Mapping[str, SourceFile], folder: Path) -> None:
    """Download with pooch, which checks the hash before a file appears; one more try after a failure."""
    if not files:
        return
    try:
        import pooch
    except ImportError:
        raise RealmbenchError(
            f"downloading {dataset} needs pooch: pip install 'realmbench[data]' (or copy with --from-dir DIR)"
        ) from None
    from rich.console import Console
    from rich.progress import Progress

    # The bars below say what is downloaded; a second account of it in the log would tear them apart.
    pooch.get_logger().setLevel("ERROR")
    fetcher = pooch.create(
        path=folder,
        base_url="",
        registry={name: f"sha256:{file.sha256}" for name, file in files.items()},
        urls={name: file.link(name) for name, file in files.items()},
        retry_if_failed=1,
    )
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name, file in files.items():
            bar = _Bar(progress, progress.add_task(name, total=file.size))
            try:
                fetcher.fetch(name, downloader=pooch.HTTPDownloader(progressbar=bar, timeout=DOWNLOAD_TIMEOUT))
            # Errors of the network and the disk are OSError, a wrong hash is ValueError.
            except (OSError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise RealmbenchError(
                    f"cannot download {file.link(name)}: {reason}. Try again, or copy the files from elsewhere with "
                    f"`realmbench data prepare {dataset} --from-dir DIR`"
                ) from error


class _Bar:
    """One of rich's progress bars in the shape that pooch asks for."""

    def __init__(self, progress: Any, task: Any) -> None:
        self.total = 0
        self._progress, self._task = progress, task

    def update(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        self._progress.stop_task(self._task)
