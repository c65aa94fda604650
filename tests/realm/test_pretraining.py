"""Stage 1 by hand: what is hidden, from what the network reconstructs, and what is counted as its error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from realmbench.decoder import Context
from realmbench.realm import pretraining
from realmbench.realm.decoders import RealmStudent
from realmbench.realm.pretraining import MaskedAutoencoder, pretrain_teacher, reconstruction_error
from realmbench.training.loop import TrainOptions
from realmbench.training.masking import MaskingOptions


def autoencoder(session: Any) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(RealmStudent("tiny").teacher_config(session), MaskingOptions()).eval()


def test_error_is_that_of_the_chosen_steps_and_usable_channels() -> None:
    generator = np.random.default_rng(0)
    prediction, target = generator.standard_normal((2, 2, 5, 3, 4))
    steps, mask = generator.random((2, 5)) < 0.5, np.array([[True, True, False], [False, True, True]])
    expected = [
        (prediction[b, t, c, f] - target[b, t, c, f]) ** 2
        for b in range(2)
        for t in range(5)
        for c in range(3)
        for f in range(4)
        if steps[b, t] and mask[b, c]
    ]
    found = reconstruction_error(*map(torch.from_numpy, (prediction, target, steps, mask)))
    assert 0 < len(expected) < prediction.size
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-12)


def test_nothing_of_a_hidden_step_reaches_the_network(session_maker: Any) -> None:
    """But through its neighbours' convolution and the gate's mean, which is therefore held still."""
    session = session_maker()
    model = autoencoder(session)
    torch.nn.init.zeros_(model.encoder.tokenizer.gate.weight)
    x = torch.randn(1, 60, session.channels, session.features)
    mask, hidden = torch.from_numpy(session.mask)[None], torch.zeros(1, 60, dtype=torch.bool)
    hidden[:, 20:40] = True
    inside, at_edge, outside = x.clone(), x.clone(), x.clone()
    inside[:, 21:39] += 1.0
    at_edge[:, 20] += 1.0
    outside[:, 10] += 1.0
    with torch.no_grad():
        found, *moved = (model(given, mask, hidden) for given in (x, inside, at_edge, outside))
    assert found.shape == x.shape
    assert torch.equal(moved[0], found)
    for changed in moved[1:]:
        assert (changed - found)[:, 25:35].abs().max() > 1e-6  # both ways: from before, and into what is hidden
    with torch.no_grad():
        assert not torch.equal(model(inside, mask, ~hidden), found)


def test_training_reconstructs_the_clean_frames_at_the_hidden_steps_of_a_corrupted_window(
    context: Context, sessions: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, ...]] = []
    forward, error = MaskedAutoencoder.forward, pretraining.reconstruction_error

    def spied_forward(model: MaskedAutoencoder, x: torch.Tensor, mask: torch.Tensor, hidden: torch.Tensor) -> Any:
        if model.training:
            seen.append((x, hidden))
        return forward(model, x, mask, hidden)

    def spied_error(prediction: torch.Tensor, target: torch.Tensor, steps: torch.Tensor, mask: torch.Tensor) -> Any:
        if prediction.requires_grad:
            seen[-1] += (target, steps, mask)
        return error(prediction, target, steps, mask)

    monkeypatch.setattr(MaskedAutoencoder, "forward", spied_forward)
    monkeypatch.setattr(pretraining, "reconstruction_error", spied_error)
    config = RealmStudent("tiny").teacher_config(sessions[0])
    options = MaskingOptions(share=0.6, channel_dropout=0.5, gain=0.2, noise=0.05)
    pretrain_teacher(config, options, TrainOptions(updates=4, evaluate_every=2, window_s=4.0), sessions, context)
    assert len(seen) == 4
    clean = {part.tobytes() for session in sessions for segment in session.train for part in segment.x}
    for x, hidden, target, steps, mask in seen:
        assert torch.equal(hidden, steps)
        assert hidden.float().mean(1) == pytest.approx(torch.full((len(x),), 0.6), abs=0.01)
        assert {frame.numpy().tobytes() for frame in target[:, ::50].flatten(0, 1)} <= clean
        assert mask.all()
        left = x - target  # gain and noise, or all of the signal where a channel is silenced
        silenced = (left + target).square().mean((1, 3)) < 0.1  # (B, C)
        assert 0.2 < silenced.float().mean() < 0.8
        spread = left.square().mean((1, 3)).sqrt()[~silenced]
        assert (spread > 0.04).all()
        assert (spread < 0.3).all()


def test_a_teacher_learns_what_its_neighbours_tell(context: Context, session_maker: Any) -> None:
    """Slow waves can be filled in; the same network cannot fill in noise, whose error stays that of the mean."""
    errors = []
    for slow in (True, False):
        session = session_maker(seconds=40.0, name=f"slow {slow}")
        for segment in (*session.train, *session.validation):
            times = torch.arange(segment.start, segment.start + len(segment)) / 50
            wave = np.sqrt(2) * np.sin(2 * np.pi * 0.4 * times.numpy())[:, None, None] * np.ones_like(segment.x)
            segment.x[:] = wave if slow else segment.x
        config = RealmStudent("tiny").teacher_config(session)
        train = TrainOptions(updates=40, evaluate_every=20, window_s=2.0, batch_size=8, learning_rate=5e-3)
        masking = MaskingOptions(channel_dropout=0, gain=0, noise=0)
        errors.append(-pretrain_teacher(config, masking, train, [session], context).record.best_score)
    assert errors[0] < 0.5
    assert errors[1] > 0.9
