"""Costs: percentiles of a stream of known time, bytes of known streams, a peak that is the run's own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from realmbench import cost
from realmbench.baselines.mean import Mean
from realmbench.decoder import Stream
from realmbench.front_end import front_end
from realmbench.session import Session


class Sleepy(Mean):
    """Takes a millisecond for most steps and five for every tenth."""

    def stream(self, session: Session) -> Stream:
        class Sleeps(Stream):
            count = 0

            def step(self, frame: np.ndarray) -> np.ndarray:
                self.count += 1
                time.sleep(0.005 if self.count % 10 == 0 else 0.001)
                return np.zeros(2)

        return Sleeps()


def test_percentiles_are_those_of_the_steps(session_maker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "LONGEST_S", 0.1)
    found = cost.decoder_latency(Sleepy("tiny"), session_maker(), "a machine")
    assert found.protocol == "step-v1"
    assert (found.steps, found.warm_up, found.threads, found.device) == (200, 200, 1, "a machine")
    # Sleeping never ends early: lower bounds hold on any machine, however busy.
    assert found.p50 >= 1000
    assert found.p95 >= 5000
    assert found.p50 <= found.p95 <= found.p99


def test_front_end_is_timed_on_the_samples_of_one_frame() -> None:
    few, many = (cost.front_end_latency(front_end("bands50"), channels, 1000.0, "here") for channels in (1, 256))
    assert few.steps == 2000
    # 256 times the work in the same number of calls: no machine is so busy that this turns round.
    assert many.p50 > few.p50


class Holder:
    def __init__(self, **things: object) -> None:
        self.__dict__.update(things)


def test_held_bytes_follows_every_way_to_memory() -> None:
    array, tensor = np.zeros(100, np.float64), torch.zeros(50)

    def beyond_nothing(**things: object) -> int:
        """Leave out names, and eight bytes for each, of an object that holds numbers in their place."""
        return cost.held_bytes(Holder(**things)) - cost.held_bytes(Holder(**dict.fromkeys(things, 0)))

    assert beyond_nothing(a=array) == 800
    assert beyond_nothing(a=array, again=array) == 800
    # A view keeps the whole buffer alive, and two views keep it once.
    assert beyond_nothing(a=array[:2]) == 800
    assert beyond_nothing(t=tensor[:1]) == 200
    assert beyond_nothing(views=[array[:10], array[10:20]]) == 800 + 2 * 8
    assert beyond_nothing(views=(tensor[:10], tensor[10:20])) == 200 + 2 * 8
    assert beyond_nothing(q=deque([array, tensor])) == 800 + 200 + 2 * 8
    assert beyond_nothing(inner=Holder(d=array)) == 800 + 8


class Slotted:
    __slots__ = ("kept",)


def test_state_in_slots_closures_and_generators_is_found() -> None:
    slotted = Slotted()
    slotted.kept = np.zeros(100)
    assert cost.held_bytes(slotted) == 800

    array = np.zeros(200)

    def closed() -> float:
        return float(array.sum())

    assert cost.held_bytes(Holder(f=closed)) >= 1600

    def generate() -> Iterator[int]:
        kept = np.zeros(300)
        yield len(kept)

    running = generate()
    next(running)
    assert cost.held_bytes(Holder(g=running)) >= 2400
    assert cost.held_bytes(Holder(b=bytearray(5000))) >= 5000


def test_peak_memory_is_that_of_the_run_where_the_system_allows() -> None:
    big = np.ones(30_000_000)  # 240 MB, touched and freed before the run begins
    before = cost.PeakMemory()
    with_big = before.megabytes()
    del big
    memory = cost.PeakMemory()
    if not memory.of_run:
        pytest.skip("this system cannot reset a process's peak")
    assert memory.megabytes() < with_big - 200
    touched = np.ones(15_000_000)
    assert memory.megabytes() > touched.nbytes / 1e6
