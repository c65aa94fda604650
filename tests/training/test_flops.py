"""Operation counts against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from realmbench.baselines.recurrent import BiGru, Gru, Lstm
from realmbench.realm.decoders import RealmScratch
from realmbench.realm.encoder import PRESETS
from realmbench.realm.ssd import ssd_step
from realmbench.training.flops import count_flops


def test_gru_step_counts_its_matrix_products(session_maker: Any) -> None:
    session = session_maker()
    decoder = Gru("tiny")
    decoder.network = decoder.build(session).eval()
    hidden = 32
    expected = 2 * (6 * hidden + 3 * hidden * hidden * 2 + hidden * 2)
    count = decoder.flops(session)
    assert count.per_step == expected
    # Per unit: two sums and two sigmoids for the gates, product, sum and tanh for the candidate, three to interpolate.
    assert count.elementwise == 10 * hidden
    assert count.uncounted == ()


def test_lstm_step_counts_its_matrix_products(session_maker: Any) -> None:
    session = session_maker()
    decoder = Lstm("tiny")
    decoder.network = decoder.build(session).eval()
    hidden = 32
    assert decoder.flops(session).per_step == 2 * (6 * hidden + 4 * hidden * hidden * 2 + hidden * 2)


def test_bidirectional_counts_per_frame(session_maker: Any) -> None:
    session = session_maker()
    decoder = BiGru("tiny", {"layers": 1})
    decoder.network = decoder.build(session).eval()
    hidden = 32
    assert decoder.flops(session).per_step == 2 * (6 * hidden + 2 * 3 * hidden * hidden * 2 + 2 * hidden * 2)


def test_mamba_step_counts_its_products(session_maker: Any) -> None:
    session = session_maker()
    decoder = RealmScratch("tiny")
    network = decoder.build(session)
    decoder.network = network.eval()
    sizes = PRESETS["tiny"]
    width, inner, state = sizes["d_model"], 2 * sizes["d_model"], sizes["d_state"]
    heads, mixed = inner // sizes["headdim"], inner + 2 * sizes["d_state"]
    channels, features, outputs = 3, 2, 2
    tokenizer = channels * 3 * features * 8 + channels * 5 + channels * 8 * width
    block = width * (inner + mixed + heads) + 4 * mixed + inner * state + inner * width
    assert decoder.flops(session).per_step == 2 * (tokenizer + sizes["layers"] * block + width * outputs)
    assert decoder.flops(session).uncounted == ()
    assert np.isfinite(decoder.predict(np.zeros((5, 3, 2), np.float32), session)).all()


def test_scan_step_counts_its_recurrence_in_closed_form() -> None:
    heads, width, size = 4, 8, 16
    x, rates = torch.randn(1, heads, width), -torch.rand(1, heads)
    B, C = torch.randn(1, 1, size), torch.randn(1, 1, size)
    state = torch.zeros(1, heads, width, size)
    count = count_flops(lambda: ssd_step(x, rates, B, C, state))
    # Products: y = h C.
    assert count.per_step == 2 * heads * width * size
    # Recurrence: the exponential of the rates, the outer product of x and B, the decayed state, and their sum.
    assert count.elementwise == heads + 3 * heads * width * size
    assert count.uncounted == ()


def test_operations_without_a_formula_are_listed() -> None:
    count = count_flops(lambda: torch.linalg.inv(torch.eye(3)) @ torch.ones(3, 3))
    assert count.per_step == 2 * 27
    assert any("inv" in name for name in count.uncounted)


def test_elementwise_and_reductions_by_hand() -> None:
    x = torch.ones(4, 5)
    count = count_flops(lambda: ((x + 1).exp() * 2).sum() + torch.softmax(x, -1).mean())
    assert count.elementwise == 3 * 20 + 20 + 5 * 20 + 20 + 1
