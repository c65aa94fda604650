"""The state-space dual (SSD) layer of Mamba-2: a linear recurrence computed chunk by chunk as matrix products.

For every head, with a state h of shape (P, N) that starts at zero or at a given state,

    h_t = exp(rate_t) h_{t-1} R + x_t B_t^T        y_t = h_t C_t

(Dao & Gu 2024, arXiv 2405.21060, equation 1 with scalar decay per head; ``rate = dt A`` and, in the standard block,
``x`` already scaled by dt). R turns each pair of the state's N numbers by a fixed angle, or is absent. Turning the
state is what rotary positions on B and C amount to: they enter the outputs by their difference alone. So no position
and no table of positions is kept, and a stream has no last step.

`ssd_sequential` is this definition, `ssd_chunked` the algorithm of section 6, `ssd_quadratic` the dual form that the
authors of REALM compute, `ssd_step` one step of a stream.

Shapes: B batch, T time, H heads, P head width, G groups of heads that share B and C, N state size; K chunks of Q steps,
R = H / G heads of a group.
"""

from __future__ import annotations

import functools

import torch
from torch.nn import functional

from .kernels import masked_decay

# Base of rotary positions: the slowest pair turns once in nearly ROTARY_BASE * 2 pi steps.
ROTARY_BASE = 10_000.0


@functools.cache
def rotary_angles(size: int, device: torch.device) -> torch.Tensor:
    """Return the angles (N / 2,) by which rotary positions turn each pair per step (Su et al. 2021, arXiv 2104.09864).

    Double precision: what is computed from them is rounded once.
    """
    return ROTARY_BASE ** (-torch.arange(0, size, 2, dtype=torch.float64, device=device) / size)


