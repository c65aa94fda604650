"""Costs: percentiles of a stream of known time, bytes of known streams, a peak that is the run's own."""

from __future__ import annotations

import time
from collections import deque
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
    assert cost.front_end_latency(front_end("bands50"), 4, 1000.0, "here").p50 > 0


def test_threads_are_given_back(session_maker: Any) -> None:
    torch.set_num_threads(2)
    try:
        with cost._one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


class Holder:
    def __init__(self, **things: object) -> None:
        self.__dict__.update(things)


def test_held_bytes_follows_every_way_to_memory() -> None:
    array, tensor = np.zeros(100, np.float64), torch.zeros(50)
    assert cost.held_bytes(Holder(a=array)) == 800
    assert cost.held_bytes(Holder(a=array, again=array)) == 800
    # A view keeps the whole buffer alive.
    assert cost.held_bytes(Holder(a=array[:2])) == 800
    assert cost.held_bytes(Holder(t=tensor[:1])) == 200
    assert cost.held_bytes(Holder(inner=Holder(d={"x": array}))) == 808
    assert cost.held_bytes(Holder(q=deque([array, tensor]))) == 1016


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
