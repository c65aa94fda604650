"""The recording: one session of one subject, as every loader hands it over."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from .errors import RecordingError


class ArrayLike(Protocol):
    """What ``Recording.lfp`` must offer: an array in memory, a memory map, an HDF5 dataset, a `ScaledArray`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any) -> Any: ...


class ScaledArray:
    """Integer samples kept compactly and read as microvolt, span by span.

    Parameters
    ----------
    raw : (T, C) integer array or memory map.
    microvolt_per_unit : scalar or (C,) factor.
    """

    def __init__(self, raw: ArrayLike, microvolt_per_unit: float | np.ndarray) -> None:
        self.raw = raw
        self.microvolt_per_unit = np.asarray(microvolt_per_unit, np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.raw.shape

    def __getitem__(self, key: Any) -> np.ndarray:
        scale = self.microvolt_per_unit
        if scale.ndim and isinstance(key, tuple) and len(key) > 1:
            scale = scale[key[1]]
        return np.asarray(self.raw[key], np.float32) * scale


@dataclass(frozen=True)
class Recording:
    """One session: LFP and behaviour on one clock in seconds.

    Attributes
    ----------
    dataset, subject, session : who and when.
    lfp : (T, C) microvolt; an array, or anything that reads a span of time when it is sliced.
    sampling_rate : LFP samples per second.
    lfp_start : time of the first LFP sample, seconds.
    behaviour : (T', D) float32 in its own units.
    behaviour_times : (T',) float64 seconds on the same clock, increasing.
    behaviour_names, behaviour_units : D names and units, for example ("speed",), ("cm/s",).
    electrodes : (C, 2) positions in millimetres, where known.
    trials : arrays of equal length (onset times in seconds, targets), where known.
    spike_counts, spike_bin : (N, U) counts in bins of ``spike_bin`` seconds from ``lfp_start``, where known.
    provenance : where it came from: files, addresses, parameters.
    """

    dataset: str
    subject: str
    session: str
    lfp: ArrayLike
    sampling_rate: float
    lfp_start: float
    behaviour: np.ndarray
    behaviour_times: np.ndarray
    behaviour_names: tuple[str, ...]
    behaviour_units: tuple[str, ...]
    electrodes: np.ndarray | None = None
    trials: dict[str, np.ndarray] = field(default_factory=dict)
    spike_counts: np.ndarray | None = None
    spike_bin: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"{self.dataset}/{self.session}"
        if len(self.lfp.shape) != 2 or 0 in self.lfp.shape:
            raise RecordingError(f"{where}: the LFP must be (samples, channels) and not empty, not {self.lfp.shape}")
        if self.sampling_rate <= 0:
            raise RecordingError(f"{where}: the sampling rate must be positive, not {self.sampling_rate} Hz")
        if self.behaviour.ndim != 2 or len(self.behaviour) != len(self.behaviour_times):
            raise RecordingError(
                f"{where}: behaviour {self.behaviour.shape} and its times {self.behaviour_times.shape} do not match"
            )
        if not len(self.behaviour_names) == len(self.behaviour_units) == self.behaviour.shape[1]:
            raise RecordingError(f"{where}: every behaviour column needs one name and one unit")
        if len(self.behaviour_times) < 2 or not np.all(np.diff(self.behaviour_times) > 0):
            raise RecordingError(f"{where}: behaviour times must increase; the clock of the behaviour is damaged")
        if not np.all(np.isfinite(self.behaviour)):
            raise RecordingError(
                f"{where}: the behaviour holds NaN or infinite values; the loader must mend or cut them"
            )
        self.common_span()

    def signal(self, kind: str) -> tuple[ArrayLike, float]:
        """Return what a front end of this kind reads, (T, C), and its samples per second.

        The LFP, except for kind ``"spikes"``: the spike counts, one sample per bin.

        Raises
        ------
        RecordingError : no spikes were recorded.
        """
        if kind != "spikes":
            return self.lfp, self.sampling_rate
        if self.spike_counts is None or self.spike_bin is None:
            raise RecordingError(
                f"{self.dataset}/{self.session}: no spikes were recorded, so spike decoders cannot run"
            )
        return self.spike_counts, 1 / self.spike_bin

    @property
    def channels(self) -> int:
        """Number of LFP channels."""
        return self.lfp.shape[1]

    @property
    def lfp_stop(self) -> float:
        """Time of the end of the last LFP sample, seconds."""
        return self.lfp_start + self.lfp.shape[0] / self.sampling_rate

    def common_span(self) -> tuple[float, float]:
        """Return (start, stop) in seconds during which both LFP and behaviour exist.

        Raises
        ------
        RecordingError : the two clocks do not overlap.
        """
        start = max(self.lfp_start, float(self.behaviour_times[0]))
        stop = min(self.lfp_stop, float(self.behaviour_times[-1]))
        if stop <= start:
            raise RecordingError(
                f"{self.dataset}/{self.session}: LFP ({self.lfp_start:.3f} to {self.lfp_stop:.3f} s) and behaviour "
                f"({self.behaviour_times[0]:.3f} to {self.behaviour_times[-1]:.3f} s) do not overlap in time; "
                "bring both onto one clock in the loader"
            )
        return start, stop

    def fingerprint(self) -> str:
        """Hash shape, clocks, behaviour, spikes and a sample of the LFP: tells a changed file from the one before."""
        digest = hashlib.sha256(repr((self.lfp.shape, self.sampling_rate, self.lfp_start)).encode())
        digest.update(np.ascontiguousarray(self.behaviour).tobytes())
        digest.update(np.ascontiguousarray(self.behaviour_times).tobytes())
        step = max(1, self.lfp.shape[0] // 256)
        for start in range(0, self.lfp.shape[0], step):
            digest.update(np.ascontiguousarray(self.lfp[start : start + 4]).tobytes())
        if self.spike_counts is not None:
            digest.update(np.ascontiguousarray(self.spike_counts).tobytes())
        return digest.hexdigest()[:16]

    def behaviour_at(self, times: np.ndarray) -> np.ndarray:
        """Interpolate the behaviour linearly at the given times: (N,) seconds to (N, D) float32."""
        columns = [np.interp(times, self.behaviour_times, column) for column in self.behaviour.T]
        return np.stack(columns, axis=1).astype(np.float32)
