"""Torch's settings of the whole process: whoever changes them is named, and the next finds them as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from realmbench.dataset import Dataset
from realmbench.errors import RealmbenchError
from realmbench.records import RunRecord, read_records
from realmbench.runner import FailedRunsError
from realmbench.shared_settings import settings_left_alone

CHANGES = {
    "default precision from torch.float32 to torch.float64": lambda: torch.set_default_dtype(torch.float64),
    "default device from cpu to meta": lambda: torch.set_default_device("meta"),
    "precision of products from highest to medium": lambda: torch.set_float32_matmul_precision("medium"),
    "recording of gradients from True to False": lambda: torch.set_grad_enabled(False),
    "number of threads from 1 to 3": lambda: torch.set_num_threads(3),
}

DOUBLE = """
import torch
from realmbench.baselines.mean import Mean

class Double(Mean):
    "Changes the precision of all."
    def {method}:
        torch.set_default_dtype(torch.float64)
        return super().{call}
"""


def state() -> list[Any]:
    return [
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.get_float32_matmul_precision(),
    ]


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_setting_is_named_and_put_back(what: str) -> None:
    def change(then: Exception | None = None) -> None:
        with settings_left_alone("mine"):
            CHANGES[what]()
            assert state() != before
            if then is not None:
                raise then

    before = state()
    with pytest.raises(RealmbenchError, match=f"mine has set torch's {what}: everything"):
        change()
    assert state() == before
    with pytest.raises(ValueError, match="its own"):  # which says more
        change(ValueError("its own"))
    assert state() == before


def test_what_is_put_back_by_its_own_code_is_nobodys_business() -> None:
    with settings_left_alone("mine"), torch.no_grad():
        pass


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("adapt(self, session, context, artifact=None)", "adapt(session, context, artifact)"),
        ("predict(self, x, session)", "predict(x, session)"),
    ],
)
def test_the_next_decoder_of_a_run_computes_as_alone(
    method: str, call: str, toy: Dataset, tmp_path: Path, execute: Callable[..., list[RunRecord]]
) -> None:
    file = tmp_path / "own.py"
    file.write_text(DOUBLE.format(method=method, call=call))
    results = tmp_path / "results"
    with pytest.raises(FailedRunsError, match=r"own\.py:Double has set torch's default precision from"):
        execute(toy, results, model=f"{file}:Double", sessions=["a2"])
    assert read_records(results) == []
    assert torch.get_default_dtype() is torch.float32


def test_nothing_runs_behind_a_file_that_changes_settings_on_import(
    toy: Dataset, tmp_path: Path, execute: Callable[..., list[RunRecord]]
) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "import torch\nfrom realmbench.baselines.mean import Mean\n"
        "torch.set_default_dtype(torch.float64)\nclass Own(Mean):\n    'Own.'\n"
    )
    try:
        for model in (f"{file}:Own", "wiener"):
            with pytest.raises(FailedRunsError, match=r"default precision is torch\.float64 instead of torch\.float32"):
                execute(toy, tmp_path / "results", model=model, sessions=["a2"])
    finally:
        torch.set_default_dtype(torch.float32)
    assert read_records(tmp_path / "results") == []
    assert execute(toy, tmp_path / "results", model="wiener", sessions=["a2"])
