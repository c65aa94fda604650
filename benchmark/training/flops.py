"""Floating-point operations of a call: torch's counter, formulas for what it leaves out, and a list of the rest."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from realmbench.decoder import FlopCount

# Operations that make or copy memory and compute nothing.
MEMORY_OPERATIONS = {
    "_to_copy", "_unsafe_view", "cat", "clone", "constant_pad_nd", "copy_", "detach", "empty", "empty_like", "fill_",
    "flip", "full", "index", "lift_fresh", "new_empty", "new_zeros", "ones", "ones_like", "repeat", "roll",
    "scalar_tensor", "split", "split_with_sizes", "stack", "tril", "zeros", "zeros_like", "zero_", "arange",
    "resize_", "set_", "transpose_", "unsafe_split", "unsafe_split_with_sizes", "logspace", "gather", "scatter", "triu",
}  # fmt: skip


# Operations that compute one number per output element; a transcendental function counts one as well.
ELEMENTWISE = {
    "abs", "add", "addcmul", "bitwise_and", "bitwise_not", "clamp", "clamp_min", "cos", "div", "elu", "eq", "erf",
    "exp", "gelu", "gt", "hardtanh", "le", "leaky_relu", "log", "log1p", "logical_and", "logical_not", "lt",
    "masked_fill",
    "maximum", "minimum", "mul", "ne", "neg", "pow", "reciprocal", "relu", "rsqrt", "rsub", "sigmoid", "silu", "sin",
    "softplus", "sqrt", "square", "sub", "tanh", "where",
}  # fmt: skip
# Operations per input element. Layer norm: mean 1, variance 3, normalisation 2, gain and offset 2. Softmax: maximum,
# difference, exponential, sum, quotient.
PER_INPUT_ELEMENT = {
    "amax": 1, "amin": 1, "cumsum": 1, "linalg_vector_norm": 2, "mean": 1, "native_layer_norm": 8, "sum": 1, "var": 3,
    "_softmax": 5, "_log_softmax": 5, "_safe_softmax": 5,
}  # fmt: skip


class _Elementwise(TorchDispatchMode):
    """Counts what torch's counter leaves out, by the formulas above, and collects the names of what has none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.uncounted: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry or func.is_view:
            return out
        name = str(func.overloadpacket).removeprefix("aten.")
        in_place = name.removesuffix("_") if not name.startswith("_") else name
        if in_place in ELEMENTWISE:
            self.count += out.numel()
        elif name in PER_INPUT_ELEMENT:
            self.count += PER_INPUT_ELEMENT[name] * args[0].numel()
        elif name not in MEMORY_OPERATIONS:
            self.uncounted.add(name)
        return out


@contextmanager
def _without_fused_layers() -> Iterator[None]:
    with warnings.catch_warnings():
        # Touching the flags warns about hardware that the machine does not have.
        warnings.simplefilter("ignore", UserWarning)
        with torch.backends.mkldnn.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
            yield


def count_flops(call: Callable[[], Any], steps: int = 1) -> FlopCount:
    """Count the operations of one call, divided by the number of frames that it handles.

    Matrix products, convolutions and attention are torch's count (a multiply-add is two). Element-wise operations,
    reductions and the scan's recurrence, which torch leaves out, are counted by the formulas of this module; the names
    of operations without one are returned. Fused recurrent layers are taken apart into their products for counting.

    Raises
    ------
    RuntimeError : a fused recurrent layer could not be taken apart, so that its products would go uncounted.
    """
    # The counter has formulas for attention as matrix products, not for every fused kernel of it.
    with torch.no_grad(), _without_fused_layers(), sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as counter:
            call()
        with _Elementwise() as rest:
            call()
    if fused := [name for name in rest.uncounted if "rnn" in name or "thnn_fused" in name]:
        raise RuntimeError(f"the products inside {', '.join(fused)} cannot be counted")
    products = round(counter.get_total_flops() / steps)
    return FlopCount(products, tuple(sorted(rest.uncounted)), round(rest.count / steps))
