"""The POYO-style network: rotary time, attention by hand, masks, windows, fitting to a new session, size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

from realmbench.artifact import ArtifactStore
from realmbench.baselines.poyo import Poyo
from realmbench.baselines.poyo_network import PERIODS_S, PoyoNetwork, PoyoOptions, RotaryAttention, Rotation
from realmbench.decoder import Context
from realmbench.metrics import r2_axis_mean

SMALL = PoyoOptions(width=16, depth=2, head_width=8, self_heads=2, latents=3, dropout=0.0, latent_dropout=0.0)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(0, "cpu", ArtifactStore(tmp_path, "code", {}), tmp_path)


def network(sessions: int = 2, channels: int = 5) -> PoyoNetwork:
    torch.manual_seed(0)
    made = PoyoNetwork(channels, features=3, outputs=2, rate=50, sessions=sessions, options=SMALL).eval()
    for table in (made.units, made.session):
        torch.nn.init.normal_(table.rows)
    return made


def test_attention_by_hand_in_float64() -> None:
    """Queries, keys and values turned as complex numbers; numpy for the rest."""
    torch.manual_seed(1)
    layer = RotaryAttention(SMALL, cross=True, turn_values=True).double().eval()
    x, context = torch.randn(1, 4, 16, dtype=torch.float64), torch.randn(1, 6, 16, dtype=torch.float64)
    times, others = torch.arange(4) * 0.3, torch.arange(6) * 0.11
    mask = torch.tensor([[True, True, False, True, True, True]])
    with torch.no_grad():
        actual = layer(x, Rotation(times, 8), context, Rotation(others, 8), mask)[0].numpy()
        queries = layer.query(layer.norm(x))[0].numpy()
        assert layer.context_norm is not None
        keys, values = layer.key_value(layer.context_norm(context))[0].chunk(2, dim=-1)

    speeds = np.concatenate([2 * np.pi / np.geomspace(*PERIODS_S, 2), np.zeros(2)])

    def turned(part: np.ndarray, at: np.ndarray) -> np.ndarray:
        return (part[:, :4] + 1j * part[:, 4:]) * np.exp(1j * at[:, None] * speeds)

    q, k, v = (
        turned(queries, times.numpy()),
        turned(keys.numpy(), others.numpy()),
        turned(values.numpy(), others.numpy()),
    )
    scores = (q @ k.conj().T).real / np.sqrt(8)
    weights = softmax(np.where(mask.numpy(), scores, -np.inf), axis=1)
    mixed = (weights @ v) * np.exp(-1j * times.numpy()[:, None] * speeds)
    flat = np.concatenate([mixed.real, mixed.imag], axis=1)
    expected = flat @ layer.output.weight.detach().numpy().T + layer.output.bias.detach().numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("turn_values", [False, True])
def test_only_differences_of_time_count(turn_values: bool) -> None:
    layer = RotaryAttention(SMALL, cross=False, turn_values=turn_values).eval()
    x, times = torch.randn(1, 9, 16), torch.arange(9, dtype=torch.float64) * 0.13
    with torch.no_grad():
        torch.testing.assert_close(
            layer(x, Rotation(times, 8)), layer(x, Rotation(times + 100.0, 8)), atol=1e-5, rtol=1e-5
        )
        assert (layer(x, Rotation(times, 8)) - layer(x, Rotation(2 * times, 8))).abs().max() > 1e-4


def test_masked_channels_are_not_seen_and_order_is_told_by_embeddings_alone() -> None:
    model = network()
    x, mask = torch.randn(2, 50, 5, 3), torch.tensor([[True] * 4 + [False]] * 2)
    session = torch.tensor([0, 1])
    changed = x.clone()
    changed[:, :, 4] = 1e3
    order = torch.tensor([3, 1, 4, 0, 2])
    with torch.no_grad():
        before = model(x, mask, session)
        torch.testing.assert_close(model(changed, mask, session), before)
        model.units.rows.copy_(model.units.rows[:, order])
        torch.testing.assert_close(model(x[:, :, order], mask[:, order], session), before, atol=1e-5, rtol=1e-4)
        assert (model(x, mask, session.flip(0)) - before).abs().max() > 1e-4


def test_records_of_any_length_and_windows_of_a_batch_of_sessions() -> None:
    model = network()
    x, mask, session = torch.randn(2, 130, 5, 3), torch.ones(2, 5, dtype=torch.bool), torch.tensor([1, 0])
    with torch.no_grad():
        whole = model(x, mask, session)
        assert whole.shape == (2, 130, 2)
        torch.testing.assert_close(whole[:, :37], model(x[:, :50], mask, session)[:, :37], atol=1e-5, rtol=1e-4)
        for length in (1, 4, 5, 6, 49):
            assert model(x[:, :length], mask, session).shape == (2, length, 2)


def parameters(width: int, depth: int, head: int, cross: int, own: int, latents: int) -> int:
    """Count by hand: norms, projections and gated layers of one cross encoder, the depth, one cross decoder."""

    def attention(heads: int, norms: int) -> int:
        inner = heads * head
        return norms * 2 * width + 3 * width * inner + inner * width + width

    feed = 2 * width + width * 8 * width + 8 * width + 4 * width * width + width
    return 2 * (attention(cross, 2) + feed) + depth * (attention(own, 1) + feed) + latents * width + (width + 1) * 2


def test_number_of_parameters() -> None:
    made = network(sessions=1)
    embeddings = 5 * 16 + 16 + (5 * 3 + 1) * 16
    assert sum(part.numel() for part in made.parameters()) == embeddings + parameters(16, 2, 8, 1, 2, 3)


def test_size_and_shape_are_those_of_torch_brains_poyo() -> None:
    """Everything but the embeddings of inputs, which differ by nature: a spike has no values."""
    poyo = pytest.importorskip("torch_brain.models.poyo")
    sizes = {"dim": 64, "depth": 2, "dim_head": 32, "cross_heads": 1, "self_heads": 4}
    reference = poyo.POYO(sequence_length=1.0, latent_step=0.125, num_latents_per_step=8, dim_out=2, **sizes)
    reference.unit_emb.initialize_vocab(["u"])
    reference.session_emb.initialize_vocab(["s"])
    inputs = ("unit_emb", "session_emb", "token_type_emb")
    wanted = sum(part.numel() for name, part in reference.named_parameters() if not name.startswith(inputs))
    ours = PoyoNetwork(5, 3, 2, 50, 1, PoyoOptions())
    assert wanted == parameters(64, 2, 32, 1, 4, 8)
    own = ("units", "session", "embed")
    assert wanted == sum(part.numel() for name, part in ours.named_parameters() if not name.startswith(own))
    times = torch.arange(50)[None] / 50
    output = reference.eval()(
        input_unit_index=torch.ones(1, 20, dtype=torch.long),
        input_timestamps=torch.rand(1, 20),
        input_token_type=torch.zeros(1, 20, dtype=torch.long),
        input_mask=torch.ones(1, 20, dtype=torch.bool),
        latent_index=torch.arange(8).repeat(8)[None],
        latent_timestamps=torch.arange(8).repeat_interleave(8)[None] / 8,
        session_index=torch.ones(1, dtype=torch.long),
        output_timestamps=times,
    )
    assert output.shape == ours(torch.randn(1, 50, 5, 3), torch.ones(1, 5, dtype=torch.bool)).shape


def quick(**changes: Any) -> dict[str, Any]:
    base = {"updates": 30, "evaluate_every": 10}
    return {
        f"{stage}.{key}": value for stage in ("pretrain", "identify", "finetune") for key, value in base.items()
    } | {key.replace("__", "."): value for key, value in changes.items()}


def test_identifying_units_changes_embeddings_alone(session_maker: Any, context: Context) -> None:
    sessions = [session_maker(name=f"s{number}", seed=number) for number in range(3)]
    decoder = Poyo("tiny", {}, quick(finetune__updates=0, identify__learning_rate=0.01))
    artifact = decoder.pretrain(sessions[:2], context)
    decoder.adapt(sessions[2], context, artifact)
    for name, array in decoder.arrays().items():
        start = artifact.arrays[name]
        if name in ("units.rows", "session.rows"):
            assert np.abs(array - start.mean(0, keepdims=True)).max() > 1e-4
        else:
            np.testing.assert_array_equal(array, start)


def test_learns_and_starts_on_a_new_session_from_the_mean(session_maker: Any, context: Context) -> None:
    """The electrodes of these sessions mean the same, so that even without a sample of the third it can be decoded."""
    sessions = [session_maker(name=f"s{number}", seed=number) for number in range(3)]
    decoder = Poyo("tiny", {"patch_s": 0.04}, quick(pretrain__updates=300, pretrain__learning_rate=3e-3))
    artifact = decoder.pretrain(sessions[:2], context)

    decoder.adapt(replace(sessions[2], train=()), context, artifact)
    segment = sessions[2].validation[0]
    zero_shot = r2_axis_mean(segment.y, decoder.predict(segment.x, sessions[2]))
    decoder.adapt(sessions[2], context, artifact)
    assert zero_shot > 0.3
    assert r2_axis_mean(segment.y, decoder.predict(segment.x, sessions[2])) >= zero_shot - 1e-6
