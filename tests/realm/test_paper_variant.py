"""The published network: its block by definition, its numbers of parameters, its recipes."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from realmbench.decoder import DECODERS
from realmbench.realm.decoders import RealmPooled, RealmScratch, RealmStudent
from realmbench.realm.encoder import EncoderConfig, RealmEncoder, RealmNetwork
from realmbench.realm.mamba2 import RealmMixer
from realmbench.realm.plus import PlusNetwork
from realmbench.realm.sizes import published_session

PUBLISHED = {
    "realm-teacher": 11_496_709,
    "realm-student": 4_909_273,
    "realm-bi": 5_542_057,
    "realm-student-s": 2_107_465,
    "realm-student-l": 10_500_601,
}


def block_by_definition(mixer: RealmMixer, u: torch.Tensor) -> torch.Tensor:
    """The authors' block with torch's own convolution, complex numbers for the positions, and a loop over time."""
    batch, length, _ = u.shape
    x, z = (u @ mixer.in_proj.weight.T).chunk(2, dim=-1)
    conv = functional.conv1d(
        functional.pad(x.transpose(1, 2), (3, 0)), mixer.conv1d.weight, mixer.conv1d.bias, groups=mixer.inner
    )
    x = functional.silu(conv.transpose(1, 2))
    B, C = (x @ mixer.state_proj.weight.T).chunk(2, dim=-1)  # (B, T, N)
    dt = functional.softplus(x @ mixer.dt_proj.weight.T + mixer.dt_proj.bias)  # (B, T, H)
    half = mixer.d_state // 2
    angles = 10_000.0 ** (-torch.arange(0, mixer.d_state, 2, dtype=u.dtype) / mixer.d_state)
    heads = x.unflatten(-1, (mixer.heads, mixer.headdim))
    state = torch.zeros(batch, mixer.heads, mixer.headdim, half, dtype=torch.complex128)
    outputs = []
    for t in range(length):
        turn = torch.polar(torch.ones(half, dtype=u.dtype), t * angles)
        b, c = (torch.complex(v[:, t, :half], v[:, t, half:]) * turn for v in (B, C))  # (B, N / 2)
        decay = torch.exp(-mixer.A_log.exp() * dt[:, t])  # (B, H)
        state = state * decay[..., None, None] + heads[:, t, :, :, None] * b[:, None, None]
        y = (state * c.conj()[:, None, None]).sum(-1).real  # the real part is the product of the pairs
        outputs.append(y + mixer.D[:, None] * heads[:, t])
    y = torch.stack(outputs, dim=1).flatten(2) * functional.silu(z)
    return y @ mixer.out_proj.weight.T


@pytest.mark.parametrize("length", [1, 49, 50, 51, 230])
def test_block_equals_its_definition(length: int) -> None:
    torch.manual_seed(0)
    mixer = RealmMixer(16, d_state=8, expand=2, headdim=8).double()
    torch.testing.assert_close(mixer.A_log.exp(), torch.arange(1.0, 5.0).double())
    u = torch.randn(2, length, 16, dtype=torch.float64)
    torch.testing.assert_close(mixer(u), block_by_definition(mixer, u), rtol=0, atol=1e-11)


def test_stream_of_the_block_equals_its_parallel_form() -> None:
    torch.manual_seed(0)
    mixer = RealmMixer(16, d_state=8, expand=2, headdim=8).double()
    u = torch.randn(2, 5000, 16, dtype=torch.float64)  # past the authors' table of 4096 positions
    state, outputs = mixer.initial_state(2), []
    with torch.no_grad():
        for step in u.unbind(1):
            y, state = mixer.step(step, state)
            outputs.append(y)
        torch.testing.assert_close(torch.stack(outputs, dim=1), mixer(u), rtol=0, atol=1e-10)


def test_positions_need_pairs() -> None:
    with pytest.raises(ValueError, match="must be even, not 7"):
        RealmMixer(16, d_state=7, headdim=16)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_numbers_of_parameters(name: str) -> None:
    sizes = DECODERS.get(name)("paper").sizes()
    assert sizes["sum"] == PUBLISHED[name]
    assert sizes["used"] == sum(
        count for part, count in sizes.items() if part not in ("used", "sum") and "unused" not in part
    )


@pytest.mark.parametrize(
    ("name", "blocks", "mixer", "both_ways", "head"),
    [
        ("realm-teacher", 10, 465_432, True, 0),
        ("realm-student", 10, 465_432, False, 514),
        ("realm-bi", 8, 231_692, True, 514),
        ("realm-student-s", 8, 231_692, False, 514),
        ("realm-student-l", 22, 465_432, False, 514),
    ],
)
def test_what_takes_part_in_predictions(name: str, blocks: int, mixer: int, both_ways: bool, head: int) -> None:
    """By the published sizes of the tokenizer and of a causal mixer; 512 x 256 numbers and a norm join a pair."""
    norm = 2 * 256
    joined = 2 * mixer + 512 * 256 + 256 + norm if both_ways else mixer
    assert DECODERS.get(name)("paper").sizes()["used"] == 197_413 + blocks * (joined + norm) + norm + head


def test_unused_parts_of_the_bidirectional_networks() -> None:
    """Without the projections that nothing passes through, by the design's own count."""
    for name, without in (("realm-bi", 5_015_721), ("realm-teacher", 10_838_789)):
        sizes = DECODERS.get(name)("paper").sizes()
        assert sizes["sum"] - sizes["unused: projections"] == without


