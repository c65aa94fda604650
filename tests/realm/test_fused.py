"""mamba-ssm's kernels give our scan: on a GPU where there is one, and in Triton's interpreter where that exists."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from realmbench.machine import ready_device
from realmbench.realm import fused
from realmbench.realm.ssd import rotary_angles, ssd_chunked, ssd_sequential

# The interpreter runs kernels on the CPU, but neither mamba-ssm's import nor the autotuner expects that: the package is
# imported past its compiled part, and each kernel takes the first of its configurations.
INTERPRETED = """
import contextlib, importlib.util, sys, types
import torch, triton

class First:
    def __init__(self, kernel, configs):
        self.kernel, self.configs, self.best_config = kernel, configs, configs[0]

    def __getitem__(self, grid):
        def launch(*arguments, **named):
            if self.best_config.pre_hook:
                self.best_config.pre_hook({**dict(zip(self.kernel.arg_names, arguments)), **named})
            return self.kernel[grid](*arguments, **{**self.best_config.kwargs, **named})
        return launch

triton.autotune = lambda configs, key=None, **others: lambda kernel: First(kernel, configs)
torch.cuda.device = lambda *index: contextlib.nullcontext()
torch.cuda._lazy_init = lambda: None
torch.cuda.get_device_properties = lambda device: types.SimpleNamespace(multi_processor_count=4)
package = types.ModuleType("mamba_ssm")
package.__path__ = list(importlib.util.find_spec("mamba_ssm").submodule_search_locations)
sys.modules["mamba_ssm"] = package

from realmbench.realm import fused
from realmbench.realm.ssd import rotary_angles, ssd_sequential

fused.CHUNK = 32
for rotary in (False, True):
    for groups in (1, 2):
        torch.manual_seed(groups)
        x, B, C = torch.randn(1, 70, 4, 16), torch.randn(1, 70, groups, 16), torch.randn(1, 70, groups, 16)
        rates = -torch.nn.functional.softplus(torch.randn(1, 70, 4))
        parts = [part.requires_grad_() for part in (x, rates, B, C)]
        angles = rotary_angles(16, torch.device("cpu")) if rotary else None
        y, state = fused.ssd_fused(fused.kernels(), *parts, angles)
        expected, last = ssd_sequential(*(part.double() for part in parts), angles)
        assert (y - expected).abs().max() < 1e-5 * expected.abs().max()
        assert (state - last).abs().max() < 1e-5 * last.abs().max()
        weights = torch.randn_like(y)
        ours, theirs = (torch.autograd.grad((out * weights).sum(), parts) for out in (y, expected))
        for a, b in zip(ours, theirs):
            assert (a - b).abs().max() < 1e-5 * b.abs().max()
"""


def inputs(device: str, length: int = 300, heads: int = 4, width: int = 32, size: int = 32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, B, C = (torch.randn(2, length, *part, generator=generator) for part in ((heads, width), (1, size), (1, size)))
    rates = -torch.nn.functional.softplus(torch.randn(2, length, heads, generator=generator))
    return [part.to(device) for part in (x, rates, B, C)]


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("triton", "mamba_ssm")),
    reason="needs triton and mamba-ssm (extra cuda); no GPU",
)
def test_kernels_in_the_interpreter_equal_the_recurrence() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stderr


def kernels_on_a_gpu() -> Callable[..., Any]:
    """The kernels as a run has them.

    Imported before deterministic ones are asked for they would try all their tiles, which takes minutes of compiling.
    """
    ready_device("cuda")
    kernel = fused.kernels()
    assert kernel is not None
    return kernel


@pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("mamba_ssm") is None, reason="needs a GPU and mamba-ssm"
)
@pytest.mark.parametrize("rotary", [False, True])
def test_kernels_on_a_gpu_equal_the_recurrence(rotary: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """At the published shape. Triton rounds factors to ten bits, unless TRITON_F32_DEFAULT=ieee is set."""
    exact = os.environ.get("TRITON_F32_DEFAULT") == "ieee"
    parts = [part.requires_grad_() for part in inputs("cuda", heads=8, width=64, size=64)]
    angles = rotary_angles(64, torch.device("cuda")) if rotary else None
    kernel = kernels_on_a_gpu()
    y, state = fused.ssd_fused(kernel, *parts, angles)
    expected, last = ssd_sequential(*(part.double() for part in parts), angles)
    weights = torch.randn_like(y)
    found = [y.detach(), state.detach(), *torch.autograd.grad((y * weights).sum(), parts)]
    wanted = [expected.detach(), last.detach(), *torch.autograd.grad((expected * weights).sum(), parts)]
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(found, wanted)]
    with capsys.disabled():
        print(
            f"\nTriton's scan, {'single' if exact else 'TF32'}, rotary {rotary}: "
            + " ".join(f"{e:.1e}" for e in errors)
        )
    assert max(errors) < (1e-5 if exact else 5e-3)
    # An error that matters is seen: the outputs of the step before are far away.
    assert float((found[0][:, 1:] - wanted[0][:, :-1]).norm() / wanted[0].norm()) > 0.1


@pytest.mark.parametrize("rotary", [False, True])
def test_inputs_are_turned_into_the_kernels_own(rotary: bool) -> None:
    """With the definition that the kernels compute, by a loop: h = exp(dt A) h + dt B x."""

    def kernel(
        x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        state, outputs = torch.zeros(*x.shape[:1], *x.shape[2:], B.shape[-1], dtype=x.dtype), []
        for t in range(x.shape[1]):
            decay = (dt[:, t] * A).exp()[..., None, None]
            state = decay * state + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
            outputs.append((state * C[:, t, :, None]).sum(-1))
        return torch.stack(outputs, dim=1), state

    parts = [part.double() for part in inputs("cpu", 40)]
    angles = rotary_angles(32, torch.device("cpu")) if rotary else None
    y, state = fused.ssd_fused(kernel, *parts, angles)
    expected, last = ssd_sequential(*parts, angles)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(state, last, rtol=0, atol=1e-4)


def test_without_a_gpu_the_plain_scan_runs() -> None:
    parts = inputs("cpu", 60)
    for ours, plain in zip(fused.scan(*parts, 50), ssd_chunked(*parts, 50)):
        torch.testing.assert_close(ours, plain, rtol=0, atol=0)
