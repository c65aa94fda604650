"""The exact ceiling as a leak detector, through the whole harness: honest scores stay below, leaking ones do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.signal import sosfiltfilt

from realmbench import evaluation
from realmbench.artifact import ArtifactStore
from realmbench.dataset import Dataset, open_dataset
from realmbench.decoder import DECODERS, Context
from realmbench.evaluation import evaluate
from realmbench.front_end import FrontEnd, front_end
from realmbench.plan import RunRequest, make_plan
from realmbench.preparation import prepare_session
from realmbench.protocols import BlockedV1
from realmbench.runner import Events, SessionBank, run
from realmbench.uncertainty import LEAK_ERRORS, block_sums, errors_above_ceiling

SESSIONS = ("s0-test-0", "s1-test-0")


class ZeroPhase(FrontEnd):
    """A front end that filters forth and back and calls itself causal, as the published chains do."""

    def apply(self, lfp: Any, sampling_rate: float, on_progress: Any = None) -> np.ndarray:
        step = round(sampling_rate / self.rate)
        columns = [
            sosfiltfilt(feature.filters(sampling_rate)[0], np.asarray(lfp[:], np.float64), axis=0)[step - 1 :: step]
            for feature in self.features
        ]
        return np.stack(columns, axis=-1).astype(np.float32)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return open_dataset("synthetic-lds")


def errors_above(dataset: Dataset, chain: FrontEnd, folder: Path) -> float:
    """Fit the causal Wiener filter on each session and return its standard errors above the causal ceiling."""
    sums = []
    for session in SESSIONS:
        prepared = prepare_session(dataset, session, BlockedV1(), chain)
        decoder = DECODERS.get("wiener")("small")
        decoder.adapt(prepared.data, Context(0, "cpu", ArtifactStore(folder, "c", {}), folder))
        sums.append(block_sums([evaluate(decoder, prepared).blocks]))
    return errors_above_ceiling(sums, [dataset.ceiling(session, 0.0) or 0.0 for session in SESSIONS])


def low_passed(cls: type[FrontEnd], name: str) -> FrontEnd:
    slow = front_end("bands50").features[0]  # the local motor potential below 5 Hz, which carries all there is
    return cls(name=name, version="1", kind="bands", rate=50, features=(slow,))


def test_honest_front_end_stays_below_the_causal_ceiling(dataset: Dataset, tmp_path: Path) -> None:
    assert errors_above(dataset, low_passed(FrontEnd, "slow"), tmp_path) < 0


def test_zero_phase_front_end_passes_the_causal_ceiling(dataset: Dataset, tmp_path: Path) -> None:
    """Positive control: the same causal decoder on zero-phase filters scores what no causal decoder can."""
    assert errors_above(dataset, low_passed(ZeroPhase, "slow-zero-phase"), tmp_path) > LEAK_ERRORS


def test_records_hold_the_ceiling_of_the_decoders_look_ahead(tmp_path: Path) -> None:
    tiny = open_dataset("synthetic-lds:tiny")

    def records(model: str) -> Any:
        plan = make_plan(RunRequest(model=model, preset="tiny", sessions=["s0-test-0"]), tiny)
        return run(plan, tiny, tmp_path, Events(), SessionBank(tiny, Events().stage))[0]

    wiener, mean = records("wiener"), records("mean")
    assert wiener.ceiling == mean.ceiling == tiny.ceiling("s0-test-0", 0.0)
    assert not [warning for warning in wiener.warnings if "LEAK" in warning]


def test_run_above_the_ceiling_carries_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = open_dataset("synthetic-lds:tiny")
    monkeypatch.setattr(type(tiny), "ceiling", lambda self, session, look_ahead_s: 0.05)
    monkeypatch.setattr(evaluation, "BLOCK_S", 2.0)  # a dozen blocks instead of two, from which nothing follows
    plan = make_plan(RunRequest(model="wiener", preset="tiny", sessions=["s0-test-0"]), tiny)
    [record] = run(plan, tiny, tmp_path, Events(), SessionBank(tiny, Events().stage))
    assert any(warning.startswith("LEAK: R2 is") for warning in record.warnings)
