"""Overlapping windows: every frame exactly once, from the window in whose middle it lies most."""

from __future__ import annotations

import pytest
import torch

from realmbench.networks.windows import overlapping


@pytest.mark.parametrize("length", [1, 9, 10, 11, 15, 16, 99, 500])
def test_every_frame_comes_once_and_from_the_middle(length: int) -> None:
    x = torch.arange(length, dtype=torch.float32)[:, None]

    def place(windows: torch.Tensor) -> torch.Tensor:
        """Return each frame and its distance from the middle of its window."""
        size = windows.shape[1]
        assert size <= 10
        distance = (torch.arange(size) - (size - 1) / 2).abs().expand(len(windows), -1)[..., None]
        return torch.cat([windows, distance], dim=-1)

    output = overlapping(place, x, 10)
    torch.testing.assert_close(output[:, 0], x[:, 0])
    if length > 20:  # away from either end no frame is further from a middle than a quarter of a window
        assert output[5:-10, 1].max() <= 2.5
