"""Decoding a long record with a network that sees one window: overlapping windows, of each its middle."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch

# Windows handled at once; bounds the memory.
WINDOWS_AT_ONCE = 16


def overlapping(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, window: int) -> torch.Tensor:
    """Apply a function of windows to a record of any length.

    Windows start every half window; each frame's output comes from the window in whose middle it lies most.

    Parameters
    ----------
    function : maps (N, W, ...) windows of one record to (N, W, D).
    x : (T, ...) frames of one record.
    window : frames that the function takes at most.

    Returns
    -------
    (T, D).
    """
    length = len(x)
    if length <= window:
        return function(x[None])[0]
    starts = [*range(0, length - window, max(1, window // 2)), length - window]
    windows = torch.stack([x[start : start + window] for start in starts])
    outputs = torch.cat([function(part) for part in windows.split(WINDOWS_AT_ONCE)])
    # Between two windows the border lies in the middle of their overlap.
    borders = [0, *((first + second + window) // 2 for first, second in pairwise(starts)), length]
    return torch.cat([outputs[n, borders[n] - start : borders[n + 1] - start] for n, start in enumerate(starts)])
