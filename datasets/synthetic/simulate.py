"""One simulated session: all sources mixed, coloured background and modulated high gamma added, electrodes applied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from . import sources
from .configuration import SimulationConfig
from .electrodes import dead, gains, spatial_factor, tuning
from .kinematics import Movement, simulate_movement
from .latents import GROUPS, movement_latents, nuisance_latents
from .streams import complex_normal, named

# µV per integer of the stored recording: 3.3 mV either way, far above any artefact.
MICROVOLT_PER_UNIT = 0.1
# Background: correlation length in mm and independent share by frequency band (upper edge in Hz).
BACKGROUND_BANDS = ((4, 4.0, 0.02), (13, 3.0, 0.03), (30, 2.0, 0.05), (70, 1.2, 0.10), (np.inf, 0.8, 0.2))
# The background fades into the high-gamma carrier over the same frequencies: no step between them.
CROSSOVER_HZ, CROSSOVER_WIDTH_HZ = 75.0, 10.0
# The carrier's band; above it there is white noise alone.
CARRIER_HZ = (50.0, 300.0)
HIGH_GAMMA_LENGTH, HIGH_GAMMA_NUGGET = 0.5, 0.2
HIGH_GAMMA_WEIGHTS = {"direction": 0.8, "rotation 1": 0.35, "rotation 2": 0.35, "feedback": 0.45, "position": 0.15}
SPIKE_WEIGHTS = {
    "direction": 1.0, "rotation 1": 0.6, "rotation 2": 0.6, "feedback": 0.4, "speed": 0.8, "position": 0.2
}  # fmt: skip
SPIKE_BIN_S = 0.01
# Channels mixed and transformed at once: bounds the memory.
BLOCK = 8


@dataclass(frozen=True)
class SimulatedSession:
    """A session and its ground truth.

    Attributes
    ----------
    lfp : (T, C) int16 in units of `MICROVOLT_PER_UNIT`.
    latents : (15, T) float32.
    spike_counts : (N, C) uint8 in bins of `SPIKE_BIN_S`, None unless asked for.
    """

    lfp: np.ndarray
    movement: Movement
    latents: np.ndarray
    dead: np.ndarray
    spike_counts: np.ndarray | None


def simulate_session(config: SimulationConfig, subject: int, day: int, seconds: float) -> SimulatedSession:
    """Simulate one session, deterministic by configuration, subject and day."""
    movement = simulate_movement(config, subject, day, seconds)
    count = movement.intended.shape[1]
    latents = movement_latents(config, movement, subject, day)
    mixed = [
        sources.local_motor_potential(config, latents, subject, day),
        sources.nuisance(config, nuisance_latents(config, count, subject, day), subject, day),
        sources.evoked_potentials(config, movement, subject, day),
        sources.beta_bursts(config, movement, subject, day),
        sources.line_noise(config, count, subject, day),
        sources.common_mode(config, count, subject, day),
        sources.artefacts(config, movement, subject, day),
    ]
    courses = np.concatenate([np.asarray(part.courses, np.float32) for part in mixed])
    loadings = np.concatenate([part.loadings for part in mixed], axis=1).astype(np.float32)
    lfp = _field_potential(config, courses, loadings, latents, subject, day)
    spikes = spike_counts(config, latents, subject, day) if config.spikes else None
    return SimulatedSession(lfp, movement, latents, dead(config, subject, day), spikes)


def _field_potential(
    config: SimulationConfig, courses: np.ndarray, loadings: np.ndarray, latents: np.ndarray, subject: int, day: int
) -> np.ndarray:
    """Mix everything into (T, C) int16."""
    count = courses.shape[1]
    background = _background_spectrum(config, count, subject, day)
    carrier, first = _carrier_spectrum(config, count, subject, day)
    modulation = high_gamma_loadings(config, subject, day).astype(np.float32)
    gain = gains(config, subject, day).astype(np.float32)
    wander, wander_loading = _gain_wander(config, count, subject, day)
    lfp = np.empty((count, config.channels), np.int16)
    for start in range(0, config.channels, BLOCK):
        part = slice(start, min(start + BLOCK, config.channels))
        amplitude = np.exp(np.clip(modulation[part] @ latents, -1.0, 1.5))
        spectrum = np.zeros((part.stop - part.start, count // 2 + 1), np.complex64)
        spectrum[:, first : first + carrier.shape[1]] = carrier[part]
        signal = scipy.fft.irfft(spectrum, count, workers=-1) * amplitude
        signal += scipy.fft.irfft(background[part], count, workers=-1)
        signal += loadings[part] @ courses
        signal *= gain[part, None] * (1 + wander_loading[part, None] * wander)
        np.multiply(signal, 1 / MICROVOLT_PER_UNIT, out=signal)
        limits = np.iinfo(np.int16)
        lfp[:, part] = np.rint(np.clip(signal, limits.min, limits.max, out=signal), out=signal).T
    _drop_out(config, lfp, subject, day)
    return lfp


def _background_spectrum(config: SimulationConfig, count: int, subject: int, day: int) -> np.ndarray:
    """Return the half spectrum (C, T // 2 + 1) of 1 / f noise with a slope per channel, and of the white floor."""
    frequency = scipy.fft.rfftfreq(count, 1 / config.sampling_rate).astype(np.float32)
    spectrum = complex_normal(named(config, "background", subject, day), config.channels, len(frequency))
    edge = 0.0
    for upper, length, nugget in BACKGROUND_BANDS:
        inside = slice(*np.searchsorted(frequency, (edge, upper)))
        block = np.ascontiguousarray(spectrum[:, inside])
        correlated = spatial_factor(config, length, nugget) @ block.view(np.float32)
        spectrum[:, inside] = correlated.view(np.complex64)
        edge = upper
    slopes = named(config, "slopes", subject).normal(
        config.background_slope, config.background_slope_deviation, config.channels
    )
    fade = 1 / (1 + np.exp((frequency - CROSSOVER_HZ) / CROSSOVER_WIDTH_HZ))
    knee = np.log(np.maximum(frequency, 1e-3) / config.background_knee_hz)
    # An inverse transform of N(0, 1) + i N(0, 1) with amplitudes a has variance 4 sum(a^2) / T^2.
    unit = count / 2
    floor = config.floor_rms**2 / len(frequency)
    for channel, slope in enumerate(slopes):
        power = fade / (1 + np.exp(slope * knee))
        power[frequency < 0.05] = 0
        power *= config.background_rms**2 / power.sum()
        spectrum[channel] *= unit * np.sqrt(power + floor)
    spectrum[:, 0] = 0
    return spectrum


def _carrier_spectrum(config: SimulationConfig, count: int, subject: int, day: int) -> tuple[np.ndarray, int]:
    """Return the part of the half spectrum that holds the high-gamma carrier (C, M), and where it begins."""
    frequency = scipy.fft.rfftfreq(count, 1 / config.sampling_rate).astype(np.float32)
    first, last = np.searchsorted(frequency, CARRIER_HZ)
    inside = frequency[first:last]
    carrier = complex_normal(named(config, "high gamma", subject, day), config.channels, len(inside))
    rise = 1 / (1 + np.exp(-(inside - CROSSOVER_HZ) / CROSSOVER_WIDTH_HZ))
    power = rise * (inside / 80.0) ** -1.6 / (1 + (inside / 250.0) ** 16)
    power *= config.high_gamma_rms**2 / power[(inside >= 70) & (inside <= 200)].sum()
    factor = spatial_factor(config, HIGH_GAMMA_LENGTH, HIGH_GAMMA_NUGGET)
    carrier = (factor @ carrier.view(np.float32)).view(np.complex64)
    return carrier * np.float32(count / 2) * np.sqrt(power), int(first)


def high_gamma_loadings(config: SimulationConfig, subject: int, day: int) -> np.ndarray:
    """Return (C, 15) loadings of the log amplitude of high gamma; speed always raises it."""
    weights = np.array([{**HIGH_GAMMA_WEIGHTS, "speed": 0.0}[group] for group in GROUPS])
    loadings = tuning(config, "high gamma", len(GROUPS), subject, day, HIGH_GAMMA_LENGTH) * weights
    loadings *= config.high_gamma_depth / np.sqrt(np.square(weights).sum())
    speed = np.exp(named(config, "high gamma speed", subject).normal(0, 0.4, config.channels))
    loadings[:, GROUPS.index("speed")] = config.high_gamma_speed * speed
    return loadings


def _gain_wander(config: SimulationConfig, count: int, subject: int, day: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a slow course (T,) and each channel's loading on it: gain drifts within the session."""
    generator = named(config, "gain wander", subject, day)
    cycles, phase = generator.uniform(0.3, 0.8), generator.uniform(0, 2 * np.pi)
    course = np.sin(2 * np.pi * cycles * np.linspace(0, 1, count) + phase).astype(np.float32)
    loading = config.gain_drift_within * generator.standard_normal(config.channels)
    return course, loading.astype(np.float32)


def _drop_out(config: SimulationConfig, lfp: np.ndarray, subject: int, day: int) -> None:
    """Silence intermittent electrodes now and then, in place."""
    loose = np.flatnonzero(named(config, "intermittent", subject, day).random(config.channels) < config.intermittent)
    generator = named(config, "dropout", subject, day)
    for channel in loose:
        for _ in range(generator.poisson(0.5 * len(lfp) / config.sampling_rate / 60)):
            start = generator.integers(0, len(lfp))
            stop = start + int(generator.exponential(2.0) * config.sampling_rate)
            lfp[start:stop, channel] = lfp[start:stop, channel] * 0.02


def spike_counts(config: SimulationConfig, latents: np.ndarray, subject: int, day: int) -> np.ndarray:
    """Return (N, C) Poisson counts of one unit per electrode; units turn over within weeks."""
    step = round(SPIKE_BIN_S * config.sampling_rate)
    weights = np.array([SPIKE_WEIGHTS[group] for group in GROUPS])
    quick = config.model_copy(update={"tuning_tau_days": 25.0, "tuning_floor": 0.05})
    loadings = 0.55 * weights * tuning(quick, "spikes", len(GROUPS), subject, day, 0.05)
    whole = latents.shape[1] // step * step
    binned = latents[:, :whole].reshape(len(latents), -1, step).mean(2)
    baseline = named(config, "spike rates", subject).normal(np.log(8.0), 0.7, config.channels)
    log_rate = np.clip(baseline[:, None] + loadings @ binned, -4, np.log(120))
    counts = named(config, "spikes", subject, day).poisson(np.exp(log_rate) * SPIKE_BIN_S)
    return counts.T.astype(np.uint8)
