"""Front ends: raw LFP to the frames that decoders see, causal from the first sample on.

A front end is a list of features per channel. Each feature is a causal filter, then for band powers the square, a
causal smoother and the logarithm, all sampled at one frame rate. The state of every filter is carried from chunk to
chunk, so that a whole recording and a live stream run through the very same code: `FrontEnd.apply` pushes large
chunks, a device pushes single samples, and the frames are equal.

Frame ``k`` is emitted at the end of its interval ``[k / rate, (k + 1) / rate)`` and holds the filter outputs at the
last sample of that interval; where the sampling rate is no multiple of the frame rate, the output is interpolated
linearly one sampling interval before the frame's end, between two samples that are both in the past.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np

from .errors import RecordingError, unknown_name
from .recording import ArrayLike

# Added to band powers before the logarithm (µV²), far below the noise of any amplifier.
POWER_FLOOR = 1e-2
# Two one-pole low-passes of this time constant smooth band power: their impulse response is positive, so that the
# smoothed power stays positive too, and their group delay at 0 Hz is twice the time constant.
SMOOTHING_S = 0.02
# Bands that reach above this share of the sampling rate are left out, clear of the amplifier's own anti-alias filter.
MAX_BAND_SHARE = 0.4
# Spike bins that make up a frame, at most: a sum of very many, as a recursive filter, would lose its digits.
MOST_BINS = 60
# Raw samples handled at once: bounds the memory at about 50 MB per 96 channels.
CHUNK_VALUES = 6_000_000


# Bits of a sample and of a frame's value; of the spikes of one unit in 20 ms; samples per second that sorting needs.
SAMPLE_BITS, COUNT_BITS, SPIKE_SAMPLING_HZ = 16, 4, 30_000.0


class Bandwidth(NamedTuple):
    """Kilobits per second: ``sampled`` at the electrodes, ``frames`` after the front end."""

    sampled: float
    frames: float


@dataclass(frozen=True)
class Feature:
    """One number per channel and frame.

    Attributes
    ----------
    name : for listings and records.
    low, high : pass band in Hz; ``low`` 0 means a low-pass.
    order : Butterworth order (of the low-pass, or of each flank of the band-pass).
    power : square, smooth and take the logarithm.

    A low-pass of order 0 is the plain sum over ``1 / (2 high)`` seconds: for spike counts, those of one frame.
    """

    name: str
    low: float
    high: float
    order: int
    power: bool

    def filters(self, sampling_rate: float) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the second-order sections of the band filter and, for band powers, of the smoother."""
        from scipy.signal import butter, tf2sos

        if self.order == 0:
            taps = round(sampling_rate / (2 * self.high))  # a whole number: `FrontEnd.available` has seen to it
            return tf2sos(np.ones(taps), np.eye(1, taps)[0]), None
        if self.low == 0:
            band = butter(self.order, self.high, "lowpass", fs=sampling_rate, output="sos")
        else:
            band = butter(self.order, (self.low, self.high), "bandpass", fs=sampling_rate, output="sos")
        if not self.power:
            return band, None
        pole = np.exp(-1 / (SMOOTHING_S * sampling_rate))
        return band, np.array([[(1 - pole) ** 2, 0, 0, 1, -2 * pole, pole**2]])


