"""The machine: how many threads compute, and that they are given back."""

from __future__ import annotations

import contextlib

import torch
from threadpoolctl import threadpool_info

from realmbench.machine import limited_threads


def test_threads_are_limited_inside_and_given_back() -> None:
    torch.set_num_threads(2)
    outside = threadpool_info()
    try:
        with limited_threads(1):
            assert torch.get_num_threads() == 1
            assert {pool["num_threads"] for pool in threadpool_info()} == {1}
        with contextlib.suppress(ZeroDivisionError), limited_threads(3):
            assert torch.get_num_threads() == 3
            raise ZeroDivisionError
        assert torch.get_num_threads() == 2
        assert threadpool_info() == outside
    finally:
        torch.set_num_threads(1)
