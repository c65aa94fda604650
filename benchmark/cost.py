"""What a decoder costs where it runs: time of a streaming step, memory of a stream, peak memory of a run.

Timing protocol ``step-v1``: batch 1, eager mode, one thread, garbage collection off, frames of noise already in memory;
200 steps of warm-up, then up to 2,000 steps timed one by one (fewer where they would take longer than five seconds,
never fewer than 200). A step begins with a normalised frame in main memory and ends with the prediction in main memory,
so that on a GPU the transfers and the wait for it are inside. The front end is timed alike, by itself, on the raw
samples of one frame at a time.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import BuiltinFunctionType, FrameType, FunctionType, GeneratorType, ModuleType
from typing import Any

import numpy as np

from .decoder import Decoder
from .front_end import FrontEnd
from .machine import limited_threads
from .records import Latency
from .session import Session

TIMING_PROTOCOL = "step-v1"
WARM_UP_STEPS = 200
# Seconds of frames after which every window and ring of a stream is full.
FILLING_S = 10.0
TIMED_STEPS, FEWEST_STEPS = 2_000, 200
LONGEST_S = 5.0
NOT_OWNED = (type, ModuleType, BuiltinFunctionType, FrameType)


def decoder_latency(decoder: Decoder, session: Session, device: str) -> Latency:
    """Time the streaming steps of a fitted decoder."""
    frames = np.random.default_rng(0).standard_normal((64, session.channels, session.features)).astype(np.float32)
    running = decoder.stream(session)
    for step in range(running.delay):  # what a delayed one does before its first prediction is no whole step
        running.step(frames[step % len(frames)])
    return _timed(lambda step: running.step(frames[step % len(frames)]), device)


@lru_cache
def front_end_latency(front_end: FrontEnd, channels: int, sampling_rate: float, device: str) -> Latency:
    """Time the front end's stream, one frame's raw samples at a time; once per process."""
    count = int(np.ceil(sampling_rate / front_end.rate))
    samples = 50 * np.random.default_rng(0).standard_normal((8, count, channels)).astype(np.float32)
    running = front_end.stream(channels, sampling_rate)
    return _timed(lambda step: running.push(samples[step % len(samples)]), device)


def _timed(step: Callable[[int], Any], device: str) -> Latency:
    with limited_threads(1), _without_collection():
        for index in range(WARM_UP_STEPS):
            step(index)
        microseconds: list[float] = []
        begun = time.perf_counter()
        while len(microseconds) < TIMED_STEPS:
            started = time.perf_counter_ns()
            step(len(microseconds))
            microseconds.append((time.perf_counter_ns() - started) / 1e3)
            if len(microseconds) >= FEWEST_STEPS and time.perf_counter() - begun > LONGEST_S:
                break
    p50, p95, p99 = np.percentile(microseconds, (50, 95, 99)).round(1)
    return Latency(
        protocol=TIMING_PROTOCOL,
        p50=p50,
        p95=p95,
        p99=p99,
        steps=len(microseconds),
        threads=1,
        device=device,
        warm_up=WARM_UP_STEPS,
    )


@contextmanager
def _without_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def held_bytes(root: object) -> int:
    """Count the bytes of every array, tensor and text, and eight per item of every container, that an object reaches.

    Slots, closures and suspended generators are followed; classes, modules and what functions find in their module are
    not an object's own. Memory that several views share counts once.
    """
    seen: set[int] = set()
    kept: list[object] = []  # a temporary must not be freed while its address counts as seen
    pending, total = [root], 0
    while pending:
        item = pending.pop()
        if id(item) in seen or isinstance(item, NOT_OWNED):
            continue
        seen.add(id(item))
        kept.append(item)
        if isinstance(item, np.ndarray):
            if item.base is not None:
                pending.append(item.base)  # whoever owns the memory counts it
            else:
                total += item.nbytes
        elif hasattr(item, "untyped_storage"):
            storage = item.untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                total += storage.nbytes()
        elif isinstance(item, (bytes, bytearray, str)):
            total += len(item)
        elif isinstance(item, FunctionType):
            pending += [item.__defaults__, item.__closure__]
        elif isinstance(item, GeneratorType):
            pending += list(item.gi_frame.f_locals.values()) if item.gi_frame is not None else []
        else:
            if isinstance(item, (list, tuple, set, frozenset, dict, deque)):
                total += 8 * len(item)
            pending += gc.get_referents(item)
    return total


def stream_bytes(decoder: Decoder, session: Session) -> int:
    """Return the bytes that a running stream holds, weights included, once its memory is full."""
    running, frame = decoder.stream(session), np.zeros((session.channels, session.features), np.float32)
    for _ in range(round(FILLING_S * session.rate) + running.delay):
        running.step(frame)
    return held_bytes(running)


class PeakMemory:
    """The largest resident memory of this process since this object was made.

    Linux lets a process reset its own mark; elsewhere `of_run` is False and the mark is since the process began.
    """

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.of_run = True
        except OSError:
            self.of_run = False

    def megabytes(self) -> float:
        """Return the mark in MB."""
        if self.of_run:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return round(int(line.split()[1]) * 1024 / 1e6, 1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # macOS counts bytes, Linux kilobytes.
        return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)
