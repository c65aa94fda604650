"""The chunked scan against the recurrence in float64."""

from __future__ import annotations

import pytest
import torch

from realmbench.realm.ssd import ssd_chunked, ssd_sequential, ssd_step


def inputs(length: int, heads: int = 4, groups: int = 2, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    dt = torch.nn.functional.softplus(normal(2, length, heads))
    return (
        normal(2, length, heads, 3),
        dt,
        -normal(heads).exp(),
        normal(2, length, groups, 5),
        normal(2, length, groups, 5),
    )


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 16, 100])
@pytest.mark.parametrize("chunk", [1, 8, 64])
@pytest.mark.parametrize("with_state", [False, True])
def test_chunked_equals_the_recurrence(length: int, chunk: int, with_state: bool) -> None:
    parts = inputs(length)
    state = torch.randn(2, 4, 3, 5, dtype=torch.float64) if with_state else None
    y, last = ssd_chunked(*parts, chunk=chunk, initial_state=state)
    expected, expected_last = ssd_sequential(*parts, initial_state=state)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(last, expected_last, rtol=0, atol=1e-10)


def test_recurrence_by_hand() -> None:
    """One head, one-dimensional state: h = exp(dt A) h + dt x B, y = h C."""
    x, dt = torch.tensor([2.0, 3.0]), torch.tensor([0.5, 0.25])
    A, B, C = torch.tensor(-1.0), torch.tensor([1.0, 4.0]), torch.tensor([10.0, 100.0])
    first = 0.5 * 2 * 1
    second = first * torch.exp(torch.tensor(-0.25)) + 0.25 * 3 * 4
    y, _ = ssd_chunked(
        x.reshape(1, 2, 1, 1), dt.reshape(1, 2, 1), A.reshape(1), B.reshape(1, 2, 1, 1), C.reshape(1, 2, 1, 1), chunk=2
    )
    torch.testing.assert_close(y.flatten(), torch.stack([torch.tensor(first * 10), second * 100]))


def test_state_carries_a_sequence_across_calls() -> None:
    parts = inputs(50)
    whole, _ = ssd_chunked(*parts, chunk=16)
    x, dt, A, B, C = parts
    first, state = ssd_chunked(x[:, :20], dt[:, :20], A, B[:, :20], C[:, :20], chunk=16)
    second, _ = ssd_chunked(x[:, 20:], dt[:, 20:], A, B[:, 20:], C[:, 20:], chunk=16, initial_state=state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=0, atol=1e-12)


def test_step_is_the_recurrence() -> None:
    x, dt, A, B, C = inputs(1)
    state = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    y, _ = ssd_step(x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], state)
    heads_B, heads_C = B[:, 0].repeat_interleave(2, 1), C[:, 0].repeat_interleave(2, 1)
    new = torch.exp(dt[:, 0] * A)[..., None, None] * state
    new = new + torch.einsum("bh,bhp,bhn->bhpn", dt[:, 0], x[:, 0], heads_B)
    torch.testing.assert_close(y, torch.einsum("bhpn,bhn->bhp", new, heads_C))


def test_gradients() -> None:
    x, dt, A, B, C = (part.requires_grad_() for part in inputs(5, heads=2, groups=1))
    torch.autograd.gradcheck(lambda *parts: ssd_chunked(*parts, chunk=2)[0], (x, dt, A, B, C))


def test_strong_decay_over_a_long_chunk_stays_finite() -> None:
    x, dt, A, B, C = (part.float() for part in inputs(256))
    parts = (x, 50 * dt, A, B, C)
    y, _ = ssd_chunked(*parts, chunk=64)
    expected, _ = ssd_sequential(*(part.double() for part in parts))
    assert (y.double() - expected).abs().max() < 1e-5 * expected.abs().max()
