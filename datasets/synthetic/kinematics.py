"""Hand movements: random targets reached by minimum-jerk sub-movements with signal-dependent noise.

Flash & Hogan 1985 for the bell, Fitts 1954 for movement times, Harris & Wolpert 1998 for the form of the noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .configuration import SimulationConfig
from .streams import band_limited, named, one_pole

# An 8 x 8 grid of targets, 1.5 cm apart.
GRID_CM = (np.arange(8) - 3.5) * 1.5
# Visual feedback keeps integrated motor noise from wandering off, over this time.
FEEDBACK_TAU_S = 8.0


@dataclass(frozen=True)
class Movement:
    """Movements of one session at the LFP's sampling rate.

    Attributes
    ----------
    intended, velocity : (2, T) cm/s: what is commanded, and what the hand does.
    position : (2, T) cm.
    cue, onset, offset : samples of each reach.
    target : (N, 2) cm.
    """

    intended: np.ndarray
    velocity: np.ndarray
    position: np.ndarray
    cue: np.ndarray
    onset: np.ndarray
    offset: np.ndarray
    target: np.ndarray

    @property
    def intended_speed(self) -> np.ndarray:
        """(T,) cm/s."""
        return np.hypot(*self.intended)


def bell(samples: int) -> np.ndarray:
    """Minimum-jerk velocity profile that integrates to 1 over ``samples``."""
    phase = (np.arange(samples) + 0.5) / samples
    return 30.0 * (phase**2 - 2 * phase**3 + phase**4) / samples


def simulate_movement(config: SimulationConfig, subject: int, day: int, seconds: float) -> Movement:
    """Simulate the reaching of one session."""
    rate, count = config.sampling_rate, round(seconds * config.sampling_rate)
    generator = named(config, "behaviour", subject, day)
    intended = np.zeros((2, count + 4 * rate))
    pace = generator.normal(0, 0.05)  # of this session
    now, position, target = rate // 2, np.zeros(2), np.zeros(2)
    reaches: list[tuple[int, int, int, np.ndarray]] = []
    while now < count:
        target = _next_target(generator, target)
        reaction = np.clip(generator.normal(config.reaction_time_s, config.reaction_deviation_s), 0.12, 0.6)
        onset = now + int(reaction * rate)
        end = _reach(config, generator, intended, onset, position, target, pace)
        if end > count + 2 * rate:
            break
        reaches.append((now, onset, end, target))
        position = position + intended[:, now:end].sum(1) / rate
        now = end + int(generator.uniform(0.05, 0.2) * rate)
        if generator.random() < config.pause_probability:
            now += int(generator.exponential(config.pause_s) * rate)
    intended = intended[:, :count]
    velocity, position_trace = _execute(config, intended, subject, day)
    inside = [reach for reach in reaches if reach[1] < count]
    cues, onsets, ends = (np.array([reach[index] for reach in inside]) for index in range(3))
    targets = np.array([reach[3] for reach in inside])
    return Movement(intended, velocity, position_trace, cues, onsets, ends, targets)


def _next_target(generator: np.random.Generator, last: np.ndarray) -> np.ndarray:
    while True:
        target = generator.choice(GRID_CM, size=2)
        if np.hypot(*(target - last)) > 1.0:
            return target


def _reach(
    config: SimulationConfig,
    generator: np.random.Generator,
    velocity: np.ndarray,
    onset: int,
    position: np.ndarray,
    target: np.ndarray,
    pace: float,
) -> int:
    """Add a primary sub-movement, curved and short of the target, and often a corrective one; return its end."""
    rate = config.sampling_rate
    distance = np.hypot(*(target - position))
    base, slope = config.movement_time_s
    duration = base + slope * np.log2(distance / config.target_radius_cm + 1)
    duration *= np.exp(generator.normal(pace, config.movement_time_variation))
    samples = max(int(duration * rate), int(0.12 * rate))
    if onset + samples > velocity.shape[1] - rate:
        return velocity.shape[1]
    angle = generator.normal(0, 0.07)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    primary = rotation @ (target - position) * np.clip(generator.normal(0.93, 0.07), 0.7, 1.1)
    curvature = np.array([-primary[1], primary[0]]) * generator.normal(0, 0.12)
    profile = bell(samples) * rate
    bend = np.cos(2 * np.pi * (np.arange(samples) + 0.5) / samples) * profile
    velocity[:, onset : onset + samples] += primary[:, None] * profile + curvature[:, None] * bend
    end, remaining = onset + samples, target - position - primary
    if generator.random() < config.correction_probability or np.hypot(*remaining) > config.target_radius_cm:
        start = onset + int(samples * generator.uniform(0.65, 0.95))
        length = int(generator.uniform(0.18, 0.32) * rate)
        correction = remaining + generator.normal(0, 0.15, 2)
        velocity[:, start : start + length] += correction[:, None] * bell(length) * rate
        end = max(end, start + length)
    return end


def _execute(config: SimulationConfig, intended: np.ndarray, subject: int, day: int) -> tuple[np.ndarray, np.ndarray]:
    """Add motor noise that the command does not contain; return executed velocity and position."""
    rate = config.sampling_rate
    noise = named(config, "motor noise", subject, day).standard_normal(intended.shape)
    noise = band_limited(noise, 0.8, 6.0, rate)
    noise /= noise.std(1, keepdims=True)
    deviation = np.cumsum(config.motor_noise * (np.hypot(*intended) + 0.6) * noise, axis=1) / rate
    deviation -= one_pole(deviation, FEEDBACK_TAU_S, rate)
    position = np.cumsum(intended, axis=1) / rate + deviation
    return np.gradient(position, 1 / rate, axis=1), position
