"""Intervals, tests and probabilities against scipy, closed forms and published examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score

from realmbench import uncertainty
from realmbench.uncertainty import BlockSums, crossed_variance, interval, t_interval


def made(seed: int, seeds: int = 2, blocks: int = 12, noise: float = 0.6) -> tuple[BlockSums, np.ndarray, np.ndarray]:
    """Return block sums of random truth and predictions, and both as (N, 2) and (K, N, 2)."""
    generator = np.random.default_rng(seed)
    truth = np.array([1.0, -3.0]) + generator.standard_normal((blocks * 50, 2))
    prediction = truth + noise * generator.standard_normal((seeds, *truth.shape))
    cut = truth.reshape(blocks, 50, 2)
    sse = np.square(prediction - truth).reshape(seeds, blocks, 50, 2).sum(2)
    return BlockSums(sse, np.full(blocks, 50), cut.sum(1), np.square(cut).sum(1)), truth, prediction


def test_scores_from_sums_equal_scikit_learn() -> None:
    sums, truth, prediction = made(0)
    np.testing.assert_allclose(sums.scores(), [r2_score(truth, each) for each in prediction])


def test_weighted_scores_are_those_of_the_chosen_blocks() -> None:
    sums, truth, prediction = made(1, blocks=3)
    chosen = [0, 0, 2]
    weights = np.array([[2.0, 0.0, 1.0]])
    picked = [part.reshape(3, 50, 2)[chosen].reshape(-1, 2) for part in (truth, prediction[0])]
    assert sums.scores(weights)[0, 0] == pytest.approx(r2_score(*picked))


def test_one_seed_gives_students_interval() -> None:
    scores = np.array([0.2, 0.5, 0.4, 0.7, 0.1])
    expected = stats.t.interval(0.95, 4, scores.mean(), stats.sem(scores))
    made = t_interval(scores[:, None])
    assert (made.low, made.high) == pytest.approx(expected)


def test_crossed_variance_equals_the_analysis_of_variance_by_hand() -> None:
    scores = np.array([[0.30, 0.50], [0.20, 0.45], [0.60, 0.65]])
    grand = scores.mean()
    ms_sessions = 2 * np.sum((scores.mean(1) - grand) ** 2) / 2
    ms_seeds = 3 * np.sum((scores.mean(0) - grand) ** 2) / 1
    residual = scores - scores.mean(1, keepdims=True) - scores.mean(0) + grand
    ms_residual = np.sum(residual**2) / 2
    assert crossed_variance(scores)[0] == pytest.approx((ms_sessions + ms_seeds - ms_residual) / 6)


def test_a_seeds_luck_that_all_sessions_share_widens_the_interval() -> None:
    """Positive control: averaging over sessions cannot remove it, and a plain t-interval would not see it."""
    own = np.random.default_rng(0).normal(0.5, 0.05, (8, 3))
    shared = own + np.array([-0.1, 0.0, 0.1])
    plain = t_interval(shared.mean(1, keepdims=True))
    wide = t_interval(shared)
    assert wide.high - wide.low > 2 * (plain.high - plain.low)


def test_interval_kind_follows_the_number_of_sessions() -> None:
    sessions = [made(seed)[0] for seed in range(12)]
    assert interval(sessions[:3]) is None
    few, many = interval(sessions[:11]), interval(sessions)
    assert few is not None
    assert many is not None
    assert (few.method, many.method) == ("t", "hierarchical bootstrap")
    scores = uncertainty.score_matrix(sessions)
    expected = t_interval(scores)  # Gaussian scores: both methods agree closely
    assert many.low == pytest.approx(expected.low, abs=0.2 * (expected.high - expected.low))
    assert many.high == pytest.approx(expected.high, abs=0.2 * (expected.high - expected.low))


def test_pairing_removes_what_both_methods_share() -> None:
    worse = [made(seed, noise=0.3 + 0.1 * (seed % 8))[0] for seed in range(8)]
    better = [BlockSums(0.97 * each.sse, each.samples, each.sum, each.squares) for each in worse]
    alone, paired = interval(better), interval(better, worse)
    assert alone is not None
    assert paired is not None
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)
    assert paired.excludes_zero


def test_block_error_is_the_spread_over_many_tests() -> None:
    """Against brute force: the standard deviation of the score over independent test parts."""
    scores = [made(seed, seeds=1)[0].scores()[0] for seed in range(400)]
    errors = [uncertainty.block_error(made(seed, seeds=1)[0]) for seed in range(100)]
    assert np.mean(errors) == pytest.approx(np.std(scores), rel=0.2)


def test_errors_above_a_ceiling_mean_the_same_however_few_the_blocks() -> None:
    """Under no leak the share beyond two is that of a normal deviate, with two blocks as with twelve."""
    ceiling = float(np.mean([made(seed, seeds=1, blocks=200)[0].scores()[0] for seed in range(30)]))
    for blocks in (2, 4, 12):
        found = [
            uncertainty.errors_above_ceiling([made(seed, seeds=1, blocks=blocks)[0]], [ceiling]) for seed in range(500)
        ]
        assert np.mean([value is not None and value > 2 for value in found]) <= 0.05
    assert uncertainty.errors_above_ceiling([made(0, blocks=1)[0]], [0.5]) is None
    far = uncertainty.errors_above_ceiling([made(0, seeds=1, blocks=200)[0]], [1e6])
    assert far is not None
    assert -40 < far < -30


def test_signed_rank_equals_scipy_and_cannot_reach_significance_with_five(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.array([0.02, 0.01, 0.04, 0.03, 0.05])
    assert uncertainty.signed_rank_p(differences) == pytest.approx(2 / 2**5)
    assert uncertainty.signed_rank_p(np.zeros(4)) == 1.0
    # A zero is dropped: six sessions of which one is level can claim no more than five.
    asked: list[tuple[int, str]] = []
    wilcoxon = stats.wilcoxon

    def noted(values: np.ndarray, method: str) -> Any:
        asked.append((np.count_nonzero(values == 0), method))
        return wilcoxon(values, method=method)

    monkeypatch.setattr(stats, "wilcoxon", noted)
    assert uncertainty.signed_rank_p(np.array([0.0, *differences])) == pytest.approx(2 / 2**5)
    assert uncertainty.signed_rank_p(np.array([0.0, 0.01, -0.02, 0.03])) == pytest.approx(6 / 2**3)
    assert asked == [(0, "exact")] * 2, "older versions of scipy would approximate else, and claim"
    clear, unclear = uncertainty.Interval(0.01, 0.02, "t"), uncertainty.Interval(-0.01, 0.02, "t")
    assert uncertainty.distinguishable(clear, 2 / 2**6, 6)
    assert not uncertainty.distinguishable(unclear, 2 / 2**6, 6)
    assert not uncertainty.distinguishable(clear, 0.06, 6)
    assert not uncertainty.distinguishable(clear, 0.01, 5)
    assert not uncertainty.distinguishable(None, 0.01, 8)


def test_holm_equals_the_published_example() -> None:
    # Holm's step-down on 0.01, 0.04, 0.03, 0.005: ordered 0.005*4, 0.01*3, 0.03*2, then monotone.
    assert uncertainty.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_bayesian_signed_rank_equals_baycomp() -> None:
    """Probabilities printed by baycomp 1.0.3, SignedRankTest with rope 0.01, 200,000 draws, for these differences."""
    differences = np.array([0.031, -0.004, 0.022, 0.015, 0.008, -0.012, 0.027, 0.002])
    expected = (0.0002, 0.463, 0.537)
    assert uncertainty.bayesian_signed_rank(differences) == pytest.approx(expected, abs=0.01)
