"""The run record: one JSON file per run that anyone can check, rerun and send in a pull request.

Records are written whole and never changed; what is found out about them later stands beside them. This module needs
neither torch nor scikit-learn, so that tables and statistics can be made anywhere from the files alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .channels import ChannelReport
from .errors import RealmbenchError
from .files import locked, write_text_whole
from .manifest import SplitManifest
from .tuning_record import TUNING_FOLDER

SCHEMA_VERSION = 1
# The metric by which methods are ranked.
HEADLINE = "r2_axis_mean"
# Beside the records of a method: which of them were run again, and what came out.
REPRODUCED = "reproduced.jsonl"
Line = TypeVar("Line", bound=BaseModel)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BlockScore(_Part):
    """Sums of one stretch of at most ten seconds of a test block; every R2 follows from them without inference.

    Lists hold one number per axis, in the behaviour's own unit (squared for the sums of squares).
    """

    start_s: float
    stop_s: float
    samples: int
    sse: list[float]
    sst: list[float]  # about the mean of the session's whole scored truth
    sum: list[float]
    sum_of_squares: list[float]


class AxisScore(_Part):
    """Scores of one axis over all test blocks."""

    name: str
    unit: str
    sse: float
    sst: float
    r2: float
    pearson_r: float


class ArtifactUse(_Part):
    """An artifact that the run used; its own record lies beside the artifact."""

    kind: str
    hash: str
    parameters: int
    seconds: float


class Latency(_Part):
    """Time of one streaming step, batch 1, in microseconds."""

    protocol: str
    p50: float
    p95: float
    p99: float
    steps: int
    threads: int
    device: str
    warm_up: int | None = None


class CurvePoint(_Part):
    """One earlier point of a calibration curve; the record's own scores are the curve's last point."""

    calibration_s: float
    metrics: dict[str, float]
    blocks: list[BlockScore]
    seconds: dict[str, float]
    split_hash: str
    warnings: list[str]


class RunRecord(_Part):
    """One decoder x front end x dataset x protocol x held-out session x seed."""

    schema_version: Literal[1] = 1
    suite: str
    # what was run
    model: str
    preset: str
    config: dict[str, Any]
    changed_options: list[str]  # what the user set by --set decoder. and --set train.
    config_hash: str
    code: str  # fingerprint of decoder, training, front end and protocol sources
    causal: bool
    look_ahead_s: float | None  # None: the whole block
    # on what
    dataset: str
    dataset_identity: str
    dataset_version: str
    data_options: dict[str, Any]  # what the user set by --set data.
    fold: str
    # All of the dataset's, so that a table knows what is missing; None in the first records, which did not say.
    held_out_sessions: list[str] | None = None
    session: str
    subject: str
    day: float | None
    training_sessions: list[str]
    front_end: str
    front_end_left_out: list[str]
    channels: ChannelReport
    protocol: str
    leaky: bool
    split: SplitManifest
    split_hash: str
    data_key: str
    pretraining_key: str | None = None  # of the other sessions' data; None without any, and before it was kept
    train_s: float
    validation_s: float
    test_s: float
    seed: int
    audit: str | None
    # what came out
    metrics: dict[str, float]
    axes: list[AxisScore]
    blocks: list[BlockScore]
    training_mean: list[float]
    calibration_s: float | None = None  # seconds of the session that were learnt from, where the protocol limits them
    curve: list[CurvePoint] = []  # the scores with less calibration
    ceiling: float | None
    # at what cost
    parameters_deployed: int
    parameters_trained: int
    artifacts: list[ArtifactUse]
    seconds: dict[str, float]
    flops_per_step: int  # matrix products, convolutions, attention
    flops_elementwise: int | None = None  # everything else; None in the first records, which list it as uncounted
    flops_uncounted: list[str]
    latency: Latency | None  # of the decoder's step
    front_end_latency: Latency | None = None  # of the raw samples of one frame
    group_delay_s: dict[str, float] | None = None  # of the front end's filters, by feature
    sampled_kbit_s: float | None = None  # input bandwidth at the electrodes
    frames_kbit_s: float | None = None  # and after the front end
    stream_bytes: int | None = None  # held by a running stream, weights included
    peak_memory_mb: float  # resident memory of the process, the session's data included
    peak_memory_of_run: bool = False  # False: since the process began
    peak_device_memory_mb: float | None = None
    # where and with what
    device: str
    threads: int
    processes: int | None = None  # jobs at a time: beside others, seconds and latencies are upper bounds
    versions: dict[str, str]
    git_commit: str | None
    created: str
    warnings: list[str]

    @property
    def training_seconds(self) -> float:
        """Seconds of training for this run alone, artifacts left out."""
        return sum(value for phase, value in self.seconds.items() if phase != "predict")

    @property
    def training_seconds_with_artifacts(self) -> float:
        """Seconds of training with everything that had to be trained first, teacher included."""
        return self.training_seconds + sum(artifact.seconds for artifact in self.artifacts)

    @property
    def r2_by_calibration(self) -> dict[float | None, float]:
        """R2 by seconds of calibration, its own last; None stands for those of a run without a limit."""
        earlier: dict[float | None, float] = {point.calibration_s: point.metrics[HEADLINE] for point in self.curve}
        return {**earlier, self.calibration_s: self.metrics[HEADLINE]}


class Reproduction(_Part):
    """A recorded run that was run again (`realmbench reproduce`), and what came out.

    Attributes
    ----------
    recorded_code, code : of the record, and of the run again.
    recorded_r2, r2 : ``r2_axis_mean`` of both.
    largest_difference : of that, between the two, over the points of the calibration curve.
    exact : everything that was measured is the same, but for time and memory.
    cached : what pretraining left could come from the cache, by the code of its stages, instead of being trained anew.
    recorded_device, device : of the record, which is not known of older entries, and of the run again.
    """

    session: str
    seed: int
    cached: bool = False
    recorded_code: str
    code: str
    recorded_r2: float
    r2: float
    largest_difference: float
    exact: bool
    recorded_device: str | None = None
    device: str
    threads: int
    versions: dict[str, str]
    git_commit: str | None
    created: str


def record_path(
    results_dir: Path, suite: str, dataset: str, protocol: str, front_end: str, method: str, session: str, seed: int
) -> Path:
    """Return where a run's record stands: ``suite/dataset/protocol/front-end/method/session.seedN.json``."""
    folder = results_dir / suite / dataset.replace(":", "~") / protocol / front_end / method
    return folder / f"{session}.seed{seed}.json"


