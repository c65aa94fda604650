"""Scoring one fitted decoder on a session's test blocks."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from .decoder import Decoder
from .errors import RealmbenchError
from .manifest import CLOCK_RATE
from .metrics import all_scores, peak_lag_s, pearson_per_axis, r2_per_axis, sums_of_squares
from .preparation import Prepared
from .records import AxisScore, BlockScore

# Stretches by which scores are kept for statistics: longer than behaviour's autocorrelation.
BLOCK_S = 10.0
# Frames on which a run compares the stream with `predict`, and how far they may differ (targets have deviation 1).
STREAM_CHECK_FRAMES = 300
STREAM_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Evaluation:
    """Scores of one decoder on one session."""

    metrics: dict[str, float]
    axes: list[AxisScore]
    blocks: list[BlockScore]


def evaluate(decoder: Decoder, prepared: Prepared) -> Evaluation:
    """Predict every test block from a fresh state and score the concatenation, in the behaviour's own units.

    Raises
    ------
    RealmbenchError : the decoder returned a wrong shape or values that are not finite, or a target does not vary.
    """
    data = prepared.data
    truths, predictions, blocks = [], [], []
    for block in prepared.test:
        output = np.asarray(decoder.predict(block.x, data))
        expected = (len(block.x), data.outputs)
        if output.shape != expected:
            raise RealmbenchError(f"{type(decoder).__name__}.predict returned {output.shape}, expected {expected}")
        if not np.isfinite(output).all():
            raise RealmbenchError(f"{type(decoder).__name__}.predict returned NaN or infinite values on {data.name}")
        truths.append(block.truth)
        predictions.append(data.normaliser.physical(block.scored(output)))
    truth, prediction = np.concatenate(truths), np.concatenate(predictions)
    mean = truth.mean(0, dtype=np.float64)
    for block, block_truth, block_prediction in zip(prepared.test, truths, predictions):
        blocks += _block_scores(block.start_s, block_truth, block_prediction, mean)
    error, total = sums_of_squares(truth, prediction)
    if constant := [name for name, squares in zip(data.target_names, total) if squares == 0]:
        raise RealmbenchError(f"{data.name}: {', '.join(constant)} is constant over the test blocks; R2 has no meaning")
    r2, correlation = r2_per_axis(truth, prediction), pearson_per_axis(truth, prediction)
    axes = [
        AxisScore(name=name, unit=unit, sse=error[i], sst=total[i], r2=r2[i], pearson_r=correlation[i])
        for i, (name, unit) in enumerate(zip(data.target_names, prepared.target_units))
    ]
    scores = all_scores(truth, prediction, data.normaliser.y_mean)
    lag = peak_lag_s(truths, predictions, CLOCK_RATE)
    # A constant prediction has no lag, and a record holds numbers only.
    return Evaluation({**scores, **({} if np.isnan(lag) else {"peak_lag_s": lag})}, axes, blocks)


def check_stream(decoder: Decoder, prepared: Prepared) -> None:
    """Step a decoder's stream through the start of a test block and compare it with what was scored.

    A decoder that calls itself causal and scores with the future cannot do both alike; nor one that sees more of it
    than it waits for.

    Raises
    ------
    RealmbenchError : stream and prediction differ, or the stream is later than declared (`Decoder.streamed`).
    """
    data, block = prepared.data, prepared.test[0]
    expected = np.asarray(decoder.predict(block.x, data))
    waiting = int(np.ceil(decoder.look_ahead_s * data.rate))
    stepped = decoder.streamed(block.x[: STREAM_CHECK_FRAMES + waiting], data)
    difference = float(np.abs(stepped - expected[: len(stepped)]).max())
    if not difference <= STREAM_TOLERANCE:
        declared = "causal" if decoder.causal else f"to wait for {decoder.look_ahead_s:g} s of the future"
        raise RealmbenchError(
            f"{type(decoder).__name__} is declared {declared}, but its stream differs from predict by {difference:.2g} "
            f"standard deviations of the target (at most {STREAM_TOLERANCE:g} is allowed): predict sees more of the "
            "future, or the stream is wrong"
        )


def _block_scores(start_s: float, truth: np.ndarray, prediction: np.ndarray, mean: np.ndarray) -> list[BlockScore]:
    """Cut a test block into stretches of equal length, each about ten seconds."""
    count = max(1, round(len(truth) / (BLOCK_S * CLOCK_RATE)))
    edges = np.linspace(0, len(truth), count + 1).round().astype(int)
    scores = []
    for begin, end in itertools.pairwise(edges):
        part = truth[begin:end].astype(np.float64)
        scores.append(
            BlockScore(
                start_s=start_s + begin / CLOCK_RATE,
                stop_s=start_s + end / CLOCK_RATE,
                samples=int(end - begin),
                sse=np.square(part - prediction[begin:end]).sum(0).tolist(),
                sst=np.square(part - mean).sum(0).tolist(),
                sum=part.sum(0).tolist(),
                sum_of_squares=np.square(part).sum(0).tolist(),
            )
        )
    return scores
