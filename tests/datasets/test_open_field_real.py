"""The real recordings of `open-field`; these tests must run wherever the recordings are."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from realmbench.dataset import open_dataset
from realmbench.datasets.open_field import FILES, OpenField

SESSIONS = ["M851-pre", "M851-post", "M845-pre", "M845-post", "10073"]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> OpenField:
    """The real recordings, prepared with ``--from-dir`` (which verifies every SHA-256)."""
    named = os.environ.get("REALMBENCH_OPEN_FIELD")
    source = Path(named) if named else Path(__file__).parents[3] / "shared" / "data" / "open-field"
    if not source.is_dir():
        if named:
            pytest.fail(f"REALMBENCH_OPEN_FIELD={named} is not a folder")
        pytest.skip("no copy of the open-field recordings; set REALMBENCH_OPEN_FIELD to the folder that holds them")
    dataset = open_dataset("open-field", tmp_path_factory.mktemp("data"))
    assert isinstance(dataset, OpenField)
    dataset.prepare(source)
    return dataset


def test_real_files_have_the_pinned_sizes_and_hashes(real: OpenField) -> None:
    for name, file in FILES.items():
        path = real.folder / name
        assert path.stat().st_size == file.size, name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256, name


@pytest.mark.parametrize("session", SESSIONS)
def test_real_session(real: OpenField, session: str) -> None:
    from scipy.signal import welch

    recording = real.load(session)
    assert recording.lfp.shape == (150_000, 1)
    assert recording.behaviour.shape == (30_000, 1)
    start, stop = recording.common_span()
    assert start == 0.0
    assert stop == pytest.approx(600, abs=0.03)

    speed = np.expm1(recording.behaviour[:, 0])
    assert 3 < np.median(speed) < 15
    assert 20 < np.percentile(speed, 99) < 60
    assert speed.max() < 100
    # At rest the jitter of the tracker must not pass for running.
    assert np.percentile(speed, 1) < 1

    lfp = np.asarray(recording.lfp[:])[:, 0]
    assert 50 < lfp.std() < 300
    frequencies, power = welch(lfp, recording.sampling_rate, nperseg=1024)
    shown = (frequencies > 3) & (frequencies < 40)
    assert 6 <= frequencies[shown][power[shown].argmax()] <= 10
    assert recording.provenance["clipped_share"] < 0.03
    assert recording.provenance["tracking_lost_share"] < 0.2


def test_real_pulses_lie_outside_the_sessions(real: OpenField) -> None:
    from realmbench.datasets.axona import read_pulses

    for path in real.folder.rglob("*.stm"):
        onsets = read_pulses(path)
        assert len(onsets) == 8000
        assert 600 < onsets[0] < 600.1
        assert 1799.9 < onsets[-1] < 1800 - 0.01


def test_real_theta_power_follows_running(real: OpenField) -> None:
    """The relation that decoders rest on: theta is stronger while the animal runs."""
    from scipy.signal import butter, sosfilt

    recording = real.load("M851-pre")
    theta = sosfilt(butter(3, (6, 10), "band", fs=250, output="sos"), np.asarray(recording.lfp[:])[:, 0])
    power = np.log(np.square(theta).reshape(-1, 250).mean(axis=1))
    speed = recording.behaviour_at(np.arange(600) + 0.5)[:, 0]
    shifted = np.roll(speed, 300)
    assert np.corrcoef(power, speed)[0, 1] > 0.25
    assert abs(np.corrcoef(power, shifted)[0, 1]) < 0.15


def test_real_velocity_agrees_with_speed(real: OpenField) -> None:
    velocity = OpenField("velocity", real.data_root).load("10073").behaviour
    speed = real.load("10073").behaviour[:, 0]
    np.testing.assert_allclose(np.log1p(np.hypot(*velocity.T)), speed, atol=1e-4)
    # In a closed box nothing drifts away.
    assert np.all(np.abs(velocity.mean(axis=0)) < 0.5)