def failed_path(path: Path) -> Path:
    """Return where the traceback of a failed run stands."""
    return path.with_suffix(".failed.json")


def write_record(record: RunRecord, path: Path) -> None:
    """Write a record whole and remove the mark of an earlier failure."""
    text = json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"
    write_text_whole(path, text)
    failed_path(path).unlink(missing_ok=True)


def write_failure(path: Path, traceback: str) -> None:
    """Leave the traceback of a failed run; it is not a record and is retried next time."""
    text = json.dumps({"traceback": traceback.splitlines()}, indent=1) + "\n"
    write_text_whole(failed_path(path), text)


def read_record(path: Path) -> RunRecord:
    """Read one record.

    Raises
    ------
    RealmbenchError : the file is not a run record of this schema (the message names the first offending key), or
        cannot be read.
    """
    try:
        return RunRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RealmbenchError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValidationError, ValueError) as error:
        detail = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            detail = f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"
        raise RealmbenchError(f"{path} is not a run record of schema {SCHEMA_VERSION} ({detail})") from error


def read_records(results_dir: Path, suite: str | None = None, *, skip_damaged: bool = False) -> list[RunRecord]:
    """Read every record below a results folder, or of one suite in it; failed runs and tunings are not records.

    Codes that a reproduction has shown to give the same go by one name.

    Raises
    ------
    RealmbenchError : a file is no whole record, unless such files are skipped.
    """
    names = suites(results_dir) if suite is None else [suite]
    records: list[RunRecord] = []
    files = (path for name in names for path in record_files(results_dir / name))
    for folder, paths in groupby(files, attrgetter("parent")):
        one_name = _equal_codes(folder)
        for path in paths:
            try:
                record = read_record(path)
            except RealmbenchError:
                if skip_damaged:
                    continue
                raise
            records.append(record.model_copy(update={"code": one_name.get(record.code, record.code)}))
    return records


