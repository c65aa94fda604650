"""The array and its days: geometry, spatial fields of tuning, drift, moved and dead electrodes, gains.

Every change grows with the distance between days, so that "how far apart" is one graded axis:

- tuning drifts smoothly; the correlation between two days falls with their distance (`tuning_similarity`),
- electrodes move now and then, and a moved one reads another field from then on,
- dead electrodes stay dead,
- gains differ from day to day.
"""

from __future__ import annotations

import numpy as np

from .configuration import SimulationConfig
from .streams import named

GRID = 10
FIELD_NUGGET = 0.05


def positions(config: SimulationConfig) -> np.ndarray:
    """Return (C, 2) positions in mm: a 10 x 10 grid without corners, or the most compact part of it."""
    grid = np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID), indexing="ij"), -1).reshape(-1, 2)
    corner = np.isin(grid[:, 0], (0, GRID - 1)) & np.isin(grid[:, 1], (0, GRID - 1))
    grid = grid[~corner]
    centre = np.hypot(*(grid - (GRID - 1) / 2).T)
    nearest = np.sort(np.argsort(centre, kind="stable")[: config.channels])
    return grid[nearest] * config.pitch_mm


def spatial_factor(config: SimulationConfig, length_mm: float, nugget: float) -> np.ndarray:
    """Return the Cholesky factor of an exponential spatial correlation: (C, C) float32."""
    place = positions(config)
    distance = np.hypot(*(place[:, None] - place[None]).transpose(2, 0, 1))
    correlation = (1 - nugget) * np.exp(-distance / length_mm) + nugget * np.eye(len(place))
    return np.linalg.cholesky(correlation).astype(np.float32)


def tuning_similarity(config: SimulationConfig, days_apart: float) -> float:
    """Expected correlation of an unmoved electrode's tuning between two days."""
    return float(config.tuning_floor + (1 - config.tuning_floor) * np.exp(-abs(days_apart) / config.tuning_tau_days))


def tuning(config: SimulationConfig, name: str, size: int, subject: int, day: int, length_mm: float) -> np.ndarray:
    """Return (C, size) loadings of unit variance: smooth over the array, drifting over days, redrawn where moved."""
    factor = spatial_factor(config, length_mm, FIELD_NUGGET).astype(float)
    moves = moves_until(config, subject, day)
    loadings = np.empty((config.channels, size))
    for number in range(moves.max() + 1):
        generator = named(config, f"tuning {name}", subject, number)
        # The part that never drifts, the first day's, and one innovation per day: a later day draws what an earlier
        # one drew and more, so every day lies on one path.
        draws = generator.standard_normal((day + 2, config.channels, size))
        # Ornstein-Uhlenbeck: similarity falls exponentially, hence strictly, with the days between. A sum of few
        # cosines does not: it swings back.
        keep = np.exp(-1 / config.tuning_tau_days)
        drifting = draws[1]
        for innovation in draws[2:]:
            drifting = keep * drifting + np.sqrt(1 - keep**2) * innovation
        field = factor @ (np.sqrt(config.tuning_floor) * draws[0] + np.sqrt(1 - config.tuning_floor) * drifting)
        loadings[moves == number] = field[moves == number]
    return loadings


def moves_until(config: SimulationConfig, subject: int, day: int) -> np.ndarray:
    """Return (C,) how often each electrode has moved by a day: a Poisson process, so counts never fall."""
    generator = named(config, "moves", subject)
    # Enough waiting times for any day: the chance of more moves is negligible.
    waits = generator.exponential(1.0, (config.channels, 32))
    times = np.cumsum(waits, axis=1)
    return (times < config.moved_per_100_days * day / 100).sum(1)


def dead(config: SimulationConfig, subject: int, day: int) -> np.ndarray:
    """Return (C,) bool, True for electrodes that have died by a day; once dead, always dead."""
    chance = config.dead_at_start + config.dead_per_100_days * day / 100
    return named(config, "dead", subject).random(config.channels) < chance


def gains(config: SimulationConfig, subject: int, day: int) -> np.ndarray:
    """Return (C,) amplification of a day, log-normal about 1; dead electrodes keep 2 %."""
    gain = np.exp(named(config, "gain", subject, day).normal(0, config.gain_deviation, config.channels))
    return np.where(dead(config, subject, day), 0.02 * gain, gain)
