"""The simulator: named streams, behaviour, spectra, drift over days."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.signal import welch

from realmbench.datasets.synthetic import electrodes, sources
from realmbench.datasets.synthetic.configuration import SimulationConfig
from realmbench.datasets.synthetic.kinematics import bell, simulate_movement
from realmbench.datasets.synthetic.latents import GROUPS, movement_latents
from realmbench.datasets.synthetic.simulate import MICROVOLT_PER_UNIT, simulate_session

SMALL = SimulationConfig(channels=12, sampling_rate=1000)


def microvolts(config: SimulationConfig, seconds: float = 60, day: int = 0) -> np.ndarray:
    return simulate_session(config, 0, day, seconds).lfp * MICROVOLT_PER_UNIT


def test_two_calls_agree() -> None:
    np.testing.assert_allclose(microvolts(SMALL, 20), microvolts(SMALL, 20), atol=MICROVOLT_PER_UNIT)


@pytest.mark.parametrize(
    ("off", "field"),
    [("beta_uv", 0.0), ("line_uv", 0.0), ("cable_artefact_uv", 0.0), ("artefacts_per_minute", 0.0)],
)
def test_switching_a_component_off_removes_it_and_moves_nothing_else(off: str, field: float) -> None:
    """What two recordings differ by is the component alone: silent where the component is."""
    quiet = SMALL.model_copy(update={"gain_drift_within": 0.0, off: field})
    loud = SMALL.model_copy(update={"gain_drift_within": 0.0})
    difference = microvolts(loud, 30) - microvolts(quiet, 30)
    frequency, power = welch(difference, 1000, nperseg=2000, axis=0)
    power = power.mean(1)
    inside = {
        "beta_uv": frequency < 70,
        "line_uv": np.isclose(np.minimum(frequency % 60, 60 - frequency % 60), 0, atol=2),
        "cable_artefact_uv": frequency < 70,
        "artefacts_per_minute": frequency < 70,
    }[off]
    rounding = 2 * MICROVOLT_PER_UNIT**2 / 12 / 500
    assert power[~inside].max() < 0.02 * power[inside].max() + 3 * rounding


def test_transients_and_cable_noise_are_independent() -> None:
    movement = simulate_movement(SMALL, 0, 0, 30)
    both = sources.artefacts(SMALL, movement, 0, 0)
    no_transients = sources.artefacts(SMALL.model_copy(update={"artefacts_per_minute": 0.0}), movement, 0, 0)
    np.testing.assert_array_equal(both.courses[1], no_transients.courses[1])
    np.testing.assert_array_equal(both.loadings[:, 1], no_transients.loadings[:, 1])
    no_cable = sources.artefacts(SMALL.model_copy(update={"cable_artefact_uv": 0.0}), movement, 0, 0)
    np.testing.assert_array_equal(both.courses[0], no_cable.courses[0])
    np.testing.assert_array_equal(both.loadings[:, 0], no_cable.loadings[:, 0])


def test_replicate_has_the_same_electrodes_and_other_noise() -> None:
    again = SMALL.model_copy(update={"replicate": 1})
    np.testing.assert_array_equal(
        electrodes.tuning(SMALL, "lmp", 3, 0, 5, 1.2), electrodes.tuning(again, "lmp", 3, 0, 5, 1.2)
    )
    first, second = microvolts(SMALL, 20), microvolts(again, 20)
    assert abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]) < 0.3


def test_bell_is_a_minimum_jerk_profile() -> None:
    profile = bell(1000)
    assert profile.sum() == pytest.approx(1, rel=1e-5)
    assert profile.max() * 1000 == pytest.approx(1.875, rel=1e-3)  # peak over mean velocity of a minimum-jerk movement


def test_behaviour_is_like_that_of_an_animal() -> None:
    movement = simulate_movement(SMALL, 0, 0, 300)
    speed = np.hypot(*movement.velocity)
    assert 0.6 < len(movement.onset) / 300 < 1.1
    peaks = [speed[start:stop].max() for start, stop in zip(movement.onset, movement.offset) if stop > start]
    assert 15 < np.median(peaks) < 35
    assert np.abs(movement.position).max() < 20
    np.testing.assert_allclose(np.diff(movement.position) * 1000, movement.velocity[:, :-1], atol=1.0)
    reached = movement.position[:, movement.offset[movement.offset < 300_000] - 1].T
    assert np.median(np.hypot(*(reached - movement.target[: len(reached)]).T)) < 2.0


def test_latents_lead_the_movement_and_feedback_follows_it() -> None:
    still = SMALL.model_copy(update={"private_deviation": 0.0})
    movement = simulate_movement(still, 0, 0, 120)
    latents = movement_latents(still, movement, 0, 0)
    velocity = movement.velocity[0]

    def best_lag(row: np.ndarray) -> int:
        lags = range(-300, 301, 10)
        return max(lags, key=lambda lag: np.corrcoef(np.roll(row, lag)[500:-500], velocity[500:-500])[0, 1])

    assert best_lag(latents[GROUPS.index("direction")]) == pytest.approx(120, abs=30)
    assert best_lag(latents[GROUPS.index("feedback")]) == pytest.approx(-80, abs=10)


def test_spectrum_has_no_step_between_background_and_high_gamma() -> None:
    config = SMALL.model_copy(update={"line_uv": 0.0, "artefacts_per_minute": 0.0, "dead_at_start": 0.0})
    frequency, power = welch(microvolts(config, 120), 1000, nperseg=1000, axis=0)
    level = 10 * np.log10(power.mean(1))
    inside = (frequency >= 45) & (frequency <= 200)
    # From one hertz to the next the level changes by what a smooth slope and the estimate's noise allow.
    steps = np.diff(level[inside])
    assert np.abs(steps).max() < 1.0
    curve = np.polynomial.Polynomial.fit(np.log(frequency[inside]), level[inside], 3)
    assert np.abs(level[inside] - curve(np.log(frequency[inside]))).max() < 1.5


def test_slopes_differ_between_channels() -> None:
    config = SMALL.model_copy(update={"line_uv": 0.0, "beta_uv": 0.0, "dead_at_start": 0.0})
    frequency, power = welch(microvolts(config, 120), 1000, nperseg=2000, axis=0)
    inside = (frequency >= 15) & (frequency <= 55)
    slopes = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)[0]
    assert -3.2 < slopes.mean() < -1.5
    assert slopes.std() > 0.1


def test_amplitudes_are_those_of_an_array() -> None:
    lfp = microvolts(SMALL.model_copy(update={"dead_at_start": 0.0}), 60)
    assert 30 < np.median(lfp.std(0)) < 90
    assert np.abs(lfp).max() < 3000


@pytest.mark.parametrize("days", [0, 10, 60, 200, 400])
def test_tuning_drifts_as_the_closed_form_says(days: int) -> None:
    config = SimulationConfig(moved_per_100_days=0.0)
    correlations = []
    for subject in range(20):
        first, second = (electrodes.tuning(config, "lmp", 15, subject, day, 0.01) for day in (30, 30 + days))
        correlations.append((first * second).mean() / np.sqrt((first**2).mean() * (second**2).mean()))
    assert np.mean(correlations) == pytest.approx(electrodes.tuning_similarity(config, days), abs=0.05)


def test_similarity_falls_with_the_days_between() -> None:
    similarity = [electrodes.tuning_similarity(SimulationConfig(), days) for days in range(501)]
    assert similarity[0] == pytest.approx(1)
    assert all(later < earlier for earlier, later in itertools.pairwise(similarity))


def test_moved_and_dead_electrodes_only_grow_in_number() -> None:
    config = SimulationConfig()
    moved = [electrodes.moves_until(config, 0, day) for day in (0, 100, 400)]
    assert all(np.all(later >= earlier) for earlier, later in itertools.pairwise(moved))
    counts = [electrodes.moves_until(config, subject, 400) for subject in range(20)]
    assert np.mean(counts) == pytest.approx(4 * config.moved_per_100_days, rel=0.1)
    dead = [electrodes.dead(config, 0, day) for day in (0, 100, 400)]
    assert all(np.all(later >= earlier) for earlier, later in itertools.pairwise(dead))
    assert dead[0].sum() < dead[-1].sum()


def test_moved_electrode_reads_another_field_and_the_others_stay() -> None:
    config = SimulationConfig(tuning_floor=1.0)
    moved = electrodes.moves_until(config, 0, 300) != electrodes.moves_until(config, 0, 0)
    first, second = (electrodes.tuning(config, "lmp", 15, 0, day, 1.2) for day in (0, 300))
    np.testing.assert_allclose(first[~moved], second[~moved], atol=1e-4)
    assert np.abs(first[moved] - second[moved]).min(axis=1).max() > 0.01


def test_sessions_of_a_subject_share_dynamics_not_noise() -> None:
    movement = simulate_movement(SMALL, 0, 0, 30)
    loadings = [
        sources.local_motor_potential(SMALL, movement_latents(SMALL, movement, 0, 0), 0, day).loadings
        for day in (0, 20)
    ]
    assert np.corrcoef(loadings[0].ravel(), loadings[1].ravel())[0, 1] > 0.5
    other = sources.local_motor_potential(SMALL, movement_latents(SMALL, movement, 0, 0), 1, 0).loadings
    assert abs(np.corrcoef(loadings[0].ravel(), other.ravel())[0, 1]) < 0.5


@pytest.mark.slow
def test_full_size_session() -> None:
    session = simulate_session(SimulationConfig(), 0, 82, 600)
    assert session.lfp.shape == (600_000, 96)
    assert (np.abs(session.lfp) == 32767).mean() == 0
