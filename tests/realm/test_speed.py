"""The bench of the scan times what it says: the same network, the same numbers, one part exchanged."""

from __future__ import annotations

import pytest
import torch

from realmbench.bench import BENCHES, ratio, time_in_turns
from realmbench.realm.mamba2 import Mixer
from realmbench.realm.sizes import CHANNELS
from realmbench.realm.speed import _blocks, _both_ways, _dual_form, paper_network
from realmbench.realm.stage_speed import CPU_WINDOWS, Case, StagesBench, Watch, time_stages


def test_only_the_scan_is_exchanged() -> None:
    """The dual form gives the network's outputs and gradients."""
    torch.manual_seed(0)
    network, frames = paper_network(), torch.randn(1, 70, CHANNELS, 1)
    mask = torch.ones(1, CHANNELS, dtype=torch.bool)
    gradients, outputs = [], []
    for scan in (Mixer.scan, _dual_form):
        _both_ways(network, frames, scan)
        gradients.append([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
        with torch.no_grad():
            outputs.append(network(frames, mask))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    largest = max(gradient.abs().max().item() for gradient in gradients[1])
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * largest)
    assert all(mixer.scan is _dual_form for mixer in network.modules() if isinstance(mixer, Mixer))
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_909_273 - 200 * 256


def test_half_precision_is_of_the_same_network_in_training_alone() -> None:
    torch.manual_seed(0)
    network, half = paper_network(), paper_network("bfloat16")
    half.load_state_dict(network.state_dict())
    frames, mask = torch.randn(1, 70, CHANNELS, 1), torch.ones(1, CHANNELS, dtype=torch.bool)
    with torch.no_grad():
        whole, rounded = network(frames, mask), half(frames, mask)
        assert 0 < (whole - rounded).square().mean().sqrt() < 0.02 * whole.std()
        assert torch.equal(network.eval()(frames, mask), half.eval()(frames, mask))


def test_blocks_do_the_same_work() -> None:
    torch.manual_seed(0)
    blocks = _blocks("cpu")
    u = torch.randn(1, 60, 256)
    ours, theirs = (blocks[name].args[0] for name in ("ours", "transformers"))  # type: ignore[attr-defined]
    torch.testing.assert_close(ours(u), theirs(u), rtol=1e-4, atol=1e-5)


def test_cases_take_turns_and_the_first_call_does_not_count() -> None:
    calls: list[str] = []
    seconds = time_in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_ratio_is_of_medians() -> None:
    assert ratio({"slow": [4.0, 100.0, 6.0], "fast": [1.0, 3.0, 2.0]}, "slow", "fast") == 3


@pytest.mark.slow
def test_bench_measures_everything_once() -> None:
    report = BENCHES.get("ssd")().measure("cpu", 1, lambda _text, _share: None)
    assert [len(table.rows) for table in report.tables] == [4, 1]
    assert {name: sorted(times) for name, times in report.seconds.items()}["1 x 2000"] == [
        "bfloat16",
        "chunked",
        "dual form",
        "no scan",
    ]
    assert len(report.sentences) == 6


def test_watch_tells_stages_and_updates_apart() -> None:
    watch = Watch("cpu")
    for text in ("teacher: a", "teacher: b", "teacher: c", "student: a", "student: b", "fine-tuning on s: a"):
        watch(text, 0.5)
    assert {stage: len(times.seconds) for stage, times in watch.stages.items()} == {
        "teacher": 2,
        "student": 1,
        "finetune": 0,
    }
    assert all(times.memory_gb is None for times in watch.stages.values())


def test_stage_for_which_memory_runs_out_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_small(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr("realmbench.realm.decoders.pretrain_teacher", too_small)
    found = time_stages("paper", Case("float32", False), "cpu", rounds=2)
    assert {stage: (times.windows, times.seconds) for stage, times in found.items()} == {"teacher": (384, [])}
    result = StagesBench().measure("cpu", 1, lambda _text, _share: None)
    assert [row[:3] + row[4:] for row in result.tables[0].rows] == [
        [recipe, "teacher", windows, "out of memory", ""] for recipe, windows in (("paper", "384"), ("paper-v1", "16"))
    ]
    assert "What comes after a stage for which memory ran out is not timed." in result.sentences
    assert not any("hours" in sentence for sentence in result.sentences)


@pytest.mark.slow
def test_stages_are_those_of_the_recipe() -> None:
    before = Mixer.scan
    found = time_stages("paper", Case("float32", False), "cpu", rounds=2)
    assert {stage: (times.windows, times.updates, len(times.seconds)) for stage, times in found.items()} == {
        "teacher": (384, 11_000, 2),
        "student": (32, 49_500, 2),
        "finetune": (32, 700, 2),
    }
    assert [times.scale for times in found.values()] == [384 / CPU_WINDOWS, 32 / CPU_WINDOWS, 32 / CPU_WINDOWS]
    # The bidirectional teacher's network takes more than the student's fine-tuning, on as many windows.
    assert found["teacher"].median > found["finetune"].median > 0
    assert Mixer.scan is before
