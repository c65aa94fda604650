"""Code that is not ours: it is named when it exits or changes a setting, and the next finds all as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from realmbench.dataset import Dataset
from realmbench.errors import RealmbenchError
from realmbench.others_code import others_code
from realmbench.records import RunRecord, read_records
from realmbench.runner import FailedRunsError

CHANGES = {
    "default precision from torch.float32 to torch.float64": lambda: torch.set_default_dtype(torch.float64),
    "default device from cpu to meta": lambda: torch.set_default_device("meta"),
    "recording of gradients from True to False": lambda: torch.set_grad_enabled(False),
    "float32 matmul precision from highest to medium": lambda: torch.set_float32_matmul_precision("medium"),
    "float32 matmul precision from highest to mixed": lambda: setattr(
        torch.backends.cuda.matmul, "fp32_precision", "tf32"
    ),
    "use of deterministic algorithms from False to True": lambda: torch.use_deterministic_algorithms(True),
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
        torch._C._len_torch_function_stack(),  # a default device adds a mode that all operations go through
        torch.is_grad_enabled(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
    ]


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_setting_is_named_and_put_back(what: str) -> None:
    def change(then: Exception | None = None) -> None:
        with others_code("mine"):
            CHANGES[what]()
            if then is not None:
                raise then

    before = state()
    with pytest.raises(RealmbenchError, match=f"mine has set torch's {what} for the whole process"):
        change()
    assert state() == before
    with pytest.raises(ValueError, match="its own"):  # which says more
        change(ValueError("its own"))
    assert state() == before


def test_what_is_put_back_by_its_own_code_is_nobodys_business() -> None:
    with others_code("mine"), torch.no_grad():
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


def test_settings_changed_on_import_are_refused(
    toy: Dataset, tmp_path: Path, execute: Callable[..., list[RunRecord]]
) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "import torch\nfrom realmbench.baselines.mean import Mean\n"
        "torch.set_default_dtype(torch.float64)\nclass Own(Mean):\n    'Own.'\n"
    )
    with pytest.raises(RealmbenchError, match=r"own\.py:Own has set torch's default precision from torch\.float32"):
        execute(toy, tmp_path / "results", model=f"{file}:Own", sessions=["a2"])
    assert execute(toy, tmp_path / "results", model="wiener", sessions=["a2"])
    torch.set_default_dtype(torch.float64)  # by somebody whom nobody watched
    try:
        with pytest.raises(RealmbenchError, match=r"default precision is torch\.float64 for the whole process"):
            execute(toy, tmp_path / "results", model="mean", sessions=["a2"])
    finally:
        torch.set_default_dtype(torch.float32)
    assert [record.model for record in read_records(tmp_path / "results")] == ["wiener"]


def test_exits_are_errors_and_prints_no_answers(capsys: pytest.CaptureFixture[str]) -> None:
    def leave() -> None:
        with others_code("mine"):
            print("hello")
            raise SystemExit("no licence")

    with pytest.raises(RealmbenchError, match="mine exits instead of raising an error: SystemExit: no licence"):
        leave()
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello\n")


def test_a_stage_trained_under_other_settings_is_not_kept(
    toy: Dataset, tmp_path: Path, execute: Callable[..., list[RunRecord]]
) -> None:
    """A stage that decoders share would be taken from the store by the next, or by the same at a second try."""
    file = tmp_path / "own.py"
    file.write_text(
        "import torch\nfrom realmbench.decoder import DECODERS\n"
        "class Own(DECODERS.get('realm-pooled')):\n    'Shares its stage.'\n"
        "    def pretrain(self, sessions, context):\n"
        "        torch.set_float32_matmul_precision('medium')\n"
        "        return super().pretrain(sessions, context)\n"
    )
    short = {"student": {"updates": 7, "window_s": 1.0}, "finetune": {"updates": 1}}
    store = tmp_path / "store"
    for _ in range(2):
        with pytest.raises(FailedRunsError, match="torch's float32 matmul precision is medium"):
            execute(toy, tmp_path / "results", model=f"{file}:Own", sessions=["a2"], train=short, store=store)
    assert not list(store.rglob("*.safetensors"))
