"""poyo: attention against plain numpy and torch_brain, channels as a set, what adapting to a new session changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from realmbench.baselines import poyo_network
from realmbench.baselines.poyo import Poyo
from realmbench.baselines.poyo_network import PoyoNetwork, PoyoOptions, RotaryAttention, Rotation
from realmbench.decoder import Context
from realmbench.errors import RealmbenchError
from realmbench.metrics import r2_axis_mean
from realmbench.session import Segment, SessionData

SMALL = PoyoOptions(
    width=16, depth=2, latents=3, head_width=8, cross_heads=1, self_heads=2, dropout=0.0, latent_dropout=0.0
)
QUICK = {
    "pretrain.updates": 20,
    "pretrain.evaluate_every": 10,
    "identify.updates": 10,
    "identify.evaluate_every": 5,
    "finetune.updates": 0,
}
TABLES = {"units.rows", "gains.rows", "session.rows"}


@pytest.fixture
def sessions(session_maker: Any) -> list[SessionData]:
    """Three sessions of smooth frames in which channel 1 alone drives the target."""

    def driven(segment: Segment) -> Segment:
        kernel = np.hanning(17) / np.linalg.norm(np.hanning(17))
        x = np.apply_along_axis(lambda signal: np.convolve(signal, kernel, "same"), 0, segment.x)
        y = x[:, 1] + 0.3 * np.random.default_rng(len(x)).standard_normal((len(x), 2))
        return replace(segment, x=x.astype(np.float32), y=y.astype(np.float32))

    made = [session_maker(seconds=60.0, name=f"s{number}", seed=number) for number in range(3)]
    return [
        replace(
            session,
            train=tuple(driven(segment) for segment in session.train),
            validation=tuple(driven(segment) for segment in session.validation),
        )
        for session in made
    ]


def network(options: PoyoOptions = SMALL, rate: int = 50, sessions: int = 2) -> PoyoNetwork:
    """Make a network of 5 channels and 3 features whose embeddings are large enough to matter."""
    torch.manual_seed(0)
    made = PoyoNetwork(5, 3, 2, rate, sessions, options).eval()
    for rows in (made.units.rows, made.gains.rows, made.session.rows, made.latents):
        torch.nn.init.normal_(rows)
    return made


def rotated(x: np.ndarray, times: np.ndarray, sign: float = 1.0) -> np.ndarray:
    """Turn (T, K) by complex multiplication: number j of a head is the pair of the values j and j + K / 2."""
    half = x.shape[1] // 2
    turned = half // 2
    shortest, longest = poyo_network.PERIODS_S
    periods = shortest * (longest / shortest) ** (np.arange(turned) / (turned - 1))
    speeds = np.concatenate([2 * np.pi / periods, np.zeros(half - turned)])
    numbers = (x[:, :half] + 1j * x[:, half:]) * np.exp(sign * 1j * times[:, None] * speeds)
    return np.concatenate([numbers.real, numbers.imag], axis=1)


@pytest.mark.parametrize("turn_values", [True, False])
@pytest.mark.parametrize("cross", [True, False])
def test_attention_is_what_the_formula_says(cross: bool, turn_values: bool) -> None:
    """Softmax over rotated products, one head and one query at a time, in plain float64."""
    torch.manual_seed(0)
    layer = RotaryAttention(SMALL, cross, turn_values).double()
    generator = np.random.default_rng(0)
    x, context = generator.standard_normal((4, 16)), generator.standard_normal((7, 16))
    times, context_times = generator.uniform(0, 1, 4), generator.uniform(0, 1, 7)
    usable = np.array([True, True, False, True, True, False, True])
    if not cross:
        context, context_times, usable = x, times, np.ones(4, bool)

    def weight(module: torch.nn.Linear) -> np.ndarray:
        return module.weight.detach().numpy().T

    def normed(values: np.ndarray) -> np.ndarray:
        centred = values - values.mean(1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)

    queries, both = normed(x) @ weight(layer.query), normed(context) @ weight(layer.key_value)
    keys, values = np.split(both, 2, axis=1)
    results = []
    for head in range(layer.heads):
        part = slice(8 * head, 8 * head + 8)
        products = rotated(queries[:, part], times) @ rotated(keys[:, part], context_times).T / np.sqrt(8)
        weights = np.where(usable, np.exp(products), 0)
        weights /= weights.sum(1, keepdims=True)
        if turn_values:
            results.append(rotated(weights @ rotated(values[:, part], context_times), times, sign=-1))
        else:
            results.append(weights @ values[:, part])
    expected = np.concatenate(results, axis=1) @ weight(layer.output) + layer.output.bias.detach().numpy()

    at, at_context = (Rotation(torch.from_numpy(moments), 8) for moments in (times, context_times))
    with torch.no_grad():
        frames = torch.from_numpy(x)[None]
        if cross:
            output = layer(frames, at, torch.from_numpy(context)[None], at_context, torch.from_numpy(usable)[None])
        else:
            output = layer(frames, at)
    np.testing.assert_allclose(output[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("turn_values", [True, False])
def test_attention_knows_differences_of_time_alone(turn_values: bool) -> None:
    torch.manual_seed(0)
    layer = RotaryAttention(SMALL, True, turn_values)
    x, context = torch.randn(2, 4, 16), torch.randn(2, 9, 16)
    times, context_times = torch.rand(4, dtype=torch.float64), torch.rand(9, dtype=torch.float64)

    def attended(shift: float, context_shift: float) -> torch.Tensor:
        with torch.no_grad():
            at, at_context = Rotation(times + shift, 8), Rotation(context_times + context_shift, 8)
            return layer(x, at, context, at_context)

    torch.testing.assert_close(attended(100, 100), attended(0, 0), atol=1e-5, rtol=0)
    assert (attended(0.3, 0) - attended(0, 0)).abs().max() > 1e-3


@pytest.mark.parametrize("turn_values", [True, False])
def test_self_attention_knows_differences_of_time_alone(turn_values: bool) -> None:
    torch.manual_seed(0)
    layer = RotaryAttention(SMALL, False, turn_values)
    x, times = torch.randn(1, 9, 16), torch.arange(9, dtype=torch.float64) * 0.13
    with torch.no_grad():
        before = layer(x, Rotation(times, 8))
        torch.testing.assert_close(layer(x, Rotation(times + 100, 8)), before, atol=1e-5, rtol=0)
        assert (layer(x, Rotation(2 * times, 8)) - before).abs().max() > 1e-4


def test_masked_channels_count_for_nothing() -> None:
    model = network()
    x, mask = torch.randn(2, 50, 5, 3), torch.ones(2, 5, dtype=torch.bool)
    mask[0, 2] = mask[1, 4] = False
    changed = x.clone()
    changed[0, :, 2] = 1e6
    changed[1, :, 4] = -1e6
    with torch.no_grad():
        before = model(x, mask, torch.tensor([0, 1]))
        assert torch.equal(model(changed, mask, torch.tensor([0, 1])), before)
        model.units.rows[0, 2] += 10
        assert torch.equal(model(changed, mask, torch.tensor([0, 1])), before)
        assert (model(changed, torch.ones_like(mask), torch.tensor([0, 1])) - before).abs().max() > 1e-3


def test_channels_are_a_set_that_their_embeddings_tell_apart() -> None:
    model = network()
    x, mask = torch.randn(2, 70, 5, 3), torch.tensor([True, True, False, True, True]).expand(2, -1)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        before = model(x, mask)
        assert (model(x[:, :, order], mask[:, order]) - before).abs().max() > 1e-3
        for table in (model.units, model.gains):
            table.rows.copy_(table.rows[:, order])
        torch.testing.assert_close(model(x[:, :, order], mask[:, order]), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate", [50, 100])
@pytest.mark.parametrize("length", [1, 4, 5, 49, 50, 51, 233])
def test_any_length(length: int, rate: int) -> None:
    """Every record of a batch is decoded as if alone, with its own session."""
    model = network(rate=rate)
    x, mask = torch.randn(3, length, 5, 3), torch.ones(3, 5, dtype=torch.bool)
    session = torch.tensor([1, 0, 1])
    with torch.no_grad():
        output = model(x, mask, session)
        assert output.shape == (3, length, 2)
        alone = torch.cat([model(x[n : n + 1], mask[:1], session[n : n + 1]) for n in range(3)])
        torch.testing.assert_close(output, alone, atol=1e-5, rtol=0)
        deployed = model(x[1:2], mask[:1])  # without a number the first session is meant
        torch.testing.assert_close(deployed, output[1:2], atol=1e-5, rtol=0)
        assert (model(x[:1], mask[:1], torch.tensor([0])) - output[:1]).abs().max() > 1e-4


def test_long_records_are_decoded_window_by_window() -> None:
    model = network()
    x, mask = torch.randn(1, 130, 5, 3), torch.ones(1, 5, dtype=torch.bool)
    with torch.no_grad():
        whole = model(x, mask)
        torch.testing.assert_close(whole[:, :37], model(x[:, :50], mask)[:, :37], atol=1e-5, rtol=0)
        torch.testing.assert_close(whole[:, -10:], model(x[:, -50:], mask)[:, -10:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate", [50, 80, 100])
@pytest.mark.parametrize(("seconds", "steps"), [(1.0, 8), (0.5, 4), (0.3, 3), (0.02, 1)])
def test_latents_lie_inside_the_window(seconds: float, steps: int, rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight steps of an eighth of a second in a second, as in the paper, whatever the frames' rate."""
    model, seen = network(rate=rate), []
    monkeypatch.setattr(model.attend[0], "forward", lambda latents, times: seen.append(latents.shape[1]) or latents)
    with torch.no_grad():
        model(torch.randn(1, round(seconds * rate), 5, 3), torch.ones(1, 5, dtype=torch.bool))
    assert seen == [3 * steps]


