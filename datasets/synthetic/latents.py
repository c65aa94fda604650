"""Latent activity of motor cortex: the same dynamics for all sessions, only their expression on electrodes drifts."""

from __future__ import annotations

import numpy as np

from .configuration import SimulationConfig
from .kinematics import Movement
from .streams import band_limited, named, shifted

# Nominal speed (cm/s) and position (cm): constants, so that no session statistic enters the generator.
NOMINAL_SPEED = 9.0
NOMINAL_POSITION = 5.0
# Rotational planes (frequency in Hz, time constant in seconds), after Churchland et al. 2012.
ROTATIONS = ((1.8, 0.25), (2.6, 0.16))
# Speed that the condition-invariant latent is centred on, in nominal units.
MEAN_SPEED = 0.6

# Group of each latent, in the order of the rows that `movement_latents` returns.
GROUPS: tuple[str, ...] = (
    *("direction",) * 2, *("rotation 1",) * 4, *("rotation 2",) * 4, *("feedback",) * 2, "speed", *("position",) * 2,
)  # fmt: skip


def movement_latents(config: SimulationConfig, movement: Movement, subject: int, day: int) -> np.ndarray:
    """Return (15, T) float32 latents: intended direction, its rotations, re-afference, speed, position.

    Activity leads the movement by ``lead_s``; re-afferent activity follows the executed velocity, motor noise
    included, by ``feedback_lag_s``. That, and the ringing of the rotations, is what the future tells about now.
    """
    from scipy.signal import lfilter

    rate = config.sampling_rate
    lead = round(config.lead_s * rate)
    intended = shifted(movement.intended / NOMINAL_SPEED, lead)
    direction = intended * (np.hypot(*intended) + 0.05) ** -config.compression
    rows = [*direction]
    for frequency, tau in ROTATIONS:
        pole = np.exp((-1 / tau + 2j * np.pi * frequency) / rate)
        for axis in direction:
            ringing = lfilter([1.3 * abs(1 - pole)], [1, -pole], axis.astype(complex))
            rows += [ringing.real, ringing.imag]
    rows += [*shifted(movement.velocity / NOMINAL_SPEED, -round(config.feedback_lag_s * rate))]
    speed_lead = lead + round(0.03 * rate)
    rows += [shifted(movement.intended_speed / NOMINAL_SPEED, speed_lead) - MEAN_SPEED]
    rows += [*(0.5 * movement.position / NOMINAL_POSITION)]
    latents = np.stack(rows).astype(np.float32)

    pole = np.exp(-1 / (config.private_tau_s * rate))
    white = named(config, "private", subject, day).standard_normal(latents.shape, dtype=np.float32)
    private = lfilter([np.sqrt(1 - pole**2)], [1, -pole], white, axis=1)
    return latents + (config.private_deviation * private).astype(np.float32)


def nuisance_latents(config: SimulationConfig, count: int, subject: int, day: int) -> np.ndarray:
    """Return (K, T) float32 slow activity that has nothing to do with the task, of deviation 1."""
    white = named(config, "nuisance", subject, day).standard_normal((config.nuisance_latents, count), dtype=np.float32)
    slow = band_limited(white, 0.15, 4.0, config.sampling_rate)
    return (slow / slow.std(1, keepdims=True)).astype(np.float32)
