"""Fixtures that all tests share: a cache of their own, one torch thread, a toy dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from realmbench.artifact import ArtifactStore
from realmbench.dataset import Dataset, open_dataset
from realmbench.decoder import Context
from realmbench.session import Normaliser, Segment, SessionData

EXAMPLES = Path(__file__).parent / "examples"
TOY = f"{EXAMPLES / 'toy_dataset.py'}:Toy"


@pytest.fixture(autouse=True, scope="session")
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep generated recordings, features and artifacts of tests in one folder per test run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REALMBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start


@pytest.fixture(scope="session")
def toy_name() -> str:
    """The toy dataset as a user would name it."""
    return TOY


@pytest.fixture
def toy() -> Dataset:
    """The toy dataset, opened."""
    return open_dataset(TOY)


def make_session(
    seconds: float = 20.0, channels: int = 3, features: int = 2, name: str = "s", seed: int = 0, rate: int = 50
) -> SessionData:
    """Make a session whose target is a causal moving average of its input, with some noise."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((channels * features, 2)) / np.sqrt(channels * features)

    def segment(start: int, warm_up: int = 0) -> Segment:
        frames = round(seconds * rate) + warm_up
        x = generator.standard_normal((frames, channels, features)).astype(np.float32)
        drive = x.reshape(frames, -1) @ mixing
        y = (drive + np.concatenate([np.zeros((1, 2)), drive[:-1]])) / np.sqrt(2)
        y += 0.3 * generator.standard_normal(y.shape)
        return Segment(x, y.astype(np.float32), warm_up, start)

    ones, zeros = np.ones((channels, features), np.float32), np.zeros((channels, features), np.float32)
    return SessionData(
        dataset="made",
        subject="m",
        name=name,
        rate=rate,
        mask=np.ones(channels, bool),
        normaliser=Normaliser(zeros, ones, np.zeros(2, np.float32), np.ones(2, np.float32)),
        feature_names=tuple(f"f{index}" for index in range(features)),
        target_names=("x", "y"),
        train=(segment(0), segment(5000)),
        validation=(segment(10000, warm_up=100),),
        key=f"{name}-{seed}-{seconds}-{channels}-{features}",
    )


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """What a decoder learns with, its store in the test's own folder."""
    return Context(0, "cpu", ArtifactStore(tmp_path, "code", {}), tmp_path)


@pytest.fixture
def session_maker():  # type: ignore[no-untyped-def]
    """Return `make_session`, for tests that need sessions without a dataset."""
    return make_session
