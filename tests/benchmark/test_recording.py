"""The recording contract refuses what cannot be used, and says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from realmbench.errors import RecordingError
from realmbench.recording import Recording, ScaledArray


def make(**changes: Any) -> Recording:
    times = np.arange(0, 10, 0.02)
    values: dict[str, Any] = {
        "dataset": "d", "subject": "s", "session": "x", "lfp": np.zeros((2500, 2), np.float32), "sampling_rate": 250.0,
        "lfp_start": 0.0, "behaviour": np.zeros((len(times), 1), np.float32), "behaviour_times": times,
        "behaviour_names": ("speed",), "behaviour_units": ("cm/s",),
    }  # fmt: skip
    return Recording(**{**values, **changes})


def test_common_span_is_where_both_clocks_run() -> None:
    assert make().common_span() == (0.0, 9.98)
    assert make(lfp_start=4.0).common_span() == (4.0, 9.98)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lfp": np.zeros(10, np.float32)}, r"must be \(samples, channels\)"),
        ({"lfp": np.zeros((0, 2), np.float32)}, "not empty"),
        ({"sampling_rate": 0.0}, "sampling rate must be positive"),
        ({"behaviour": np.zeros((3, 1), np.float32)}, "do not match"),
        ({"behaviour_names": ("a", "b")}, "one name and one unit"),
        ({"behaviour_times": np.arange(500)[::-1] * 0.02}, "times must increase"),
        ({"behaviour": np.full((500, 1), np.nan, np.float32)}, "holds NaN"),
        ({"lfp_start": 100.0}, "do not overlap in time"),
    ],
)
def test_damage_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordingError, match=rf"d/x: .*{message}"):
        make(**changes)


def test_behaviour_is_interpolated_linearly() -> None:
    times = np.array([0.0, 1.0, 3.0])
    recording = make(behaviour=np.array([[0.0], [10.0], [30.0]], np.float32), behaviour_times=times)
    np.testing.assert_allclose(recording.behaviour_at(np.array([0.5, 2.0, 9.0])), [[5.0], [20.0], [30.0]])


def test_scaled_array_reads_spans_as_microvolt() -> None:
    raw = np.arange(12, dtype=np.int16).reshape(6, 2)
    scaled = ScaledArray(raw, np.array([0.5, 2.0]))
    assert scaled.shape == (6, 2)
    np.testing.assert_allclose(scaled[1:3], [[1.0, 6.0], [2.0, 10.0]])
    np.testing.assert_allclose(scaled[1:3, 1], [6.0, 10.0])
    np.testing.assert_allclose(ScaledArray(raw, 0.1)[2], [0.4, 0.5], rtol=1e-6)