@dataclass(frozen=True)
class FrontEnd:
    """A named way from raw LFP to frames.

    Attributes
    ----------
    name, version : identity; raising the version invalidates cached features.
    kind : what decoders declare to accept: ``"broadband"``, ``"bands"`` or ``"spikes"``.
    rate : frames per second.
    features : all features; `available` says which a sampling rate permits.
    """

    name: str
    version: str
    kind: Literal["broadband", "bands", "spikes"]
    rate: int
    features: tuple[Feature, ...]
    causal: bool = True

    def available(self, sampling_rate: float) -> tuple[Feature, ...]:
        """Return the features that the sampling rate permits.

        Raises
        ------
        RecordingError : not a single one; or spike bins that do not fill a frame.
        """
        if self.kind == "spikes":
            bins = sampling_rate / self.rate
            if abs(bins - round(bins)) > 1e-6 or not 1 <= round(bins) <= MOST_BINS:
                raise RecordingError(
                    f"front end {self.name} adds up spikes of {1000 / self.rate:g} ms and needs counts in bins of that "
                    f"divided by a whole number up to {MOST_BINS}, not in bins of {1000 / sampling_rate:g} ms"
                )
            return self.features
        kept = tuple(feature for feature in self.features if feature.high <= MAX_BAND_SHARE * sampling_rate)
        if not kept or sampling_rate < 2 * self.rate:
            raise RecordingError(
                f"front end {self.name} needs LFP sampled at {2 * self.rate} Hz or more, not at {sampling_rate:g} Hz"
            )
        return kept

    def left_out(self, sampling_rate: float) -> tuple[str, ...]:
        """Return the names of the features that the sampling rate does not permit."""
        kept = self.available(sampling_rate)
        return tuple(feature.name for feature in self.features if feature not in kept)

    def stream(self, channels: int, sampling_rate: float) -> FrontEndStream:
        """Start a stream: push raw samples in, get finished frames out, in constant memory."""
        return FrontEndStream(self, channels, sampling_rate)

    def apply(
        self, lfp: ArrayLike, sampling_rate: float, on_progress: Callable[[float], None] | None = None
    ) -> np.ndarray:
        """Run over a whole recording.

        Parameters
        ----------
        lfp : (T, C) microvolt, read in chunks; NaN is replaced by the channel's last valid sample.
        sampling_rate : Hz.
        on_progress : called with the share done, 0 to 1.

        Returns
        -------
        (N, C, F) float32 with ``N = floor(T * rate / sampling_rate)``.
        """
        stream = self.stream(lfp.shape[1], sampling_rate)
        frames = []
        for start, stop in _chunks(lfp.shape):
            frames.append(stream.push(np.asarray(lfp[start:stop])))
            if on_progress is not None:
                on_progress(stop / lfp.shape[0])
        return np.concatenate(frames)

    def group_delays(self, sampling_rate: float) -> dict[str, float]:
        """Return each feature's group delay in seconds at the middle of its band, smoothing of power included.

        The delay of the frame interval itself (0 to one frame, half a frame on average) comes on top.
        """
        from scipy.signal import freqz_sos

        def delay(sos: np.ndarray, frequency: float) -> float:
            around = frequency + np.array([-0.01, 0.01])
            _, response = freqz_sos(sos, worN=np.abs(around), fs=sampling_rate)
            phase = np.unwrap(np.angle(np.where(around < 0, response.conj(), response)))
            return float(-(phase[1] - phase[0]) / (2 * np.pi * (around[1] - around[0])))

        delays = {}
        for feature in self.available(sampling_rate):
            band, smoother = feature.filters(sampling_rate)
            middle = feature.high / 4 if feature.low == 0 else float(np.sqrt(feature.low * feature.high))
            delays[feature.name] = delay(band, middle) + (0.0 if smoother is None else delay(smoother, 0.0))
        return delays

    def bandwidth(self, channels: int, sampling_rate: float) -> Bandwidth:
        """Return the kilobits per second that this input takes before and after the front end."""
        spikes = self.kind == "spikes"
        sampled = channels * (SPIKE_SAMPLING_HZ if spikes else sampling_rate) * SAMPLE_BITS
        values = channels * len(self.available(sampling_rate)) * self.rate
        return Bandwidth(sampled / 1e3, values * (COUNT_BITS if spikes else SAMPLE_BITS) / 1e3)

    def settling_time(self, sampling_rate: float, remainder: float = 1e-4) -> float:
        """Return the seconds until every filter has forgotten all but ``remainder`` of an impulse's peak amplitude."""
        from scipy.signal import sosfilt

        impulse = np.zeros(int(10 * sampling_rate))
        impulse[0] = 1.0
        longest = 0.0
        for feature in self.available(sampling_rate):
            band, smoother = feature.filters(sampling_rate)
            response = np.abs(sosfilt(band, impulse))
            if smoother is not None:
                response = np.sqrt(np.abs(sosfilt(smoother, response**2)))
            late = np.flatnonzero(response > remainder * response.max())
            longest = max(longest, (late[-1] + 1) / sampling_rate)
        return longest


