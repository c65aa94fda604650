"""The Axona reader: values against numbers worked out by hand, and every kind of damage."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from realmbench.datasets.axona import (
    eeg_microvolt_per_unit,
    read_eeg,
    read_pulses,
    read_settings,
    read_tracking,
)
from realmbench.errors import RecordingError

END = b"\r\ndata_end\r\n"
EEG_HEADER = {
    "trial_date": "Monday, 8 Sep 2014",
    "num_chans": "1",
    "sample_rate": "250.0 hz",
    "bytes_per_sample": "1",
    "num_EEG_samples": "5    ",
}
POS_HEADER = {
    "timebase": "50 hz",
    "bytes_per_timestamp": "4",
    "sample_rate": "50.0 hz",
    "pos_format": "t,x1,y1,x2,y2,numpix1,numpix2",
    "bytes_per_coord": "2",
    "pixels_per_metre": "300",
    "num_pos_samples": "3",
}
STM_HEADER = {"timebase": "1000 hz", "bytes_per_timestamp": "4", "data_format": "t", "num_stm_samples": "2"}
EEG_DATA = bytes([0, 1, 127, 128, 255])
POS_DATA = b"".join(
    struct.pack(">I8H", *row)
    for row in (
        (0, 100, 200, 1023, 1023, 9, 0, 9, 0),
        (1, 1023, 1023, 300, 400, 0, 9, 9, 0),
        (2, 102, 1023, 301, 258, 9, 9, 18, 0),
    )
)


def write(path: Path, header: dict[str, str], data: bytes, end: bytes = END) -> Path:
    lines = "".join(f"{key} {value}\r\n" for key, value in header.items())
    path.write_bytes(lines.encode() + b"data_start" + data + end)
    return path


def test_eeg_samples_are_signed_bytes(tmp_path: Path) -> None:
    eeg = read_eeg(write(tmp_path / "a.eeg", EEG_HEADER, EEG_DATA))
    assert eeg.samples.tolist() == [0, 1, 127, -128, -1]
    assert eeg.sampling_rate == 250.0


def test_scale_uses_the_gain_of_the_channel_counted_from_zero(tmp_path: Path) -> None:
    path = tmp_path / "a.set"
    path.write_bytes(
        b"ADC_fullscale_mv 1500\r\ngain_ch_15 6000\r\ngain_ch_16 1\r\nEEG_ch_1 16\r\nsaveEEG_ch_1 1\r\n"
        b"saveEEG_ch_2 0\r\nchanname_ch_0 \r\ncomments two words\r\n"
    )
    settings = read_settings(path)
    assert settings["comments"] == "two words"
    assert settings["channame_ch_0"] == ""
    # 1500 mV at the converter are 250 µV at the electrode behind a gain of 6000, and 128 units.
    assert eeg_microvolt_per_unit(settings, path) == pytest.approx(250 / 128)
    with pytest.raises(RecordingError, match="EEG 2 was not saved"):
        eeg_microvolt_per_unit(settings, path, number=2)
    with pytest.raises(RecordingError, match="no 'gain_ch_15'"):
        eeg_microvolt_per_unit({k: v for k, v in settings.items() if k != "gain_ch_15"}, path)
    with pytest.raises(RecordingError, match="gain_ch_15 must be positive"):
        eeg_microvolt_per_unit(settings | {"gain_ch_15": "0"}, path)


def test_positions_are_big_endian_and_1023_is_not_seen(tmp_path: Path) -> None:
    tracking = read_tracking(write(tmp_path / "a.pos", POS_HEADER, POS_DATA))
    nan = np.nan
    expected = [[[100, 200], [nan, nan]], [[nan, nan], [300, 400]], [[nan, nan], [301, 258]]]
    np.testing.assert_array_equal(tracking.spots, expected)
    np.testing.assert_allclose(tracking.times, [0, 0.02, 0.04])
    assert (tracking.sampling_rate, tracking.pixels_per_metre) == (50.0, 300.0)


def test_padding_after_the_stop_is_cut_and_a_broken_counter_refused(tmp_path: Path) -> None:
    def records(frames: list[int]) -> bytes:
        return b"".join(struct.pack(">I8H", frame, 1, 2, 1023, 1023, 0, 0, 0, 0) for frame in frames)

    header = POS_HEADER | {"num_pos_samples": "60"}
    padded = write(tmp_path / "padded.pos", header, records([*range(10), *[9999] * 50]))
    assert read_tracking(padded).times[-1] == pytest.approx(9 / 50)
    broken = write(tmp_path / "broken.pos", header, records([*range(9), *[9999] * 51]))
    with pytest.raises(RecordingError, match="breaks at record 9 of 60"):
        read_tracking(broken)


def test_pulses_are_seconds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.stm", STM_HEADER, struct.pack(">2I", 600074, 600212))
    np.testing.assert_allclose(read_pulses(path), [600.074, 600.212])
    backwards = write(tmp_path / "b.stm", STM_HEADER, struct.pack(">2I", 2, 1))
    with pytest.raises(RecordingError, match="back in time"):
        read_pulses(backwards)


@pytest.mark.parametrize("kept", [0, 4])
def test_a_truncated_file_is_named_with_its_bytes(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "short.eeg", EEG_HEADER, EEG_DATA[:kept], end=b"")
    with pytest.raises(RecordingError, match=rf"short\.eeg is truncated: .* 5 bytes in all, but {kept} bytes follow"):
        read_eeg(path)


def test_a_truncated_tracking_file_is_named_with_its_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "short.pos", POS_HEADER, POS_DATA[:-7], end=b"")
    with pytest.raises(RecordingError, match="60 bytes in all, but 53 bytes follow"):
        read_tracking(path)


def test_surplus_and_missing_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="13 other bytes follow"):
        read_eeg(write(tmp_path / "long.eeg", EEG_HEADER, EEG_DATA + b"x"))
    with pytest.raises(RecordingError, match="0 other bytes follow"):
        read_eeg(write(tmp_path / "cut.eeg", EEG_HEADER, EEG_DATA, end=b""))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bytes_per_sample": "2"}, "expected one channel of 1-byte samples, found 1 of 2 bytes"),
        ({"num_chans": "4"}, "found 4 of 1 bytes"),
        ({"num_EEG_samples": "many"}, "num_EEG_samples must be a whole number, not 'many'"),
        ({"num_EEG_samples": "-5"}, "must not be negative"),
        ({"num_EEG_samples": "0"}, "num_EEG_samples must be positive"),
        ({"sample_rate": "250.0"}, "sample_rate must be a rate"),
        ({"sample_rate": "nan hz"}, "sample_rate must be a rate"),
    ],
)
def test_a_wrong_eeg_header_is_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        read_eeg(write(tmp_path / "a.eeg", EEG_HEADER | change, EEG_DATA))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_format": "t,x,y"}, "expected records of"),
        ({"sample_rate": "25.0 hz"}, "frame counter runs at 50.0 Hz"),
        ({"pixels_per_metre": "0"}, "pixels_per_metre must be positive"),
    ],
)
def test_a_wrong_tracking_header_is_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        read_tracking(write(tmp_path / "a.pos", POS_HEADER | change, POS_DATA))


def test_other_files_and_missing_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"none\.eeg is missing"):
        read_eeg(tmp_path / "none.eeg")
    with pytest.raises(RecordingError, match="cannot be read"):
        read_eeg(tmp_path)
    other = tmp_path / "other.eeg"
    other.write_bytes(b"RIFF and so on")
    with pytest.raises(RecordingError, match="no 'data_start' in its 14 bytes"):
        read_eeg(other)
    headless = write(tmp_path / "headless.eeg", {}, EEG_DATA)
    with pytest.raises(RecordingError, match="header is empty"):
        read_eeg(headless)
    damaged = tmp_path / "damaged.set"
    damaged.write_bytes(b"gain_ch_0 \xff\r\n")
    with pytest.raises(RecordingError, match="no text at 10"):
        read_settings(damaged)
