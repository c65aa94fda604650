"""Activity that electrodes mix linearly: movement latents, nuisance, evoked potentials, beta bursts, line, artefacts.

Each function returns a `Sources`: time courses and the loading of every electrode on them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.fft

from .configuration import SimulationConfig
from .electrodes import FIELD_NUGGET, positions, spatial_factor, tuning
from .kinematics import Movement
from .latents import GROUPS, NOMINAL_SPEED
from .streams import band_limited, complex_normal, named, one_pole, shifted

# Two beta rhythms: centre frequency in Hz, share of the bursts, amplitude.
BETA_BANDS = ((19.0, 0.65, 1.0), (26.5, 0.35, 0.7))
BETA_PATTERNS = 6
# Bursts per second at rest and in movement, and at most added by the rebound.
BETA_RATES = (2.6, 0.5, 1.5)
# Propagation of the travelling waves, mm/s.
BETA_SPEED = 200.0
# Correlation lengths of spatial fields, mm.
LMP_LENGTH, NUISANCE_LENGTH, EVOKED_LENGTH, BETA_LENGTH = 1.2, 3.0, 2.0, 2.0
LMP_WEIGHTS = {"direction": 1.0, "rotation 1": 0.7, "rotation 2": 0.5, "speed": 0.8, "position": 0.35}
# Whole-array artefacts end here, so that they leave no ripple in the high-gamma band.
ARTEFACT_HZ = 15.0


class Sources(NamedTuple):
    """Time courses (K, T) float32 and loadings (C, K)."""

    courses: np.ndarray
    loadings: np.ndarray


def local_motor_potential(config: SimulationConfig, latents: np.ndarray, subject: int, day: int) -> Sources:
    """The latents themselves, below about 5 Hz: direction is coded linearly."""
    weights = np.array([{**LMP_WEIGHTS, "feedback": config.feedback_weight}[group] for group in GROUPS])
    loadings = tuning(config, "lmp", len(latents), subject, day, LMP_LENGTH) * weights
    depth = np.exp(named(config, "depth", subject).normal(0, 0.5, config.channels))  # some sites are hardly tuned
    loadings *= depth[:, None]
    # The expected power of a loading row, not the session's own: a session statistic would tie channels together.
    scale = config.lmp_rms / np.sqrt(np.square(weights).sum() * np.exp(2 * 0.5**2))
    return Sources(latents, scale * loadings)


def nuisance(config: SimulationConfig, courses: np.ndarray, subject: int, day: int) -> Sources:
    """Slow shared activity that has nothing to do with the task."""
    loadings = tuning(config, "nuisance", len(courses), subject, day, NUISANCE_LENGTH)
    return Sources(courses, config.nuisance_rms / np.sqrt(len(courses)) * loadings)


def evoked_potentials(config: SimulationConfig, movement: Movement, subject: int, day: int) -> Sources:
    """Movement-evoked potentials: biphasic about each onset, varying from reach to reach, partly directional."""
    rate, count = config.sampling_rate, movement.intended.shape[1]
    times = np.arange(-0.25, 0.6, 1 / rate)
    kernel = np.exp(-0.5 * ((times + 0.03) / 0.06) ** 2) - 0.9 * np.exp(-0.5 * ((times - 0.14) / 0.09) ** 2)
    onset = movement.onset
    early = np.minimum(onset + round(0.12 * rate), count - 1)
    angle = np.arctan2(movement.intended[1, early], movement.intended[0, early])
    strength = np.exp(named(config, "evoked", subject, day).normal(0, 0.4, len(onset)))
    impulses = np.zeros((3, count), np.float32)
    impulses[:, onset] = strength * np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)])
    size = scipy.fft.next_fast_len(count + len(kernel), real=True)
    spectrum = scipy.fft.rfft(impulses, size) * scipy.fft.rfft(kernel.astype(np.float32), size)
    before = round(0.25 * rate)
    courses = scipy.fft.irfft(spectrum, size)[:, before : before + count]
    loadings = tuning(config, "evoked", 3, subject, day, EVOKED_LENGTH) * np.array([1.0, 0.35, 0.35])
    return Sources(courses.astype(np.float32), 0.6 * config.evoked_uv * loadings)


def beta_bursts(config: SimulationConfig, movement: Movement, subject: int, day: int) -> Sources:
    """Beta as short bursts of travelling waves: rare in movement, frequent at rest, with a rebound; no kinematics."""
    rate, count = config.sampling_rate, movement.intended.shape[1]
    generator = named(config, "beta", subject, day)
    chance = burst_rate(config, movement) / rate
    starts = np.flatnonzero(generator.random(count) < chance)
    courses = np.zeros((len(BETA_BANDS) * BETA_PATTERNS, count), np.complex64)
    shares = [share for _, share, _ in BETA_BANDS]
    for start in starts:
        band = generator.choice(len(BETA_BANDS), p=shares)
        centre, _, amplitude = BETA_BANDS[band]
        width = np.clip(np.exp(generator.normal(np.log(0.11), 0.45)), 0.05, 0.5) / 2.355
        half = int(3 * width * rate)
        times = np.arange(-half, half + 1) / rate
        phase = 2 * np.pi * generator.normal(centre, 1.3) * times + generator.uniform(0, 2 * np.pi)
        burst = np.exp(-0.5 * (times / width) ** 2 + 1j * phase) * amplitude * np.exp(generator.normal(0, 0.35))
        pattern = band * BETA_PATTERNS + generator.integers(BETA_PATTERNS)
        if half <= start < count - half:
            courses[pattern, start - half : start + half + 1] += burst.astype(np.complex64)
    patterns = config.beta_uv * beta_patterns(config, subject)
    return Sources(
        np.concatenate([courses.real, courses.imag]), np.concatenate([patterns.real, -patterns.imag], axis=1)
    )


def burst_rate(config: SimulationConfig, movement: Movement) -> np.ndarray:
    """Return (T,) bursts per second: suppressed from 180 ms before movement, enhanced after it."""
    rate = config.sampling_rate
    speed = shifted(one_pole(movement.intended_speed, 0.08, rate), round(0.18 * rate))
    moving = 1 / (1 + np.exp(-(speed - 4.0) / 1.5))
    rebound = one_pole(np.maximum(-np.gradient(moving) * rate, 0), 0.45, rate)
    at_rest, in_movement, most = BETA_RATES
    return at_rest * (1 - moving) + in_movement * moving + np.minimum(rebound, most)


def beta_patterns(config: SimulationConfig, subject: int) -> np.ndarray:
    """Return (C, K) complex loadings of the travelling waves, mostly along one axis, both ways."""
    generator = named(config, "beta patterns", subject)
    count = len(BETA_BANDS) * BETA_PATTERNS
    place = positions(config)
    direction = generator.vonmises(0.4, 2.0, count) + np.pi * (generator.random(count) < 0.5)
    speed = BETA_SPEED * np.exp(generator.normal(0, 0.3, count))
    frequency = np.repeat([centre for centre, _, _ in BETA_BANDS], BETA_PATTERNS)
    along = (place - place.mean(0)) @ np.stack([np.cos(direction), np.sin(direction)])
    factor = spatial_factor(config, BETA_LENGTH, FIELD_NUGGET)
    amplitude = np.exp(0.3 * factor @ generator.standard_normal((config.channels, count)))
    return amplitude * np.exp(-2j * np.pi * frequency / speed * along)


def line_noise(config: SimulationConfig, count: int, subject: int, day: int) -> Sources:
    """Mains hum with a wandering phase and two harmonics."""
    generator = named(config, "line", subject, day)
    times = np.arange(count) / config.sampling_rate
    wander = 0.3 * np.cumsum(generator.standard_normal(count)) / config.sampling_rate
    courses, loadings = [], []
    for harmonic, share in ((1, 1.0), (2, 0.25), (3, 0.45)):
        phase = 2 * np.pi * config.line_hz * harmonic * times + harmonic * wander
        courses += [np.cos(phase), np.sin(phase)]
        amplitude = config.line_uv * share * np.exp(generator.normal(0, 0.5, config.channels))
        offset = generator.normal(0, 0.4, config.channels) + generator.uniform(0, 2 * np.pi)
        loadings += [amplitude * np.cos(offset), amplitude * np.sin(offset)]
    return Sources(np.array(courses, np.float32), np.stack(loadings, axis=1))


def common_mode(config: SimulationConfig, count: int, subject: int, day: int) -> Sources:
    """Activity that the reference shares with every electrode."""
    generator = named(config, "common", subject, day)
    frequency = scipy.fft.rfftfreq(count, 1 / config.sampling_rate)
    shape = np.sqrt(1 / (1 + (frequency / 2.0) ** 2)) * (frequency > 0.1)
    course = scipy.fft.irfft(complex_normal(generator, 1, len(frequency)) * np.float32(shape), count)
    loading = config.common_rms * generator.normal(1, 0.05, (config.channels, 1))
    return Sources(course / course.std(), loading)


def artefacts(config: SimulationConfig, movement: Movement, subject: int, day: int) -> Sources:
    """Rare transients on the whole array, and cable noise of 5 to 30 Hz that follows speed."""
    rate, count = config.sampling_rate, movement.intended.shape[1]
    generator = named(config, "artefacts", subject, day)
    transient = np.zeros(count, np.float32)
    for _ in range(generator.poisson(config.artefacts_per_minute * count / rate / 60)):
        samples = int(generator.uniform(0.05, 0.5) * rate)
        start = generator.integers(0, count - samples)
        wave = one_pole(generator.standard_normal(samples), 1 / (2 * np.pi * ARTEFACT_HZ), rate)
        wave *= np.hanning(samples) / max(wave.std(), 1e-9)
        transient[start : start + samples] += 0.5 * wave * np.exp(generator.normal(0.5, 0.5))
    transient_loading = config.artefact_uv * generator.normal(1, 0.2, config.channels)
    # A stream of its own: switching the transients off must leave the cable noise as it was.
    generator = named(config, "cable", subject, day)
    cable = band_limited(np.asarray(generator.standard_normal(count), np.float32), 5, 30, rate)
    cable *= movement.intended_speed / NOMINAL_SPEED / cable.std()
    cable_loading = config.cable_artefact_uv * generator.normal(1, 0.3, config.channels)
    loadings = np.stack([transient_loading, cable_loading], axis=1)
    smooth = one_pole(transient, 1 / (2 * np.pi * ARTEFACT_HZ), rate)
    return Sources(np.stack([smooth, cable]).astype(np.float32), loadings)
