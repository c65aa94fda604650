"""Operation counts against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np

from realmbench.baselines.recurrent import BiGru, Gru, Lstm
from realmbench.realm.decoders import RealmScratch
from realmbench.realm.encoder import PRESETS


def test_gru_step_counts_its_matrix_products(session_maker: Any) -> None:
    session = session_maker()
    decoder = Gru("tiny")
    decoder.network = decoder.build(session).eval()
    hidden = 32
    expected = 2 * (6 * hidden + 3 * hidden * hidden * 2 + hidden * 2)
    count = decoder.flops(session)
    assert count.per_step == expected
    assert {"sigmoid", "tanh"} & {name.strip("_") for name in count.uncounted}


def test_lstm_step_counts_its_matrix_products(session_maker: Any) -> None:
    session = session_maker()
    decoder = Lstm("tiny")
    decoder.network = decoder.build(session).eval()
    hidden = 32
    assert decoder.flops(session).per_step == 2 * (6 * hidden + 4 * hidden * hidden * 2 + hidden * 2)


def test_bidirectional_counts_per_frame(session_maker: Any) -> None:
    session = session_maker()
    decoder = BiGru("tiny")
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
    assert {"exp", "gelu"} <= set(decoder.flops(session).uncounted)
    assert np.isfinite(decoder.predict(np.zeros((5, 3, 2), np.float32), session)).all()
