"""Floating-point operations of a call, by torch's counter, with the operations that it does not count listed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from realmbench.decoder import FlopCount

# Operations that make or copy memory and compute nothing.
MEMORY_OPERATIONS = {
    "_to_copy", "_unsafe_view", "cat", "clone", "constant_pad_nd", "copy_", "detach", "empty", "empty_like", "fill_",
    "flip", "full", "index", "lift_fresh", "new_empty", "new_zeros", "ones", "ones_like", "repeat", "roll",
    "scalar_tensor", "split", "split_with_sizes", "stack", "tril", "zeros", "zeros_like", "zero_", "arange",
    "resize_", "set_",
}  # fmt: skip


class _Uncounted(TorchDispatchMode):
    """Collects the names of operations that compute numbers and have no registered formula."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.overloadpacket).removeprefix("aten.")
        if func.overloadpacket not in flop_registry and not func.is_view and name not in MEMORY_OPERATIONS:
            self.names.add(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def _without_fused_layers() -> Iterator[None]:
    with warnings.catch_warnings():
        # Touching the flags warns about hardware that the machine does not have.
        warnings.simplefilter("ignore", UserWarning)
        with torch.backends.mkldnn.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
            yield


def count_flops(call: Callable[[], Any], steps: int = 1) -> FlopCount:
    """Count the operations of one call, divided by the number of frames that it handles.

    Matrix products, convolutions and attention are counted (a multiply-add is two); element-wise operations are not,
    and their names are returned. Fused recurrent layers are taken apart into their products for counting.

    Raises
    ------
    RuntimeError : a fused recurrent layer could not be taken apart, so that its products would go uncounted.
    """
    with torch.no_grad(), _without_fused_layers():
        with FlopCounterMode(display=False) as counter:
            call()
        with _Uncounted() as uncounted:
            call()
    if fused := [name for name in uncounted.names if "rnn" in name or "thnn_fused" in name]:
        raise RuntimeError(f"the products inside {', '.join(fused)} cannot be counted")
    return FlopCount(round(counter.get_total_flops() / steps), tuple(sorted(uncounted.names)))
