"""The chunked scan and the dual form against the recurrence in float64."""

from __future__ import annotations

import math

import pytest
import torch

from realmbench.realm.kernels import causal_convolution, masked_decay
from realmbench.realm.ssd import rotary_angles, rotated, ssd_chunked, ssd_quadratic, ssd_sequential, ssd_step

CPU = torch.device("cpu")


def inputs(length: int, heads: int = 4, groups: int = 2, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """x (2, T, H, 3), rates (2, T, H), B and C (2, T, G, 6)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rates = -torch.nn.functional.softplus(normal(2, length, heads)) * normal(heads).exp()
    return normal(2, length, heads, 3), rates, normal(2, length, groups, 6), normal(2, length, groups, 6)


def angles_of(rotary: bool) -> torch.Tensor | None:
    return rotary_angles(6, CPU) if rotary else None


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 16, 100])
@pytest.mark.parametrize("chunk", [1, 8, 64])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
def test_chunked_equals_the_recurrence(length: int, chunk: int, with_state: bool, rotary: bool) -> None:
    parts, angles = inputs(length), angles_of(rotary)
    state = torch.randn(2, 4, 3, 6, dtype=torch.float64) if with_state else None
    y, last = ssd_chunked(*parts, chunk=chunk, angles=angles, initial_state=state)
    expected, expected_last = ssd_sequential(*parts, angles, state)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(last, expected_last, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (2, 1)])
def test_dual_form_equals_the_recurrence_and_its_gradients_those_of_the_chunks(
    rotary: bool, heads: int, groups: int
) -> None:
    angles = angles_of(rotary)
    parts = [part.requires_grad_() for part in inputs(37, heads, groups)]
    expected, _ = ssd_sequential(*parts, angles)
    weights = torch.randn(expected.shape, dtype=torch.float64)
    gradients = []
    for y in (ssd_quadratic(*parts, angles), ssd_chunked(*parts, 8, angles)[0]):
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
        gradients.append(torch.autograd.grad((y * weights).sum(), parts))
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_recurrence_by_hand() -> None:
    """One head, one-dimensional state: h = exp(rate) h + x B, y = h C."""
    x, rates = torch.tensor([2.0, 3.0]), torch.tensor([-0.5, -0.25])
    B, C = torch.tensor([1.0, 4.0]), torch.tensor([10.0, 100.0])
    first = 2 * 1
    second = first * math.exp(-0.25) + 3 * 4
    y, _ = ssd_chunked(
        x.reshape(1, 2, 1, 1), rates.reshape(1, 2, 1), B.reshape(1, 2, 1, 1), C.reshape(1, 2, 1, 1), chunk=2
    )
    torch.testing.assert_close(y.flatten(), torch.tensor([first * 10.0, second * 100.0]))


def test_turning_the_state_is_rotary_positions_on_b_and_c() -> None:
    """By the definition of Su et al. (2021): the pair n of position t is a complex number times exp(i t theta_n)."""
    x, rates, B, C = inputs(30)
    angles = rotary_angles(6, CPU)
    torch.testing.assert_close(angles, torch.tensor([1.0, 1e4 ** (-1 / 3), 1e4 ** (-2 / 3)], dtype=torch.float64))
    turns = torch.polar(torch.ones(30, 1, 3, dtype=torch.float64), torch.arange(30.0).double()[:, None, None] * angles)

    def positioned(v: torch.Tensor) -> torch.Tensor:
        z = torch.complex(v[..., :3], v[..., 3:]) * turns
        return torch.cat([z.real, z.imag], dim=-1)

    expected, _ = ssd_sequential(x, rates, positioned(B), positioned(C))
    y, _ = ssd_sequential(x, rates, B, C, angles)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-11)
    assert not torch.allclose(y, ssd_sequential(x, rates, B, C)[0])


def test_a_turn_keeps_lengths_and_comes_back() -> None:
    v, angles = torch.randn(5, 6, dtype=torch.float64), rotary_angles(6, CPU)
    torch.testing.assert_close(rotated(v, angles).norm(dim=-1), v.norm(dim=-1))
    torch.testing.assert_close(rotated(rotated(v, angles), -angles), v)


@pytest.mark.parametrize("rotary", [False, True])
def test_state_carries_a_sequence_across_calls(rotary: bool) -> None:
    parts, angles = inputs(50), angles_of(rotary)
    whole, _ = ssd_chunked(*parts, 16, angles)
    first, state = ssd_chunked(*(part[:, :20] for part in parts), 16, angles)
    second, _ = ssd_chunked(*(part[:, 20:] for part in parts), 16, angles, state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=0, atol=1e-12)


def test_step_is_the_recurrence() -> None:
    x, rates, B, C = (part[:, 0] for part in inputs(1))
    state = torch.randn(2, 4, 3, 6, dtype=torch.float64)
    y, _ = ssd_step(x, rates, B, C, state)
    new = torch.exp(rates)[..., None, None] * state
    new = new + torch.einsum("bhp,bhn->bhpn", x, B.repeat_interleave(2, 1))
    torch.testing.assert_close(y, torch.einsum("bhpn,bhn->bhp", new, C.repeat_interleave(2, 1)))


def test_gradients() -> None:
    parts = [part.requires_grad_() for part in inputs(5, heads=2, groups=1)]
    angles = angles_of(True)
    torch.autograd.gradcheck(lambda *parts: ssd_chunked(*parts, 2, angles)[0], parts)


def test_gradients_of_what_is_written_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    torch.autograd.gradcheck(masked_decay, (normal(2, 1, 4, 4), normal(2, 1, 3, 4)))
    for length in (1, 2, 3, 7):  # shorter than the taps, too
        torch.autograd.gradcheck(causal_convolution, (normal(2, length, 5), normal(5, 4), normal(5)))


@pytest.mark.parametrize("length", [1, 3, 20])
def test_convolution_equals_torch(length: int) -> None:
    x, weight, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, length, 5), (5, 4), (5,)))
    expected = torch.nn.functional.conv1d(x.transpose(1, 2), weight[:, None], bias, padding=3, groups=5)
    torch.testing.assert_close(causal_convolution(x, weight, bias), expected[..., :length].transpose(1, 2))


def test_strong_decay_over_a_long_chunk_stays_finite() -> None:
    x, rates, B, C = (part.float() for part in inputs(256))
    parts = (x, 50 * rates, B, C)
    y, _ = ssd_chunked(*parts, chunk=64)
    expected, _ = ssd_sequential(*(part.double() for part in parts))
    assert (y.double() - expected).abs().max() < 1e-5 * expected.abs().max()
