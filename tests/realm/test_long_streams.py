"""REALM's networks against independent definitions, and over streams far longer than any training window."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from realmbench.realm.decoders import RealmPooled, RealmScratch, RealmStudent, RealmTeacher
from realmbench.realm.encoder import EncoderConfig, RealmEncoder, RealmNetwork
from realmbench.realm.mamba2 import Mamba2Mixer
from realmbench.realm.plus_decoder import RealmStudentPlus
from realmbench.realm.ssd import ssd_chunked, ssd_sequential
from realmbench.realm.tokenizer import NeuralTokenizer, causal_mean
from realmbench.training.flops import count_flops


def tokenize_by_definition(tokenizer: NeuralTokenizer, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The tokenizer with torch's own convolutions, one step and one channel at a time."""
    _, length, channels, _ = x.shape
    features = []
    for channel in range(channels):
        row = functional.pad(x[:, :, channel].transpose(1, 2), (2, 0) if tokenizer.causal else (1, 1))  # (B, F, T + 2)
        output = functional.gelu(functional.conv1d(row, tokenizer.channel.weight, tokenizer.channel.bias))
        features.append(output.transpose(1, 2) * mask[:, channel, None, None])  # (B, T, 8)
    stacked = torch.stack(features, dim=2)  # (B, T, C, 8)
    energy, tokens = stacked.mean(-1), []
    for t in range(length):
        if tokenizer.causal:
            weights = tokenizer.decay ** torch.arange(t, -1, -1, dtype=x.dtype)
            mean = torch.einsum("s,bsc->bc", weights, energy[:, : t + 1]) / weights.sum()
        else:
            mean = energy.mean(1)
        gate = functional.conv1d(mean[:, None], tokenizer.gate.weight, padding=2)[:, 0].sigmoid()  # (B, C)
        tokens.append(tokenizer.norm(tokenizer.project((stacked[:, t] * gate[..., None]).flatten(1))))
    return torch.stack(tokens, dim=1)