class FrontEndStream:
    """The front end as it runs on a device: any number of samples in, the finished frames out.

    The state is one filter memory per feature and channel, the last valid sample and the last filter output of each
    channel: its size does not grow.
    """

    def __init__(self, front_end: FrontEnd, channels: int, sampling_rate: float) -> None:
        self.channels = channels
        self.features = front_end.available(sampling_rate)
        # Frame k ends at sample (k + 1) * step, an exact fraction, so that no rounding shifts a frame.
        self._step = Fraction(sampling_rate).limit_denominator(1_000_000) / front_end.rate
        self._filters = [feature.filters(sampling_rate) for feature in self.features]
        self._band_state = [np.zeros((len(band), channels, 2)) for band, _ in self._filters]
        self._power_state = [np.zeros((1, channels, 2)) for _ in self._filters]
        self._last_valid = np.zeros(channels)
        self._last_output = np.zeros((channels, len(self.features)))
        self._samples = 0
        self._frames = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take raw samples and return the frames that they finish.

        Parameters
        ----------
        samples : (n, C) microvolt, or (C,) for a single sample.

        Returns
        -------
        (m, C, F) float32; m may be 0.
        """
        from scipy.signal import sosfilt

        samples = np.atleast_2d(samples)
        if samples.shape[1] != self.channels:
            raise RecordingError(f"the stream was started for {self.channels} channels, got {samples.shape[1]}")
        signal = self._without_gaps(np.ascontiguousarray(samples.T, np.float64))  # (C, n)
        first, weight = self._next_positions(signal.shape[1])
        frames = np.empty((len(first), self.channels, len(self.features)), np.float32)
        for index, (feature, (band, smoother)) in enumerate(zip(self.features, self._filters)):
            output, self._band_state[index] = sosfilt(band, signal, zi=self._band_state[index])
            if smoother is not None:
                np.square(output, out=output)
                output, self._power_state[index] = sosfilt(smoother, output, zi=self._power_state[index])
            # One column of history in front: a frame may lie between the previous chunk's last sample and ours.
            padded = np.concatenate([self._last_output[:, index, None], output], axis=1)
            values = padded[:, first] * (1 - weight)
            values += padded[:, np.minimum(first + 1, padded.shape[1] - 1)] * weight
            frames[..., index] = (np.log(values + POWER_FLOOR) if feature.power else values).T
            self._last_output[:, index] = output[:, -1]
        return frames

    def _next_positions(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the frames that ``count`` more samples finish.

        Returns the index into history and chunk, and the weight of the column after it.
        """
        start = self._samples
        self._samples += count
        finished = int(self._samples / self._step)
        ends = np.arange(self._frames + 1, finished + 1, dtype=np.int64)
        self._frames = finished
        numerator, denominator = self._step.numerator, self._step.denominator
        # A frame that ends at sample e = k * step takes position e - 1; column 0 of the history is sample start - 1.
        whole = ends * numerator // denominator
        weight = (ends * numerator - whole * denominator) / denominator
        return whole - start, weight

    def _without_gaps(self, signal: np.ndarray) -> np.ndarray:
        """Replace NaN and infinite samples by the channel's last valid one (0 before the first)."""
        valid = np.isfinite(signal)
        if not valid.all():
            signal = np.concatenate([self._last_valid[:, None], signal], axis=1)
            valid = np.concatenate([np.ones((self.channels, 1), bool), valid], axis=1)
            source = np.maximum.accumulate(np.where(valid, np.arange(signal.shape[1]), 0), axis=1)
            signal = np.take_along_axis(signal, source, axis=1)[:, 1:]
        self._last_valid = signal[:, -1].copy()
        return signal


def _chunks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    length = max(1, CHUNK_VALUES // shape[1])
    for start in range(0, shape[0], length):
        yield start, min(start + length, shape[0])


FRONT_ENDS = {
    front_end.name: front_end
    for front_end in (
        FrontEnd(
            name="bands50",
            version="1",
            kind="bands",
            rate=50,
            features=(
                Feature("lmp", 0, 5, order=2, power=False),
                Feature("theta", 4, 12, order=2, power=True),
                Feature("beta", 12, 30, order=2, power=True),
                Feature("low_gamma", 30, 55, order=2, power=True),
                Feature("gamma", 65, 100, order=2, power=True),
                Feature("high_gamma", 100, 200, order=2, power=True),
            ),
        ),
        FrontEnd(
            name="lfp100",
            version="1",
            kind="broadband",
            rate=100,
            features=(Feature("amplitude", 0, 40, order=6, power=False),),
        ),
        FrontEnd(
            name="spikes50",
            version="1",
            kind="spikes",
            rate=50,
            features=(Feature("count", 0, 25, order=0, power=False),),
        ),
    )
}


def front_end(name: str) -> FrontEnd:
    """Look a front end up by name.

    Raises
    ------
    UnknownNameError : unknown name, with the nearest ones.
    """
    if name not in FRONT_ENDS:
        raise unknown_name("front end", name, FRONT_ENDS)
    return FRONT_ENDS[name]
