"""Two operations of Mamba-2 with gradients written by hand.

Left to automatic differentiation they cost a CPU as much time as all matrix products of the block, in temporaries of
full size that are written, read once and thrown away. Second derivatives are not offered.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional


class _MaskedDecay(Function):
    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, summed: torch.Tensor) -> torch.Tensor:
        # Differences of the doubles as differences of their leading and trailing singles: nothing of size Q x Q is
        # ever double. The difference of two leading parts is rounded relative to itself, not to them.
        leading = summed.to(scores.dtype)
        trailing = (summed - leading).to(scores.dtype)
        decay = leading[..., :, None] - leading[..., None, :]  # (..., R, Q, Q)
        decay += trailing[..., :, None]
        decay -= trailing[..., None, :]
        steps = scores.shape[-2:]
        decay += torch.full(steps, -torch.inf, dtype=scores.dtype, device=scores.device).triu(1)
        decay.exp_()
        weights = scores[..., None, :, :] * decay  # (..., R, Q, Q)
        ctx.save_for_backward(weights, decay)
        ctx.summed_dtype = summed.dtype
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights, decay = ctx.saved_tensors
        by_scores = (gradient * decay).sum(-3)  # (..., Q, Q)
        by_difference = gradient * weights  # (..., R, Q, Q)
        by_summed = by_difference.sum(-1) - by_difference.sum(-2)  # (..., R, Q)
        return by_scores, by_summed.to(ctx.summed_dtype)


def masked_decay(scores: torch.Tensor, summed: torch.Tensor) -> torch.Tensor:
    """Weigh scores by the decay between their steps: ``scores_ij exp(summed_i - summed_j)`` for j <= i, else 0.

    Parameters
    ----------
    scores : (..., Q, Q), shared by the R heads.
    summed : (..., R, Q) sums of not positive log decays, in double precision.

    Returns
    -------
    (..., R, Q, Q).
    """
    return cast(torch.Tensor, _MaskedDecay.apply(scores, summed))


class _CausalConvolution(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        length, taps = x.shape[1], weight.shape[1]
        padded = functional.pad(x, (0, 0, taps - 1, 0))  # (B, T + K - 1, X)
        out = torch.addcmul(bias, padded[:, :length], weight[:, 0])
        for tap in range(1, taps):
            out.addcmul_(padded[:, tap : tap + length], weight[:, tap])
        ctx.save_for_backward(padded, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        padded, weight = ctx.saved_tensors
        length, taps = gradient.shape[1], weight.shape[1]
        by_x = gradient * weight[:, -1]
        for tap in range(taps - 1):
            later = taps - 1 - tap  # what came in at t goes out, through this tap, at t + later
            if later < length:
                by_x[:, : length - later].addcmul_(gradient[:, later:], weight[:, tap])
        by_weight = torch.stack([(padded[:, tap : tap + length] * gradient).sum((0, 1)) for tap in range(taps)], dim=1)
        return by_x, by_weight, gradient.sum((0, 1))


def causal_convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Convolve every number of (B, T, X) over time with its own taps (X, K), the last of which meets the present."""
    return cast(torch.Tensor, _CausalConvolution.apply(x, weight, bias))
