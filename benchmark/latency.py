"""Latency of a decoder's streaming step: a first, simple measurement under a versioned protocol.

``step-v0``: batch 1, eager, one thread, frames of noise already in memory, 100 steps of warm-up, then 500 steps timed
one by one. Front end and transport are not in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from .decoder import Decoder
from .records import Latency
from .session import Session

LATENCY_PROTOCOL = "step-v0"
WARM_UP_STEPS = 100
TIMED_STEPS = 500


def measure_latency(decoder: Decoder, session: Session, device: str) -> Latency:
    """Time the streaming steps of a fitted causal decoder."""
    with one_thread():
        return _timed(decoder, session, device)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside: at batch 1 a second one only waits for the first."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _timed(decoder: Decoder, session: Session, device: str) -> Latency:
    generator = np.random.default_rng(0)
    frames = generator.standard_normal((64, session.channels, session.features)).astype(np.float32)
    running = decoder.stream(session)
    for index in range(WARM_UP_STEPS):
        running.step(frames[index % len(frames)])
    microseconds = np.empty(TIMED_STEPS)
    for index in range(TIMED_STEPS):
        started = time.perf_counter_ns()
        running.step(frames[index % len(frames)])
        microseconds[index] = (time.perf_counter_ns() - started) / 1e3
    p50, p95, p99 = np.percentile(microseconds, (50, 95, 99)).round(1)
    return Latency(protocol=LATENCY_PROTOCOL, p50=p50, p95=p95, p99=p99, steps=TIMED_STEPS, threads=1, device=device)
