"""The training loop: learns, keeps the best, counts a learnt start and no other, resumes with the same numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import realmbench.training.loop as loop_module
from realmbench.decoder import Context
from realmbench.errors import OptionError, RealmbenchError
from realmbench.seeds import stream
from realmbench.training.loop import FitResult, TrainOptions, best_score, fit, window_sampler
from realmbench.training.network_decoder import conclude
from realmbench.training.windows import Batch, ValidationR2, WindowSampler


class Linear(nn.Module):
    """A linear read-out of the frame and the one before it, with dropout, so that the random state matters."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(12, 2)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(2)
        previous = nn.functional.pad(flat, (0, 0, 1, 0))[:, :-1]
        return self.read(self.dropout(torch.cat([flat, previous], dim=-1)))


OPTIONS = TrainOptions(updates=200, window_s=2.0, learning_rate=1e-2, evaluate_every=10, patience=100)


def train(
    session_maker: Any,
    checkpoint: Path,
    options: TrainOptions = OPTIONS,
    loss: Any = None,
    network: Any = None,
    start_counts: bool = True,
) -> tuple[nn.Module, list[dict[str, float]], list[float]]:
    session = session_maker()
    torch.manual_seed(0)
    network = network or Linear()
    shares: list[float] = []
    result = fit(
        network,
        loss or (lambda batch: nn.functional.mse_loss(network(batch.x, batch.mask), batch.y)),
        ValidationR2([session], lambda batch: network(batch.x, batch.mask), "cpu"),
        WindowSampler([session], options.window_s, options.batch_size, stream(0, "windows"), "cpu"),
        options,
        0,
        checkpoint,
        lambda share, _best: shares.append(share),
        start_counts=start_counts,
    )
    return network, result.history, shares


def test_learns_what_a_linear_model_can(session_maker: Any, tmp_path: Path) -> None:
    """Signal variance 1, noise variance 0.09: the best R2 is 1 / 1.09 = 0.917."""
    _, history, shares = train(session_maker, tmp_path / "c.pt")
    assert history[0]["score"] < 0.2
    assert max(entry["score"] for entry in history) == pytest.approx(0.917, abs=0.03)
    assert shares[-1] == 1.0
    assert not (tmp_path / "c.pt").exists()


def test_never_ends_below_its_start(session_maker: Any, tmp_path: Path) -> None:
    network, _, _ = train(session_maker, tmp_path / "a.pt")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    # A loss that destroys the network: the start must come back.
    _, history, _ = train(
        session_maker,
        tmp_path / "b.pt",
        loss=lambda batch: -network(batch.x, batch.mask).square().mean(),
        network=network,
    )
    assert history[0]["score"] > history[-1]["score"]
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_weights_just_drawn_are_no_result(session_maker: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = Linear()
    drawn = {name: value.clone() for name, value in network.state_dict().items()}
    kept = []

    def destroys(batch: Batch) -> torch.Tensor:
        if len(kept) < 11:
            kept.append({name: value.clone() for name, value in network.state_dict().items()})
        return -network(batch.x, batch.mask).square().mean()

    _, history, _ = train(session_maker, tmp_path / "a.pt", loss=destroys, network=network, start_counts=False)
    assert max(history, key=lambda entry: entry["score"])["update"] == 0  # and yet:
    assert max(history[1:], key=lambda entry: entry["score"])["update"] == 10
    assert len(kept) == 11
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, kept[10][name])
        assert not torch.equal(value, drawn[name])


def test_training_that_diverges_says_so(session_maker: Any, tmp_path: Path) -> None:
    network = Linear()

    def spoils(batch: Batch) -> torch.Tensor:
        return network(batch.x, batch.mask).sum() * float("nan")

    with pytest.raises(RealmbenchError, match=r"diverged: no validation score in 200 .* lower learning rate"):
        train(session_maker, tmp_path / "a.pt", loss=spoils, network=network, start_counts=False)


