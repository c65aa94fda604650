"""The generative model of the twin, as sampled signals and as the state-space model that is exactly theirs.

Per sample t, with two axes (x, y) throughout:

    intended velocity   u_t = a1 u_(t-1) + a2 u_(t-2) + noise          a damped oscillation, unit variance
    motor noise         m_t = a_m m_(t-1) + noise
    hand velocity       v_t = u_(t-lead) + m_t                        what is decoded
    rotations           r_t = rotation r_(t-1) + drive u_(t-1) + noise  two planes
    LFP                 y_t = W_u u_t + W_r r_t + W_v v_(t-lag) + n_t
    electrode noise     n_t = a_n n_(t-1) + e_t                       e spatially correlated

The future helps because the feedback W_v v_(t-lag) carries motor noise that nothing before it shows, because rotations
outlast their drive, and because coloured noise is smoothed better from both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from realmbench.linear_gaussian import LinearGaussian
from realmbench.seeds import stream

AXES = 2
ELECTRODE_SPACING_MM = 0.4
# Seconds simulated and thrown away before a session, so that every signal is stationary.
BURN_IN_S = 10.0


class LdsConfig(BaseModel):
    """Parameters of the twin; times in seconds, lengths in millimetres, amplitudes in microvolt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root_seed: int = 0
    channels: int = Field(32, ge=2)
    sampling_rate: int = Field(200, ge=50)
    speed_cm_s: float = Field(10.0, gt=0)
    intention_hz: float = 0.9
    intention_tau_s: float = 0.35
    motor_noise: float = Field(0.5, ge=0)
    motor_noise_tau_s: float = 0.12
    lead_s: float = Field(0.12, ge=0)
    feedback_lag_s: float = Field(0.08, ge=0)
    rotation_hz: float = 1.8
    rotation_tau_s: float = 0.2
    rotation_drive: float = 12.0
    rotation_noise: float = 0.6
    intention_uv: float = Field(8.0, ge=0)
    rotation_uv: float = Field(5.0, ge=0)
    feedback_uv: float = Field(12.0, ge=0)
    noise_uv: float = Field(73.0, gt=0)
    noise_tau_s: float = Field(0.09, gt=0)
    tuning_length_mm: float = 1.2
    noise_length_mm: float = 3.0
    session_tuning: float = Field(0.3, ge=0, lt=1)

    @property
    def lead(self) -> int:
        """Samples by which the intention leads the hand."""
        return round(self.lead_s * self.sampling_rate)

    @property
    def lag(self) -> int:
        """Samples after which the hand's velocity shows in the LFP."""
        return round(self.feedback_lag_s * self.sampling_rate)


@dataclass(frozen=True)
class Coefficients:
    """The configuration as numbers per sample."""

    a1: float
    a2: float
    intention_noise: float
    motor: float
    motor_noise: float
    rotation: complex
    rotation_drive: float
    rotation_noise: float
    electrode: float

    @classmethod
    def of(cls, config: LdsConfig) -> Coefficients:
        """Discretise."""
        dt = 1 / config.sampling_rate
        pole = np.exp((-1 / config.intention_tau_s + 2j * np.pi * config.intention_hz) * dt)
        a1, a2 = 2 * pole.real, -(abs(pole) ** 2)
        # Variance of an AR(2) process per variance of its noise (Priestley 1981, equation 3.5.14).
        variance = (1 - a2) / ((1 + a2) * ((1 - a2) ** 2 - a1**2))
        motor = np.exp(-dt / config.motor_noise_tau_s)
        rotation = np.exp((-1 / config.rotation_tau_s + 2j * np.pi * config.rotation_hz) * dt)
        return cls(
            a1=float(a1),
            a2=float(a2),
            intention_noise=float(variance**-0.5),
            motor=float(motor),
            motor_noise=float(config.motor_noise * np.sqrt(1 - motor**2)),
            rotation=complex(rotation),
            rotation_drive=config.rotation_drive * dt,
            rotation_noise=float(config.rotation_noise * np.sqrt(1 - abs(rotation) ** 2)),
            electrode=float(np.exp(-dt / config.noise_tau_s)),
        )


@dataclass(frozen=True)
class Electrodes:
    """What one session's electrodes see.

    Attributes
    ----------
    intention, feedback : (C, 2) microvolt per unit.
    rotation : (C, 4) microvolt per unit: real and imaginary part of either plane.
    noise_root : (C, C) Cholesky factor of the electrode noise's stationary covariance.
    positions : (C, 2) millimetres.
    """

    intention: np.ndarray
    feedback: np.ndarray
    rotation: np.ndarray
    noise_root: np.ndarray
    positions: np.ndarray


def electrodes(config: LdsConfig, subject: int, session: str) -> Electrodes:
    """Draw the tuning of a session: the subject's, with ``session_tuning`` of the variance the session's own."""
    side = int(np.ceil(np.sqrt(config.channels)))
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)[: config.channels]
    positions = grid * ELECTRODE_SPACING_MM
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)

    def correlation_root(length: float) -> np.ndarray:
        return np.linalg.cholesky(0.95 * np.exp(-distance / length) + 0.05 * np.eye(config.channels))

    root = correlation_root(config.tuning_length_mm)
    shared = stream(config.root_seed, "lds", "tuning", str(subject)).standard_normal((config.channels, 8))
    own = stream(config.root_seed, "lds", "tuning", str(subject), session).standard_normal((config.channels, 8))
    tuning = root @ (np.sqrt(1 - config.session_tuning) * shared + np.sqrt(config.session_tuning) * own)
    return Electrodes(
        intention=config.intention_uv * tuning[:, :2],
        feedback=config.feedback_uv * tuning[:, 2:4],
        rotation=config.rotation_uv * tuning[:, 4:],
        noise_root=config.noise_uv * correlation_root(config.noise_length_mm),
        positions=positions,
    )


