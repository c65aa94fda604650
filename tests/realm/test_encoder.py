"""Tokenizer and encoder: exact means, streams, causality, masks."""

from __future__ import annotations

import pytest
import torch

from realmbench.errors import OptionError, RealmbenchError
from realmbench.realm.encoder import PRESETS, EncoderConfig, RealmEncoder, RealmNetwork
from realmbench.realm.tokenizer import NeuralTokenizer, causal_mean


def config(causal: bool = True, channels: int = 6, features: int = 2) -> EncoderConfig:
    return EncoderConfig(
        channels=channels, features=features, rate=50, causal=causal, d_model=16, layers=2, expand=2, headdim=16,
        d_state=8, dropout=0.1,
    )  # fmt: skip


def network(causal: bool = True, channels: int = 6, seed: int = 0) -> RealmNetwork:
    torch.manual_seed(seed)
    return RealmNetwork(RealmEncoder(config(causal, channels)), outputs=2).eval()


@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000])
def test_exponential_mean_equals_its_definition(length: int) -> None:
    x = torch.randn(2, length, 3, dtype=torch.float64)
    decay, total, weight, expected = 0.97, torch.zeros(2, 3, dtype=torch.float64), 0.0, []
    for step in x.unbind(1):
        total, weight = decay * total + step, decay * weight + 1
        expected.append(total / weight)
    torch.testing.assert_close(causal_mean(x, decay), torch.stack(expected, dim=1), rtol=0, atol=1e-12)


def test_exponential_mean_keeps_its_precision_over_a_long_record() -> None:
    x = 1 + 0.1 * torch.randn(1, 100_000, 1)
    error = causal_mean(x, 0.99).double() - causal_mean(x.double(), 0.99)
    assert error.abs().max() < 1e-5


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_stream_equals_parallel_far_past_the_training_window(channels: int) -> None:
    net = network(channels=channels).double()
    x = torch.randn(1, 3000, channels, 2, dtype=torch.float64)
    mask = torch.ones(1, channels, dtype=torch.bool)
    state, outputs = net.initial_state(1), []
    with torch.no_grad():
        for frame in x.unbind(1):
            y, state = net.step(frame, mask, state)
            outputs.append(y)
        torch.testing.assert_close(torch.stack(outputs, dim=1), net(x, mask), rtol=0, atol=1e-10)


def test_causal_network_ignores_the_future_and_the_teacher_does_not() -> None:
    x = torch.randn(1, 100, 6, 2)
    changed = x.clone()
    changed[:, 70:] = 5.0
    mask = torch.ones(1, 6, dtype=torch.bool)
    student, teacher = network(), network(causal=False)
    with torch.no_grad():
        torch.testing.assert_close(student(x, mask)[:, :70], student(changed, mask)[:, :70], rtol=0, atol=1e-6)
        assert (teacher(x, mask)[:, :70] - teacher(changed, mask)[:, :70]).abs().max() > 1e-3


def test_outputs_do_not_depend_on_what_else_is_in_the_batch() -> None:
    net, mask = network(), torch.ones(4, 6, dtype=torch.bool)
    x = torch.randn(4, 50, 6, 2)
    with torch.no_grad():
        torch.testing.assert_close(net(x, mask)[1:2], net(x[1:2], mask[:1]), rtol=0, atol=1e-6)


def test_masked_channel_is_silent() -> None:
    """Whatever a masked channel's features would be, the tokens are those of zeros after the convolution's bias."""
    torch.manual_seed(0)
    tokenizer = NeuralTokenizer(6, 2, 16, causal=True, rate=50, energy_s=2.0)
    mask = torch.tensor([[True, True, False, True, True, True]])
    x = torch.randn(1, 40, 6, 2)
    x[:, :, 2] = 0
    noisy = x.clone()
    noisy[:, :, 2] = 100.0
    torch.testing.assert_close(tokenizer(x, mask), tokenizer(noisy, mask))
    assert not torch.allclose(tokenizer(x, mask), tokenizer(x, torch.ones_like(mask)))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("variant", ["mamba2", "paper"])
