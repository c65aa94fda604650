"""The bank: what it prepares is of the recording that is there now."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from realmbench.bank import Events, SessionBank
from realmbench.dataset import Dataset
from realmbench.errors import RecordingError
from realmbench.plan import Plan, RunRequest, make_plan
from realmbench.recording import Recording


@pytest.mark.parametrize(
    ("role", "protocol"),
    [("held-out", "blocked-v1"), ("pretrain", "blocked-v1"), ("held-out", "calibration-v1")],
)
def test_edit_that_a_fingerprint_does_not_see_is_refused(
    toy: Dataset, monkeypatch: pytest.MonkeyPatch, role: Any, protocol: str
) -> None:
    """An artefact blanked in a file: forty samples between those that are hashed. Features are shared by all cuts."""
    session = "a2"
    cuts = [
        make_plan(RunRequest(model="wiener", preset="tiny", protocol=name), toy) for name in ("blocked-v1", protocol)
    ]

    def prepared(plan: Plan, role: Any) -> np.ndarray:
        return np.concatenate([part.x for part in SessionBank(toy, Events().stage).of(plan, session, role).data.train])

    before, load = prepared(cuts[0], "held-out"), type(toy).load

    def edited(self: Dataset, name: str) -> Recording:
        recording = load(self, name)
        lfp = np.array(recording.lfp)
        lfp[1010:1050] = 0
        return replace(recording, lfp=lfp)

    monkeypatch.setattr(type(toy), "load", edited)
    assert toy.load(session).fingerprint() == load(toy, session).fingerprint()
    with pytest.raises(
        RecordingError, match=f"toy, {session}: the LFP is not the one .* version 1 .* raise the version"
    ):
        prepared(cuts[1], role)
    monkeypatch.setattr(type(toy), "load", load)
    np.testing.assert_array_equal(prepared(cuts[0], "held-out"), before)
    # Under another version all begins anew.
    monkeypatch.setattr(type(toy), "load", edited)
    raised = toy.info.model_copy(update={"version": "2"})
    monkeypatch.setattr(type(toy), "info", property(lambda _self: raised))
    assert not np.array_equal(prepared(cuts[0], "held-out"), before)
