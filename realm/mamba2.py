"""Mamba-2 blocks in plain PyTorch: the standard one, the one REALM publishes, and two of either joined.

`Mamba2Mixer` is the standard block (Dao & Gu 2024, arXiv 2405.21060, section 7); its parameters have the names and
shapes of transformers' ``Mamba2Mixer``, so that weights can be exchanged. `RealmMixer` is the authors' (Wu et al. 2026,
arXiv 2605.14867): rotary positions on B and C, an input that the step size does not scale, and no norm behind the gate.
`BidirectionalMixer` joins two of a kind, one on the reversed sequence, in one scan.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from .fused import scan
from .kernels import causal_convolution
from .ssd import rotary_angles, ssd_chunked, ssd_step

# Steps per chunk of the scan. On CPUs 50 is up to a fifth faster than 64, and at 50 Hz windows of whole seconds need no
# padding.
CHUNK = 50
# Range from which initial step sizes are drawn, log-uniformly (Gu & Dao 2023, arXiv 2312.00752, section 3.6).
DT_RANGE = (1e-3, 1e-1)


class MixerState(NamedTuple):
    """Memory of a stream: the convolution's last inputs (B, K - 1, X) and the state of the scan (B, H, P, N)."""

    window: torch.Tensor
    scan: torch.Tensor


class Scan(NamedTuple):
    """What goes into the scan, and what its output meets afterwards.

    Attributes
    ----------
    gate : (..., inner).
    x : (..., H, P) after the convolution; ``scaled`` is what the scan takes of it.
    rates : (..., H) logarithms of the decays.
    B, C : (..., G, N).
    """

    gate: torch.Tensor
    x: torch.Tensor
    scaled: torch.Tensor
    rates: torch.Tensor
    B: torch.Tensor
    C: torch.Tensor


