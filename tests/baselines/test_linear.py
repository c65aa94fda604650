"""The Wiener decoder against scikit-learn's ridge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from realmbench.artifact import ArtifactStore
from realmbench.baselines.linear import Wiener, lagged
from realmbench.decoder import Context
from realmbench.errors import RealmbenchError


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(0, "cpu", ArtifactStore(tmp_path, "code", {}), tmp_path)


def test_equals_scikit_learns_ridge(session_maker: Any, context: Context) -> None:
    session = session_maker()
    decoder = Wiener("tiny", {"strengths": [30.0], "history_s": 0.1, "lag_step": 2})
    decoder.adapt(session, context)
    lags = [0, 2, 4]
    rows = [lagged(segment.x, lags)[4:] for segment in session.train]
    reference = Ridge(alpha=30.0).fit(
        np.concatenate(rows).astype(np.float64), np.concatenate([segment.y[4:] for segment in session.train])
    )
    test = session.validation[0].x
    expected = reference.predict(lagged(test, lags))
    np.testing.assert_allclose(decoder.predict(test, session), expected, atol=1e-5)


def test_lags_by_hand() -> None:
    x = np.arange(1, 6, dtype=np.float32).reshape(5, 1, 1)
    expected = [[1, 0, 0], [2, 1, 0], [3, 2, 0], [4, 3, 1], [5, 4, 2]]
    np.testing.assert_array_equal(lagged(x, [0, 1, 3]), expected)
    np.testing.assert_array_equal(lagged(x, [0, 1, 3], 2, 4), expected[2:4])


def test_strength_is_chosen_on_validation(session_maker: Any, context: Context) -> None:
    """With noise alone as training target, the strongest ridge is best and its edge is reported."""
    session = session_maker()
    generator = np.random.default_rng(1)
    for segment in session.train:
        segment.y[:] = generator.standard_normal(segment.y.shape)
    Wiener("tiny").adapt(session, context)
    assert "at the edge of its range" in context.warnings[0]


def test_reaches_the_best_linear_score(session_maker: Any, context: Context) -> None:
    session = session_maker()
    decoder = Wiener("tiny", {"lag_step": 1})
    decoder.adapt(session, context)
    segment = session.validation[0]
    error = np.square(decoder.predict(segment.x, session) - segment.y).mean(0)
    np.testing.assert_allclose(1 - error / segment.y.var(0), 0.917, atol=0.03)


def test_history_longer_than_the_segments_is_refused(session_maker: Any, context: Context) -> None:
    with pytest.raises(RealmbenchError, match=r"shorten decoder\.history_s"):
        Wiener("tiny", {"history_s": 30.0}).adapt(session_maker(), context)
