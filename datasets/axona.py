"""Reader of Axona DACQ files: ``.eeg``, ``.pos``, ``.stm`` and ``.set``.

Each file starts with ASCII lines ``key value`` that end in CR LF. In the binary ones the last line is the bare word
``data_start``; the samples follow it without a separator, and ``CR LF data_end CR LF`` closes the file. A ``.set``
file is header alone. Source of the layout: *DacqUSB File Formats*, Axona Ltd.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from realmbench.errors import RecordingError

DATA_START = b"data_start"
DATA_END = b"\r\ndata_end\r\n"
# The tracker writes this coordinate when it does not see the LED.
LED_NOT_SEEN = 1023
POSITION_FORMAT = "t,x1,y1,x2,y2,numpix1,numpix2"
POSITION_RECORD = np.dtype([("frame", ">u4"), ("words", ">u2", (8,))])
# An .eeg sample of 8 bits spans -128 to 127.
EEG_FULL_SCALE = 128


@dataclass(frozen=True)
class AxonaEeg:
    """One ``.eeg`` file: ``samples`` (T,) int8 in units of the converter, ``sampling_rate`` in Hz."""

    samples: np.ndarray
    sampling_rate: float


@dataclass(frozen=True)
class AxonaTracking:
    """One ``.pos`` file.

    Attributes
    ----------
    times : (T,) seconds from the start of the trial, evenly spaced.
    spots : (T, 2, 2) float64 pixels, (sample, LED, x and y); NaN where that LED was not seen.
    sampling_rate : samples per second.
    pixels_per_metre : the calibration that the experimenter typed in.
    """

    times: np.ndarray
    spots: np.ndarray
    sampling_rate: float
    pixels_per_metre: float


def read_settings(path: Path) -> dict[str, str]:
    """Read a ``.set`` file: every key with its value as text.

    Raises
    ------
    RecordingError : the file is missing or does not hold one ``key value`` per line.
    """
    return _parse_header(path, _read_bytes(path))


def eeg_microvolt_per_unit(settings: dict[str, str], path: Path, number: int = 1) -> float:
    """Return microvolt per converter unit of the ``number``-th EEG, which was taken from channel ``EEG_ch_number``.

    ``EEG_ch_N`` counts channels from 1, ``gain_ch_X`` from 0. A sample of 8 bits is
    ``sample / 128 * ADC_fullscale_mv * 1000 / gain`` microvolt (Axona's own conversion).

    Parameters
    ----------
    settings : what `read_settings` returned.
    path : where it came from, for messages.
    number : 1 for ``.eeg``, 2 for ``.eeg2`` and so on.

    Raises
    ------
    RecordingError : a value is absent or not positive, or this EEG was not saved.
    """
    if _integer(settings, f"saveEEG_ch_{number}", path) != 1:
        raise RecordingError(f"{path}: EEG {number} was not saved in this recording (saveEEG_ch_{number} is not 1)")
    channel = _positive(settings, f"EEG_ch_{number}", path)
    gain = _positive(settings, f"gain_ch_{channel - 1}", path)
    full_scale_millivolt = _positive(settings, "ADC_fullscale_mv", path)
    return full_scale_millivolt * 1000 / gain / EEG_FULL_SCALE


def read_eeg(path: Path) -> AxonaEeg:
    """Read an ``.eeg`` file.

    Returns
    -------
    AxonaEeg : (T,) int8 samples and their rate in Hz.

    Raises
    ------
    RecordingError : missing, truncated, damaged, or not one channel of 8-bit samples.
    """
    header, payload = _read_binary(path)
    width = _integer(header, "bytes_per_sample", path)
    channels = _integer(header, "num_chans", path)
    if (width, channels) != (1, 1):
        raise RecordingError(f"{path}: expected one channel of 1-byte samples, found {channels} of {width} bytes")
    count = _positive(header, "num_EEG_samples", path)
    samples = np.frombuffer(_exactly(path, payload, count, width), np.int8)
    return AxonaEeg(samples, _rate(header, "sample_rate", path))


def read_tracking(path: Path) -> AxonaTracking:
    """Read a ``.pos`` file: 20-byte records of a frame counter, two LEDs and their sizes.

    DACQ writes whole seconds; when a trial is stopped it may fill the last one with records whose counter stands
    still. Such a tail of at most one second is cut off.

    Returns
    -------
    AxonaTracking : (T, 2, 2) positions in pixels and (T,) times in seconds.

    Raises
    ------
    RecordingError : missing, truncated, damaged, of another record layout, or with a broken frame counter.
    """
    header, payload = _read_binary(path)
    layout = header.get("pos_format"), header.get("bytes_per_timestamp"), header.get("bytes_per_coord")
    if layout != (POSITION_FORMAT, "4", "2"):
        raise RecordingError(f"{path}: expected records of {POSITION_FORMAT} with 4 and 2 bytes, found {layout}")
    count = _positive(header, "num_pos_samples", path)
    records = np.frombuffer(_exactly(path, payload, count, POSITION_RECORD.itemsize), POSITION_RECORD)
    rate = _rate(header, "sample_rate", path)
    time_base = _rate(header, "timebase", path)
    if rate != time_base:
        raise RecordingError(f"{path}: the frame counter runs at {time_base} Hz, but the samples at {rate} Hz")

    frames = records["frame"].astype(np.int64)
    breaks = np.flatnonzero(np.diff(frames) != 1)
    kept = int(breaks[0]) + 1 if len(breaks) else count
    if count - kept > rate:
        raise RecordingError(
            f"{path}: the frame counter breaks at record {kept} of {count} ({kept / rate:.2f} s), "
            f"{count - kept} records before the end; the tracking is damaged"
        )
    spots = records["words"][:kept, :4].astype(np.float64).reshape(kept, 2, 2)
    spots[(spots == LED_NOT_SEEN).any(axis=2)] = np.nan
    pixels_per_metre = float(_positive(header, "pixels_per_metre", path))
    return AxonaTracking(frames[:kept] / time_base, spots, rate, pixels_per_metre)


def read_pulses(path: Path) -> np.ndarray:
    """Read a ``.stm`` file: onsets of stimulation pulses, (N,) seconds from the start of the trial.

    Raises
    ------
    RecordingError : missing, truncated, damaged, or with onsets that go back in time.
    """
    header, payload = _read_binary(path)
    if (header.get("data_format"), header.get("bytes_per_timestamp")) != ("t", "4"):
        raise RecordingError(f"{path}: expected records of one 4-byte time, found {header.get('data_format')!r}")
    count = _integer(header, "num_stm_samples", path)
    onsets = np.frombuffer(_exactly(path, payload, count, 4), ">u4") / _rate(header, "timebase", path)
    if np.any(np.diff(onsets) < 0):
        raise RecordingError(f"{path}: the pulse times go back in time; the file is damaged")
    return onsets


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RecordingError(f"{path} is missing") from None
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error


def _read_binary(path: Path) -> tuple[dict[str, str], bytes]:
    """Split a file into its header and all bytes after ``data_start``."""
    content = _read_bytes(path)
    head, marker, payload = content.partition(DATA_START)
    if not marker:
        raise RecordingError(
            f"{path}: no 'data_start' in its {len(content)} bytes; not an Axona file, or cut off inside the header"
        )
    return _parse_header(path, head), payload


def _parse_header(path: Path, head: bytes) -> dict[str, str]:
    try:
        lines = head.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path}: the header holds a byte that is no text at {error.start}; damaged?") from error
    header: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(" ")
        if key:
            header[key] = value.strip()
    if not header:
        raise RecordingError(f"{path}: the header is empty; not an Axona file")
    return header


def _exactly(path: Path, payload: bytes, count: int, width: int) -> bytes:
    """Return the samples, having checked that they and the end mark, and nothing else, are there."""
    expected = count * width
    if len(payload) < expected:
        raise RecordingError(
            f"{path} is truncated: the header announces {count} records of {width} bytes, {expected} bytes in all, "
            f"but {len(payload)} bytes follow it"
        )
    tail = payload[expected:]
    if tail != DATA_END:
        raise RecordingError(
            f"{path} is damaged: {expected} bytes of data must be followed by 'data_end' ({len(DATA_END)} bytes), "
            f"but {len(tail)} other bytes follow"
        )
    return payload[:expected]


def _text(header: dict[str, str], key: str, path: Path) -> str:
    if key not in header:
        raise RecordingError(f"{path}: the header has no {key!r}")
    return header[key]


def _integer(header: dict[str, str], key: str, path: Path) -> int:
    text = _text(header, key, path)
    try:
        number = int(text)
    except ValueError:
        raise RecordingError(f"{path}: {key} must be a whole number, not {text!r}") from None
    if number < 0:
        raise RecordingError(f"{path}: {key} must not be negative, and is {number}")
    return number


def _positive(header: dict[str, str], key: str, path: Path) -> int:
    number = _integer(header, key, path)
    if number == 0:
        raise RecordingError(f"{path}: {key} must be positive, and is 0")
    return number


def _rate(header: dict[str, str], key: str, path: Path) -> float:
    """Read ``250.0 hz`` or ``50 hz`` as a number."""
    text = _text(header, key, path)
    number, _, unit = text.partition(" ")
    try:
        rate = float(number)
    except ValueError:
        rate = 0.0
    if not (0 < rate < np.inf) or unit.lower() != "hz":
        raise RecordingError(f"{path}: {key} must be a rate such as '250.0 hz', not {text!r}")
    return rate
