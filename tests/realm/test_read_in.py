"""The read-in: ridge by scikit-learn, and outputs that no fit has seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from realmbench.errors import OptionError
from realmbench.metrics import r2_axis_mean
from realmbench.realm.read_in import (
    STRENGTHS,
    ReadIn,
    ReadInOptions,
    apply_read_in,
    fit_read_in,
    no_weights,
    rehearsals,
    with_read_in,
)

OPTIONS = ReadInOptions(horizons_s=(0.0,), parts=4)


def rows(segment: Any) -> np.ndarray:
    return segment.x.reshape(len(segment.x), -1).astype(np.float64)


def ridge(x: np.ndarray, y: np.ndarray, strength: float) -> Ridge:
    pull = strength * np.trace((x - x.mean(0)).T @ (x - x.mean(0))) / x.shape[1] + 1e-6
    return Ridge(alpha=pull).fit(x, y)


def test_equals_scikit_learn_at_the_strength_that_the_unseen_prefers(session_maker: Any) -> None:
    """Unseen: validation by the whole fit, every quarter of the training segment by the fit to the others."""
    session = session_maker(seconds=6.0)
    session = replace(session, train=session.train[:1])
    fitted = fit_read_in(session, OPTIONS)
    [segment] = session.train
    x, y, quarter = rows(segment), segment.y, len(segment) // 4
    scores, fits = [], []
    for strength in STRENGTHS:
        fits.append(ridge(x, y, strength))
        truth, said = [], []
        for part in range(4):
            inside = np.zeros(len(x), bool)
            inside[part * quarter : (part + 1) * quarter] = True
            truth.append(y[inside])
            said.append(ridge(x[~inside], y[~inside], strength).predict(x[inside]))
        for each in session.validation:
            truth.append(each.y[each.warm_up :])
            said.append(fits[-1].predict(rows(each))[each.warm_up :])
        scores.append(r2_axis_mean(np.concatenate(truth), np.concatenate(said)))
    best = fits[int(np.argmax(scores))]
    np.testing.assert_allclose(fitted.weights.weight, best.coef_, atol=1e-4)
    np.testing.assert_allclose(fitted.weights.offset, best.intercept_, atol=1e-4)
    assert fitted.score == pytest.approx(max(scores), abs=1e-3)


def test_training_segments_carry_what_fits_to_the_rest_say(session_maker: Any) -> None:
    session = session_maker()
    session = replace(session, train=session.train[:1])
    fitted = fit_read_in(session, OPTIONS)
    [segment] = session.train
    x, y, length = rows(segment), segment.y, len(segment)
    quarter = length // 4
    strength = next(
        strength for strength in STRENGTHS if np.allclose(ridge(x, y, strength).coef_, fitted.weights.weight, atol=1e-4)
    )
    carried = fitted.session.train[0].privileged[:, :, 0]
    for part in range(4):
        inside = slice(part * quarter, (part + 1) * quarter)
        rest = np.ones(length, bool)
        rest[inside] = False
        expected = ridge(x[rest], y[rest], strength).predict(x[inside])
        np.testing.assert_allclose(carried[inside], expected, atol=1e-3)
    for segment, given in zip(session.validation, fitted.session.validation):
        expected = apply_read_in(segment.x, fitted.weights)
        np.testing.assert_array_equal(given.privileged[:, :, 0], expected)


def test_noise_looks_like_nothing_to_what_has_not_seen_it(session_maker: Any) -> None:
    """With more inputs than the data bear, the fit is good on itself; what the network gets must not be."""
    session = session_maker(seconds=4.0, channels=30)
    generator = np.random.default_rng(0)
    noise = [generator.standard_normal(segment.y.shape).astype(np.float32) for segment in session.train]
    train = tuple(replace(segment, y=y) for segment, y in zip(session.train, noise))
    session = replace(session, train=train)
    fitted = fit_read_in(session, ReadInOptions(horizons_s=(0.0,)))
    itself = r2_axis_mean(train[0].y, apply_read_in(train[0].x, fitted.weights))
    carried = r2_axis_mean(train[0].y, fitted.session.train[0].privileged[:, :, 0])
    assert carried < 0.02
    assert itself > carried


def test_horizons_are_the_target_ahead_and_ago(session_maker: Any) -> None:
    session = session_maker()
    session = replace(session, train=session.train[:1])
    wide = ReadInOptions(horizons_s=(-0.02, 0.0, 0.04), parts=2)
    [segment] = session.train
    inside = slice(1, len(segment) - 2)
    fitted = fit_read_in(session, wide)
    x = rows(segment)[inside]
    y = np.concatenate([segment.y[:-3], segment.y[1:-2], segment.y[3:]], axis=1)
    distances = [np.abs(ridge(x, y, strength).coef_ - fitted.weights.weight).max() for strength in STRENGTHS]
    assert min(distances) < 1e-4


def test_network_says_what_the_fit_says(session_maker: Any) -> None:
    session = session_maker()
    fitted = fit_read_in(session, OPTIONS)
    read_in = ReadIn(session.channels * session.features, 2)
    read_in.set(fitted.weights)
    x = torch.from_numpy(session.validation[0].x)[None]
    expected = apply_read_in(session.validation[0].x, fitted.weights)
    np.testing.assert_allclose(read_in(x)[0], expected, atol=1e-5)
    read_in.silence()
    assert not read_in(x).any()


def test_silent_and_borrowed_read_in(session_maker: Any) -> None:
    silent, other = session_maker(seed=3), fit_read_in(session_maker(seed=1), OPTIONS).weights
    assert not any(array.any() for array in no_weights(silent, OPTIONS))
    assert [array.shape for array in no_weights(silent, OPTIONS)] == [array.shape for array in other]
    for weights in (no_weights(silent, OPTIONS), other):
        given = with_read_in(silent, weights)
        for part in ("train", "validation"):
            for before, after in zip(getattr(silent, part), getattr(given, part)):
                np.testing.assert_array_equal(after.privileged[:, :, 0], apply_read_in(before.x, weights))


def test_rehearsals_are_what_a_held_out_session_may_have(session_maker: Any) -> None:
    options = replace_options(few_s=5.0)
    session = session_maker(seconds=20.0)
    none, just, whole = rehearsals(session, options)
    for before, after in zip(session.train, none.train):
        np.testing.assert_array_equal(after.privileged, np.zeros((len(before), 2, 1), np.float32))
    # Five seconds of the first segment are fitted to, and what is learnt from begins after them.
    cut = 5 * session.rate
    first = session.train[0]
    few = replace(session, train=(replace(first, x=first.x[:cut], y=first.y[:cut], privileged=first.privileged[:cut]),))
    weights = fit_read_in(few, options).weights
    np.testing.assert_array_equal(just.train[0].x, first.x[cut:])
    np.testing.assert_array_equal(just.train[0].privileged[:, :, 0], apply_read_in(first.x[cut:], weights))
    assert sum(len(segment) for segment in just.train) == sum(len(segment) for segment in session.train) - cut
    expected = fit_read_in(session, options).session
    np.testing.assert_array_equal(whole.train[0].privileged, expected.train[0].privileged)


def test_session_of_seconds_has_no_rehearsal_of_seconds(session_maker: Any) -> None:
    assert len(rehearsals(session_maker(seconds=5.0), replace_options(few_s=500.0))) == 2


def test_rehearsal_of_less_than_a_frame_is_refused(session_maker: Any) -> None:
    with pytest.raises(OptionError, match=r"few_s=0\.005 is less than a frame at 50 Hz"):
        rehearsals(session_maker(), replace_options(few_s=0.005))


def test_no_sliver_is_left_to_learn_from(session_maker: Any) -> None:
    """All training windows are as short as the shortest segment."""
    session = session_maker(seconds=20.0)
    segment = session.train[0]
    few_s = (len(segment) - 3) / session.rate
    rehearsed = rehearsals(session, replace_options(few_s=few_s))
    assert min(len(each) for part in rehearsed for each in part.train) == min(len(each) for each in session.train)
    alone = replace(session, train=(segment,))
    assert len(rehearsals(alone, replace_options(few_s=few_s))) == 2


@pytest.mark.parametrize("changes", [{"horizons_s": (0.0, 3.0)}, {"parts": 60}, {"few_s": 0.1}, {"few_s": 0.5}])
def test_stretches_that_a_horizon_or_a_part_leaves_empty_teach_nothing(
    session_maker: Any, changes: dict[str, Any]
) -> None:
    """A session of ten seconds, whose last stretch has no target three seconds ahead, or stretches of few frames."""
    options = replace_options(**{"horizons_s": (-0.1, 0.0, 0.1, 0.2), "parts": 4, **changes})
    session = session_maker(seconds=10.0)
    session = replace(session, train=session.train[:1])
    for rehearsed in rehearsals(session, options):
        for segment in (*rehearsed.train, *rehearsed.validation):
            assert np.isfinite(segment.privileged).all()
    weights = fit_read_in(session, options).weights
    assert weights.weight.any()


def replace_options(**changes: Any) -> ReadInOptions:
    return OPTIONS.model_copy(update=changes)
