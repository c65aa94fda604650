"""Networks with a part per session: the table, the start on a new session, training on several at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from realmbench.artifact import ArtifactStore
from realmbench.decoder import Context
from realmbench.training.loop import TrainOptions
from realmbench.training.multi_session import SessionTable, load_pretrained, train_on_sessions
from realmbench.training.windows import WindowSampler, validation_batches


class Gained(nn.Module):
    """A shared linear map, scaled by a number of the session's own."""

    def __init__(self, sessions: int) -> None:
        super().__init__()
        self.map = nn.Linear(6, 2)
        self.gain = SessionTable(sessions, 1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, session: torch.Tensor | None = None) -> torch.Tensor:
        return self.map(x.flatten(2)) * self.gain(session, len(x))[:, None]


def test_table_gives_each_session_its_row() -> None:
    table = SessionTable(3, 2)
    torch.testing.assert_close(table.rows, table.rows[:1].expand(3, -1))  # all start alike
    nn.init.normal_(table.rows)
    torch.testing.assert_close(table(torch.tensor([2, 0, 2]), 3), table.rows[[2, 0, 2]])
    torch.testing.assert_close(table(None, 2), table.rows[[0, 0]])


def test_new_session_starts_at_the_mean_of_the_others() -> None:
    source, target = Gained(5), Gained(1)
    nn.init.normal_(source.gain.rows)
    arrays = {name: tensor.numpy() for name, tensor in source.state_dict().items()}
    load_pretrained(target, arrays)
    torch.testing.assert_close(target.gain.rows, source.gain.rows.mean(0, keepdim=True))
    torch.testing.assert_close(target.map.weight, source.map.weight)


def test_batches_name_their_sessions(session_maker: Any) -> None:
    sessions = [session_maker(name=f"s{number}", seed=number) for number in range(3)]
    batch = WindowSampler(sessions, 1.0, 32, np.random.default_rng(0), "cpu").draw()
    assert set(batch.session.tolist()) == {0, 1, 2}
    for x, number in zip(batch.x, batch.session):
        segments = [segment.x for segment in sessions[number].train]
        assert any((window == x.numpy()).all() for part in segments for window in windows_of(part, len(x)))
    [(validation, _)] = validation_batches(sessions[1], "cpu", 1)
    assert validation.session.tolist() == [1]


def windows_of(x: np.ndarray, length: int) -> list[np.ndarray]:
    return [x[start : start + length] for start in range(len(x) - length + 1)]


def test_each_session_gets_its_own_part(session_maker: Any, tmp_path: Path) -> None:
    """The target of the second session is minus three times that of the first: only its own gain can tell."""
    sessions = [session_maker(name=f"s{number}", seed=number) for number in range(2)]
    for segment in (*sessions[1].train, *sessions[1].validation):
        segment.y[:] *= -3
    torch.manual_seed(0)
    network = Gained(2)
    context = Context(0, "cpu", ArtifactStore(tmp_path, "code", {}), tmp_path)
    options = TrainOptions(updates=300, window_s=1.0, learning_rate=2e-2, evaluate_every=50)
    trained = train_on_sessions(
        network, lambda batch: network(batch.x, batch.mask, batch.session), "gained", options, sessions, context, {}
    )
    gains = trained.arrays["gain.rows"][:, 0]
    np.testing.assert_allclose(gains[1] / gains[0], -3, rtol=0.1)
    assert trained.parameters == 16