def _single(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype == torch.bfloat16 else x


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


class Mixer(nn.Module):
    """What both blocks share: a causal convolution, the scan, and the same two for a stream.

    Parameters
    ----------
    d_model : width of input and output.
    d_state : size N of the state.
    expand : inner width is ``expand * d_model``.
    headdim : width P of a head; must divide the inner width.
    ngroups : groups of heads that share B and C.
    d_conv : taps of the convolution.
    memory : longest time constant of the state in steps. Unbounded, as published, a state may outlive the windows of
        training, and a stream gets where no training has been.

    Attributes
    ----------
    convolved : numbers per step that pass the convolution.
    rotary : the state turns by rotary angles.
    scan : computes the recurrence of a whole sequence in training, with the arguments of `ssd_chunked`. Predictions
        keep to `ssd_chunked`: a GPU's kernels round their products more coarsely than a stream may differ.
    """

    rotary = False
    scan = staticmethod(scan)
    conv1d: nn.Conv1d
    A_log: nn.Parameter
    D: nn.Parameter

    def __init__(
        self, d_model: int, d_state: int, expand: int, headdim: int, ngroups: int, d_conv: int, memory: float
    ) -> None:
        super().__init__()
        inner = expand * d_model
        if inner % headdim or (inner // headdim) % ngroups:
            raise ValueError(
                f"headdim {headdim} and ngroups {ngroups} must divide the inner width {inner} and its heads"
            )
        self.inner, self.heads, self.headdim = inner, inner // headdim, headdim
        self.groups, self.d_state, self.taps = ngroups, d_state, d_conv
        self.memory = memory

    @property
    @abstractmethod
    def convolved(self) -> int: ...

    @abstractmethod
    def enter(self, u: torch.Tensor) -> Scan:
        """Compute what the scan of (B, T, d) needs."""

    @abstractmethod
    def enter_step(self, u: torch.Tensor, window: torch.Tensor) -> tuple[Scan, torch.Tensor]:
        """Compute what one step (B, d) of the scan needs, from the convolution's last inputs; return the new ones."""

    @abstractmethod
    def leave(self, y: torch.Tensor, scan: Scan) -> torch.Tensor:
        """Map the scan's output (..., H, P) to (..., d)."""

    def angles(self) -> torch.Tensor | None:
        """Return the angles by which the state turns per step, if it does."""
        return rotary_angles(self.d_state, self.D.device) if self.rotary else None

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Map (B, T, d) to (B, T, d), causally."""
        scan = self.enter(u)
        return self.leave(self.scanned(scan.scaled, scan.rates, scan.B, scan.C), scan)

    def scanned(self, scaled: torch.Tensor, rates: torch.Tensor, B: torch.Tensor, C: torch.Tensor) -> torch.Tensor:
        """Run the scan, in single precision even where the rest is in bfloat16: (B, T, H, P)."""
        with torch.autocast(scaled.device.type, enabled=False):
            scaled, rates, B, C = (_single(part) for part in (scaled, rates, B, C))
            chosen = self.scan if self.training else ssd_chunked
            return chosen(scaled, rates, B, C, CHUNK, self.angles())[0]

    def initial_state(self, batch: int) -> MixerState:
        """Return the memory of a stream that has seen nothing."""
        like = self.D
        return MixerState(
            like.new_zeros(batch, self.taps - 1, self.convolved),
            like.new_zeros(batch, self.heads, self.headdim, self.d_state),
        )

    def step(self, u: torch.Tensor, state: MixerState) -> tuple[torch.Tensor, MixerState]:
        """Map one step (B, d) to (B, d) and carry the memory on."""
        scan, window = self.enter_step(u, state.window)
        y, after = ssd_step(scan.scaled, scan.rates, scan.B, scan.C, state.scan, self.angles())  # (B, H, P)
        return self.leave(y, scan), MixerState(window, after)

    def _rates(self, dt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return step sizes (..., H) and logarithms of the decays.

        The memory's bound is a least step: ``dt A >= 1 / memory``.
        """
        decay = self.A_log.exp()
        dt = functional.softplus(_single(dt)) + (1 / self.memory) / decay
        return dt, -dt * decay

    def _make_convolution(self, d_conv: int) -> nn.Conv1d:
        width = self.convolved
        return nn.Conv1d(width, width, d_conv, groups=width, padding=d_conv - 1)

    def _convolve(self, x: torch.Tensor, part: slice = slice(None)) -> torch.Tensor:
        """Convolve (B, T, X) over time; ``part`` says which of the convolution's numbers they are."""
        return functional.silu(causal_convolution(_single(x), self.conv1d.weight[part, 0], self._bias[part]))

    def _convolve_step(self, x: torch.Tensor, window: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        window = torch.cat([window, x[:, None]], dim=1)  # (B, K, X)
        convolved = torch.einsum("bkx,xk->bx", window, self.conv1d.weight[:, 0]) + self._bias
        return functional.silu(convolved), window[:, 1:]

    @property
    def _bias(self) -> torch.Tensor:
        assert self.conv1d.bias is not None
        return self.conv1d.bias


class Mamba2Mixer(Mixer):
    """The standard Mamba-2 block: projection, short causal convolution, SSD scan, gated norm, projection.

    Parameters are those of `Mixer`.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int,
        expand: int = 2,
        headdim: int = 64,
        ngroups: int = 1,
        d_conv: int = 4,
        memory: float = math.inf,
    ) -> None:
        super().__init__(d_model, d_state, expand, headdim, ngroups, d_conv, memory)
        inner = self.inner
        self.in_proj = nn.Linear(d_model, inner + self.convolved + self.heads, bias=False)
        self.conv1d = self._make_convolution(d_conv)
        low, high = (math.log(limit) for limit in DT_RANGE)
        dt = torch.exp(torch.rand(self.heads) * (high - low) + low)
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # inverse of softplus
        self.A_log = nn.Parameter(torch.log(torch.empty(self.heads).uniform_(1, 16)))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = GatedRMSNorm(inner, ngroups)
        self.out_proj = nn.Linear(inner, d_model, bias=False)

    @property
    def convolved(self) -> int:
        return self.inner + 2 * self.groups * self.d_state  # x, B and C together

    def enter(self, u: torch.Tensor) -> Scan:
        # Cut the weights and not the outputs: the gradients of what is cut are put together again, in full size.
        shared = self.groups * self.d_state
        weights = self.in_proj.weight.split([self.inner, self.inner, shared, shared, self.heads])
        gate, x, B, C, dt = (functional.linear(u, weight) for weight in weights)
        first = 0, self.inner, self.inner + shared
        x, B, C = (self._convolve(part, slice(start, start + part.shape[-1])) for part, start in zip((x, B, C), first))
        return self._scan(gate, x, B, C, dt)

    def enter_step(self, u: torch.Tensor, window: torch.Tensor) -> tuple[Scan, torch.Tensor]:
        gate, mixed, dt = self.in_proj(u).split([self.inner, self.convolved, self.heads], dim=-1)
        mixed, window = self._convolve_step(mixed, window)
        shared = self.groups * self.d_state
        x, B, C = mixed.split([self.inner, shared, shared], dim=-1)
        return self._scan(gate, x, B, C, dt), window

    def leave(self, y: torch.Tensor, scan: Scan) -> torch.Tensor:
        y = torch.addcmul(y, scan.x, self.D[:, None])
        return self.out_proj(self.norm(y.flatten(-2), scan.gate))

    def _scan(self, gate: torch.Tensor, x: torch.Tensor, B: torch.Tensor, C: torch.Tensor, dt: torch.Tensor) -> Scan:
        x = x.unflatten(-1, (self.heads, self.headdim))
        B, C = (part.unflatten(-1, (self.groups, self.d_state)) for part in (B, C))
        dt, rates = self._rates(dt + self.dt_bias)  # (..., H) each
        return Scan(gate, x, x * dt[..., None], rates, B, C)


class RealmMixer(Mixer):
    """The block that REALM publishes.

    B, C and the step sizes are projected from the convolved input, the input enters the state unscaled, B and C have
    rotary positions, and the gate is not followed by a norm.

    Parameters are those of `Mixer`.
    """

    rotary = True

    def __init__(
        self,
        d_model: int,
        d_state: int,
        expand: int = 2,
        headdim: int = 64,
        d_conv: int = 4,
        memory: float = math.inf,
    ) -> None:
        super().__init__(d_model, d_state, expand, headdim, 1, d_conv, memory)
        if d_state % 2:
            raise ValueError(f"rotary positions turn pairs; d_state must be even, not {d_state}")
        inner = self.inner
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=False)
        self.conv1d = self._make_convolution(d_conv)
        self.state_proj = nn.Linear(inner, 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(inner, self.heads)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, self.heads + 1, dtype=torch.get_default_dtype())))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.out_proj = nn.Linear(inner, d_model, bias=False)

    @property
    def convolved(self) -> int:
        return self.inner

    def enter(self, u: torch.Tensor) -> Scan:
        x, gate = (functional.linear(u, weight) for weight in self.in_proj.weight.chunk(2))
        return self._scan(gate, self._convolve(x))

    def enter_step(self, u: torch.Tensor, window: torch.Tensor) -> tuple[Scan, torch.Tensor]:
        x, gate = self.in_proj(u).chunk(2, dim=-1)
        x, window = self._convolve_step(x, window)
        return self._scan(gate, x), window

    def leave(self, y: torch.Tensor, scan: Scan) -> torch.Tensor:
        y = torch.addcmul(y, scan.x, self.D[:, None])
        return self.out_proj(y.flatten(-2) * functional.silu(scan.gate))

    def _scan(self, gate: torch.Tensor, x: torch.Tensor) -> Scan:
        # One product for both projections, and one for its gradient by x.
        bias = functional.pad(self.dt_proj.bias, (2 * self.d_state, 0))
        joint = functional.linear(x, torch.cat([self.state_proj.weight, self.dt_proj.weight]), bias)
        B, C, dt = joint.split([self.d_state, self.d_state, self.heads], dim=-1)
        B, C, (_, rates) = B.unsqueeze(-2), C.unsqueeze(-2), self._rates(dt)  # (..., G, N) twice, (..., H)
        x = x.unflatten(-1, (self.heads, self.headdim))
        return Scan(gate, x, x, rates, B, C)


class BidirectionalMixer(nn.Module):
    """One block forward, one on the reversed sequence, joined by a linear layer and a norm (REALM's teacher).

    Both directions go through one scan, as groups of heads of their own.
    """

    def __init__(
        self,
        kind: type[Mamba2Mixer] | type[RealmMixer],
        d_model: int,
        d_state: int,
        expand: int,
        headdim: int,
        memory: float = math.inf,
    ):
        super().__init__()
        self.forward_mixer = kind(d_model, d_state, expand, headdim, memory=memory)
        self.backward_mixer = kind(d_model, d_state, expand, headdim, memory=memory)
        self.join = nn.Linear(2 * d_model, d_model)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Map (B, T, d) to (B, T, d); every output sees the whole sequence."""
        onward, reverse = self.forward_mixer.enter(u), self.backward_mixer.enter(u.flip(1))
        scaled, rates, B, C = (
            torch.cat([getattr(onward, part), getattr(reverse, part)], dim=2) for part in ("scaled", "rates", "B", "C")
        )
        forward, backward = self.forward_mixer.scanned(scaled, rates, B, C).chunk(2, dim=2)  # (B, T, H, P) each
        forward = self.forward_mixer.leave(forward, onward)  # (B, T, d)
        backward = self.backward_mixer.leave(backward, reverse).flip(1)  # (B, T, d)
        joined = self.join(torch.cat([forward, backward], dim=-1))
        return self.norm(joined.to(self.norm.weight.dtype))  # in single precision where projections are in half
