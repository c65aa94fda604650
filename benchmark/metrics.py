"""Scores of predictions, each named for what it is. Arrays are (N, D): samples by axes.

Five different things are published as "R2" in this field; every one has its own name here. None is clipped: a
negative R2 is information.
"""

from __future__ import annotations

import numpy as np


def sums_of_squares(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return per axis the squared error and the squares about the mean of the truth, each (D,) float64.

    Raises
    ------
    ValueError : the shapes differ or a prediction is not finite.
    """
    truth, prediction = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    if truth.shape != prediction.shape:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} differ in shape")
    if not np.isfinite(prediction).all():
        raise ValueError("the prediction holds NaN or infinite values")
    return np.square(truth - prediction).sum(0), np.square(truth - truth.mean(0)).sum(0)


def r2_per_axis(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return ``1 - SSE_d / SST_d`` for each axis, SST about the mean of the scored truth; NaN for a constant axis."""
    error, total = sums_of_squares(truth, prediction)
    return 1 - np.divide(error, total, out=np.full_like(error, np.nan), where=total > 0)


def r2_axis_mean(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Mean over axes of R2 (scikit-learn's ``uniform_average``; NLB, CrossModal, REALM v2). The headline."""
    return float(np.mean(r2_per_axis(truth, prediction)))


def r2_variance_weighted(truth: np.ndarray, prediction: np.ndarray) -> float:
    """``1 - sum_d SSE_d / sum_d SST_d``, each axis about its own mean (FALCON)."""
    error, total = sums_of_squares(truth, prediction)
    return float(1 - error.sum() / total.sum())


def r2_pooled(truth: np.ndarray, prediction: np.ndarray) -> float:
    """R2 of all axes strung into one vector about one grand mean (REALM v1's "combined")."""
    return r2_axis_mean(np.reshape(truth, (-1, 1)), np.reshape(prediction, (-1, 1)))


def r2_about_training_mean(truth: np.ndarray, prediction: np.ndarray, training_mean: np.ndarray) -> float:
    """Mean over axes of ``1 - SSE / sum (y - training mean)^2``: exactly 0 for a decoder that predicts that mean."""
    error, _ = sums_of_squares(truth, prediction)
    reference = np.square(np.asarray(truth, np.float64) - training_mean).sum(0)
    return float(np.mean(1 - error / reference))


def pearson_per_axis(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Pearson correlation for each axis; 0 where the prediction or the truth is constant."""
    truth, prediction = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    centred_truth, centred_prediction = truth - truth.mean(0), prediction - prediction.mean(0)
    product = (centred_truth * centred_prediction).sum(0)
    # Rounding leaves a constant prediction with a deviation of about 1e-16 of its value.
    constant = np.ptp(prediction, axis=0) == 0
    scale = np.sqrt(np.square(centred_truth).sum(0) * np.square(centred_prediction).sum(0))
    return np.divide(product, scale, out=np.zeros_like(product), where=(scale > 0) & ~constant)


def pearson_r(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Mean over axes of the Pearson correlation."""
    return float(np.mean(pearson_per_axis(truth, prediction)))


def corr2(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Mean over axes of the squared correlation: blind to gain and offset errors, so never below R2."""
    return float(np.mean(np.square(pearson_per_axis(truth, prediction))))


def rmse(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Root mean squared error over all axes, in the behaviour's own unit."""
    error, _ = sums_of_squares(truth, prediction)
    return float(np.sqrt(error.sum() / np.size(truth)))


def all_scores(truth: np.ndarray, prediction: np.ndarray, training_mean: np.ndarray) -> dict[str, float]:
    """Return every score under its own name."""
    return {
        "r2_axis_mean": r2_axis_mean(truth, prediction),
        "r2_variance_weighted": r2_variance_weighted(truth, prediction),
        "r2_pooled": r2_pooled(truth, prediction),
        "r2_about_training_mean": r2_about_training_mean(truth, prediction, training_mean),
        "pearson_r": pearson_r(truth, prediction),
        "corr2": corr2(truth, prediction),
        "rmse": rmse(truth, prediction),
    }
