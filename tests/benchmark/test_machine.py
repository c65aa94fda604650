"""The machine: how many threads compute, and that they are given back."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import scipy.linalg  # noqa: F401  # else it is loaded inside, and more pools are there afterwards
import torch
from threadpoolctl import threadpool_info

from realmbench.files import cache_dir, default_data_root
from realmbench.machine import device_description, limited_threads


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


def test_libraries_that_are_loaded_inside_are_limited_too() -> None:
    """In a process of its own: scipy's linear algebra is loaded at its first use."""
    program = (
        "from realmbench.machine import limited_threads\n"
        "with limited_threads(1):\n"
        "    import scipy.linalg\n"
        "    from threadpoolctl import threadpool_info\n"
        "    pools = [pool for pool in threadpool_info() if pool['user_api'] == 'blas']\n"
        "    assert len(pools) > 1, pools\n"
        "    assert {pool['num_threads'] for pool in pools} == {1}, pools\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "3"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_devices_that_are_neither_cpu_nor_cuda_are_told_from_the_cpu() -> None:
    assert device_description("mps") == f"mps of {device_description('cpu')}"


def test_empty_variables_name_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REALMBENCH_CACHE", "REALMBENCH_DATA", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
    assert cache_dir() == Path.home() / ".cache" / "realmbench"
    assert default_data_root() == cache_dir() / "data"