def rotated(v: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Turn the pairs (n, n + N / 2) of (..., N) by angles (..., N / 2) that broadcast."""
    first, second = v.chunk(2, dim=-1)
    cosine, sine = angles.cos().to(v.dtype), angles.sin().to(v.dtype)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


def ssd_step(
    x: torch.Tensor,
    rates: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    state: torch.Tensor,
    angles: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advance the recurrence by one step.

    Parameters
    ----------
    x : (B, H, P); rates : (B, H); B, C : (B, G, N); state : (B, H, P, N).
    angles : (N / 2,) radians, or None.

    Returns
    -------
    y (B, H, P) and the new state.
    """
    repeats = x.shape[1] // B.shape[1]
    B, C = B.repeat_interleave(repeats, dim=1), C.repeat_interleave(repeats, dim=1)  # (B, H, N)
    if angles is not None:
        state = rotated(state, -angles)
    state = state * rates.exp()[..., None, None] + x[..., None] * B[:, :, None]  # (B, H, P, N)
    return (state @ C[..., None])[..., 0], state


def ssd_sequential(
    x: torch.Tensor,
    rates: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    angles: torch.Tensor | None = None,
    initial_state: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the recurrence step by step; slow, exact, the reference for everything else.

    Parameters
    ----------
    x : (B, T, H, P) input.
    rates : (B, T, H) logarithms of the decays, not positive.
    B, C : (B, T, G, N) input and output projections; H is a multiple of G.
    angles : (N / 2,) radians by which the state turns per step, or None.
    initial_state : (B, H, P, N), zeros by default.

    Returns
    -------
    y (B, T, H, P) and the last state (B, H, P, N).
    """
    batch, _, heads, width = x.shape
    state = x.new_zeros(batch, heads, width, B.shape[-1]) if initial_state is None else initial_state
    outputs = []
    for t in range(x.shape[1]):
        y, state = ssd_step(x[:, t], rates[:, t], B[:, t], C[:, t], state, angles)
        outputs.append(y)
    return torch.stack(outputs, dim=1), state


def ssd_quadratic(
    x: torch.Tensor,
    rates: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    angles: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the outputs of `ssd_sequential` as one masked T x T matrix per head: O(T^2) time and memory.

    In plain operations throughout, so that it is a second opinion on `ssd_chunked` and its gradients.
    """
    length, repeats = x.shape[1], x.shape[2] // B.shape[2]
    B, C = in_positions(B, C, angles)
    scores = torch.einsum("bign,bjgn->bgij", C, B).repeat_interleave(repeats, dim=1)  # (B, H, T, T)
    summed = rates.movedim(1, -1).cumsum(-1)  # (B, H, T)
    between = summed[..., :, None] - summed[..., None, :]  # (B, H, T, T)
    later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
    return torch.einsum("bhij,bjhp->bihp", scores * between.masked_fill(later, -torch.inf).exp(), x)


def ssd_chunked(
    x: torch.Tensor,
    rates: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    chunk: int,
    angles: torch.Tensor | None = None,
    initial_state: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same as `ssd_sequential` in O(T * chunk) with matrix products; any length.

    Within a chunk the outputs are a masked product of C B^T with the inputs; between chunks only the state is passed
    on. B and C are shared by the heads of a group and never repeated.
    """
    batch, length, heads, width = x.shape
    groups, size = B.shape[2:]
    ratio = heads // groups
    B, C = in_positions(B, C, angles)
    steps = min(chunk, length)
    padding = -length % steps
    if padding:
        # Nothing comes in and nothing decays, so that padding changes no state.
        x, B, C = (functional.pad(part, (0, 0, 0, 0, 0, padding)) for part in (x, B, C))
        rates = functional.pad(rates, (0, 0, 0, padding))
    chunks = (length + padding) // steps

    x = x.reshape(batch, chunks, steps, groups, ratio, width).permute(0, 1, 3, 4, 2, 5)  # (B, K, G, R, Q, P)
    B = B.reshape(batch, chunks, steps, groups, size).transpose(2, 3)  # (B, K, G, Q, N)
    C = C.reshape(batch, chunks, steps, groups, size).transpose(2, 3)  # (B, K, G, Q, N)
    rates = rates.reshape(batch, chunks, steps, groups, ratio).permute(0, 1, 3, 4, 2)  # (B, K, G, R, Q)
    # Log of the decay from the chunk's start to each step. In double precision, because only differences matter: after
    # one very strong step, single precision would have no digits left for the weak ones.
    summed = rates.double().cumsum(-1)  # (B, K, G, R, Q)

    # 1. Inside each chunk: y_i = sum_{j <= i} C_i B_j exp(sum of rates from j + 1 to i) x_j.
    y = masked_decay(C @ B.transpose(-1, -2), summed) @ x  # (B, K, G, R, Q, P)

    # 2. What each chunk adds to the state by its end.
    to_end = (summed[..., -1:] - summed).to(x.dtype).exp()  # (B, K, G, R, Q)
    summed = summed.to(x.dtype)
    weighted = (x * to_end[..., None]).transpose(3, 4).reshape(batch, chunks, groups, steps, ratio * width)
    added = (B.transpose(-1, -2) @ weighted).reshape(batch, chunks, groups, size, ratio, width)

    # 3. The state at the start of every chunk, passed on sequentially: there are few chunks.
    if initial_state is None:
        state = x.new_zeros(batch, groups, size, ratio, width)
    else:
        state = initial_state.reshape(batch, groups, ratio, width, size).permute(0, 1, 4, 2, 3)
    across = summed[..., -1].exp()[:, :, :, None, :, None]  # (B, K, G, 1, R, 1)
    starts = []
    for decay, new in zip(across.unbind(1), added.unbind(1)):
        starts.append(state)
        state = state * decay + new

    # 4. What the state at a chunk's start adds to its outputs.
    entering = torch.stack(starts, dim=1).reshape(batch, chunks, groups, size, ratio * width)
    carried = (C @ entering).reshape(batch, chunks, groups, steps, ratio, width).transpose(3, 4)
    y = torch.addcmul(y, carried, summed.exp()[..., None])  # (B, K, G, R, Q, P)

    y = y.permute(0, 1, 4, 2, 3, 5).reshape(batch, chunks * steps, heads, width)[:, :length]
    state = state.permute(0, 1, 3, 4, 2).reshape(batch, heads, width, size)
    return y, state if angles is None else rotated(state, -length * angles)


def in_positions(B: torch.Tensor, C: torch.Tensor, angles: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn B and C (B, T, G, N) instead of the state, each by its position, counted from the state before the first."""
    if angles is None:
        return B, C
    positions = torch.arange(1, B.shape[1] + 1, dtype=angles.dtype, device=B.device)
    turns = positions[:, None, None] * angles  # (T, 1, N / 2), double: exact however long the record
    return rotated(B, turns), rotated(C, turns)
