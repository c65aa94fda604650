"""The standard block against transformers' own, and its stream against its parallel form."""

from __future__ import annotations

import math

import pytest
import torch

from realmbench.realm.mamba2 import BidirectionalMixer, Mamba2Mixer, RealmMixer


@pytest.mark.parametrize("ngroups", [1, 2])
def test_equals_transformers_with_its_weights(ngroups: int) -> None:
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer as Reference

    torch.manual_seed(0)
    config = Mamba2Config(
        hidden_size=32, num_heads=4, head_dim=16, state_size=8, expand=2, n_groups=ngroups, conv_kernel=4,
        chunk_size=16, use_conv_bias=True, use_bias=False, num_hidden_layers=1,
    )  # fmt: skip
    reference = Reference(config, layer_idx=0)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = Mamba2Mixer(32, d_state=8, expand=2, headdim=16, ngroups=ngroups)
    ours.load_state_dict(reference.state_dict())
    theirs_in = torch.randn(2, 75, 32, requires_grad=True)
    ours_in = theirs_in.detach().clone().requires_grad_()
    expected, y = reference(theirs_in), ours(ours_in)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-5)
    expected.square().sum().backward()
    y.square().sum().backward()
    assert theirs_in.grad is not None
    assert ours_in.grad is not None
    torch.testing.assert_close(ours_in.grad, theirs_in.grad, rtol=1e-4, atol=1e-4)
    theirs = dict(reference.named_parameters())
    for name, parameter in ours.named_parameters():
        gradient = theirs[name].grad
        assert parameter.grad is not None
        assert gradient is not None
        assert (parameter.grad - gradient).norm() < 1e-5 * gradient.norm(), name


def test_stream_equals_parallel_in_double_precision() -> None:
    torch.manual_seed(0)
    mixer = Mamba2Mixer(16, d_state=8, headdim=8, ngroups=2).double()
    u = torch.randn(2, 2000, 16, dtype=torch.float64)
    state = mixer.initial_state(2)
    outputs = []
    with torch.no_grad():
        for step in u.unbind(1):
            y, state = mixer.step(step, state)
            outputs.append(y)
        torch.testing.assert_close(torch.stack(outputs, dim=1), mixer(u), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", [Mamba2Mixer, RealmMixer])
def test_bounded_memory_forgets_what_an_unbounded_one_keeps(kind: type[Mamba2Mixer] | type[RealmMixer]) -> None:
    """However small the learnt steps, of what lies twenty time constants back exp(-20) = 2e-9 is left."""
    torch.manual_seed(0)
    u = torch.randn(1, 300, 16, dtype=torch.float64)
    changed = u.clone()
    changed[:, :10] = 10 * torch.randn(1, 10, 16, dtype=torch.float64)
    differences = {}
    for memory in (10.0, math.inf):
        mixer = kind(16, 8, headdim=16, memory=memory).double()
        with torch.no_grad():
            bias = mixer.dt_bias if isinstance(mixer, Mamba2Mixer) else mixer.dt_proj.bias
            bias.fill_(-12.0)  # softplus(-12) = 6e-6: next to no forgetting
            if isinstance(mixer, RealmMixer):
                mixer.dt_proj.weight.zero_()
            else:
                mixer.in_proj.weight[-mixer.heads :] = 0
            differences[memory] = (mixer(u) - mixer(changed))[:, 215:].abs().max().item()
    assert differences[10.0] < 1e-7
    assert differences[math.inf] > 1e-6


def test_bound_is_a_smallest_step() -> None:
    """Decays by hand: exp(-softplus(dt) A - 1 / memory), and the input is scaled by the step that goes with them."""
    torch.manual_seed(0)
    mixer = Mamba2Mixer(16, 8, headdim=16, memory=25.0)
    u = torch.randn(1, 7, 16)
    with torch.no_grad():
        scan = mixer.enter(u)
        raw = torch.nn.functional.softplus(u @ mixer.in_proj.weight[-mixer.heads :].T + mixer.dt_bias)
        rate = mixer.A_log.exp()
        torch.testing.assert_close(scan.rates, -raw * rate - 1 / 25)
        torch.testing.assert_close(scan.scaled, scan.x * (raw + 1 / (25 * rate))[..., None])


def test_causal_block_ignores_the_future_and_bidirectional_does_not() -> None:
    torch.manual_seed(0)
    u = torch.randn(1, 60, 16)
    changed = u.clone()
    changed[:, 40:] = torch.randn(1, 20, 16)
    causal, both = Mamba2Mixer(16, 8, headdim=16), BidirectionalMixer(Mamba2Mixer, 16, 8, expand=2, headdim=16)
    with torch.no_grad():
        torch.testing.assert_close(causal(u)[:, :40], causal(changed)[:, :40], rtol=0, atol=0)
        assert (both(u)[:, :40] - both(changed)[:, :40]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [Mamba2Mixer, RealmMixer])
def test_fused_pass_equals_two_passes(kind: type[Mamba2Mixer] | type[RealmMixer]) -> None:
    """Each direction by its own causal block, whose outputs other tests have from elsewhere."""
    torch.manual_seed(0)
    both = BidirectionalMixer(kind, 16, 8, expand=2, headdim=8).double()
    u = torch.randn(2, 120, 16, dtype=torch.float64)
    apart = torch.cat([both.forward_mixer(u), both.backward_mixer(u.flip(1)).flip(1)], dim=-1)
    torch.testing.assert_close(both(u), both.norm(both.join(apart)), rtol=0, atol=1e-12)


def test_wrong_head_width_is_refused() -> None:
    with pytest.raises(ValueError, match="must divide the inner width 32"):
        Mamba2Mixer(16, 8, headdim=24)


def test_only_training_uses_the_exchangeable_scan() -> None:
    """On a GPU that scan is a kernel, less exact than what a stream and a prediction may differ by."""
    torch.manual_seed(0)
    block = Mamba2Mixer(16, 8, 2, 16)
    u, exact = torch.randn(1, 20, 16), block.scan
    block.scan = lambda *inputs: (2 * exact(*inputs)[0], None)  # type: ignore[method-assign,assignment]
    training, prediction = block(u), block.eval()(u)
    block.scan = exact  # type: ignore[method-assign]
    torch.testing.assert_close(prediction, block.train()(u))
    assert not torch.allclose(training, prediction)
