"""How often printed 95 % intervals hold the truth, and how often `compare` claims what is not there, by simulation.

    python tests/benchmark/test_coverage.py      # prints the table of docs/statistics.md

A simulated benchmark: sessions differ (standard deviation 0.08 in R2), methods differ between sessions (0.02), every
training has luck of its own (0.012) and luck that the sessions of one seed share (0.008), and every ten-second block
errs by chance, alike for both methods in its larger part. With two folds there are two pretrainings per seed, and luck
is shared by the sessions of a fold alone.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from realmbench.uncertainty import BlockSums, distinguishable, interval, score_matrix, signed_rank_p

# Sessions, seeds and folds.
SETTINGS = [*itertools.product((4, 6, 8, 12, 24), (1, 3, 5), (1,)), (8, 3, 2), (8, 5, 2)]
BLOCKS, AXES, SAMPLES = 12, 2, 500
LEVEL_SD, EFFECT_SD, OWN_LUCK_SD, SHARED_LUCK_SD = 0.08, 0.02, 0.012, 0.008


def benchmark(
    sessions: int, seeds: int, effect: float, generator: np.random.Generator, folds: int = 1
) -> tuple[list[BlockSums], list[BlockSums]]:
    """Draw the records of two methods; ``effect`` is the true mean difference."""
    levels = 0.6 + LEVEL_SD * generator.standard_normal(sessions)
    effects = effect + EFFECT_SD * generator.standard_normal(sessions)
    # With one seed the interval describes those weights: their luck is then part of the truth, not of the error.
    shared = SHARED_LUCK_SD * generator.standard_normal((2, folds, seeds)) * (seeds > 1)
    own = OWN_LUCK_SD * generator.standard_normal((2, sessions, seeds))
    methods: tuple[list[BlockSums], list[BlockSums]] = ([], [])
    for s in range(sessions):
        variance = generator.gamma(6, 1 / 6, (BLOCKS, AXES))
        mean = 0.3 * generator.standard_normal((BLOCKS, AXES))
        difficulty = generator.gamma(20, 1 / 20, (BLOCKS, AXES))
        total, squares = SAMPLES * mean, SAMPLES * (variance + mean**2)
        truth_variance = (1 + 0.3**2) * SAMPLES
        for m in range(2):
            r2 = levels[s] + m * effects[s] + shared[m, s % folds] + own[m, s]  # (K,)
            chance = generator.gamma(200, 1 / 200, (seeds, BLOCKS, AXES))
            sse = (1 - r2)[:, None, None] * truth_variance * difficulty * chance
            methods[m].append(BlockSums(sse, np.full(BLOCKS, SAMPLES), total, squares))
    return methods


def truth_of_level() -> float:
    """Mean score over very many sessions: finite tests lower R2 a little, which is not the interval's to mend."""
    generator = np.random.default_rng(7)
    return float(score_matrix(benchmark(20_000, 1, 0.0, generator)[0]).mean())


def simulate(sessions: int, seeds: int, folds: int, repeats: int, draws: int) -> dict[str, float]:
    """Return the coverage of the level's and the difference's interval, and false claims under no effect."""
    generator = np.random.default_rng([sessions, seeds])
    level = truth_of_level()
    covered, paired, claims = [], [], []
    for _ in range(repeats):
        first, second = benchmark(sessions, seeds, 0.0, generator, folds)
        alone, difference = interval(first, None, draws), interval(second, first, draws)
        assert alone is not None
        assert difference is not None
        covered.append(alone.low <= level <= alone.high)
        paired.append(not difference.excludes_zero)
        p_value = signed_rank_p(score_matrix(second, first).mean(1))
        claims.append(distinguishable(difference, p_value, sessions))
    return {"level": np.mean(covered), "difference": np.mean(paired), "claims": np.mean(claims)}


def table(repeats: int, draws: int = 1000) -> Iterator[str]:
    """Yield the rows of the documentation's table."""
    yield "| sessions | seeds | folds | interval | covers the mean | covers the difference | false claims |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for setting in SETTINGS:
        kind = "t" if setting[0] < 12 else "bootstrap"
        found = simulate(*setting, repeats, draws)
        cells = [f"{100 * value:.1f} %" for value in found.values()]
        yield "| " + " | ".join([*map(str, setting), kind, *cells]) + " |"


@pytest.mark.parametrize(("sessions", "folds"), [(6, 1), (8, 2), (12, 1)])
def test_intervals_cover_and_claims_are_rare(sessions: int, folds: int) -> None:
    found = simulate(sessions, 3, folds, repeats=300, draws=300)
    assert 0.92 <= found["level"] <= 0.99
    assert 0.92 <= found["difference"] <= 0.99
    assert found["claims"] <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize(("sessions", "seeds", "folds"), SETTINGS)
def test_coverage_is_between_93_and_97_percent(sessions: int, seeds: int, folds: int) -> None:
    found = simulate(sessions, seeds, folds, repeats=4000, draws=1000)
    error = np.sqrt(0.95 * 0.05 / 4000)  # of the simulation itself
    assert 0.93 - 2 * error <= found["level"] <= 0.97 + 2 * error
    assert 0.93 - 2 * error <= found["difference"] <= 0.97 + 2 * error
    assert found["claims"] <= 0.05 + 2 * error


if __name__ == "__main__":
    for row in table(int(sys.argv[1]) if len(sys.argv) > 1 else 4000):
        print(row, flush=True)