def test_every_parameter_gets_a_gradient(causal: bool, variant: str) -> None:
    torch.manual_seed(0)
    net = RealmNetwork(RealmEncoder(config(causal).model_copy(update={"variant": variant})), outputs=2).eval()
    net(torch.randn(2, 30, 6, 2), torch.ones(2, 6, dtype=torch.bool)).square().sum().backward()
    idle = [name for name, part in net.named_parameters() if part.grad is None or not part.grad.any()]
    assert idle == []


def test_teacher_cannot_stream() -> None:
    with pytest.raises(RealmbenchError, match="cannot stream"):
        network(causal=False).initial_state(1)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_other_backbones_have_the_size_of_the_mamba_one(preset: str) -> None:
    """Within what half a unit of its perceptron, three times the width, can make of attention; all within 1.5 %."""
    shape = {"channels": 4, "features": 2, "rate": 50, "causal": True, "expand": 2, "dropout": 0.0, **PRESETS[preset]}
    sizes = [
        sum(parameter.numel() for parameter in RealmEncoder(EncoderConfig(**shape, **backbone)).parameters())
        for backbone in ({}, {"backbone": "attention", "attention_s": 1.0}, {"backbone": "gru"})
    ]
    assert abs(sizes[0] - sizes[1]) <= shape["layers"] * 1.5 * shape["d_model"]
    for size in sizes[1:]:
        assert abs(size / sizes[0] - 1) < 0.015


def test_attention_backbone_without_room_for_a_perceptron_is_refused() -> None:
    config = EncoderConfig(
        channels=4, features=2, rate=50, causal=True, d_model=64, layers=1, expand=1, headdim=64, d_state=4,
        dropout=0.0, backbone="attention", attention_s=1.0,
    )  # fmt: skip
    with pytest.raises(OptionError, match="leaves none to a perceptron"):
        RealmEncoder(config)


@pytest.mark.parametrize("variant", ["mamba2", "paper"])
@pytest.mark.parametrize("causal", [True, False])
def test_half_precision_changes_training_a_little_and_predictions_not_at_all(variant: str, causal: bool) -> None:
    x, mask = torch.randn(2, 120, 6, 2), torch.ones(2, 6, dtype=torch.bool)
    gradients, predictions = [], []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        changed = config(causal).model_copy(update={"precision": precision, "variant": variant, "dropout": 0.0})
        net = RealmNetwork(RealmEncoder(changed), outputs=2).train()
        net(x, mask).square().sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in net.parameters()]))
        with torch.no_grad():
            predictions.append(net.eval()(x, mask))
    torch.testing.assert_close(*predictions, rtol=0, atol=0)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999
    assert not torch.equal(*gradients)


@pytest.mark.parametrize("variant", ["mamba2", "paper"])
def test_norms_of_a_teacher_stay_in_single_precision(variant: str) -> None:
    changed = config(causal=False).model_copy(update={"precision": "bfloat16", "variant": variant})
    net = RealmNetwork(RealmEncoder(changed), outputs=2).train()
    met: set[torch.dtype] = set()
    for part in net.modules():
        if isinstance(part, torch.nn.LayerNorm):
            part.register_forward_hook(lambda _part, inputs, output: met.update({inputs[0].dtype, output.dtype}))
    net(torch.randn(2, 60, 6, 2), torch.ones(2, 6, dtype=torch.bool))
    assert met == {torch.float32}


def test_network_runs_under_a_users_own_autocast() -> None:
    net, mask = network(), torch.ones(1, 6, dtype=torch.bool)
    x = torch.randn(1, 60, 6, 2)
    with torch.no_grad():
        expected = net(x, mask)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(x, mask)
    assert (half.float() - expected).abs().max() < 0.1 * expected.std()
