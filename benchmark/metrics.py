"""Scores of predictions, each named for what it is. Arrays are (N, D): samples by axes.

Five different things are published as "R2" in this field; every one has its own name here. None is clipped: a
negative R2 is information.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# What projects publish, by our names. Each computes it over one session's concatenated test samples.
PUBLISHED_AS = {
    "NLB": "r2_axis_mean",
    "NeuroBench": "r2_axis_mean",
    "POYO (torch_brain)": "r2_axis_mean",
    "CrossModalDistillation": "r2_axis_mean",
    "REALM v2": "r2_axis_mean",
    "FALCON": "r2_variance_weighted",
    "REALM v1": "r2_pooled",
}
NAMES = (
    "r2_axis_mean", "r2_variance_weighted", "r2_pooled", "r2_about_training_mean", "pearson_r", "corr2", "rmse",
    "peak_lag_s",
)  # fmt: skip
LONGEST_LAG_S = 0.5


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
    """Mean over axes of R2, as scikit-learn's ``uniform_average``. The headline."""
    return float(np.mean(r2_per_axis(truth, prediction)))


def r2_for_selection(truth: np.ndarray, prediction: np.ndarray) -> float:
    """`r2_axis_mean` of normalised targets, by which decoders choose: a number even where the target stands still.

    Seconds of validation may hold a pause, of which R2 is not defined. The axis counts as if it varied there as it does
    in training, where its normalised variance is 1: its R2 is 1 minus the mean squared error.
    """
    error, _ = sums_of_squares(truth, prediction)
    r2 = r2_per_axis(truth, prediction)
    return float(np.mean(np.where(np.isnan(r2), 1 - error / len(truth), r2)))


def r2_variance_weighted(truth: np.ndarray, prediction: np.ndarray) -> float:
    """``1 - sum_d SSE_d / sum_d SST_d``, each axis about its own mean."""
    error, total = sums_of_squares(truth, prediction)
    return float(1 - error.sum() / total.sum())


def r2_pooled(truth: np.ndarray, prediction: np.ndarray) -> float:
    """R2 of all axes strung into one vector about one grand mean."""
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


def peak_lag_s(truth: Sequence[np.ndarray], prediction: Sequence[np.ndarray], rate: float) -> float:
    """Seconds by which the prediction trails the truth: where their cross-correlation, over all axes, is highest.

    A decoder may buy R2 with delay; this shows it. Positive means late. NaN where the prediction is constant.

    Parameters
    ----------
    truth, prediction : contiguous blocks, each (N, D); none is correlated with another.
    rate : samples per second; lags up to half a second are tried.
    """
    longest = round(LONGEST_LAG_S * rate)
    mean, guess = (np.concatenate(blocks).mean(0) for blocks in (truth, prediction))
    deviation = np.concatenate(truth).std(0)
    if not any(np.ptp(block, axis=0).any() for block in prediction):
        return float("nan")
    sums = np.zeros(2 * longest + 1)
    for true, predicted in zip(truth, prediction):
        # Axes count alike, whatever their units.
        a, b = (true - mean) / deviation, (predicted - guess) / deviation
        for index, lag in enumerate(range(-longest, longest + 1)):
            early, late = (a[: len(a) - lag], b[lag:]) if lag >= 0 else (a[-lag:], b[: len(b) + lag])
            sums[index] += (early * late).sum() / max(len(early), 1)
    return float((sums.argmax() - longest) / rate)


def all_scores(truth: np.ndarray, prediction: np.ndarray, training_mean: np.ndarray) -> dict[str, float]:
    """Return every score of concatenated samples under its own name."""
    return {
        "r2_axis_mean": r2_axis_mean(truth, prediction),
        "r2_variance_weighted": r2_variance_weighted(truth, prediction),
        "r2_pooled": r2_pooled(truth, prediction),
        "r2_about_training_mean": r2_about_training_mean(truth, prediction, training_mean),
        "pearson_r": pearson_r(truth, prediction),
        "corr2": corr2(truth, prediction),
        "rmse": rmse(truth, prediction),
    }
