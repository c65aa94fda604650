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


def test_wrong_shapes_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.rmse(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="NaN"):
        metrics.rmse(np.zeros((3, 1)), np.full((3, 1), np.nan))
