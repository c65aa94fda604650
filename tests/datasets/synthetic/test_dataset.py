"""`synthetic-reach` as a dataset: folds, cache, options, spikes."""

from __future__ import annotations

import numpy as np
import pytest

from realmbench.dataset import open_dataset
from realmbench.datasets.synthetic import dataset as dataset_module
from realmbench.datasets.synthetic.configuration import VARIANTS
from realmbench.errors import OptionError, RealmbenchError, UnknownNameError
from realmbench.files import cache_dir

TINY = "synthetic-reach:tiny"


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_folds_cover_the_sessions_once(variant: str) -> None:
    dataset = open_dataset(f"synthetic-reach:{variant}")
    names = [name for fold in dataset.folds() for name in (*fold.pretrain, *fold.held_out)]
    assert sorted(names) == sorted(session.name for session in dataset.sessions())
    subjects = {session.name: session.subject for session in dataset.sessions()}
    for fold in dataset.folds():
        assert len({subjects[name] for name in (*fold.pretrain, *fold.held_out)}) == 1
    days = {session.name: session.day for session in dataset.sessions()}
    for fold in dataset.folds():
        assert max(days[name] for name in fold.pretrain) < min(days[name] for name in fold.held_out)


def test_default_variant_has_the_published_shape() -> None:
    dataset = open_dataset("synthetic-reach")
    assert dataset.full_name == "synthetic-reach"
    assert [(len(fold.pretrain), len(fold.held_out)) for fold in dataset.folds()] == [(6, 4), (6, 4)]


def test_recording_keeps_the_contract() -> None:
    recording = open_dataset(TINY).load("s0-test-d020")
    assert recording.lfp.shape == (50_000, 8)
    assert recording.lfp_stop == 100.0
    assert recording.common_span()[1] > 99.9
    assert recording.behaviour_units == ("cm/s", "cm/s")
    span = recording.lfp[1000:2000]
    assert span.dtype == np.float32
    assert 10 < np.median(span.std(0)) < 200
    assert recording.electrodes is not None
    assert recording.electrodes.shape == (8, 2)
    assert recording.trials["onset_s"].max() < 100
    assert recording.spike_counts is not None


def test_second_load_is_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(TINY)
    first = np.array(dataset.load("s0-train-d000").lfp[:100])
    monkeypatch.setattr("realmbench.datasets.synthetic.simulate.simulate_session", None)
    np.testing.assert_array_equal(dataset.load("s0-train-d000").lfp[:100], first)
    with pytest.raises(TypeError):
        open_dataset(TINY, options={"root_seed": 5}).load("s0-train-d000")


def test_damaged_cache_says_what_to_delete() -> None:
    dataset = open_dataset(TINY, options={"root_seed": 6})
    dataset.load("s0-train-d000")
    newest = max((cache_dir() / "recordings").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
    (newest / "behaviour.npz").write_bytes(b"broken")
    with pytest.raises(RealmbenchError, match="delete it and run again"):
        dataset.load("s0-train-d000")


def test_options_change_the_identity_and_unknown_ones_are_refused() -> None:
    plain, changed = open_dataset(TINY), open_dataset(TINY, options={"line_uv": 0.0})
    assert plain.identity == "synthetic-reach:tiny@1"
    assert changed.identity.startswith("synthetic-reach:tiny@1+")
    with pytest.raises(OptionError, match="Did you mean 'spikes'"):
        open_dataset(TINY, options={"spike": True})
    with pytest.raises(OptionError, match="is not valid"):
        open_dataset(TINY, options={"beta_uv": -1})


def test_every_option_reaches_the_simulation() -> None:
    assert set(dataset_module.SyntheticOptions.model_fields) <= set(dataset_module.SimulationConfig.model_fields)


def test_spikes_can_be_left_out_and_change_nothing_of_the_lfp() -> None:
    recording = open_dataset(TINY).load("s0-test-d020")
    assert recording.spike_counts is not None
    assert recording.spike_bin == 0.01
    assert recording.spike_counts.shape == (10_000, 8)
    assert 1 < recording.spike_counts.mean() / recording.spike_bin < 60
    without = open_dataset(TINY, options={"spikes": False})
    assert not without.spikes
    assert without.load("s0-test-d020").spike_counts is None
    assert np.array_equal(without.load("s0-test-d020").lfp[:], recording.lfp[:])


def test_unknown_session_and_copying_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UnknownNameError, match="Did you mean 's0-test-d020'"):
        open_dataset(TINY).load("s0-test-d02")
    with pytest.raises(RealmbenchError, match="generated, not copied"):
        open_dataset(TINY).prepare(tmp_path)
