"""Alignments: what each forgives, what it does not, and one value of each by another route."""

from __future__ import annotations

import math

import pytest
import torch

from realmbench.realm.alignment import ALIGNMENTS, TEMPERATURE


def streams(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(3, 40, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    return a, b


def rotation() -> torch.Tensor:
    q, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64))
    return q


@pytest.mark.parametrize("kind", sorted(ALIGNMENTS))
def test_lowest_where_both_agree_and_a_gradient_leads_there(kind: str) -> None:
    loss = ALIGNMENTS[kind]
    a, b = streams()
    least = loss(b, b).item()
    assert loss(a, b).item() > least + 0.1
    a.requires_grad_()
    optimiser = torch.optim.Adam([a], lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        value = loss(a, b)
        value.backward()
        optimiser.step()
    assert value.item() < least + 0.02


def test_what_each_forgives() -> None:
    a, b = streams()
    near = b + 0.1 * a
    scale = {kind: abs((loss(3 * near, b) - loss(near, b)).item()) for kind, loss in ALIGNMENTS.items()}
    assert all(change < 1e-4 for change in scale.values())
    turned = {kind: abs((loss(near @ rotation(), b) - loss(near, b)).item()) for kind, loss in ALIGNMENTS.items()}
    assert turned["cka"] < 1e-12
    assert min(turned[kind] for kind in ("cosine", "mse", "infonce")) > 0.1


def test_centred_kernel_by_gram_matrices() -> None:
    """Kornblith et al. (2019), equation 3: HSIC of the steps' centred Gram matrices."""
    a, b = streams()
    x, y = a.flatten(0, 1), b.flatten(0, 1)
    centre = torch.eye(len(x), dtype=x.dtype) - 1 / len(x)
    ours, theirs = (centre @ (v @ v.T) @ centre for v in (x, y))
    expected = (ours * theirs).sum() / (ours.norm() * theirs.norm())
    torch.testing.assert_close(ALIGNMENTS["cka"](a, b), 1 - expected)


def test_contrast_of_what_tells_nothing_apart() -> None:
    """The same state at all steps: every step is as likely, so that the loss is the log of their number."""
    a = torch.ones(2, 20, 8)
    assert ALIGNMENTS["infonce"](a, a).item() == pytest.approx(math.log(20))
    one = torch.eye(8)[None]  # every step at right angles to every other
    expected = math.log1p(7 * math.exp(-1 / TEMPERATURE))
    assert ALIGNMENTS["infonce"](one, one).item() == pytest.approx(expected, rel=1e-3)


def test_cosine_and_squared_error_by_hand() -> None:
    a, b = streams()
    cosine = (a * b).sum(-1) / (a.square().sum(-1) * b.square().sum(-1)).sqrt()
    torch.testing.assert_close(ALIGNMENTS["cosine"](a, b), (1 - cosine).mean())

    def normed(v: torch.Tensor) -> torch.Tensor:
        return (v - v.mean(-1, keepdim=True)) / (v.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    torch.testing.assert_close(ALIGNMENTS["mse"](a, b), (normed(a) - normed(b)).square().mean())
