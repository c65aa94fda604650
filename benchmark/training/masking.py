"""Masked autoencoding's corruptions: blocks of masked tokens, dropped channels, gains and noise."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator


class MaskingOptions(BaseModel):
    """How the input is corrupted; defaults are those of REALM (blocks of 10 to 50 steps at 100 Hz).

    Attributes
    ----------
    share : of the tokens that is masked.
    shortest_s, longest_s : length of a masked block.
    channel_dropout : probability that a channel is silenced in a window; the only usable one never is.
    gain : each channel is scaled by a factor from ``1 - gain`` to ``1 + gain``.
    noise : standard deviation of added white noise, in units of the normalised input.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(0.6, gt=0, lt=1)
    shortest_s: float = Field(0.1, gt=0)
    longest_s: float = Field(0.5, gt=0)
    channel_dropout: float = Field(0.15, ge=0, lt=1)
    gain: float = Field(0.15, ge=0, lt=1)
    noise: float = Field(0.05, ge=0)

    @model_validator(mode="after")
    def _shortest_is_shortest(self) -> MaskingOptions:
        if self.shortest_s > self.longest_s:
            raise ValueError(f"shortest_s={self.shortest_s:g} is longer than longest_s={self.longest_s:g}")
        return self


def block_mask(
    batch: int, steps: int, rate: int, options: MaskingOptions, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Draw masks made of random blocks until at least the wanted share is masked.

    Parameters
    ----------
    rate : tokens per second.
    generator : None draws from torch's global generator.

    Returns
    -------
    (B, T) bool, True where the token is masked; every row has at least one masked and one open token.
    """
    if steps < 2:
        raise ValueError(f"a window of {steps} token cannot be masked in part; lengthen the training windows")
    shortest = max(1, round(options.shortest_s * rate))
    longest = max(shortest, round(options.longest_s * rate))
    wanted = min(max(1, round(options.share * steps)), steps - 1)
    masks = torch.zeros(batch, steps, dtype=torch.bool)
    for row in masks:
        while (masked := int(row.sum())) < wanted:
            length = int(torch.randint(shortest, longest + 1, (1,), generator=generator))
            start = int(torch.randint(-length + 1, steps, (1,), generator=generator))
            block = row[max(0, start) : start + length]
            # The last block is cut so that the share is met exactly and something always stays open.
            open_positions = (~block).nonzero()[: wanted - masked]
            block[open_positions] = True
    return masks


def corrupt(x: torch.Tensor, mask: torch.Tensor, options: MaskingOptions) -> torch.Tensor:
    """Silence channels, scale them and add noise, by torch's global generator.

    Parameters
    ----------
    x : (B, T, C, F), returned in the same shape.
    mask : (B, C) bool, the usable channels.
    """
    batch, _, channels, _ = x.shape
    gain = 1 + options.gain * (2 * torch.rand(batch, 1, channels, 1, device=x.device) - 1)  # (B, 1, C, 1)
    kept = torch.rand(batch, channels, device=x.device) >= options.channel_dropout  # (B, C)
    kept |= mask.sum(1, keepdim=True) == 1  # without its only usable channel a window would hold nothing
    return x * gain * kept[:, None, :, None] + options.noise * torch.randn_like(x)
