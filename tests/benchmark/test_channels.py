"""Channel inspection sees the training samples alone and names what it finds."""

from __future__ import annotations

import numpy as np
import pytest

import realmbench.channels as channels_module
from realmbench.channels import inspect_channels
from realmbench.errors import RecordingError


def damaged(samples: int = 5000) -> np.ndarray:
    lfp = 50 * np.random.default_rng(0).standard_normal((samples, 6))
    lfp[:, 1] = np.nan
    lfp[:, 2] = 7.0
    lfp[:, 3] *= 0.001
    lfp[:, 4] = np.clip(lfp[:, 4], -60, 60)
    return lfp


@pytest.mark.parametrize("chunk_values", [600, 10_000_000])
def test_every_kind_of_damage_is_found(chunk_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels_module, "CHUNK_VALUES", chunk_values)
    report = inspect_channels(damaged(), [(0, 2000), (2500, 5000)], "here")
    assert (report.missing, report.constant, report.dead, report.clipped) == ((1,), (2,), (3,), (4,))
    np.testing.assert_array_equal(report.mask, [True, False, False, False, False, True])
    assert report.sentence() == "1 missing, 1 constant, 1 dead, 1 clipped of 6 channels left out"


def test_samples_outside_the_training_spans_are_not_looked_at() -> None:
    lfp = 50 * np.random.default_rng(0).standard_normal((5000, 2))
    lfp[3000:, 0] = np.nan
    assert inspect_channels(lfp, [(0, 3000)], "here").mask.all()
    assert inspect_channels(lfp, [(0, 5000)], "here").missing == (0,)


def test_large_offset_does_not_hide_a_living_channel() -> None:
    lfp = 1e6 + np.random.default_rng(0).standard_normal((5000, 3))
    assert inspect_channels(lfp, [(0, 5000)], "here").mask.all()


def test_no_usable_channel_is_an_error() -> None:
    with pytest.raises(RecordingError, match=r"session-7: 2 constant of 2 channels left out; no usable LFP channel"):
        inspect_channels(np.ones((100, 2)), [(0, 100)], "session-7")