@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
def test_number_of_parameters(preset: str, session_maker: Any) -> None:
    o = Poyo(preset).options
    with torch.device("meta"):
        model = PoyoNetwork(96, 6, 2, 50, 7, o)
    d, cross_width, self_width = o.width, o.cross_heads * o.head_width, o.self_heads * o.head_width
    cross = 4 * d + 3 * d * cross_width + (cross_width + 1) * d
    own = 2 * d + 3 * d * self_width + (self_width + 1) * d
    feed = 2 * d + 8 * d * (d + 1) + d * (4 * d + 1)
    tables = 2 * 7 * 96 * d + 7 * d
    expected = tables + d * (5 * 6 + 1) + o.latents * d + 2 * (cross + feed) + o.depth * (own + feed) + 2 * (d + 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_unit_identification_changes_embeddings_alone(sessions: list[SessionData], context: Context) -> None:
    decoder = Poyo("tiny", {}, QUICK)
    artifact = decoder.pretrain(sessions[:2], context)
    decoder.adapt(sessions[2], context, artifact)
    for name, array in decoder.arrays().items():
        if name in TABLES:
            assert artifact.arrays[name].shape == (2, *array.shape[1:])
            assert np.abs(array[0] - artifact.arrays[name].mean(0)).max() > 1e-5, name
        else:
            np.testing.assert_array_equal(array, artifact.arrays[name], err_msg=name)


def test_fine_tuning_changes_everything(sessions: list[SessionData], context: Context) -> None:
    train = {**QUICK, "finetune.updates": 10, "finetune.evaluate_every": 5}
    decoder = Poyo("tiny", {}, train)
    artifact = decoder.pretrain(sessions[:2], context)
    decoder.adapt(sessions[2], context, artifact)
    for name, array in decoder.arrays().items():
        if name not in TABLES:
            assert np.abs(array - artifact.arrays[name]).max() > 0, name
    count = decoder.parameters()
    assert count.trained == count.deployed == sum(array.size for array in decoder.arrays().values())


def test_zero_shot_is_the_mean_of_the_pretrained_embeddings(sessions: list[SessionData], context: Context) -> None:
    decoder = Poyo("tiny", {}, QUICK)
    assert decoder.zero_shot
    artifact = decoder.pretrain(sessions[:2], context)
    decoder.adapt(replace(sessions[2], train=()), context, artifact)
    for name, array in decoder.arrays().items():
        expected = artifact.arrays[name].mean(0, keepdims=True) if name in TABLES else artifact.arrays[name]
        np.testing.assert_allclose(array, expected, atol=1e-7, err_msg=name)
    assert np.isfinite(decoder.predict(sessions[2].validation[0].x, sessions[2])).all()


def test_adapting_needs_the_pretraining(sessions: list[SessionData], context: Context) -> None:
    with pytest.raises(RealmbenchError, match="needs the artifact"):
        Poyo("tiny").adapt(sessions[2], context)


def test_pretraining_and_adapting_learn(sessions: list[SessionData], context: Context) -> None:
    """A new session is decoded; adapting never ends below the pretrained start on validation."""
    decoder = Poyo("tiny")
    artifact = decoder.pretrain(sessions[:2], context)
    validation = sessions[2].validation[0]

    def score() -> float:
        prediction = decoder.predict(validation.x, sessions[2])
        return r2_axis_mean(validation.y[validation.warm_up :], prediction[validation.warm_up :])

    decoder.adapt(replace(sessions[2], train=()), context, artifact)
    start = score()
    assert start > 0.3  # the electrodes of these sessions mean the same
    decoder.adapt(sessions[2], context, artifact)
    assert score() >= start - 1e-6


@pytest.mark.parametrize(("rate", "patch_s"), [(50, 0.1), (80, 0.1), (100, 0.1), (100, 0.05)])
def test_torch_brains_poyo_computes_the_same(rate: int, patch_s: float) -> None:
    """Latents in, predictions out, at the same sizes and with the same weights and periods."""
    pytest.importorskip("torch_brain", minversion="0.2")
    models = pytest.importorskip("torch_brain.models.poyo")
    reference = models.POYO(
        sequence_length=1.0, latent_step=0.125, num_latents_per_step=3, dim_out=2, dim=16, depth=2, dim_head=8,
        cross_heads=1, self_heads=2,
    ).eval()  # fmt: skip
    units, recordings = [f"unit {n}" for n in range(5)], ["first", "second"]
    reference.unit_emb.initialize_vocab(units)
    reference.session_emb.initialize_vocab(recordings)
    # Theirs are single precision, at a period of 0.1 ms a few thousandths of a radian off after a second.
    speeds = torch.from_numpy(np.concatenate([2 * np.pi / np.geomspace(1e-4, 2.0627, 2), np.zeros(2)]))
    torch.testing.assert_close(reference.rotary_emb.omega.double(), speeds, rtol=1e-6, atol=0)
    reference.double().rotary_emb.omega = speeds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(poyo_network, "PERIODS_S", (1e-4, 2.0627))
        model = network(SMALL.model_copy(update={"patch_s": patch_s}), rate, sessions=1)
        count = round(1 / patch_s)
        _take_weights(model, reference, [reference.unit_emb.tokenizer(unit) for unit in units])
        patches = torch.arange(count).repeat_interleave(5)
        latent_index, latent_times = models.create_linspace_latent_tokens(0, 1, 0.125, 3)
        with torch.no_grad():
            theirs = reference(
                input_unit_index=torch.tensor(reference.unit_emb.tokenizer(units)).repeat(count)[None],
                input_timestamps=((patches.double() + 0.5) / count)[None],
                input_token_type=torch.zeros(1, 5 * count, dtype=torch.long),
                input_mask=torch.tensor([True, True, False, True, True]).repeat(count)[None],
                latent_index=torch.from_numpy(latent_index)[None],
                latent_timestamps=torch.from_numpy(latent_times).double()[None],
                session_index=torch.tensor([reference.session_emb.tokenizer("first")]),
                output_timestamps=((torch.arange(rate).double() + 1) / rate)[None],
            )
            # Their tokens hold no values; a projection without weights makes ours the same.
            ours = model(torch.randn(1, rate, 5, 3), torch.tensor([[True, True, False, True, True]]))
    assert ours.shape == theirs.shape == (1, rate, 2)
    torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=0)
    for own, their in (
        ([model.encode, model.encode_feed], [reference.enc_atn, reference.enc_ffn]),
        ([model.attend, model.attend_feed], [reference.proc_layers]),
        ([model.decode, model.decode_feed], [reference.dec_atn, reference.dec_ffn]),
    ):
        counts = [sum(p.numel() for module in part for p in module.parameters()) for part in (own, their)]
        assert counts[0] == counts[1]


