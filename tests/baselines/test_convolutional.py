"""The temporal convolutional network: its convolution by hand, its reach, its stream."""

from __future__ import annotations

import numpy as np
import torch

from realmbench.baselines.convolutional import CausalConvolution, TcnNetwork, TcnOptions


def test_convolution_by_hand() -> None:
    torch.manual_seed(0)
    convolution = CausalConvolution(3, 2, 4)
    x = torch.randn(1, 20, 3)
    weight, bias = convolution.convolution.weight.detach().numpy(), convolution.convolution.bias.detach().numpy()
    frames = np.concatenate([np.zeros((4, 3)), x[0].numpy()])
    expected = [weight[..., 0] @ frames[t] + weight[..., 1] @ frames[t + 4] + bias for t in range(20)]
    np.testing.assert_allclose(convolution(x)[0].detach().numpy(), expected, atol=1e-5)


def test_reach_is_the_documented_one() -> None:
    """``2 (kernel - 1) (2^blocks - 1)`` frames of the past and not one more, none of the future."""
    torch.manual_seed(0)
    options = TcnOptions(width=16, blocks=3, kernel=3)
    network = TcnNetwork(4, 2, options).eval()
    reach = 2 * 2 * 7
    x = torch.randn(1, 80, 2, 2)
    changed = x.clone()
    changed[:, 20] += 10
    with torch.no_grad():
        moved = (network(x, None) - network(changed, None)).abs().amax((0, 2)) > 0
    assert moved.nonzero().flatten().min() == 20
    assert moved.nonzero().flatten().max() == 20 + reach
