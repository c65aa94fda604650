"""Operations of kernels that a GPU has for what a CPU does in parts: formulas for torch's counter.

On the CPU these parts are counted one by one (`training.flops`). Here each kernel counts as many operations as its
parts together; they are element-wise, but as torch's counter takes them they stand among those of the products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

# Per unit of a cell: sums of both products' gates, sigmoids and tangents, and what joins them; biases count nowhere.
GRU_CELL, LSTM_CELL = 10, 13
# Per number and per row: square, mean and product; a small number added, and the root. A gain is one more per number.
RMS_NORM, RMS_NORM_ROW = 3, 2


def gru_cell(input_gates: Sequence[int], hidden_gates: Sequence[int], hidden: Sequence[int], *_: Any, **__: Any) -> int:
    """Count the operations of a fused GRU cell behind its products, from the shapes of its arguments."""
    return GRU_CELL * math.prod(hidden)


def lstm_cell(input_gates: Sequence[int], hidden_gates: Sequence[int], cell: Sequence[int], *_: Any, **__: Any) -> int:
    """Count the operations of a fused LSTM cell behind its products."""
    return LSTM_CELL * math.prod(cell)


def rms_norm(
    x: Sequence[int], normalized: Sequence[int], weight: Sequence[int] | None = None, *_: Any, **__: Any
) -> int:
    """Count the operations of a fused root-mean-square norm."""
    per_number = RMS_NORM + (weight is not None)
    return per_number * math.prod(x) + RMS_NORM_ROW * math.prod(x) // math.prod(normalized)


def register() -> None:
    """Hand the formulas to torch's counter, once."""
    import torch
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    for name, formula in (
        ("_thnn_fused_gru_cell", gru_cell),
        ("_thnn_fused_lstm_cell", lstm_cell),
        ("_fused_rms_norm", rms_norm),
    ):
        kernel = getattr(torch.ops.aten, name)
        if kernel not in flop_registry:
            register_flop_formula(kernel)(formula)