def test_layers_have_the_published_sizes() -> None:
    for expand, published in ((2, 465_432), (1, 231_692)):
        mixer = RealmMixer(256, 64, expand, 64)
        assert sum(parameter.numel() for parameter in mixer.parameters()) == published


def test_published_recipes() -> None:
    """Second version: no labels in distillation; first version, as its README commands: labels, vectors of sessions.

    In both the tokenizer is frozen and the head is fresh on a held-out session; in the first its skip is too.
    """
    second, first = RealmStudent("paper").config, RealmStudent("paper-v1").config
    losses = [config["decoder"]["distillation"] for config in (second, first)]
    assert [(loss["task"], loss["alignment"], loss["reconstruction"]) for loss in losses] == [(0, 1, 1), (1, 1, 0.1)]
    assert [loss["aligned_layers"] for loss in losses] == [1, 1]
    for config in (second, first):
        masking = config["decoder"]["masking"]
        assert (masking["share"], masking["channel_dropout"], masking["gain"], masking["noise"]) == (
            0.6,
            0.15,
            0.15,
            0.05,
        )
        assert (masking["shortest_s"], masking["longest_s"]) == (0.1, 0.5)  # 10 to 50 steps of 10 ms
        assert config["decoder"]["drop_path"] == 0.1
        assert config["decoder"]["freeze_tokenizer"]
        assert config["decoder"]["fresh_head"]
    for preset, of_the_first in (("paper", False), ("paper-v1", True)):
        decoder = RealmStudent(preset)
        assert decoder.options.fresh_skip == decoder.options.embed_sessions == of_the_first
        assert decoder.options.frozen_layers == 0
        assert not decoder.zero_shot
        assert decoder.sizes()["used"] == (4_858_073 if of_the_first else 4_857_879)  # the skip: 96 x 2 and 2


def test_published_optimisers() -> None:
    """Rates, batches and decays of all stages."""
    second, first = RealmStudent("paper").train_options, RealmStudent("paper-v1").train_options
    published = {"teacher": (1.53e-3, 16 * 24), "student": (5e-4, 32), "finetune": (5e-4, 32)}
    for options, own in ((second, {}), (first, {"teacher": (6.25e-4, 16)})):
        for name, (rate, batch) in {**published, **own}.items():
            stage = getattr(options, name)
            assert (stage.learning_rate, stage.batch_size) == (rate, batch), name
            assert (stage.weight_decay, stage.clip_norm, stage.window_s) == (1e-5, 1.0, 5.0), name
    for options in (second, first):
        assert options.student.rate_at(options.student.updates) == pytest.approx(5e-4 / 100)  # a cosine to a hundredth


