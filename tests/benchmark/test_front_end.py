"""Front ends: equal in any chunks, causal, faithful to scipy, and with the delay that they state."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.signal import butter, sosfilt, sosfiltfilt

from realmbench.errors import RecordingError, UnknownNameError
from realmbench.front_end import FRONT_ENDS, POWER_FLOOR, front_end

NAMES = sorted(FRONT_ENDS)


def walk(samples: int, channels: int, seed: int = 0) -> np.ndarray:
    """A random walk with noise, in microvolt."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((samples, channels)).cumsum(0) + 20 * generator.standard_normal(
        (samples, channels)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sampling_rate", [250.0, 512.0, 1000.0, 763.0625])
def test_sample_by_sample_equals_the_whole(name: str, sampling_rate: float) -> None:
    if name == "spikes50":
        sampling_rate = {512.0: 500.0, 763.0625: 750.0}.get(sampling_rate, sampling_rate)  # bins that fill a frame
    lfp = walk(int(np.ceil(3 * sampling_rate)), 3)
    lfp[200:260, 1] = np.nan
    whole = front_end(name).apply(lfp, sampling_rate)
    stream = front_end(name).stream(3, sampling_rate)
    one_by_one = np.concatenate([stream.push(sample) for sample in lfp])
    assert whole.shape == (3 * front_end(name).rate, 3, len(front_end(name).available(sampling_rate)))
    np.testing.assert_allclose(one_by_one, whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_odd_chunks_equal_the_whole(name: str) -> None:
    lfp = walk(2000, 2)
    stream = front_end(name).stream(2, 1000.0)
    cuts = [0, 1, 2, 19, 20, 21, 500, 503, 1999, 2000]
    parts = [stream.push(lfp[start:stop]) for start, stop in itertools.pairwise(cuts)]
    np.testing.assert_allclose(np.concatenate(parts), front_end(name).apply(lfp, 1000.0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("future", ["noise", "zeros", "nan"])
def test_the_future_does_not_reach_the_past(name: str, future: str) -> None:
    lfp = walk(2000, 2)
    changed = lfp.copy()
    now = 1000  # a frame boundary of both front ends at 1 kHz
    changed[now:] = {"noise": walk(1000, 2, seed=1) * 100, "zeros": 0.0, "nan": np.nan}[future]
    chosen = front_end(name)
    frames = chosen.rate * now // 1000
    before, after = chosen.apply(lfp, 1000.0), chosen.apply(changed, 1000.0)
    np.testing.assert_array_equal(before[:frames], after[:frames])
    assert not np.allclose(before[frames:], after[frames:])


def test_zero_phase_filter_would_fail_the_causality_test() -> None:
    """Positive control: the same perturbation reaches the past through a zero-phase filter."""
    lfp = walk(2000, 1)[:, 0]
    changed = lfp.copy()
    changed[1000:] = 0
    sos = butter(2, 5, fs=1000.0, output="sos")
    assert np.abs(sosfiltfilt(sos, lfp)[:1000] - sosfiltfilt(sos, changed)[:1000]).max() > 1


def test_features_equal_scipy_filters_sampled_at_frame_ends() -> None:
    lfp = walk(4000, 1)
    frames = front_end("bands50").apply(lfp, 1000.0)[:, 0]
    low = sosfilt(butter(2, 5, fs=1000.0, output="sos"), lfp[:, 0])
    np.testing.assert_allclose(frames[:, 0], low[19::20], rtol=1e-5, atol=1e-4)
    power = np.square(sosfilt(butter(2, (12, 30), "bandpass", fs=1000.0, output="sos"), lfp[:, 0]))
    keep = np.exp(-1 / 20)  # one-pole low-pass of 20 ms, twice
    for _ in range(2):
        state, smooth = 0.0, np.empty_like(power)
        for index, value in enumerate(power):
            state = keep * state + (1 - keep) * value
            smooth[index] = state
        power = smooth
    beta = [feature.name for feature in front_end("bands50").features].index("beta")
    np.testing.assert_allclose(frames[:, beta], np.log(power[19::20] + POWER_FLOOR), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampling_rate", [1000.0, 250.0])
def test_stated_group_delay_is_where_a_slow_wave_arrives(sampling_rate: float) -> None:
    """A 1.25 Hz sine through the local motor potential is late by the stated delay, to a tenth of a frame."""
    times = np.arange(int(20 * sampling_rate)) / sampling_rate
    frequency = 1.25  # the middle of the low-pass at which the delay is stated
    lfp = 100 * np.sin(2 * np.pi * frequency * times)[:, None]
    output = front_end("bands50").apply(lfp, sampling_rate)[200:, 0, 0]
    # A frame holds the last sample of its interval.
    frame_times = np.arange(201, 201 + len(output)) / 50 - 1 / sampling_rate
    waves = np.stack([np.sin(2 * np.pi * frequency * frame_times), np.cos(2 * np.pi * frequency * frame_times)], axis=1)
    sine, cosine = np.linalg.lstsq(waves, output, rcond=None)[0]
    late = np.arctan2(-cosine, sine) / (2 * np.pi * frequency)
    assert late == pytest.approx(front_end("bands50").group_delays(sampling_rate)["lmp"], abs=0.002)


@pytest.mark.parametrize("name", NAMES)
def test_filters_forget_within_the_stated_settling_time(name: str) -> None:
    chosen = front_end(name)
    settled = int(chosen.settling_time(1000.0) * 1000)
    assert settled < 2000  # the protocol's gap
    lfp, disturbed = walk(6000, 1), walk(6000, 1)
    disturbed[1000] += 1000.0
    first = (1000 + settled) * chosen.rate // 1000 + 1
    before, after = chosen.apply(lfp, 1000.0), chosen.apply(disturbed, 1000.0)
    np.testing.assert_allclose(after[first:], before[first:], atol=0.02)
    assert np.abs(after[:first] - before[:first]).max() > 1


def test_bands_that_the_sampling_rate_cannot_carry_are_left_out_and_named() -> None:
    assert front_end("bands50").left_out(250.0) == ("high_gamma",)
    assert front_end("bands50").left_out(1000.0) == ()
    with pytest.raises(RecordingError, match="needs LFP sampled at 200 Hz or more"):
        front_end("lfp100").available(150.0)


def test_gap_is_bridged_by_the_last_valid_sample() -> None:
    lfp = walk(1000, 1)
    bridged = lfp.copy()
    bridged[300:400] = lfp[299]
    broken = lfp.copy()
    broken[300:400] = np.nan
    np.testing.assert_array_equal(front_end("lfp100").apply(broken, 1000.0), front_end("lfp100").apply(bridged, 1000.0))


def test_unknown_front_end_suggests() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'bands50'"):
        front_end("band50")


def test_stream_refuses_another_number_of_channels() -> None:
    with pytest.raises(RecordingError, match="started for 2 channels, got 3"):
        front_end("lfp100").stream(2, 1000.0).push(np.zeros(3))
