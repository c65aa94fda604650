"""The state-space dual (SSD) layer of Mamba-2: a linear recurrence computed chunk by chunk as matrix products.

For every head, with a state h of shape (P, N) that starts at zero or at a given state,

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T        y_t = h_t C_t

(Dao & Gu 2024, arXiv 2405.21060, equation 1 with scalar A per head). `ssd_sequential` is this definition,
`ssd_chunked` the algorithm of section 6, `ssd_step` one step of a stream.

Shapes: B batch, T time, H heads, P head width, G groups of heads that share B and C, N state size.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def ssd_sequential(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    initial_state: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the recurrence step by step; slow, exact, the reference for everything else.

    Parameters
    ----------
    x : (B, T, H, P) input.
    dt : (B, T, H) positive step sizes.
    A : (H,) negative decay rates.
    B, C : (B, T, G, N) input and output projections; H is a multiple of G.
    initial_state : (B, H, P, N), zeros by default.

    Returns
    -------
    y (B, T, H, P) and the last state (B, H, P, N).
    """
    batch, _, heads, width = x.shape
    state = x.new_zeros(batch, heads, width, B.shape[-1]) if initial_state is None else initial_state
    outputs = []
    for t in range(x.shape[1]):
        y, state = ssd_step(x[:, t], dt[:, t], A, B[:, t], C[:, t], state)
        outputs.append(y)
    return torch.stack(outputs, dim=1), state


def ssd_step(
    x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advance the recurrence by one step.

    Parameters
    ----------
    x : (B, H, P); dt : (B, H); A : (H,); B, C : (B, G, N); state : (B, H, P, N).

    Returns
    -------
    y (B, H, P) and the new state.
    """
    repeats = x.shape[1] // B.shape[1]
    B, C = B.repeat_interleave(repeats, dim=1), C.repeat_interleave(repeats, dim=1)  # (B, H, N)
    decay = torch.exp(dt * A)  # (B, H)
    update = (dt[..., None] * x)[..., None] * B[:, :, None]  # (B, H, P, N)
    state = state * decay[..., None, None] + update
    return (state @ C[..., None])[..., 0], state


def ssd_chunked(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    chunk: int,
    initial_state: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same as `ssd_sequential` in O(T * chunk) with matrix products; any length.

    Within a chunk the outputs are a masked product of C B^T with the inputs; between chunks only the state is passed
    on. B and C are shared by the R = H / G heads of a group and never repeated.
    """
    batch, length, heads, width = x.shape
    groups, size = B.shape[2:]
    ratio = heads // groups
    steps = min(chunk, length)
    padding = -length % steps
    if padding:
        # dt = 0 leaves the state as it is, so that padding changes nothing.
        x, B, C = (functional.pad(part, (0, 0, 0, 0, 0, padding)) for part in (x, B, C))
        dt = functional.pad(dt, (0, 0, 0, padding))
    chunks = (length + padding) // steps

    scaled = (x * dt[..., None]).reshape(batch, chunks, steps, groups, ratio, width).permute(0, 1, 3, 4, 2, 5)
    B = B.reshape(batch, chunks, steps, groups, size).transpose(2, 3)  # (B, K, G, Q, N)
    C = C.reshape(batch, chunks, steps, groups, size).transpose(2, 3)  # (B, K, G, Q, N)
    rates = (dt * A).reshape(batch, chunks, steps, groups, ratio).permute(0, 1, 3, 4, 2)  # (B, K, G, R, Q)
    # Log of the decay from the chunk's start to each step. In double precision, because only differences matter: after
    # one very strong step, single precision would have no digits left for the weak ones.
    summed = rates.double().cumsum(-1)  # (B, K, G, R, Q)

    # 1. Inside each chunk: y_i = sum_{j <= i} C_i B_j exp(sum of rates from j + 1 to i) x_j.
    later = torch.ones(steps, steps, dtype=torch.bool, device=x.device).triu(1)
    between = (summed[..., :, None] - summed[..., None, :]).to(x.dtype)  # (B, K, G, R, Q, Q)
    between = between.masked_fill(later, -torch.inf)
    weights = (C @ B.transpose(-1, -2))[:, :, :, None] * between.exp()  # (B, K, G, R, Q, Q)
    y = weights @ scaled  # (B, K, G, R, Q, P)

    # 2. What each chunk adds to the state by its end.
    to_end = (summed[..., -1:] - summed).to(x.dtype).exp()  # (B, K, G, R, Q)
    summed = summed.to(x.dtype)
    weighted = (scaled * to_end[..., None]).transpose(3, 4).reshape(batch, chunks, groups, steps, ratio * width)
    added = (B.transpose(-1, -2) @ weighted).reshape(batch, chunks, groups, size, ratio, width)

    # 3. The state at the start of every chunk, passed on sequentially: there are few chunks.
    if initial_state is None:
        state = x.new_zeros(batch, groups, size, ratio, width)
    else:
        state = initial_state.reshape(batch, groups, ratio, width, size).permute(0, 1, 4, 2, 3)
    across = summed[..., -1].exp()[:, :, :, None, :, None]  # (B, K, G, 1, R, 1)
    starts = []
    for k in range(chunks):
        starts.append(state)
        state = state * across[:, k] + added[:, k]

    # 4. What the state at a chunk's start adds to its outputs.
    entering = torch.stack(starts, dim=1).reshape(batch, chunks, groups, size, ratio * width)
    carried = (C @ entering).reshape(batch, chunks, groups, steps, ratio, width).transpose(3, 4)
    y = y + carried * summed.exp()[..., None]  # (B, K, G, R, Q, P)

    y = y.permute(0, 1, 4, 2, 3, 5).reshape(batch, chunks * steps, heads, width)[:, :length]
    return y, state.permute(0, 1, 3, 4, 2).reshape(batch, heads, width, size)
