"""How long a sweep will take, by what the runs of its suite took that have a record."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median

from .machine import device_description
from .records import RunRecord, recorded_name
from .sweep import Job


def expected_seconds(jobs: Sequence[Job], records: Sequence[RunRecord]) -> list[float | None]:
    """Return for each job the seconds that its runs without a record will take one process; None where nothing tells.

    Medians of training and predicting over the records of the same model, preset, protocol and front end on the same
    device: of the same options where there are any, and of the same dataset then. Pretraining counts where a job has no
    record; where it has some, what they were pretrained with is taken to be in the cache. Loading, simulation and the
    front end are not counted, a teacher that two jobs share is counted twice.
    """
    devices = {name: device_description(name) for name in {job.request.device for job in jobs}}
    seconds = []
    for job in jobs:
        request = job.request
        kind = (recorded_name(request.model), request.preset, request.protocol, job.front_end, devices[request.device])
        alike = [r for r in records if (r.model, r.preset, r.protocol, r.front_end, r.device) == kind]
        seconds.append(_seconds(job, alike))
    return seconds


def in_words(jobs: Sequence[Job], seconds: Sequence[float | None], processes: int) -> str:
    """Say how long jobs will take, and of which nothing is known; nothing where all is done."""
    known = _elapsed([value for value in seconds if value], processes)
    unknown = Counter[str]()
    for job, value in zip(jobs, seconds):
        if value is None:
            unknown[job.request.model] += len(job.sessions) - job.recorded
    sentences = []
    if known:
        at_once = f" with {processes} processes" if processes > 1 else ""
        sentences.append(f"About {duration(known)}{at_once}, by this suite's records on this machine.")
    if unknown:
        what = ", ".join(f"{count} of {model}" for model, count in unknown.items())
        sentences.append(f"Runs of which no record tells how long they take: {what}.")
    return " ".join(sentences)


def duration(seconds: float) -> str:
    """Return seconds as a person would say them."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _elapsed(seconds: Sequence[float], processes: int) -> float:
    """Return when the last of several jobs ends, each taken by the process that is free first."""
    free = [0.0] * processes
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def _seconds(job: Job, alike: Sequence[RunRecord]) -> float | None:
    left = len(job.sessions) - job.recorded
    if not left:
        return 0.0
    alike = _those(alike, lambda record: record.config_hash == job.config_hash)
    alike = _those(alike, lambda record: record.dataset == job.full_name)
    if not alike:
        return None
    pretraining = median(sum(use.seconds for use in record.artifacts) for record in alike)
    return left * median(_own_seconds(record) for record in alike) + (0.0 if job.recorded else pretraining)


def _those(records: Sequence[RunRecord], wanted: Callable[[RunRecord], bool]) -> Sequence[RunRecord]:
    """Return the wanted ones, or all where there are none."""
    return [record for record in records if wanted(record)] or records


def _own_seconds(record: RunRecord) -> float:
    """Sum what adapting and predicting took at every point of the curve."""
    return sum(sum(seconds.values()) for seconds in (record.seconds, *(point.seconds for point in record.curve)))
