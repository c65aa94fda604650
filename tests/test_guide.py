"""The code of docs/guide.md is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realmbench import checkpoint
from realmbench.dataset import Dataset
from realmbench.front_end import front_end
from realmbench.plan import RunRequest, make_plan
from realmbench.runner import Events, SessionBank

TEXT = (Path(__file__).parents[1] / "docs" / "guide.md").read_text()


REALM = ("teacher", "student", "finetune")
PLUS = ("teacher", "task", "student", "finetune")


@pytest.mark.parametrize(
    ("model", "loaded_by", "stages", "delay"),
    [
        ("realm-student", "pretrained.RealmForDecoding", REALM, 0),
        ("realm-student-plus", "pretrained_plus.RealmPlusForDecoding", PLUS, 0),
        ("realm-student-plus-ahead", "pretrained_plus.RealmPlusForDecoding", PLUS, 5),
    ],
)
def test_device_gets_from_raw_samples_what_a_whole_pass_gives(
    model: str,
    loaded_by: str,
    stages: tuple[str, ...],
    delay: int,
    toy: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = {"updates": 4, "evaluate_every": 2, "window_s": 1.0}
    train = {f"{name}.{key}": value for name in stages for key, value in stage.items()}
    plan = make_plan(RunRequest(model=model, preset="tiny", train=train), toy)
    name = plan.folds[0].held_out[0]
    bank = SessionBank(toy, Events().stage)
    checkpoint.finetune(plan, name, 0, tmp_path / "decoder", tmp_path / "results", bank, Events())
    recording = toy.load(name)
    raw = np.asarray(recording.lfp[: int(20 * recording.sampling_rate)])

    [code] = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    device: dict[str, Any] = {}
    module, name = loaded_by.split(".")
    assert f"`realmbench.realm.{loaded_by}`" in TEXT or f"from realmbench.realm.{module} import {name}" in code
    code = code.replace("96, 1000.0", f"{raw.shape[1]}, {recording.sampling_rate}")
    code = code.replace("realm.pretrained import", f"realm.{module} import").replace("RealmForDecoding", name)
    exec(code, device)
    cuts = np.sort(np.random.default_rng(0).choice(len(raw), 50, replace=False))
    live = np.concatenate([device["decode"](part) for part in np.split(raw, cuts)])

    session, network = device["session"], device["network"]
    frames = front_end(plan.front_end.name).stream(raw.shape[1], recording.sampling_rate).push(raw)
    with device["torch"].no_grad():
        inputs = device["torch"].from_numpy(session.normaliser.input(frames, session.mask))[None]
        whole = session.normaliser.physical(network(inputs, device["mask"])[0].numpy())
    assert len(live) == len(frames) > 900
    assert np.isnan(live[:delay]).all()
    np.testing.assert_allclose(live[delay:], whole[: len(whole) - delay], atol=1e-5 * np.std(whole) + 1e-6)
