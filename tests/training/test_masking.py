"""Masked autoencoding's corruptions."""

from __future__ import annotations

import pytest
import torch

from realmbench.training.masking import MaskingOptions, block_mask, corrupt


@pytest.mark.parametrize("steps", [2, 10, 250])
def test_share_is_met_exactly_and_something_stays_open(steps: int) -> None:
    masks = block_mask(8, steps, 50, MaskingOptions())
    wanted = min(max(1, round(0.6 * steps)), steps - 1)
    assert masks.sum(1).tolist() == [wanted] * 8


@pytest.mark.parametrize(("shortest", "longest"), [(0.1, 0.5), (0.2, 0.3)])
def test_masks_come_in_blocks_of_the_stated_lengths(shortest: float, longest: float) -> None:
    """Runs of masked tokens at 100 Hz, where next to none meet: uniform from the shortest to the longest."""
    options = MaskingOptions(share=0.01, shortest_s=shortest, longest_s=longest)
    [mask] = block_mask(1, 400_000, 100, options, torch.Generator().manual_seed(0))
    ends = torch.nn.functional.pad(mask.int(), (1, 1)).diff().nonzero().flatten().view(-1, 2)
    runs = (ends[:, 1] - ends[:, 0]).double()
    inside = runs[(runs >= 100 * shortest) & (runs <= 100 * longest)]
    assert len(inside) > 0.95 * len(runs)
    # Half, a fifth and four fifths of the way: whole steps from one end to the other are equally likely.
    quantiles = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    expected = 100 * (shortest + quantiles * (longest - shortest))
    torch.testing.assert_close(inside.quantile(quantiles), expected, rtol=0, atol=0.1 * 100 * (longest - shortest))


def test_corruption_has_the_stated_moments() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 1, 5, 1)
    options = MaskingOptions(channel_dropout=0.2, gain=0.1, noise=0.0)
    usable = torch.ones(4000, 5, dtype=torch.bool)
    corrupted = corrupt(x, usable, options)
    silent = corrupted == 0
    assert silent.float().mean().item() == pytest.approx(0.2, abs=0.02)
    kept = corrupted[~silent]
    assert kept.min() >= 0.9
    assert kept.max() <= 1.1
    noisy = corrupt(x, usable, MaskingOptions(channel_dropout=0, gain=0, noise=0.3))
    assert noisy.std().item() == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_only_usable_channel_is_never_silenced(channels: int) -> None:
    mask = torch.zeros(500, channels, dtype=torch.bool)
    mask[:, 0] = True
    options = MaskingOptions(channel_dropout=0.9, noise=0)
    assert (corrupt(torch.ones(500, 1, channels, 1), mask, options)[:, :, 0] != 0).all()
    mask[:250] = True  # in half of the windows it is one of several
    silenced = (corrupt(torch.ones(500, 1, channels, 1), mask, options)[:, 0, 0, 0] == 0).float()
    assert silenced[:250].mean().item() == pytest.approx(0.9 if channels > 1 else 0.0, abs=0.06)
    assert not silenced[250:].any()


def test_window_of_one_token_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be masked in part"):
        block_mask(1, 1, 50, MaskingOptions())


def test_shortest_block_longer_than_the_longest_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shortest_s=0\.8 is longer than longest_s=0\.5"):
        MaskingOptions(shortest_s=0.8)