def test_what_was_good_before_training_diverged_is_kept(session_maker: Any, tmp_path: Path) -> None:
    network = Linear()
    updates = 0

    def spoils_later(batch: Batch) -> torch.Tensor:
        nonlocal updates
        updates += 1
        loss = nn.functional.mse_loss(network(batch.x, batch.mask), batch.y)
        return loss if updates <= 50 else loss * float("nan")

    options = OPTIONS.model_copy(update={"patience": 5})
    _, history, _ = train(session_maker, tmp_path / "a.pt", options, spoils_later, network, start_counts=False)
    scores = [entry["score"] for entry in history]
    # Five looks before it diverges, then as many as patience has.
    assert np.isfinite(scores[:6]).all()
    assert np.isnan(scores[6:]).all()
    assert len(scores) == 11
    assert best_score(history) == max(scores[:6])
    session = session_maker()
    kept = ValidationR2([session], lambda batch: network(batch.x, batch.mask), "cpu")()
    assert kept == max(scores[1:6]) > scores[0]


@pytest.mark.parametrize(
    ("start_counts", "later", "warning"),
    [
        (True, [float("nan")], "it diverged, no validation score is a finite number"),
        (True, [0.3, float("nan")], "no update improved the validation score"),
        (False, [float("nan"), -0.1], r"no better than a constant on validation \(R2 -0.100\)"),
        (False, [float("nan"), 0.2], None),
        (True, [0.5, float("nan")], None),
        (True, [], None),
        (False, [], "trained with no update; its weights, or some, are as they were drawn"),
    ],
)
def test_a_fit_that_came_to_nothing_is_warned_of(
    context: Context, start_counts: bool, later: list[float], warning: str | None
) -> None:
    history = [{"score": 0.4}, *({"score": score} for score in later)]
    conclude(FitResult(history, 2.0), context, "fit", start_counts=start_counts)
    assert context.seconds["fit"] == 2.0
    if warning is None:
        assert not context.warnings
    else:
        assert len(context.warnings) == 1
        assert re.match(f"fit: {warning}", context.warnings[0])


def test_scores_that_are_no_numbers_leave_no_result(session_maker: Any, tmp_path: Path) -> None:
    session, network = session_maker(), Linear()
    scores = iter([-1.0, *[float("nan")] * 20])
    with pytest.raises(RealmbenchError, match="diverged: no validation score in 200 updates"):
        fit(
            network,
            lambda batch: network(batch.x, batch.mask).square().mean(),
            lambda: next(scores),
            WindowSampler([session], 2.0, 16, stream(0, "windows"), "cpu"),
            OPTIONS,
            0,
            tmp_path / "a.pt",
            lambda _share, _best: None,
            start_counts=False,
        )


def test_stops_when_patience_is_out(session_maker: Any, tmp_path: Path) -> None:
    options = OPTIONS.model_copy(update={"patience": 3})
    network = Linear()
    _, history, _ = train(
        session_maker,
        tmp_path / "c.pt",
        options,
        loss=lambda batch: -network(batch.x, batch.mask).square().mean(),
        network=network,
    )
    assert [entry["update"] for entry in history] == [0, 10, 20, 30]


def test_resumes_with_the_same_numbers(session_maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "CHECKPOINT_EVERY_S", 0.0)
    whole, whole_history, _ = train(session_maker, tmp_path / "whole.pt")

    class KilledError(Exception):
        pass

    calls = 0

    def dies(batch: Batch) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > 105:
            raise KilledError
        return nn.functional.mse_loss(network(batch.x, batch.mask), batch.y)

    torch.manual_seed(0)
    network = Linear()
    checkpoint = tmp_path / "killed.pt"
    with pytest.raises(KilledError):
        train(session_maker, checkpoint, loss=dies, network=network)
    assert checkpoint.exists()
    resumed, resumed_history, shares = train(session_maker, checkpoint)
    assert shares[0] > 0.5
    assert resumed_history == whole_history
    for name, value in resumed.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[name], rtol=0, atol=0)


def test_seconds_before_a_kill_are_counted(session_maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "CHECKPOINT_EVERY_S", 0.0)
    checkpoint = tmp_path / "c.pt"
    network = Linear()

    def dies(batch: Batch) -> torch.Tensor:
        if checkpoint.exists():
            raise KeyboardInterrupt
        return nn.functional.mse_loss(network(batch.x, batch.mask), batch.y)

    with pytest.raises(KeyboardInterrupt):
        train(session_maker, checkpoint, loss=dies, network=network)
    spent = torch.load(checkpoint, weights_only=True)["seconds"]
    assert spent > 0
    session = session_maker()
    result = fit(
        network,
        lambda batch: nn.functional.mse_loss(network(batch.x, batch.mask), batch.y),
        ValidationR2([session], lambda batch: network(batch.x, batch.mask), "cpu"),
        WindowSampler([session], 2.0, 16, stream(0, "windows"), "cpu"),
        OPTIONS,
        0,
        checkpoint,
        lambda _share, _best: None,
        start_counts=True,
    )
    assert result.earlier_seconds == spent