def _take_weights(model: PoyoNetwork, reference: Any, unit_rows: list[int]) -> None:
    """Copy torch_brain's weights; it turns neighbouring values of a head, this network those half a head apart."""

    def paired(weight: torch.Tensor) -> torch.Tensor:
        return weight.unflatten(0, (-1, 4, 2)).transpose(1, 2).flatten(0, 2)

    def attention(own: Any, their: Any) -> None:
        own.norm.load_state_dict(their.norm.state_dict())
        if own.context_norm is not None:
            own.context_norm.load_state_dict(their.norm_context.state_dict())
            query, (key, value) = their.to_q.weight, their.to_kv.weight.chunk(2)
        else:
            query, key, value = their.to_qkv.weight.chunk(3)
        own.query.weight.copy_(paired(query))
        own.key_value.weight.copy_(torch.cat([paired(key), paired(value)]))
        own.output.weight.copy_(paired(their.to_out.weight.T).T)
        own.output.bias.copy_(their.to_out.bias)

    def feed(own: Any, their: Any) -> None:
        norm, forward = their
        own.norm.load_state_dict(norm.state_dict())
        own.widen.load_state_dict(forward.net[0].state_dict())
        own.narrow.load_state_dict(forward.net[3].state_dict())

    with torch.no_grad():
        for rows in (reference.unit_emb.weight, reference.session_emb.weight, reference.latent_emb.weight):
            torch.nn.init.normal_(rows)
        model.embed.weight.zero_()
        model.embed.bias.copy_(reference.token_type_emb.weight[0])
        model.gains.rows.fill_(1.0)
        model.units.rows[0].copy_(reference.unit_emb.weight[unit_rows])
        model.session.rows[0].copy_(reference.session_emb.weight[reference.session_emb.tokenizer("first")])
        model.latents.copy_(reference.latent_emb.weight)
        attention(model.encode, reference.enc_atn)
        feed(model.encode_feed, reference.enc_ffn)
        for own, own_feed, (their, their_feed) in zip(model.attend, model.attend_feed, reference.proc_layers):
            attention(own, their)
            feed(own_feed, their_feed)
        attention(model.decode, reference.dec_atn)
        feed(model.decode_feed, reference.dec_ffn)
        model.output.load_state_dict(reference.readout.state_dict())
