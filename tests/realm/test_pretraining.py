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

FIRST = torch.zeros(1, dtype=torch.long)


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
        found, *moved = (model(given, mask, hidden, FIRST) for given in (x, inside, at_edge, outside))
    assert found.shape == x.shape
    assert torch.equal(moved[0], found)
    for changed in moved[1:]:
        assert (changed - found)[:, 25:35].abs().max() > 1e-6  # both ways: from before, and into what is hidden
    with torch.no_grad():
        assert not torch.equal(model(inside, mask, ~hidden, FIRST), found)


def test_predictor_by_hand(session_maker: Any) -> None:
    """As published norms stand before the block and the perceptron, whose residual is normed; else that one is not."""
    session = session_maker()
    x = torch.randn(2, 40, session.channels, session.features)
    mask, hidden = torch.from_numpy(session.mask).expand(2, -1), torch.rand(2, 40) < 0.5
    for variant in ("paper", "mamba2"):
        config = RealmStudent("tiny", {"variant": variant}).teacher_config(session)
        model = MaskedAutoencoder(config, MaskingOptions()).eval()
        torch.nn.init.normal_(model.norm.weight)
        with torch.no_grad():
            tokens = torch.where(hidden[..., None], model.mask_token, model.encoder.tokenize(x, mask))
            code = model.encoder.encode(tokens).final
            if variant == "paper":
                torch.nn.init.normal_(model.norm_before.weight)
                code = model.norm(code + model.mixer(model.norm_before(code)))
                expected = code + model.perceptron(code)
            else:
                code = code + model.mixer(code)
                expected = code + model.perceptron(model.norm(code))
            found = model(x, mask, hidden, FIRST.expand(2))
            torch.testing.assert_close(found.flatten(2), model.output(expected))


def test_sessions_have_a_vector_of_their_own_that_masked_tokens_do_not_know(session_maker: Any) -> None:
    session = session_maker()
    model = MaskedAutoencoder(RealmStudent("tiny").teacher_config(session), MaskingOptions(), sessions=3).eval()
    x, mask = torch.randn(1, 40, session.channels, session.features), torch.from_numpy(session.mask)[None]
    hidden = torch.zeros(1, 40, dtype=torch.bool)
    assert model.sessions is not None
    with torch.no_grad():
        first, last = (model(x, mask, hidden, FIRST + number) for number in (0, 2))
        assert (first - last).abs().max() > 1e-3
        tokens = model.encoder.tokenize(x, mask) + model.sessions.weight[2]
        code = model.encoder.encode(tokens).final
        code = code + model.mixer(code)
        torch.testing.assert_close(last.flatten(2), model.output(code + model.perceptron(model.norm(code))))
        assert torch.equal(model(x, mask, ~hidden, FIRST), model(x, mask, ~hidden, FIRST + 2))


def test_embedded_sessions_are_learnt_and_leave_the_same_encoder_behind(
    context: Context, sessions: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[MaskedAutoencoder] = []
    begin = MaskedAutoencoder.__init__

    def spied(model: MaskedAutoencoder, *given: Any) -> None:
        begin(model, *given)
        made.append(model)

    monkeypatch.setattr(MaskedAutoencoder, "__init__", spied)
    config, masking = RealmStudent("tiny").teacher_config(sessions[0]), MaskingOptions()
    train = TrainOptions(updates=2, evaluate_every=2, window_s=2.0)
    plain, embedded = (pretrain_teacher(config, masking, train, sessions, context, each) for each in (False, True))
    assert made[0].sessions is None
    table = made[1].sessions
    assert table is not None
    assert table.weight.shape == (len(sessions), config.d_model)
    assert table.weight.grad is not None
    assert table.weight.grad.abs().sum(1).min() > 0  # every session's windows taught its own
    assert plain.hash != embedded.hash
    assert set(plain.arrays) == set(embedded.arrays)
    assert not np.array_equal(plain.arrays["norm.weight"], embedded.arrays["norm.weight"])


def test_training_reconstructs_the_clean_frames_at_the_hidden_steps_of_a_corrupted_window(
    context: Context, sessions: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, ...]] = []
    forward, error = MaskedAutoencoder.forward, pretraining.reconstruction_error

    def spied_forward(model: MaskedAutoencoder, x: torch.Tensor, *rest: torch.Tensor) -> Any:
        if model.training:
            seen.append((x, rest[1]))
        return forward(model, x, *rest)

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
