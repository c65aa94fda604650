"""Mamba-2 blocks in plain PyTorch (Dao & Gu 2024, arXiv 2405.21060, section 7).

`Mamba2Mixer` is the standard block; its parameters have the names and shapes of transformers' ``Mamba2Mixer``, so that
weights can be exchanged. `BidirectionalMixer` joins two of them, one on the reversed sequence, as REALM's teacher does.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from .ssd import ssd_chunked, ssd_step

# Steps per chunk of the scan. On CPUs 50 is up to a fifth faster than 64, and at 50 Hz windows of whole seconds need no
# padding.
CHUNK = 50
# Range from which initial step sizes are drawn, log-uniformly (Gu & Dao 2023, arXiv 2312.00752, section 3.6).
DT_RANGE = (1e-3, 1e-1)


class MixerState(NamedTuple):
    """Memory of a stream: the convolution's last inputs (B, K - 1, X) and the state of the scan (B, H, P, N)."""

    window: torch.Tensor
    scan: torch.Tensor


class GatedRMSNorm(nn.Module):
    """Root-mean-square norm of ``y * silu(gate)``, taken over each group of heads."""

    def __init__(self, width: int, groups: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.groups = groups
        self.eps = eps

    def forward(self, y: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        grouped = (y * functional.silu(gate)).unflatten(-1, (self.groups, -1))  # (..., G, X / G)
        return functional.rms_norm(grouped, grouped.shape[-1:], eps=self.eps).flatten(-2) * self.weight


class Mamba2Mixer(nn.Module):
    """The standard Mamba-2 block: projection, short causal convolution, SSD scan, gated norm, projection.

    Parameters
    ----------
    d_model : width of input and output.
    d_state : size N of the state.
    expand : inner width is ``expand * d_model``.
    headdim : width P of a head; must divide the inner width.
    ngroups : groups of heads that share B and C.
    d_conv : taps of the convolution.
    """

    def __init__(
        self, d_model: int, d_state: int, expand: int = 2, headdim: int = 64, ngroups: int = 1, d_conv: int = 4
    ) -> None:
        super().__init__()
        inner = expand * d_model
        if inner % headdim or (inner // headdim) % ngroups:
            raise ValueError(
                f"headdim {headdim} and ngroups {ngroups} must divide the inner width {inner} and its heads"
            )
        self.inner, self.heads, self.headdim = inner, inner // headdim, headdim
        self.groups, self.d_state, self.taps = ngroups, d_state, d_conv
        self.mixed = inner + 2 * ngroups * d_state  # x, B and C together
        self.in_proj = nn.Linear(d_model, inner + self.mixed + self.heads, bias=False)
        self.conv1d = nn.Conv1d(self.mixed, self.mixed, d_conv, groups=self.mixed, padding=d_conv - 1)
        low, high = (math.log(limit) for limit in DT_RANGE)
        dt = torch.exp(torch.rand(self.heads) * (high - low) + low)
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # inverse of softplus
        self.A_log = nn.Parameter(torch.log(torch.empty(self.heads).uniform_(1, 16)))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = GatedRMSNorm(inner, ngroups)
        self.out_proj = nn.Linear(inner, d_model, bias=False)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Map (B, T, d) to (B, T, d), causally."""
        gate, mixed, dt = self.in_proj(u).split([self.inner, self.mixed, self.heads], dim=-1)
        x, B, C = self._parts(functional.silu(self._convolve(mixed)))
        y, _ = ssd_chunked(x, functional.softplus(dt + self.dt_bias), -self.A_log.exp(), B, C, CHUNK)
        y = y + x * self.D[:, None]  # (B, T, H, P)
        return self.out_proj(self.norm(y.flatten(2), gate))

    def initial_state(self, batch: int) -> MixerState:
        """Return the memory of a stream that has seen nothing."""
        like = self.D
        return MixerState(
            like.new_zeros(batch, self.taps - 1, self.mixed),
            like.new_zeros(batch, self.heads, self.headdim, self.d_state),
        )

    def step(self, u: torch.Tensor, state: MixerState) -> tuple[torch.Tensor, MixerState]:
        """Map one step (B, d) to (B, d) and carry the memory on."""
        gate, mixed, dt = self.in_proj(u).split([self.inner, self.mixed, self.heads], dim=-1)
        window = torch.cat([state.window, mixed[:, None]], dim=1)  # (B, K, X)
        convolved = torch.einsum("bkx,xk->bx", window, self.conv1d.weight[:, 0]) + self._bias
        x, B, C = self._parts(functional.silu(convolved))
        y, scan = ssd_step(x, functional.softplus(dt + self.dt_bias), -self.A_log.exp(), B, C, state.scan)
        y = y + x * self.D[:, None]  # (B, H, P)
        return self.out_proj(self.norm(y.flatten(1), gate)), MixerState(window[:, 1:], scan)

    @property
    def _bias(self) -> torch.Tensor:
        assert self.conv1d.bias is not None
        return self.conv1d.bias

    def _parts(self, mixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shared = self.groups * self.d_state
        x, B, C = mixed.split([self.inner, shared, shared], dim=-1)
        return (
            x.unflatten(-1, (self.heads, self.headdim)),
            B.unflatten(-1, (self.groups, self.d_state)),
            C.unflatten(-1, (self.groups, self.d_state)),
        )

    def _convolve(self, mixed: torch.Tensor) -> torch.Tensor:
        """Depthwise causal convolution of (B, T, X) as shifted sums, on a CPU faster than torch's grouped one."""
        length = mixed.shape[1]
        padded = functional.pad(mixed, (0, 0, self.taps - 1, 0))
        weight = self.conv1d.weight[:, 0]  # (X, K)
        out = padded[:, :length] * weight[:, 0] + self._bias
        for tap in range(1, self.taps):
            out = torch.addcmul(out, padded[:, tap : tap + length], weight[:, tap])
        return out


class BidirectionalMixer(nn.Module):
    """One block forward, one on the reversed sequence, joined by a linear layer and a norm (REALM's teacher)."""

    def __init__(self, d_model: int, d_state: int, expand: int = 2, headdim: int = 64) -> None:
        super().__init__()
        self.forward_mixer = Mamba2Mixer(d_model, d_state, expand, headdim)
        self.backward_mixer = Mamba2Mixer(d_model, d_state, expand, headdim)
        self.join = nn.Linear(2 * d_model, d_model)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Map (B, T, d) to (B, T, d); every output sees the whole sequence."""
        backward = self.backward_mixer(u.flip(1)).flip(1)  # (B, T, d)
        return self.norm(self.join(torch.cat([self.forward_mixer(u), backward], dim=-1)))
