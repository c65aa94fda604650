"""Windowed layers: equal to transformers' whole model, streamed exactly, causal, and precise after days."""

from __future__ import annotations

import pytest
import torch
from transformers import MistralConfig, MistralModel

from realmbench.networks.attention import CHUNK, AttentionState, TransformerLayer, rotation


def layer(window: int | None = 10, dropout: float = 0.0) -> TransformerLayer:
    torch.manual_seed(0)
    return TransformerLayer(16, 2, 24, window, dropout).eval()


@pytest.mark.parametrize("length", [7, 40, CHUNK + 37])
def test_stack_equals_transformers_mistral_with_its_sliding_window(length: int) -> None:
    """Two layers of ours with the weights of the whole model: its own masks, positions and order of operations."""
    config = MistralConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=10,
        vocab_size=4,
        attn_implementation="eager",
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )
    torch.manual_seed(1)
    reference = MistralModel(config).eval()
    ours = [layer(), layer()]
    for mine, theirs in zip(ours, reference.layers):
        mine.layer.load_state_dict(theirs.state_dict())
    x = torch.randn(2, length, 16)
    with torch.no_grad():
        expected = reference(inputs_embeds=x).last_hidden_state
        actual = reference.norm(ours[1](ours[0](x)))
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-4)


def test_stream_equals_the_whole_pass_beyond_chunk_and_window() -> None:
    causal = layer()
    x = torch.randn(2, CHUNK + 50, 16)
    with torch.no_grad():
        state, outputs = causal.initial_state(2), []
        for t in range(x.shape[1]):
            y, state = causal.step(x[:, t], state)
            outputs.append(y)
        torch.testing.assert_close(torch.stack(outputs, dim=1), causal(x), atol=1e-5, rtol=1e-5)
    assert state.keys.shape[2] == 9  # the window without the present frame
    assert state.position == CHUNK + 50


@pytest.mark.parametrize("window", [1, 10])
def test_sees_its_window_and_nothing_else(window: int) -> None:
    causal = layer(window)
    x = torch.randn(1, 40, 16)
    changed = x.clone()
    changed[:, 20] += 1
    with torch.no_grad():
        moved = (causal(x) - causal(changed)).abs().amax((0, 2)) > 1e-6
    assert moved.nonzero().flatten().tolist() == list(range(20, 20 + window))


def test_bidirectional_layer_sees_everything() -> None:
    both = layer(None)
    x = torch.randn(1, 40, 16)
    changed = x.clone()
    changed[:, 20] += 1
    with torch.no_grad():
        assert ((both(x) - both(changed)).abs().amax((0, 2)) > 1e-8).all()


def test_stream_is_the_same_after_a_year() -> None:
    """Only differences of positions count; at a billion frames single precision would turn every key at random."""
    causal = layer()
    x = torch.randn(1, 30, 16)
    with torch.no_grad():
        early, _ = causal._advance(x, causal.initial_state(1))
        late, _ = causal._advance(x, AttentionState(*causal.initial_state(1)[:2], position=10**9))
    torch.testing.assert_close(early, late, atol=1e-5, rtol=1e-5)


def test_rotation_by_complex_numbers() -> None:
    places = torch.tensor([[0.0, 1.5, 40.0]])
    cosine, sine = rotation(places, 8, torch.zeros(1))
    frequencies = 10_000.0 ** (-torch.arange(4).double() / 4)
    turned = torch.exp(1j * places[..., None].double() * frequencies)
    torch.testing.assert_close(cosine[..., :4].double(), turned.real, atol=1e-6, rtol=0)
    torch.testing.assert_close(sine[..., 4:].double(), turned.imag, atol=1e-6, rtol=0)


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of twice"):
        TransformerLayer(10, 4, 8, 5, 0.0)
    with pytest.raises(ValueError, match="present one"):
        TransformerLayer(16, 2, 8, 0, 0.0)