def recorded_name(model: str) -> str:
    """Return a model's name as records have it: of ``folder/file.py:Class``, ``file:Class``."""
    path, colon, name = model.rpartition(":")
    return f"{Path(path).stem}:{name}" if colon else model


def held_out_of(records: Iterable[RunRecord]) -> set[str]:
    """Return the held-out sessions that records name: of older ones, which name none, their own."""
    return {name for record in records for name in record.held_out_sessions or [record.session]}


def suites(results_dir: Path) -> list[str]:
    """Return the names of the suites that hold records."""
    if not results_dir.is_dir():
        return []
    folders = (path for path in results_dir.iterdir() if path.is_dir() and path.name != TUNING_FOLDER)
    return sorted(path.name for path in folders if any(record_files(path)))


def record_files(folder: Path) -> Iterable[Path]:
    """Yield the files of records below a folder, sorted; those that another process is writing are hidden."""
    return (
        path
        for path in sorted(folder.rglob("*.json"))
        if not path.name.startswith(".") and not path.name.endswith(".failed.json")
    )


def note_reproduction(folder: Path, entry: Reproduction) -> None:
    """Add a reproduction to those of a method's folder of records."""
    path = folder / REPRODUCED
    with locked(path):
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        write_text_whole(path, before + entry.model_dump_json() + "\n")


def read_reproductions(folder: Path) -> list[Reproduction]:
    """Read what is known of runs of a method's folder that were run again.

    Raises
    ------
    RealmbenchError : the file is damaged; the message names the line.
    """
    return read_lines(folder / REPRODUCED, Reproduction, "no reproduction")


def read_lines(path: Path, kind: type[Line], otherwise: str) -> list[Line]:
    """Read a file of one JSON object per line; nothing where there is no file.

    Parameters
    ----------
    otherwise : what a line is called that does not fit.

    Raises
    ------
    RealmbenchError : a line does not fit; the message names it.
    """
    found = []
    # Not `splitlines`, which also splits where a text inside a line has one of Unicode's separators.
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        try:
            found.append(kind.model_validate_json(line))
        except ValidationError as error:
            raise RealmbenchError(f"{path}, line {number}, is {otherwise} ({error.errors()[0]['msg']})") from error
    return found


def same_code(folder: Path, first: str, second: str) -> bool:
    """Say whether two codes are one, or were shown to give the same to the last bit for a record of the folder."""
    if first == second:
        return True
    one_name = _equal_codes(folder)
    return one_name.get(first, first) == one_name.get(second, second)


def _equal_codes(folder: Path) -> dict[str, str]:
    """Return for every code that gave what another gave the name that all of them go by."""
    entries = read_reproductions(folder)
    exact, other = [each for each in entries if each.exact], [each for each in entries if not each.exact]
    # One that came out otherwise, with all else the same, outweighs those that did not.
    broken = set(map(_circumstances, other))
    one_name: dict[str, str] = {}
    for entry in exact:
        if _circumstances(entry) not in broken:
            names = {one_name.get(code, code) for code in (entry.recorded_code, entry.code)}
            joined = {entry.recorded_code, entry.code, *(code for code, name in one_name.items() if name in names)}
            one_name |= dict.fromkeys(joined, min(names))
    # Nor is any of a chain the same as the others when two of it gave different things, on the machines of the others.
    vouched = {(one_name.get(entry.code), _machines(entry)) for entry in exact}
    doubtful = {
        one_name.get(entry.code)
        for entry in other
        if entry.code != entry.recorded_code
        and one_name.get(entry.code) == one_name.get(entry.recorded_code)
        and (one_name.get(entry.code), _machines(entry)) in vouched
    }
    return {code: name for code, name in one_name.items() if name not in doubtful}


def _circumstances(entry: Reproduction) -> tuple[str, str, str]:
    return entry.recorded_code, entry.code, _machines(entry)


def _machines(entry: Reproduction) -> str:
    machines = [entry.recorded_device, entry.device, entry.threads, entry.versions]
    return json.dumps(machines, sort_keys=True)
