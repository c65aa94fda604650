"""All numbers of the simulator, and its variants. Sources are in docs/synthetic-reach.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict


class SimulationConfig(BaseModel):
    """Everything that shapes a recording besides subject and day. Times in seconds, amplitudes in µV rms."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root_seed: int = 20260514
    replicate: int = 0  # new behaviour and noise, same electrodes and tuning
    sampling_rate: int = 1000
    channels: int = 96
    pitch_mm: float = 0.4

    # behaviour: random targets on a grid, minimum-jerk sub-movements
    reaction_time_s: float = 0.25
    reaction_deviation_s: float = 0.05
    movement_time_s: tuple[float, float] = (0.18, 0.12)  # Fitts: a + b log2(distance / width + 1)
    movement_time_variation: float = 0.12
    target_radius_cm: float = 0.75
    correction_probability: float = 0.55
    pause_probability: float = 0.12
    pause_s: float = 1.2
    motor_noise: float = 0.22  # signal-dependent, as a share of speed

    # latents
    lead_s: float = 0.12  # neural activity before movement
    feedback_lag_s: float = 0.08  # re-afference after movement
    feedback_weight: float = 0.7
    compression: float = 0.5  # direction is coded more than speed
    private_deviation: float = 0.45
    private_tau_s: float = 0.12
    nuisance_latents: int = 6

    # field potential
    background_rms: float = 40.0
    background_slope: float = 2.4  # mean exponent of 1 / f
    background_slope_deviation: float = 0.25  # between channels
    background_knee_hz: float = 8.0
    lmp_rms: float = 4.6
    nuisance_rms: float = 22.0
    evoked_uv: float = 18.0
    beta_uv: float = 42.0
    high_gamma_rms: float = 5.0
    high_gamma_depth: float = 0.06  # deviation of the log amplitude by direction and history
    high_gamma_speed: float = 0.09  # log amplitude per unit of the condition-invariant latent
    floor_rms: float = 2.5
    line_hz: float = 60.0
    line_uv: float = 4.0
    common_rms: float = 15.0
    artefacts_per_minute: float = 0.5
    artefact_uv: float = 250.0
    cable_artefact_uv: float = 2.0  # follows speed: a channel by which decoders could cheat; 0 switches it off

    # electrodes over days
    tuning_tau_days: float = 150.0
    tuning_floor: float = 0.2  # share of the tuning that never drifts
    moved_per_100_days: float = 0.10
    dead_at_start: float = 0.03
    dead_per_100_days: float = 0.03
    gain_deviation: float = 0.15
    gain_drift_within: float = 0.06
    intermittent: float = 0.03

    spikes: bool = True


@dataclass(frozen=True)
class Variant:
    """Sessions of a variant and what it changes in the configuration.

    Attributes
    ----------
    pretraining_days, held_out_days : recording days of every subject.
    pretraining_s, held_out_s : their length in seconds.
    """

    summary: str
    subjects: int
    pretraining_days: tuple[int, ...]
    held_out_days: tuple[int, ...]
    pretraining_s: int
    held_out_s: int
    changes: dict[str, Any] = field(default_factory=dict)


DAYS = (0, 15, 30, 45, 60, 75)

VARIANTS = {
    "default": Variant(
        "two subjects, 96 channels, six pretraining sessions of 5 and four held-out of 10 minutes each",
        subjects=2,
        pretraining_days=DAYS,
        held_out_days=(82, 105, 150, 240),
        pretraining_s=300,
        held_out_s=600,
    ),
    "hard": Variant(
        "48 channels, steeper background, weaker tuning, more re-afference: the future is worth more",
        subjects=2,
        pretraining_days=DAYS,
        held_out_days=(82, 105, 150, 240),
        pretraining_s=300,
        held_out_s=600,
        changes={"channels": 48, "background_slope": 3.2, "lmp_rms": 2.5, "feedback_weight": 1.0},
    ),
    "drift": Variant(
        "held out 1, 7, 30, 90, 180 and 365 days after the last pretraining session: where each method breaks",
        subjects=2,
        pretraining_days=DAYS,
        held_out_days=(76, 82, 105, 165, 255, 440),
        pretraining_s=300,
        held_out_s=300,
    ),
    "demo": Variant(
        "16 channels, four sessions of two minutes: for a first look",
        subjects=1,
        pretraining_days=(0, 10),
        held_out_days=(20, 30),
        pretraining_s=120,
        held_out_s=120,
        changes={"channels": 16, "sampling_rate": 500, "lmp_rms": 8.0, "high_gamma_depth": 0.15},
    ),
    "tiny": Variant(
        "8 channels, three sessions of a minute and a half: for tests",
        subjects=1,
        pretraining_days=(0, 10),
        held_out_days=(20,),
        pretraining_s=90,
        held_out_s=100,
        changes={"channels": 8, "sampling_rate": 500, "lmp_rms": 10.0, "high_gamma_depth": 0.2},
    ),
}