def simulate(
    config: LdsConfig, seen: Electrodes, subject: int, session: str, seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one session: (T, C) LFP in microvolt and (T, 2) hand velocity in cm/s, sample by sample."""
    from scipy.signal import lfilter

    c = Coefficients.of(config)
    burn_in = round(BURN_IN_S * config.sampling_rate)
    count = burn_in + round(seconds * config.sampling_rate)

    def white(name: str, width: int) -> np.ndarray:
        generator = stream(config.root_seed, "lds", name, str(subject), session)
        return generator.standard_normal((count, width))

    def delayed(signal: np.ndarray, samples: int) -> np.ndarray:
        return np.concatenate([np.zeros((samples, signal.shape[1])), signal[: count - samples]])

    intention = lfilter([c.intention_noise], [1, -c.a1, -c.a2], white("intention", AXES), axis=0)
    motor = lfilter([c.motor_noise], [1, -c.motor], white("motor", AXES), axis=0)
    velocity = delayed(intention, config.lead) + motor
    parts = c.rotation_noise * white("rotation", 2 * AXES)
    drive = c.rotation_drive * delayed(intention, 1) + parts[:, ::2] + 1j * parts[:, 1::2]
    rotating = lfilter([1], [1, -c.rotation], drive, axis=0)
    rotation = np.stack([rotating.real, rotating.imag], axis=-1).reshape(count, 2 * AXES)
    noise = lfilter([np.sqrt(1 - c.electrode**2)], [1, -c.electrode], white("electrodes", config.channels), axis=0)
    lfp = (
        intention @ seen.intention.T
        + rotation @ seen.rotation.T
        + delayed(velocity, config.lag) @ seen.feedback.T
        + noise @ seen.noise_root.T
    )
    return lfp[burn_in:].astype(np.float32), (config.speed_cm_s * velocity[burn_in:]).astype(np.float32)


def state_space(config: LdsConfig, seen: Electrodes) -> tuple[LinearGaussian, np.ndarray]:
    """Return the exact model of the whitened LFP ``y_t - a_n y_(t-1)`` and the (2, d) read-out of the velocity.

    Whitening is causal and can be undone, so it loses nothing. The state holds the past that it and the delays need:
    ``u_t .. u_(t-lead-lag-1)``, ``m_t .. m_(t-lag-1)``, ``r_t`` and ``r_(t-1)``.
    """
    c = Coefficients.of(config)
    intentions, motors = config.lead + config.lag + 2, config.lag + 2
    first_motor, first_rotation = AXES * intentions, AXES * (intentions + motors)
    size = first_rotation + 4 * AXES
    A, Q = np.zeros((size, size)), np.zeros((size, size))
    eye = np.eye(AXES)

    def at(first: int, delay: int) -> slice:
        return slice(first + AXES * delay, first + AXES * (delay + 1))

    A[at(0, 0), at(0, 0)], A[at(0, 0), at(0, 1)] = c.a1 * eye, c.a2 * eye
    A[at(first_motor, 0), at(first_motor, 0)] = c.motor * eye
    for first, length in ((0, intentions), (first_motor, motors)):
        for delay in range(1, length):
            A[at(first, delay), at(first, delay - 1)] = eye
    now, before = slice(first_rotation, first_rotation + 2 * AXES), slice(first_rotation + 2 * AXES, size)
    turn = np.array([[c.rotation.real, -c.rotation.imag], [c.rotation.imag, c.rotation.real]])
    A[now, now] = np.kron(eye, turn)
    A[now, at(0, 0)] = np.kron(eye, np.array([[c.rotation_drive], [0.0]]))
    A[before, now] = np.eye(2 * AXES)
    Q[at(0, 0), at(0, 0)] = c.intention_noise**2 * eye
    Q[at(first_motor, 0), at(first_motor, 0)] = c.motor_noise**2 * eye
    Q[now, now] = c.rotation_noise**2 * np.eye(2 * AXES)

    C = np.zeros((config.channels, size))
    for delay, sign in ((0, 1.0), (1, -c.electrode)):
        C[:, at(0, delay)] += sign * seen.intention
        C[:, at(0, config.lead + config.lag + delay)] += sign * seen.feedback
        C[:, at(first_motor, config.lag + delay)] += sign * seen.feedback
        C[:, before if delay else now] += sign * seen.rotation
    R = (1 - c.electrode**2) * seen.noise_root @ seen.noise_root.T
    readout = np.zeros((AXES, size))
    readout[:, at(0, config.lead)] = config.speed_cm_s * eye
    readout[:, at(first_motor, 0)] = config.speed_cm_s * eye
    return LinearGaussian(A, Q, C, R), readout


def whitened(config: LdsConfig, lfp: np.ndarray) -> np.ndarray:
    """Return ``y_t - a_n y_(t-1)`` of a (T, C) LFP; the sample before the first counts as zero."""
    before = np.concatenate([np.zeros((1, lfp.shape[1])), lfp[:-1]])
    return np.asarray(lfp, np.float64) - Coefficients.of(config).electrode * before
