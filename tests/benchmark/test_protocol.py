"""blocked-v1: spans, gaps, hash, and the assertion that no test sample reaches training."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from realmbench.dataset import Dataset, Fold
from realmbench.errors import ProtocolError
from realmbench.front_end import FRONT_ENDS, front_end
from realmbench.manifest import Span
from realmbench.protocol import assert_no_leak, common_bins
from realmbench.protocols import BlockedV1
from realmbench.recording import Recording


def recording(seconds: float, lfp_start: float = 0.0, behaviour_start: float = 0.0) -> Recording:
    times = behaviour_start + np.arange(0, seconds, 0.01)
    return Recording(
        dataset="d", subject="s", session="x", lfp=np.zeros((int(seconds * 250), 1), np.float32), sampling_rate=250.0,
        lfp_start=lfp_start, behaviour=np.zeros((len(times), 1), np.float32), behaviour_times=times,
        behaviour_names=("v",), behaviour_units=("cm/s",),
    )  # fmt: skip


@pytest.mark.parametrize(("seconds", "cycles"), [(60.1, 2), (120, 2), (300, 2), (600, 5), (2400, 5)])
def test_shares_and_number_of_blocks(seconds: float, cycles: int) -> None:
    manifest = BlockedV1().split(recording(seconds), "held-out", "d")
    assert len(manifest.of("test")) == len(manifest.of("validation")) == len(manifest.of("train")) == cycles
    assert manifest.seconds("test") == pytest.approx(0.2 * seconds, rel=0.02)
    assert manifest.seconds("validation") == pytest.approx(0.1 * seconds, rel=0.04)
    gaps = 3 * 2.0 * cycles
    assert manifest.seconds("train") == pytest.approx(0.7 * seconds - gaps, rel=0.02)


def test_spans_are_in_order_and_two_seconds_apart() -> None:
    manifest = BlockedV1().split(recording(600), "held-out", "d")
    spans = manifest.spans
    assert spans[0].start == manifest.first_bin + 100
    for before, after in itertools.pairwise(spans):
        assert after.start - before.stop >= 100
    assert spans[-1].stop <= manifest.last_bin


def test_pretraining_sessions_have_no_test_part() -> None:
    manifest = BlockedV1().split(recording(300), "pretrain", "d")
    assert manifest.of("test") == []
    assert manifest.seconds("train") > 0.8 * 300


def test_manifest_hash_changes_with_the_cut_and_not_with_time() -> None:
    first, again = (BlockedV1().split(recording(300), "held-out", "d") for _ in range(2))
    assert first.hash == again.hash
    assert first.hash != BlockedV1().split(recording(301), "held-out", "d").hash


def test_hash_is_pinned_so_that_the_protocol_cannot_change_unnoticed() -> None:
    assert BlockedV1().split(recording(600), "held-out", "d").hash == "19ab9bf9ec369d83"


def test_too_short_a_recording_says_how_long_it_must_be() -> None:
    with pytest.raises(ProtocolError, match=r"50\.0 s with LFP and behaviour are too short .* needs 60 s"):
        BlockedV1().split(recording(50.01), "held-out", "d")


def test_clocks_that_start_apart_use_the_common_part() -> None:
    assert common_bins(recording(100, lfp_start=0.0, behaviour_start=10.0)) == (500, 5000)
    first, last = common_bins(recording(100, lfp_start=0.1, behaviour_start=0.0))
    assert (first, last) == (0, 4994)


@pytest.mark.parametrize("name", sorted(FRONT_ENDS))
@pytest.mark.parametrize("seconds", [60.1, 100, 600])
def test_no_test_sample_reaches_training(name: str, seconds: float) -> None:
    manifest = BlockedV1().split(recording(seconds), "held-out", "d")
    assert_no_leak(manifest, front_end(name), 250.0)


def test_leaks_are_caught() -> None:
    """Positive controls: no gap after a test block, a window across the boundary, a front end that looks ahead."""
    manifest = BlockedV1().split(recording(600), "held-out", "d")
    bands = front_end("bands50")
    test = manifest.of("test")[0]
    for start in (test.stop, test.stop + 20, test.stop - 5):
        leaky = manifest.model_copy(update={"spans": (test, Span(role="train", start=start, stop=start + 500))})
        with pytest.raises(ProtocolError, match="of a test block reach the train frames"):
            assert_no_leak(leaky, bands, 250.0)
    before = manifest.model_copy(update={"spans": (Span(role="train", start=0, stop=test.start), test)})
    assert_no_leak(before, bands, 250.0)
    with pytest.raises(ProtocolError, match="reach the train frames"):
        assert_no_leak(before, replace(bands, causal=False), 250.0)


def test_folds_that_mix_sessions_are_refused(toy: Dataset) -> None:
    class Mixed(type(toy)):  # type: ignore[misc]
        def folds(self) -> list[Fold]:
            return [Fold(name="a", pretrain=("a0", "a2"), held_out=("a2",))]

    class Twice(type(toy)):  # type: ignore[misc]
        def folds(self) -> list[Fold]:
            return [Fold(name=name, pretrain=("a0",), held_out=("a2",)) for name in "ab"]

    assert len(BlockedV1().folds(toy)) == 2
    with pytest.raises(ProtocolError, match="pretrain and are held out"):
        BlockedV1().folds(Mixed())
    with pytest.raises(ProtocolError, match="held out in two folds"):
        BlockedV1().folds(Twice())