def test_score_that_is_no_number_is_refused_at_the_start(session_maker: Any, tmp_path: Path) -> None:
    network = Linear()
    nn.init.constant_(network.read.weight, float("nan"))
    with pytest.raises(RealmbenchError, match="nan before the first update"):
        train(session_maker, tmp_path / "c.pt", network=network)


def test_target_that_rests_over_validation_is_learnt_all_the_same(session_maker: Any, tmp_path: Path) -> None:
    """A pause of the movement leaves R2 undefined: the score is then 1 minus the error, whose scale is training's."""
    torch.manual_seed(0)
    session, network = session_maker(), Linear().eval()
    session.validation[0].y[:, 1] = 0.25
    before = ValidationR2([session], lambda batch: network(batch.x, batch.mask), "cpu")()
    segment = session.validation[0]
    with torch.no_grad():
        output = network(torch.from_numpy(segment.x)[None], torch.from_numpy(session.mask)[None])[0].numpy()
    truth, prediction = segment.y[segment.warm_up :], output[segment.warm_up :]
    error = np.square(truth.astype(float) - prediction).mean(0)
    assert before == pytest.approx(np.mean([1 - error[0] / np.var(truth[:, 0], dtype=float), 1 - error[1]]))
    _, history, _ = train(lambda: session, tmp_path / "c.pt", network=network, start_counts=False)
    assert best_score(history) > before


def test_window_of_no_length_is_refused(session_maker: Any) -> None:
    with pytest.raises(OptionError, match="fewer than two frames"):
        WindowSampler([session_maker()], 0.001, 2, stream(0, "w"), "cpu")


def test_windows_stay_inside_training_segments(session_maker: Any) -> None:
    session = session_maker(seconds=3.0)
    for segment in session.train:
        segment.x[:] = np.arange(len(segment), dtype=np.float32)[:, None, None] + segment.start
    sampler = WindowSampler([session], 2.0, 64, stream(0, "windows"), "cpu")
    starts = set()
    for _ in range(20):
        x = sampler.draw().x[:, :, 0, 0]
        assert torch.all(x.diff(dim=1) == 1)
        starts |= set(x[:, 0].int().tolist())
    # 3 s segments at 0 and 5000, 2 s windows at 50 Hz: starts 0 to 50 of each, every one drawn.
    assert starts == set(range(51)) | set(range(5000, 5051))


def test_window_longer_than_a_segment_is_cut(session_maker: Any) -> None:
    assert WindowSampler([session_maker(seconds=3.0)], 60.0, 2, stream(0, "w"), "cpu").draw().x.shape[1] == 150


def test_cut_windows_are_warned_of(session_maker: Any, context: Context) -> None:
    session = session_maker(seconds=3.0)
    assert window_sampler([session], OPTIONS, context, "fit").window == 100
    assert context.warnings == []
    long = OPTIONS.model_copy(update={"window_s": 12.0})
    assert window_sampler([session], long, context, "fit").window == 150
    [warning] = context.warnings
    assert "fit: windows of 3 s instead of 12" in warning
    window_sampler([session], long.model_copy(update={"updates": 0}), context, "fit")
    assert context.warnings == [warning]


def test_validation_ignores_the_warm_up(session_maker: Any) -> None:
    session = session_maker()
    truth = torch.from_numpy(session.validation[0].y)[None]

    def predict(batch: Batch) -> torch.Tensor:
        spoiled = truth.clone()
        spoiled[:, :100] = 1e6
        return spoiled

    assert ValidationR2([session], predict, "cpu")() == pytest.approx(1.0)


def test_learning_rate_rises_then_falls_to_a_hundredth() -> None:
    options = TrainOptions(updates=100, warm_up_share=0.1, learning_rate=1.0)
    rates = [options.rate_at(update) for update in range(101)]
    assert np.argmax(rates) == 10
    assert rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.01)
