"""Spikes as an input of their own and as privileged information beside the LFP."""

from __future__ import annotations

import numpy as np
import pytest

from realmbench.channels import inspect_units
from realmbench.conformance.rehearsal import Rehearsal
from realmbench.dataset import Dataset, open_dataset
from realmbench.errors import OptionError, RecordingError
from realmbench.front_end import front_end
from realmbench.plan import RunRequest, make_plan
from realmbench.preparation import prepare_session
from realmbench.protocols import BlockedV1


def test_frames_are_the_counts_of_their_20_ms() -> None:
    recording = Rehearsal().load("r2")
    counts, rate = recording.signal("spikes")
    frames = front_end("spikes50").apply(counts, rate)
    assert recording.spike_counts is not None
    expected = recording.spike_counts.reshape(-1, 2, 6).sum(1)
    np.testing.assert_allclose(frames[..., 0], expected, atol=1e-5)


@pytest.mark.parametrize("bins", [1, 2, 4, 5, 20, 60])
def test_counts_of_any_bin_width_add_up(bins: int) -> None:
    counts = np.random.default_rng(0).poisson(0.1, (200 * bins, 3)).astype(np.uint8)
    frames = front_end("spikes50").apply(counts, 50.0 * bins)
    np.testing.assert_allclose(frames[..., 0], counts.reshape(-1, bins, 3).sum(1), atol=1e-4)


@pytest.mark.parametrize("rate", [125.0, 30_000.0, 25.0])
def test_bins_that_do_not_fill_a_frame_are_refused(rate: float) -> None:
    with pytest.raises(RecordingError, match="divided by a whole number"):
        front_end("spikes50").apply(np.zeros((1000, 3), np.uint8), rate)


def test_silent_units_are_left_out() -> None:
    counts = np.zeros((100, 3), np.uint8)
    counts[10, 0], counts[90, 1] = 1, 1
    assert inspect_units(counts, [(0, 50)], "here").constant == (1, 2)
    with pytest.raises(RecordingError, match="here: no unit fires"):
        inspect_units(counts, [(20, 50)], "here")


def test_datasets_without_spikes_refuse_spike_decoders_at_once(toy: Dataset) -> None:
    with pytest.raises(OptionError, match="needs spikes, which toy"):
        make_plan(RunRequest("spike-gru"), toy)
    assert make_plan(RunRequest("spike-gru"), open_dataset("synthetic-reach:tiny")).front_end.name == "spikes50"
    with pytest.raises(RecordingError, match="no spikes were recorded"):
        toy.load(toy.sessions()[0].name).signal("spikes")


def test_privileged_frames_lie_beside_training_and_validation_only() -> None:
    arguments = (Rehearsal(), "r2", BlockedV1())
    with_spikes = prepare_session(*arguments, front_end("bands50"), privileged="spikes50")
    spikes = prepare_session(*arguments, front_end("spikes50")).data
    for name in ("train", "validation"):
        for segment, alone in zip(getattr(with_spikes.data, name), getattr(spikes, name), strict=True):
            np.testing.assert_array_equal(segment.privileged, alone.x)
            assert segment.start == alone.start
    without = prepare_session(*arguments, front_end("bands50"))
    assert without.data.train[0].privileged.shape == (len(without.data.train[0]), 0, 0)
    assert without.data.key != with_spikes.data.key
    assert not hasattr(with_spikes.test[0], "privileged")


def test_input_bandwidth_by_hand() -> None:
    """96 electrodes at 1 kHz and 16 bit; six features at 50 Hz; spikes need 30 kHz, then 4 bit per frame."""
    assert front_end("bands50").bandwidth(96, 1000.0) == (1536.0, 460.8)
    assert front_end("lfp100").bandwidth(96, 1000.0) == (1536.0, 153.6)
    assert front_end("spikes50").bandwidth(96, 100.0) == (46_080.0, 19.2)
