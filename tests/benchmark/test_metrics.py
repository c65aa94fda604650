"""Metrics against scikit-learn, scipy and hand-made numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import r2_score

from realmbench import metrics


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    truth = generator.standard_normal((500, 2)) * [1.0, 7.0] + [3.0, -2.0]
    return truth, 0.6 * truth + generator.standard_normal((500, 2))


def test_r2_equals_scikit_learn(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert metrics.r2_axis_mean(*pair) == pytest.approx(r2_score(*pair))
    assert metrics.r2_variance_weighted(*pair) == pytest.approx(r2_score(*pair, multioutput="variance_weighted"))
    assert metrics.r2_pooled(*pair) == pytest.approx(r2_score(pair[0].ravel(), pair[1].ravel()))


def test_correlation_equals_scipy(pair: tuple[np.ndarray, np.ndarray]) -> None:
    expected = [pearsonr(pair[0][:, axis], pair[1][:, axis]).statistic for axis in range(2)]
    assert metrics.pearson_r(*pair) == pytest.approx(np.mean(expected))
    assert metrics.corr2(*pair) == pytest.approx(np.mean(np.square(expected)))
    assert metrics.corr2(*pair) >= metrics.r2_axis_mean(*pair)


def test_training_mean_scores_zero_about_itself() -> None:
    truth = np.random.default_rng(0).standard_normal((100, 2)) + 5
    mean = np.array([4.0, 6.0])
    prediction = np.tile(mean, (100, 1))
    assert metrics.r2_about_training_mean(truth, prediction, mean) == pytest.approx(0)
    assert metrics.r2_axis_mean(truth, prediction) < 0
    assert metrics.pearson_r(truth, prediction) == 0


def test_rmse_by_hand() -> None:
    assert metrics.rmse(np.array([[0.0], [0.0]]), np.array([[3.0], [4.0]])) == pytest.approx(np.sqrt(12.5))


def test_constant_truth_has_no_r2() -> None:
    assert np.isnan(metrics.r2_axis_mean(np.ones((5, 1)), np.zeros((5, 1))))


def test_axis_at_rest_counts_as_if_it_varied_as_in_training(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, prediction = pair
    assert metrics.r2_for_selection(truth, prediction) == metrics.r2_axis_mean(truth, prediction)
    resting = np.column_stack([truth[:, 0], np.full(500, 0.5)])
    guess = np.column_stack([prediction[:, 0], np.full(500, 0.2)])
    expected = (r2_score(truth[:, 0], prediction[:, 0]) + 1 - 0.3**2) / 2
    assert metrics.r2_for_selection(resting, guess) == pytest.approx(expected)
    with pytest.raises(ValueError, match="NaN"):
        metrics.r2_for_selection(resting, guess * np.nan)


def test_wrong_shapes_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.rmse(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="NaN"):
        metrics.rmse(np.zeros((3, 1)), np.full((3, 1), np.nan))


def nlb(truth: np.ndarray, prediction: np.ndarray) -> float:
    """The Neural Latents Benchmark: scikit-learn's Ridge.score, axes averaged alike."""
    return r2_score(truth, prediction, multioutput="uniform_average")


def falcon(truth: np.ndarray, prediction: np.ndarray) -> float:
    """FALCON: r2_score with axes weighted by their variance."""
    return r2_score(truth, prediction, multioutput="variance_weighted")


def neurobench(truth: np.ndarray, prediction: np.ndarray) -> float:
    """NeuroBench: squared errors summed batch by batch, over population variance times count, x and y averaged."""
    errors = np.zeros(2)
    for start in range(0, len(truth), 64):
        errors += np.square(truth[start : start + 64] - prediction[start : start + 64]).sum(0)
    return float(np.mean(1 - errors / (truth.var(0, ddof=0) * len(truth))))


def poyo(truth: np.ndarray, prediction: np.ndarray) -> float:
    """POYO's example: torchmetrics' r2_score on stitched predictions, from running sums."""
    total = np.square(truth).sum(0) - truth.sum(0) * truth.mean(0)
    return float(np.mean(1 - np.square(truth - prediction).sum(0) / total))


def cross_modal(truth: np.ndarray, prediction: np.ndarray) -> float:
    """CrossModalDistillation: uniform average after a z-score of the velocity with the session's statistics."""
    mean, deviation = truth.mean(0), truth.std(0)
    return r2_score((truth - mean) / deviation, (prediction - mean) / deviation)


def realm_v1(truth: np.ndarray, prediction: np.ndarray) -> float:
    """REALM's first version: both axes in one vector about one mean."""
    error = sum(np.square(truth[:, axis] - prediction[:, axis]).sum() for axis in range(2))
    return float(1 - error / np.square(truth - truth.mean()).sum())


DEFINITIONS = {
    "NLB": nlb,
    "FALCON": falcon,
    "NeuroBench": neurobench,
    "POYO (torch_brain)": poyo,
    "CrossModalDistillation": cross_modal,
    "REALM v1": realm_v1,
    "REALM v2": nlb,
}


@pytest.mark.parametrize("project", sorted(metrics.PUBLISHED_AS))
def test_projects_numbers_are_ours_under_the_name_we_give(project: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    ours = getattr(metrics, metrics.PUBLISHED_AS[project])
    assert ours(*pair) == pytest.approx(DEFINITIONS[project](*pair), rel=1e-12)


def test_the_three_r2_differ_on_axes_of_unequal_variance(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Positive control: confusing two of them would show."""
    values = sorted(
        function(*pair) for function in (metrics.r2_axis_mean, metrics.r2_variance_weighted, metrics.r2_pooled)
    )
    assert np.diff(values).min() > 0.005


@pytest.mark.parametrize("delay", [-5, 0, 3, 20])
def test_peak_lag_finds_the_delay_of_a_smooth_signal(delay: int) -> None:
    generator = np.random.default_rng(0)
    smooth = np.convolve(generator.standard_normal(2100), np.hanning(15), "same")
    signal = np.stack([smooth, 30 * np.roll(smooth, 700)], axis=1)
    truth, late = signal[50:-50], np.roll(signal, delay, axis=0)[50:-50]
    noisy = late + 0.3 * generator.standard_normal(late.shape)
    blocks = [slice(0, 1000), slice(1000, 2000)]
    lag = metrics.peak_lag_s([truth[part] for part in blocks], [noisy[part] for part in blocks], 50)
    assert lag == pytest.approx(delay / 50)
    assert np.isnan(metrics.peak_lag_s([truth], [np.ones_like(truth)], 50))
