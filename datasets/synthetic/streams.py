"""Named random streams of the simulator and the few signal helpers that its modules share."""

from __future__ import annotations

import numpy as np
import scipy.fft

from realmbench.seeds import stream

from .configuration import SimulationConfig

# What a replicate draws anew; electrodes and tuning stay.
REPLICATED = frozenset(
    {"behaviour", "motor noise", "private", "nuisance", "background", "high gamma", "beta", "evoked", "common",
     "artefacts", "cable", "dropout", "spikes"}
)  # fmt: skip


def named(config: SimulationConfig, name: str, *keys: int | str) -> np.random.Generator:
    """Return the generator of one component: switching a component off leaves all others bit-identical."""
    if config.replicate and name in REPLICATED:
        keys = (*keys, f"replicate {config.replicate}")
    return stream(config.root_seed, name, *keys)


def complex_normal(generator: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Draw (rows, columns) complex64 numbers whose real and imaginary parts are standard normal."""
    return generator.standard_normal((rows, 2 * columns), dtype=np.float32).view(np.complex64)


def band_limited(x: np.ndarray, low: float, high: float, rate: float) -> np.ndarray:
    """Band-pass (..., T) by fourth-order amplitude flanks in the frequency domain; the simulator need not be causal."""
    spectrum = scipy.fft.rfft(x, axis=-1)
    frequency = scipy.fft.rfftfreq(x.shape[-1], 1 / rate)
    spectrum *= 1 / np.sqrt(1 + (low / np.maximum(frequency, 1e-9)) ** 8) / np.sqrt(1 + (frequency / high) ** 8)
    return scipy.fft.irfft(spectrum, x.shape[-1], axis=-1)


def shifted(x: np.ndarray, ahead: int) -> np.ndarray:
    """Return ``y[t] = x[t + ahead]`` along the last axis, zeros where x ends."""
    y = np.zeros_like(x)
    if ahead > 0:
        y[..., :-ahead] = x[..., ahead:]
    elif ahead < 0:
        y[..., -ahead:] = x[..., :ahead]
    else:
        y[...] = x
    return y


def one_pole(x: np.ndarray, tau_s: float, rate: float) -> np.ndarray:
    """Low-pass along the last axis with time constant ``tau_s``, gain 1 at 0 Hz."""
    from scipy.signal import lfilter

    pole = np.exp(-1 / (tau_s * rate))
    return lfilter([1 - pole], [1, -pole], x, axis=-1)
