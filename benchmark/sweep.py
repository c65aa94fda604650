"""Running a suite on this machine: jobs in processes of their own, finished runs kept, failures listed.

A job is one model on one fold of one dataset with one seed: what shares a pretraining. Jobs that share a teacher wait
for each other at the artifact store, where the first one trains it. A job that dies takes nothing else with it. Sweeps
that write the same results side by side share the jobs: each takes those that no other is running.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from .dataset import Dataset, open_dataset
from .decoder import DECODERS
from .errors import OptionError, RealmbenchError
from .files import cache_dir, lock_if_free, write_text_whole
from .machine import limited_threads
from .options import leaves, parse_settings
from .plan import Plan, RunRequest, make_plan
from .records import read_record, record_path, same_code
from .runner import Events, FailedRunsError, SessionBank, run
from .seeds import stable_hash
from .suite import Suite

if TYPE_CHECKING:
    from filelock import BaseFileLock

# Seconds until a sweep looks again for jobs that others had begun.
LOOK_AGAIN_S = 5.0


@dataclass(frozen=True)
class Job:
    """One process's work.

    Attributes
    ----------
    request : names one fold's sessions and one seed.
    full_name, config_hash : of the dataset and of all options, as records have them.
    recorded : how many of its runs have a record of the same options and code; data are compared when it runs.
    """

    dataset: str
    data_options: dict[str, Any]
    fold: str
    request: RunRequest
    front_end: str
    full_name: str
    config_hash: str
    sessions: tuple[str, ...]
    recorded: int

    @property
    def name(self) -> str:
        """Say in a line what it is."""
        request = self.request
        [seed] = request.seed_numbers
        settings = f" {stable_hash([request.options, request.train], 6)}" if request.options or request.train else ""
        what = f"{request.model} ({request.preset}{settings})"
        return f"{what} on {self.dataset}, {request.protocol}, {self.front_end}, fold {self.fold}, seed {seed}"


@dataclass(frozen=True)
class Outcome:
    """What became of a job; ``reason`` and ``log`` are for those that failed."""

    job: Job
    status: Literal["done", "failed"]
    seconds: float
    reason: str
    log: Path


def plan_jobs(
    suite: Suite, results_dir: Path, data_root: Path | None, fresh: bool = False, device: str | None = None
) -> list[Job]:
    """Resolve a suite into jobs, refusing before anything is computed what cannot be run.

    Parameters
    ----------
    device : where decoders run that can use another device than the CPU, instead of where the suite says.

    Raises
    ------
    RealmbenchError : as `make_plan`; the message names the entry.
    """
    jobs: list[Job] = []
    places: set[Path] = set()
    opened: dict[str, Dataset] = {}
    moved = False
    for entry, dataset_name, model in suite.pairs():
        settings = parse_settings(list(entry.settings))
        key = json.dumps([dataset_name, settings["data"]], sort_keys=True)
        if key not in opened:
            opened[key] = open_dataset(dataset_name, data_root, settings["data"])
        dataset = opened[key]
        request = RunRequest(
            model=model,
            protocol=entry.protocol,
            front_end=entry.front_end,
            preset=entry.preset,
            sessions=entry.sessions,
            seeds=entry.seeds,
            device=entry.device,
            options=settings["decoder"],
            train=settings["train"],
            suite=suite.name,
            fresh=fresh,
        )
        try:
            if device is not None and DECODERS.get(model).accelerated:
                request, moved = replace(request, device=device), True
            plan = make_plan(request, dataset)
            _refuse_other_words(settings, plan, dataset)
        except RealmbenchError as error:
            raise type(error)(f"suite {suite.name}, {model} on {dataset_name}: {error}") from error
        for fold in plan.folds:
            for seed in request.seed_numbers:
                recorded = 0
                for session in fold.held_out:
                    path = record_path(results_dir, plan.suite, *plan.place(dataset), session, seed)
                    if path in places:
                        raise OptionError(
                            f"suite {suite.name} lists {model} on {dataset_name}, {session}, seed {seed} twice"
                        )
                    places.add(path)
                    recorded += _recorded(path, plan)
                jobs.append(
                    Job(
                        dataset=dataset_name,
                        data_options=settings["data"],
                        fold=fold.name,
                        request=replace(request, sessions=fold.held_out, seeds=(seed,)),
                        front_end=plan.front_end.name,
                        full_name=dataset.full_name,
                        config_hash=plan.config_hash,
                        sessions=fold.held_out,
                        recorded=0 if fresh else recorded,
                    )
                )
    if device is not None and not moved:
        raise OptionError(f"--device {device}: no model that is to run can use it; leave it out")
    return jobs


def _refuse_other_words(settings: Mapping[str, Any], plan: Plan, dataset: Dataset) -> None:
    """Refuse settings by whose words what is recorded would not be found: questions and tables look for it by them."""
    data = {"data": dataset.changed_options}
    changed, values = {*plan.changed_options, *leaves(data)}, leaves({**plan.config, **data})
    for name, value in leaves(settings).items():
        if name not in changed:
            raise OptionError(
                f"set {name} is what it is without, and the runs those of the plain method; leave it out, "
                "if need be by a [[runs]] of this model's own"
            )
        if values[name] != value:
            raise OptionError(f"set {name}={value} means {json.dumps(values[name])}; write that")


def _recorded(path: Path, plan: Plan) -> bool:
    if not path.exists():
        return False
    try:
        record = read_record(path)
    except RealmbenchError:
        return False
    return record.config_hash == plan.config_hash and same_code(path.parent, record.code, plan.code)


def run_jobs(
    jobs: Sequence[Job],
    results_dir: Path,
    data_root: Path | None,
    processes: int,
    threads: int = 1,
    on_start: Callable[[Job], None] = lambda _job: None,
    on_end: Callable[[Outcome], None] = lambda _outcome: None,
) -> list[Outcome]:
    """Run jobs, each in a fresh process, ``processes`` at a time, and return what became of them in order of ending.

    What has no record yet comes first. Each process uses ``threads`` torch threads; small networks are fastest with
    one. An interruption ends the running jobs; finished runs are kept, and the next call goes on from there.
    """
    # A job whose runs all have records is only looked at, in case its data have changed: it can wait.
    jobs = sorted(jobs, key=lambda job: job.recorded == len(job.sessions))
    jobs = [replace(job, request=replace(job.request, processes=processes)) for job in jobs]
    for name, value in (("processes", processes), ("threads", threads)):
        if value < 1:
            raise OptionError(f"--{name} {value}: at least one is needed")
    begun = time.time()
    context = multiprocessing.get_context("spawn")  # a forked torch may deadlock in its thread pool
    logs = cache_dir() / "sweeps"
    logs.mkdir(parents=True, exist_ok=True)
    place = str(results_dir.resolve())
    waiting = [
        (job, logs / f"{stable_hash([job.request.suite, job.name, job.data_options, place])}.log") for job in jobs
    ]
    outcomes: list[Outcome] = []
    running: dict[int, _Running] = {}
    try:
        while waiting or running:
            while len(running) < processes and (taken := _take(waiting)):
                job, log, lock = taken
                if job.request.fresh and _done_since(log, begun):
                    job = replace(job, request=replace(job.request, fresh=False))
                _verdict(log).unlink(missing_ok=True)
                process = context.Process(target=_work, args=(job, results_dir, data_root, log, threads))
                with _left_to_the_parent():
                    process.start()
                running[process.sentinel] = _Running(job, process, log, lock, time.monotonic())
                on_start(job)
            if not running:  # all that is left is run by other sweeps
                time.sleep(LOOK_AGAIN_S)
            for sentinel in wait(list(running), LOOK_AGAIN_S if waiting else None):
                ended = running.pop(cast(int, sentinel))
                ended.process.join()
                outcomes.append(_outcome(ended))
                ended.lock.release()  # after its verdict is read: another sweep may try the job again
                on_end(outcomes[-1])
    finally:
        for unfinished in running.values():
            unfinished.process.terminate()
            unfinished.process.join()
            unfinished.lock.release()
    return outcomes


class _Running(NamedTuple):
    """A job at work, and the lock that keeps other sweeps from it."""

    job: Job
    process: BaseProcess
    log: Path
    lock: BaseFileLock
    started: float


def _take(waiting: list[tuple[Job, Path]]) -> tuple[Job, Path, BaseFileLock] | None:
    """Take the first job that no other sweep is running; None if there is none."""
    for index, (job, log) in enumerate(waiting):
        lock = lock_if_free(log)
        if lock is not None:
            del waiting[index]
            return job, log, lock
    return None


@contextmanager
def _left_to_the_parent() -> Iterator[None]:
    """Let processes started inside ignore Ctrl-C, which a terminal sends to all: the parent ends them itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _verdict(log: Path) -> Path:
    return log.with_suffix(".json")


