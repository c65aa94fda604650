"""A GPU's fused kernels count as many operations as the CPU's parts, which torch's counter takes one by one."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import flop_registry

from realmbench.fused_operations import gru_cell, lstm_cell, register, rms_norm
from realmbench.training.flops import count_flops

BATCH, UNITS = 2, 32


def test_cells_count_as_their_parts() -> None:
    x, state = torch.randn(BATCH, 6), torch.randn(BATCH, UNITS)
    gru, lstm = nn.GRUCell(6, UNITS), nn.LSTMCell(6, UNITS)
    gates = (BATCH, 3 * UNITS)
    assert gru_cell(gates, gates, state.shape, None, None) == count_flops(lambda: gru(x, state)).elementwise
    gates = (BATCH, 4 * UNITS)
    assert lstm_cell(gates, gates, state.shape) == count_flops(lambda: lstm(x, (state, state))).elementwise


def test_norm_counts_as_its_parts() -> None:
    x = torch.randn(2, 5, 3, 16)
    counted = count_flops(lambda: nn.functional.rms_norm(x, (16,), eps=1e-5))
    assert counted.uncounted == ()
    assert rms_norm(x.shape, (16,), None, eps=1e-5) == counted.elementwise
    with_gain = nn.RMSNorm(16)
    assert rms_norm(x.shape, (16,), (16,), None) == count_flops(lambda: with_gain(x)).elementwise


def test_formulas_are_handed_over_once() -> None:
    register()
    register()
    assert torch.ops.aten._thnn_fused_gru_cell in flop_registry
    # What the CPU runs is counted as before: none of its operations got a formula.
    assert count_flops(lambda: nn.functional.rms_norm(torch.ones(4, 8), (8,))).per_step == 0
