"""Decoders with a delay: their outputs, their streams, and the delays that they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from realmbench.decoder import Context
from realmbench.errors import OptionError
from realmbench.realm.ahead import RealmAhead
from realmbench.realm.decoders import RealmStudent
from realmbench.realm.plus_ahead import RealmStudentPlusAhead


def test_look_ahead_shifts_the_outputs(context: Context, sessions: list[Any]) -> None:
    """Waiting for L frames is the causal network, whose output of frame t + L answers for frame t."""
    ahead = RealmAhead("tiny", {"look_ahead_s": 0.1})
    assert ahead.look_ahead_s == 0.1
    assert not ahead.causal
    session = sessions[0]
    torch.manual_seed(0)
    network = ahead.build(session).eval()
    causal = RealmStudent("tiny").build(session).eval()
    causal.load_state_dict(network.state_dict())
    mask = torch.from_numpy(session.mask)[None]
    x = torch.randn(1, 60, session.channels, session.features)
    with torch.no_grad():
        torch.testing.assert_close(network(x, mask)[:, :-5], causal(x, mask)[:, 5:], rtol=0, atol=1e-6)
    assert network(x, mask).shape == causal(x, mask).shape
    with pytest.raises(OptionError, match=r"look_ahead_s=0\.05 is no whole number of frames at 50 Hz"):
        RealmAhead("tiny", {"look_ahead_s": 0.05}).build(session)


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "paper"},
        {"adaptation": "ridge"},
        {"backbone": "gru"},
        {"backbone": "attention", "attention_s": 0.4},
    ],
)
def test_delayed_stream_equals_predict(options: dict[str, Any], sessions: list[Any]) -> None:
    """Skip from the frame, states stacked by the read-out, every backbone: each waits for its own frame's answer."""
    session = sessions[0]
    decoder = RealmAhead("tiny", {"look_ahead_s": 0.1, **options})
    torch.manual_seed(0)
    decoder.network = decoder.build(session).eval()
    x = session.train[0].x[:200]
    running = decoder.stream(session)
    assert running.delay == 5
    early = [running.step(frame) for frame in x[:5]]
    assert np.isnan(early).all()
    assert np.shape(early) == (5, 2)
    streamed = np.stack([running.step(frame) for frame in x[5:]])
    np.testing.assert_allclose(streamed, decoder.predict(x, session)[:-5], atol=1e-5)
    assert np.ptp(streamed) > 0.01  # it says something


def test_delay_as_long_as_a_training_window_is_refused() -> None:
    with pytest.raises(OptionError, match=r"look_ahead_s=3 is not shorter than .* train\.student\.window_s=3"):
        RealmStudentPlusAhead("tiny", {"look_ahead_s": 3.0})
    with pytest.raises(OptionError, match=r"train\.finetune\.window_s=2"):
        RealmStudentPlusAhead("tiny", {"look_ahead_s": 2.0}, {"finetune.window_s": 2.0})
    # Windows that no stage draws are none.
    RealmStudentPlusAhead("tiny", {"look_ahead_s": 3.0}, {"student.window_s": 6.0, "finetune.updates": 0})
    RealmAhead("tiny", {"look_ahead_s": 3.0, "adaptation": "ridge"}, {"student.window_s": 6.0})