def _done_since(log: Path, begun: float) -> bool:
    """Say whether another sweep that began afresh has done a job, with success, since a time."""
    path = _verdict(log)
    if not path.exists() or path.stat().st_mtime <= begun:
        return False
    verdict = json.loads(path.read_text())
    return bool(verdict["fresh"]) and not verdict["reason"]


def _outcome(ended: _Running) -> Outcome:
    seconds = time.monotonic() - ended.started
    try:
        reason = json.loads(_verdict(ended.log).read_text())["reason"]
    except FileNotFoundError:
        # Killed from outside, most often for want of memory, or ended by a decoder: it could not say why.
        reason = f"the process ended with code {ended.process.exitcode} without a word (out of memory? exited?)"
    return Outcome(ended.job, "failed" if reason else "done", seconds, reason, ended.log)


def _work(job: Job, results_dir: Path, data_root: Path | None, log: Path, threads: int) -> None:
    """Run one job in a process of its own; what it prints goes to its log, and last of all its verdict is written."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    reason = ""
    with log.open("w", encoding="utf-8", buffering=1) as file:
        sys.stdout = sys.stderr = file
        try:
            dataset = open_dataset(job.dataset, data_root, job.data_options)
            events = Events(
                done=lambda record, reused: print(
                    f"{record.session} seed {record.seed}: R2 {record.metrics['r2_axis_mean']:.3f}"
                    + (" (finished before)" if reused else ""),
                ),
                failed=lambda path, reason: print(f"failed: {reason} ({path})"),
                note=print,
            )
            with limited_threads(threads):
                run(make_plan(job.request, dataset), dataset, results_dir, events, SessionBank(dataset, events.stage))
        except (Exception, SystemExit) as error:  # whoever exits, it is no success
            if not isinstance(error, FailedRunsError):
                traceback.print_exc()
            reason = str(error) or type(error).__name__
        write_text_whole(_verdict(log), json.dumps({"reason": reason, "fresh": job.request.fresh}))


def _end_with_parent() -> None:
    """End this process when the sweep's does, however that ends: nobody would be there to take its verdict."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as JSON values."""
    return {**asdict(outcome), "job": outcome.job.name, "log": str(outcome.log)}
