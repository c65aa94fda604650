"""The scan by mamba-ssm's Triton kernels, where there is a CUDA device and the package (extra ``cuda``).

The kernels compute the standard recurrence, in which one step size scales the input and makes the decay. Ours has both
apart: with step sizes of minus the rates, A of minus one and inputs divided by the step sizes it is the same.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch

from .ssd import in_positions, rotated, ssd_chunked

# The kernels' own chunk; ours is chosen for CPUs.
CHUNK = 256
# Smallest step size: nothing is divided by zero, and e^-1e-6 is as good as one.
LEAST = 1e-6


@functools.cache
def kernels() -> Callable[..., Any] | None:
    """Return mamba-ssm's scan, or None where it cannot be imported; says why once."""
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ImportError as error:
        logging.getLogger(__name__).info("mamba-ssm's kernels are not used: %s", error)
        return None
    return mamba_chunk_scan_combined


def scan(
    x: torch.Tensor,
    rates: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    chunk: int,
    angles: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute `ssd_chunked`, by the Triton kernels where they can run."""
    kernel = kernels() if x.is_cuda else None
    return ssd_chunked(x, rates, B, C, chunk, angles) if kernel is None else ssd_fused(kernel, x, rates, B, C, angles)


def ssd_fused(
    kernel: Callable[..., Any],
    x: torch.Tensor,
    rates: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    angles: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute `ssd_chunked` by mamba-ssm's kernel."""
    B, C = in_positions(B, C, angles)
    dt = (-rates).clamp_min(LEAST)
    A = rates.new_full((rates.shape[-1],), -1.0)
    inputs = (part.contiguous() for part in (x / dt[..., None], dt, A, B, C))
    y, state = kernel(*inputs, chunk_size=CHUNK, return_final_states=True)
    return y, state if angles is None else rotated(state, -x.shape[1] * angles)