def test_published_lengths() -> None:
    """Epochs at most, patience and warm-up of every stage, in epochs of as many windows.

    A student's do not overlap as the teacher's do, and are of four fifths of one corpus' 25 sessions, not of 31.
    """
    second, first = RealmStudent("paper").train_options, RealmStudent("paper-v1").train_options
    windows = second.teacher.updates * second.teacher.batch_size / 300
    published = {"teacher": (300, 30, 30), "student": (300, 30, 0), "finetune": (100, 20, 0)}
    for options, own in ((second, {}), (first, {"teacher": (200, 100, 30), "finetune": (150, 20, 0)})):
        for name, expected in {**published, **own}.items():
            stage = getattr(options, name)
            epoch = {"teacher": windows / stage.batch_size, "student": 20 * 264 / 32, "finetune": 7}[name]
            lengths = (stage.updates, stage.patience * stage.evaluate_every, stage.warm_up_share * stage.updates)
            assert [length / epoch for length in lengths] == pytest.approx(expected), name
        assert options.student.rate_at(0) == options.finetune.rate_at(0) == pytest.approx(5e-4)


@pytest.mark.parametrize("preset", ["paper", "paper-v1"])
def test_controls_are_of_the_students_recipe(preset: str) -> None:
    """What the control has of the student's options, it has alike: network, head, tokenizer, both trainings."""
    student, control = RealmStudent(preset), RealmPooled(preset)
    for part in ("decoder", "train"):
        own, theirs = control.config[part], student.config[part]
        assert own == {name: theirs[name] for name in own}
    assert control.keeps_head == student.keeps_head
    assert control.sizes() == student.sizes()
    if preset == "paper":
        assert RealmScratch(preset).sizes() == student.sizes()


def test_published_learning_rate_of_the_teacher() -> None:
    """From 0.3 (first version: none) of the peak to it in 30 epochs, then 0.995 per epoch, of 300 (200)."""
    for preset, peak, epochs, begins in (("paper", 1.53e-3, 300, 0.3), ("paper-v1", 6.25e-4, 200, 0.0)):
        options = RealmStudent(preset).train_options.teacher
        epoch = options.updates / epochs
        assert options.rate_at(0) / peak == pytest.approx(begins, abs=1e-3)
        assert options.rate_at(round(15 * epoch)) / peak == pytest.approx((1 + begins) / 2, abs=1e-3)
        assert options.rate_at(round(30 * epoch)) / peak == pytest.approx(1, abs=1e-3)
        for after in (31, 130, epochs - 1):
            expected = 0.995 ** (after - 30)
            assert options.rate_at(round(after * epoch)) / peak == pytest.approx(expected, rel=2e-3)


def test_default_schedule_is_the_one_of_every_other_decoder() -> None:
    from realmbench.realm.pretraining import ScheduledOptions
    from realmbench.training.loop import TrainOptions

    for update in (0, 10, 49, 50, 51, 500, 999):
        assert ScheduledOptions().rate_at(update) == pytest.approx(TrainOptions().rate_at(update), rel=1e-12)


def config(**changes: object) -> EncoderConfig:
    base = {"channels": 4, "features": 1, "rate": 50, "causal": True, "variant": "paper", "d_model": 16, "layers": 2}
    base |= {"expand": 2, "headdim": 16, "d_state": 8, "dropout": 0.0, "energy_s": None, "memory_s": None}
    return EncoderConfig(**{**base, **changes})  # type: ignore[arg-type]


