"""Dataset checks: built-in datasets pass, each damaged loader fails the check that is about it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realmbench import leaks
from realmbench.conformance import Report, check_dataset
from realmbench.dataset import Dataset, DatasetInfo, Fold, open_dataset
from realmbench.front_end import FrontEnd
from realmbench.protocol import Protocol
from realmbench.recording import Recording

OPEN_FIELD = Path(__file__).parents[3] / "shared" / "data" / "open-field"


def failed(report: Report) -> set[str]:
    return {check.name for check in report.checks if check.failed}


@pytest.mark.parametrize("name", ["synthetic-lds:tiny", "synthetic-reach:tiny"])
def test_built_in_datasets_pass(name: str) -> None:
    report = check_dataset(open_dataset(name))
    assert report.passed, report.verdict


@pytest.mark.skipif(not OPEN_FIELD.is_dir(), reason="the real recordings are not on this machine")
def test_real_recordings_pass() -> None:
    report = check_dataset(open_dataset("open-field", OPEN_FIELD.parent), short=True)
    assert report.passed, report.verdict


def damaged(toy: Dataset, **change: Any) -> Dataset:
    """Return the toy dataset with one method replaced."""
    cls = type("Damaged", (type(toy),), {"__module__": type(toy).__module__, **change})
    return cls()


def with_recording(toy: Dataset, change: Any) -> Dataset:
    def load(self: Any, session: str) -> Recording:
        return change(type(toy).load(self, session))

    return damaged(toy, load=load)


def test_toy_passes_in_both_forms(toy: Dataset) -> None:
    report = check_dataset(toy)
    assert report.passed, report.verdict
    assert "6 of 6 sessions loaded" in report.verdict
    assert "1 of 6 sessions loaded" in check_dataset(toy, short=True).verdict


def test_volt_instead_of_microvolt_is_caught(toy: Dataset) -> None:
    report = check_dataset(with_recording(toy, lambda r: replace(r, lfp=np.asarray(r.lfp) * 1e-6)), short=True)
    assert failed(report) == {"units"}
    assert "is it in volt or in converter units?" in str(report)


def test_metres_named_centimetres_are_caught(toy: Dataset) -> None:
    report = check_dataset(with_recording(toy, lambda r: replace(r, behaviour=r.behaviour * 1e-3)), short=True)
    assert failed(report) == {"units"}


def test_clock_that_hardly_overlaps_is_caught(toy: Dataset) -> None:
    late = with_recording(toy, lambda r: replace(r, behaviour_times=r.behaviour_times + 40))
    assert "clocks" in failed(check_dataset(late, short=True))


def test_hole_in_the_behaviour_is_caught(toy: Dataset) -> None:
    def holed(recording: Recording) -> Recording:
        keep = np.r_[0:6000, 9000 : len(recording.behaviour)]
        return replace(recording, behaviour=recording.behaviour[keep], behaviour_times=recording.behaviour_times[keep])

    report = check_dataset(with_recording(toy, holed), short=True)
    assert "clocks" in failed(report)
    assert "the behaviour has a hole of 12.00 s" in str(report)


def test_random_loader_is_caught(toy: Dataset) -> None:
    generator = np.random.default_rng()
    noisy = with_recording(toy, lambda r: replace(r, lfp=r.lfp + generator.standard_normal(r.lfp.shape)))
    # The test blocks cannot be told from the rest either where every load is another.
    assert failed(check_dataset(noisy, short=True)) == {"deterministic", "test blocks kept apart"}


def test_fold_with_a_session_on_both_sides_is_caught(toy: Dataset) -> None:
    folds = damaged(toy, folds=lambda self: [Fold(name="a", pretrain=("a0", "a2"), held_out=("a2",))])
    assert "folds" in failed(check_dataset(folds, short=True))
    unknown = damaged(toy, folds=lambda self: [Fold(name="a", pretrain=("a9",), held_out=("a2",))])
    report = check_dataset(unknown, short=True)
    assert "folds name unknown sessions: a9" in str(report)


def test_missing_licence_is_caught(toy: Dataset) -> None:
    info = toy.info.model_copy(update={"licence": ""})
    without = damaged(toy, info=property(lambda self: DatasetInfo(**info.model_dump())))
    assert failed(check_dataset(without, short=True)) == {"described"}


def test_constant_target_is_caught(toy: Dataset) -> None:
    def stopped(recording: Recording) -> Recording:
        behaviour = recording.behaviour.copy()
        behaviour[len(behaviour) // 5 :, 1] = 0.5
        return replace(recording, behaviour=behaviour)

    assert "split" in failed(check_dataset(with_recording(toy, stopped), short=True))


def test_ceilings_that_fall_with_look_ahead_are_caught(toy: Dataset) -> None:
    falling = damaged(toy, ceiling=lambda self, session, look_ahead_s: 0.5 if look_ahead_s else 0.6)
    assert failed(check_dataset(falling, short=True)) == {"ceilings"}


@pytest.fixture
def with_spikes() -> Dataset:
    dataset = open_dataset("synthetic-reach:tiny")
    assert dataset.spikes
    return dataset


def test_spikes_that_end_early_are_caught(with_spikes: Dataset) -> None:
    def cut(recording: Recording) -> Recording:
        assert recording.spike_counts is not None
        return replace(recording, spike_counts=recording.spike_counts[: len(recording.spike_counts) * 9 // 10])

    report = check_dataset(with_recording(with_spikes, cut), short=True)
    assert "clocks" in failed(report)
    assert "spikes end" in str(report)


def test_spikes_in_bins_as_long_as_a_frame_are_tested_for_leaks(
    with_spikes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coarse(recording: Recording) -> Recording:
        assert recording.spike_counts is not None
        pairs = recording.spike_counts[: len(recording.spike_counts) // 2 * 2].astype(np.uint16)
        return replace(recording, spike_counts=pairs.reshape(len(pairs) // 2, 2, -1).sum(1), spike_bin=0.02)

    tested: list[str] = []
    reach = leaks.test_part_reach

    def noted(dataset: Dataset, session: str, protocol: Protocol, chain: FrontEnd) -> float:
        tested.append(chain.name)
        return reach(dataset, session, protocol, chain)

    monkeypatch.setattr(leaks, "test_part_reach", noted)
    assert "test blocks kept apart" not in failed(check_dataset(with_recording(with_spikes, coarse), short=True))
    assert "spikes50" in tested


def test_spikes_that_are_promised_and_not_there_are_caught(with_spikes: Dataset) -> None:
    without = with_recording(with_spikes, lambda recording: replace(recording, spike_counts=None))
    report = check_dataset(without, short=True)
    assert "test blocks kept apart" in failed(report)
    assert "no spikes were recorded" in str(report)


def test_recordings_that_overlap_or_are_one_are_caught(toy: Dataset) -> None:
    def overlapping(self: Any, session: str) -> Recording:
        recording, first = (type(toy).load(self, name) for name in (session, "a0"))
        lfp = np.asarray(recording.lfp).copy()
        if session == "a2":
            shared = round(10 * recording.sampling_rate)
            lfp[:shared] = np.asarray(first.lfp)[-shared:]
        return replace(recording, lfp=lfp)

    report = check_dataset(damaged(toy, load=overlapping))
    assert failed(report) == {"sessions distinct"}
    assert "the LFP that a0 holds at" in str(report)
    # A loader that ignores the name that it is given.
    once = damaged(toy, load=lambda self, s: replace(type(toy).load(self, "b0"), session=s))
    assert "sessions distinct" in failed(check_dataset(once))


def test_recordings_that_are_not_as_declared_are_caught(toy: Dataset) -> None:
    for change, seen in (
        ({"subject": "x"}, "subject is 'x', declared is 'a'"),
        ({"session": "always"}, "session is 'always', declared is 'a0'"),
        ({"dataset": "other"}, "dataset is 'other', declared is 'toy'"),
        ({"sampling_rate": 249.0}, "sampling rate is 249.0, declared is 250.0"),
    ):
        report = check_dataset(with_recording(toy, partial(replace, **change)), short=True)
        assert "recordings as declared" in failed(report)
        assert seen in str(report)


@pytest.mark.parametrize(("channels", "short", "caught"), [(64, False, True), (3, True, True), (5, True, False)])
def test_channels_that_no_session_has_or_nobody_declared_are_caught(
    toy: Dataset, channels: int, short: bool, caught: bool
) -> None:
    """Of one session of several it is not known whether another has more."""
    info = toy.info.model_copy(update={"channels": channels})
    report = check_dataset(damaged(toy, info=property(lambda _self: info)), short=short)
    assert ("recordings as declared" in failed(report)) == caught
    assert (f"the most channels of a session are 4, declared are {channels}" in str(report)) == caught


def test_turned_lfp_is_told(toy: Dataset) -> None:
    turned = with_recording(toy, lambda r: replace(r, lfp=np.asarray(r.lfp).T))
    assert "is (samples, channels) turned?" in str(check_dataset(turned, short=True))