@pytest.mark.parametrize(("causal", "energy_s"), [(True, 2.0), (True, None), (False, 2.0)])
@pytest.mark.parametrize(("channels", "length"), [(1, 1), (1, 70), (3, 70), (6, 130)])
def test_tokenizer_equals_its_definition(causal: bool, energy_s: float | None, channels: int, length: int) -> None:
    """With both causal means: the exponential one, and the published one, which forgets nothing."""
    torch.manual_seed(channels)
    tokenizer = NeuralTokenizer(channels, 2, 8, causal=causal, rate=50, energy_s=energy_s).double()
    assert (tokenizer.decay == 1) == (energy_s is None)
    x = torch.randn(2, length, channels, 2, dtype=torch.float64)
    mask = torch.ones(2, channels, dtype=torch.bool)
    mask[1, channels // 2] = channels == 1
    torch.testing.assert_close(tokenizer(x, mask), tokenize_by_definition(tokenizer, x, mask), rtol=0, atol=1e-10)


def test_causal_mean_of_a_constant_is_that_constant() -> None:
    """From the first step on, in single precision, where 1 - decay^t would have lost its digits."""
    x = torch.full((1, 20_000, 1), 3.7)
    assert (causal_mean(x, 0.999) / 3.7 - 1).abs().max() < 1e-6


def small_student(memory_s: float | None = 1.0) -> RealmNetwork:
    torch.manual_seed(0)
    config = EncoderConfig(
        channels=4,
        features=2,
        rate=50,
        causal=True,
        d_model=32,
        layers=2,
        expand=2,
        headdim=32,
        d_state=16,
        dropout=0.1,
        memory_s=memory_s,
    )
    return RealmNetwork(RealmEncoder(config), outputs=2).eval()


def test_single_precision_stream_stays_with_parallel_over_ten_thousand_steps() -> None:
    net, mask = small_student(), torch.ones(1, 4, dtype=torch.bool)
    x = torch.randn(1, 10_000, 4, 2)
    state, outputs = net.initial_state(1), []
    with torch.no_grad():
        for frame in x.unbind(1):
            y, state = net.step(frame, mask, state)
            outputs.append(y)
        expected = net(x, mask)
    error = (torch.stack(outputs, dim=1) - expected).abs().max()
    assert error < 1e-5 * expected.std()


def test_state_of_a_stream_does_not_grow() -> None:
    net, mask = small_student(), torch.ones(1, 4, dtype=torch.bool)
    state = net.initial_state(1)

    def sizes() -> list[torch.Size]:
        parts = [state.encoder.tokenizer.frames, *state.encoder.tokenizer.mean]
        return [part.shape for part in parts] + [part.shape for block in state.encoder.blocks for part in block]

    before = sizes()
    with torch.no_grad():
        for _ in range(5):
            _, state = net.step(torch.randn(1, 4, 2), mask, state)
    assert sizes() == before


def test_matrix_products_of_a_step_are_counted() -> None:
    """Every weight matrix works once per step: a multiply-add is two operations."""
    net, mask = small_student(), torch.ones(1, 4, dtype=torch.bool)
    state = net.initial_state(1)
    count = count_flops(lambda: net.step(torch.zeros(1, 4, 2), mask, state))
    encoder = net.encoder
    weights = encoder.tokenizer.project.weight.numel() + net.head.weight.numel()
    for mixer in (module for module in encoder.modules() if isinstance(module, Mamba2Mixer)):
        weights += mixer.in_proj.weight.numel() + mixer.out_proj.weight.numel() + mixer.conv1d.weight.numel()
        weights += mixer.inner * mixer.d_state  # the state's read-out
    weights += 4 * encoder.tokenizer.channel.weight.numel() + 4 * encoder.tokenizer.gate.weight.numel()
    assert count.per_step == 2 * weights


@pytest.mark.parametrize("chunk", [16, 64])
def test_one_strong_step_does_not_blur_the_weak_ones_after_it(chunk: int) -> None:
    """Decays that differ by four orders of magnitude within a chunk, in single precision."""
    torch.manual_seed(chunk)
    dt = torch.full((1, 256, 2), 1e-2)
    dt[:, ::10] = 20.0
    x, B, C = torch.randn(1, 256, 2, 8), torch.randn(1, 256, 1, 4), torch.randn(1, 256, 1, 4)
    A = -torch.tensor([1.0, 16.0])
    parts = (x, dt * A, B, C)
    y, _ = ssd_chunked(*parts, chunk)
    expected, _ = ssd_sequential(*(part.double() for part in parts))
    assert (y.double() - expected).abs().max() < 1e-6 * expected.abs().max()


@pytest.mark.parametrize("bounded", [True, False])
def test_a_stream_is_where_one_that_began_later_is(bounded: bool) -> None:
    """Training windows, which begin with an empty state, have then met all that a stream meets."""
    network = small_student(memory_s=1.0 if bounded else None).double()
    with torch.no_grad():
        for block in network.encoder.blocks:
            block.mixer.dt_bias.fill_(-9.0)  # what a network may learn: softplus(-9) = 1.2e-4, states of minutes
            block.mixer.in_proj.weight[-block.mixer.heads :] = 0
        x = torch.randn(1, 6000, 4, 2, dtype=torch.float64)
        mask = torch.ones(1, 4, dtype=torch.bool)
        late = network(x[:, 4000:], mask)[:, 1500:]  # thirty seconds later: fifteen constants of the slowest mean
        difference = (network(x, mask)[:, 5500:] - late).abs().max().item()
    assert (difference < 1e-5) == bounded


def test_published_presets_are_unbounded_and_ours_bounded_within_the_training_windows() -> None:
    for decoder in (RealmStudent, RealmPooled, RealmTeacher, RealmScratch, RealmStudentPlus):
        for preset in decoder.presets:
            made = decoder(preset)
            memory, train = made.options.memory_s, made.config["train"]
            if preset.startswith("paper"):
                assert memory is None
            else:
                stages = [train] if "window_s" in train else list(train.values())
                assert 3 * memory <= min(stage["window_s"] for stage in stages)