def test_skip_joins_the_frame_to_the_output() -> None:
    torch.manual_seed(0)
    with_skip = RealmNetwork(RealmEncoder(config()), 2).eval()
    without = RealmNetwork(with_skip.encoder, 2, skip=False).eval()
    without.head.load_state_dict(with_skip.head.state_dict())
    x, mask = torch.randn(1, 30, 4, 1), torch.ones(1, 4, dtype=torch.bool)
    assert with_skip.skip is not None
    expected = without(x, mask) + x[..., 0] @ with_skip.skip.weight.T + with_skip.skip.bias
    torch.testing.assert_close(with_skip(x, mask), expected)


def test_tokens_are_dropped_in_training_as_published() -> None:
    """A tenth of the numbers, the others larger for it; the standard blocks' networks leave them whole."""
    tokens = torch.ones(200, 20, 16)
    for variant in ("paper", "mamba2"):
        encoder = RealmEncoder(config(variant=variant, dropout=0.1))
        seen: list[torch.Tensor] = []
        encoder.blocks[0].register_forward_pre_hook(lambda _block, given, seen=seen: seen.append(given[0]))
        torch.manual_seed(0)
        encoder.encode(tokens)
        encoder.eval().encode(tokens)
        in_training, in_evaluation = seen
        assert torch.equal(in_evaluation, tokens)
        dropped = (in_training == 0).float().mean().item()
        assert dropped == pytest.approx(0.1 if variant == "paper" else 0.0, abs=4 * math.sqrt(0.09 / tokens.numel()))
        if variant == "paper":
            assert in_training.max().item() == pytest.approx(1 / 0.9)


def test_drop_path_grows_with_depth_and_keeps_the_mean() -> None:
    encoder = RealmEncoder(config(layers=3, drop_path=0.4))
    shares = [block.drop_path for block in encoder.blocks]
    assert shares == pytest.approx([0.0, 0.2, 0.4])
    torch.manual_seed(0)
    block, u = encoder.blocks[2], torch.randn(1, 5, 16).expand(4000, -1, -1)
    with torch.no_grad():
        branch = block(u) - u
        expected = (block.eval()(u) - u)[0]
    dropped = (branch == 0).all(dim=(1, 2))
    assert dropped.float().mean().item() == pytest.approx(0.4, abs=4 * math.sqrt(0.24 / 4000))
    kept = branch[~dropped]
    torch.testing.assert_close(kept, (expected / 0.6).expand_as(kept), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["paper", "mamba2", "tiny", "plus"])
def test_a_stream_of_a_million_steps_equals_the_whole(kind: str) -> None:
    """More than five hours at 50 Hz, in double precision; the authors' table of positions ends after 4096 steps.

    Both variants with the published mean, which forgets nothing, and unbounded states; preset ``tiny`` as it is, with
    the exponential mean and the bound; and the network of `realm-student-plus` behind its normaliser, of a signal that
    wanders.
    """
    torch.manual_seed(0)
    if kind in ("tiny", "plus"):
        of_tiny = RealmStudent("tiny").encoder_config(published_session(), True)
        shape = of_tiny.model_copy(update={"channels": 2, "features": 1})
        assert shape.energy_s is not None
        assert shape.memory_s is not None
    else:
        small = {"channels": 2, "d_model": 8, "layers": 1, "expand": 1, "headdim": 8, "d_state": 4}
        shape = config(variant=kind, **small)
    steps = 1_000_000
    x, mask = torch.randn(1, steps, 2, 1, dtype=torch.float64), torch.ones(1, 2, dtype=torch.bool)
    network: RealmNetwork | PlusNetwork = RealmNetwork(RealmEncoder(shape), 2)
    if kind == "plus":
        network = PlusNetwork(RealmEncoder(shape), steady_s=30.0, horizons=4, outputs=2)
        x = x + 0.01 * x.cumsum(1)
    network.double().eval()
    outputs = torch.empty(steps, 2, dtype=torch.float64)
    state = network.initial_state(1)
    with torch.inference_mode():
        for t in range(steps):
            outputs[t], state = network.step(x[:, t], mask, state)
        expected = network(x, mask)[0]
    assert (outputs - expected).abs().max() < 1e-8 * expected.std()
