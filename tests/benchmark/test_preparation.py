"""What decoders are handed: training statistics only, no test sample, equal clocks at both frame rates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from realmbench.dataset import Dataset, open_dataset
from realmbench.errors import RecordingError
from realmbench.front_end import front_end
from realmbench.preparation import Prepared, prepare_session
from realmbench.protocols import BlockedV1
from realmbench.recording import Recording


def prepare(dataset: Dataset, name: str = "bands50", **arguments: Any) -> Prepared:
    return prepare_session(dataset, "a2", BlockedV1(), front_end(name), **arguments)


@pytest.mark.parametrize("name", ["bands50", "lfp100"])
def test_training_frames_have_mean_zero_and_deviation_one(toy: Dataset, name: str) -> None:
    data = prepare(toy, name).data
    x = np.concatenate([segment.x for segment in data.train])
    y = np.concatenate([segment.y for segment in data.train])
    np.testing.assert_allclose(x.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(x.std(0), 1, atol=0.02)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(y.std(0), 1, atol=1e-4)


def test_changed_test_samples_leave_everything_handed_to_decoders_unchanged(toy: Dataset) -> None:
    """The whole path: nothing of a test block reaches training or validation, statistics and masks included."""
    before = prepare(toy)

    class Disturbed(type(toy)):  # type: ignore[misc]
        def load(self, session: str) -> Recording:
            recording = super().load(session)
            lfp, behaviour = np.array(recording.lfp[:]), recording.behaviour.copy()
            for span in before.manifest.of("test"):
                # One LFP sample after the block, and the behaviour of the block itself, end it at the same moment.
                lfp[int(span.start * 5) : int(span.stop * 5)] = 1e4
                behaviour[int(span.start * 5) + 1 : int(span.stop * 5)] = 77.0
            return replace(recording, lfp=lfp, behaviour=behaviour)

        @property
        def identity(self) -> str:
            return "disturbed"

    after = prepare(Disturbed())
    np.testing.assert_array_equal(before.data.mask, after.data.mask)
    for field in ("x_mean", "x_deviation", "y_mean", "y_deviation"):
        old, new = getattr(before.data.normaliser, field), getattr(after.data.normaliser, field)
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-3)
    for old_segment, new_segment in zip(before.data.train, after.data.train):
        np.testing.assert_allclose(new_segment.x, old_segment.x, atol=5e-3)
        np.testing.assert_allclose(new_segment.y, old_segment.y, atol=1e-4)
    for old_segment, new_segment in zip(before.data.validation, after.data.validation):
        np.testing.assert_allclose(new_segment.x, old_segment.x, atol=5e-3)
    assert not np.allclose(after.test[0].x, before.test[0].x)


def test_decoder_cannot_walk_from_its_arrays_to_test_samples(toy: Dataset) -> None:
    data = prepare(toy).data
    for segment in (*data.train, *data.validation):
        for array in (segment.x, segment.y):
            assert array.base is None or array.base.size == array.size


def test_both_frame_rates_are_scored_on_the_same_truth(toy: Dataset) -> None:
    slow, fast = prepare(toy, "bands50"), prepare(toy, "lfp100")
    assert slow.manifest == fast.manifest
    for slow_block, fast_block in zip(slow.test, fast.test):
        assert (slow_block.stride, fast_block.stride) == (1, 2)
        np.testing.assert_array_equal(slow_block.truth, fast_block.truth)
        rows = np.arange(len(fast_block.x))[:, None]
        assert fast_block.scored(rows)[:3, 0].tolist() == [201, 203, 205]
        assert len(slow_block.scored(np.arange(len(slow_block.x))[:, None])) == len(slow_block.truth)


def test_truth_is_the_behaviour_at_the_end_of_each_bin(toy: Dataset) -> None:
    prepared, recording = prepare(toy), toy.load("a2")
    span = prepared.manifest.of("test")[0]
    expected = recording.behaviour_at(np.array([(span.start + 1) / 50, (span.start + 2) / 50]))
    np.testing.assert_allclose(prepared.test[0].truth[:2], expected)
    assert not np.allclose(expected[0], expected[1])


def test_validation_starts_with_the_gap_as_warm_up(toy: Dataset) -> None:
    prepared = prepare(toy)
    assert {segment.warm_up for segment in prepared.data.validation} == {100}
    assert {block.warm_up for block in prepared.test} == {100}
    assert {segment.warm_up for segment in prepared.data.train} == {0}


def test_missing_channel_is_masked_and_zero_everywhere(toy_name: str) -> None:
    data = prepare(open_dataset(toy_name, options={"damage": "nan channel"})).data
    np.testing.assert_array_equal(data.mask, [True, False, True, True])
    for segment in (*data.train, *data.validation):
        assert np.all(segment.x[:, 1] == 0)
        assert np.isfinite(segment.x).all()


def test_unusable_recordings_are_refused(toy_name: str) -> None:
    with pytest.raises(RecordingError, match="no usable LFP channel"):
        prepare(open_dataset(toy_name, options={"damage": "all constant"}))
    with pytest.raises(RecordingError, match="do not overlap in time"):
        prepare(open_dataset(toy_name, options={"damage": "other clock"}))


def test_shifted_target_is_the_same_behaviour_turned_by_half(toy: Dataset) -> None:
    plain, shifted = prepare(toy), prepare(toy, shift_target=True)
    assert plain.data.key != shifted.data.key
    np.testing.assert_array_equal(plain.test[0].x, shifted.test[0].x)
    half = (plain.manifest.last_bin - plain.manifest.first_bin) // 2
    times = (np.arange(plain.manifest.of("test")[1].start, plain.manifest.of("test")[1].stop) + 1 - half) / 50
    np.testing.assert_allclose(shifted.test[1].truth, toy.load("a2").behaviour_at(times), atol=1e-5)


def test_second_call_takes_frames_from_the_cache(toy: Dataset) -> None:
    said: list[str] = []
    options = {"noise": 11.0}
    for _ in range(2):
        prepare(type(toy)(options=options), on_progress=lambda text, _share: said.append(text))
    assert said == ["bands50 of a2"]
