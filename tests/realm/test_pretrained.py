"""What `from_pretrained` loads is what was fitted: predictions, streams, hidden states, and the session with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from realmbench.decoder import Context
from realmbench.errors import RealmbenchError
from realmbench.realm.ahead import RealmAhead
from realmbench.realm.decoders import RealmPooled, RealmTeacher
from realmbench.realm.encoder import EncoderConfig, RealmEncoder
from realmbench.realm.guesses import RealmStudentMixed, RealmStudentUnlabelled
from realmbench.realm.plus_ahead import RealmStudentPlusAhead
from realmbench.realm.plus_decoder import RealmStudentPlus, RealmTeacherPlus
from realmbench.realm.pretrained import RealmConfig, RealmForDecoding, RealmModel
from realmbench.realm.pretrained_plus import RealmPlusForDecoding
from realmbench.training.network_decoder import NetworkStream, load_arrays_into

STAGE = {"updates": 4, "evaluate_every": 2, "window_s": 1.0}


def quick(kind: Any, options: dict[str, Any] | None = None) -> Any:
    """Make a decoder whose stages all train for a few updates."""
    stages = kind("tiny").config["train"]
    return kind("tiny", options or {}, {f"{stage}.{key}": value for stage in stages for key, value in STAGE.items()})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (RealmStudentPlus, {}),
        (RealmStudentPlus, {"steady_s": None, "read_in.horizons_s": []}),
        (RealmTeacherPlus, {}),
        (RealmStudentUnlabelled, {}),
        (RealmStudentMixed, {}),
        (RealmStudentMixed, {"steady_s": None, "read_in.horizons_s": []}),
    ],
    ids=[
        "student",
        "student without normaliser and read-in",
        "teacher",
        "without labels",
        "mixed",
        "mixed without both",
    ],
)
def test_network_of_plus_predicts_as_the_decoder_that_wrote_it(
    kind: Any, options: dict[str, Any], context: Context, sessions: list[Any], session_maker: Any, tmp_path: Path
) -> None:
    decoder = quick(kind, options)
    made = session_maker(name="held-out", seed=9)
    normaliser = replace(
        made.normaliser, y_mean=np.array([1.0, -2.0], np.float32), y_deviation=np.array([3.0, 0.5], np.float32)
    )
    held_out = replace(made, normaliser=normaliser, mask=np.array([True, False, True]))
    decoder.adapt(held_out, context, decoder.pretrain(sessions, context))
    decoder.export(tmp_path / "fitted", held_out, "bands50")
    model = RealmPlusForDecoding.from_pretrained(tmp_path / "fitted").eval()
    assert model.config.front_end == "bands50"
    session = model.decoded_session()
    assert session.name == "held-out"
    np.testing.assert_array_equal(session.normaliser.y_mean, held_out.normaliser.y_mean)
    x = held_out.validation[0].x
    noisy = torch.from_numpy(x.copy())[None]  # what a channel holds that is not usable is not looked at
    x[:, 1] = 0
    expected = decoder.predict(x, held_out)
    with torch.no_grad():
        output = model(torch.from_numpy(x)[None])
        torch.testing.assert_close(model(noisy).prediction, output.prediction, rtol=0, atol=0)
        assert not torch.allclose(
            model(torch.from_numpy(x)[None], torch.ones(1, 3, dtype=torch.bool)).prediction, output.prediction
        )
    assert abs(model.network.units.scale - 1).max() > 0.1
    np.testing.assert_allclose(output.prediction[0], expected, atol=1e-6)
    assert output.last_hidden_state.shape == (1, len(x), decoder.options.d_model)
    if not kind.causal:
        return
    mask, state, streamed = torch.from_numpy(session.mask)[None], model.network.initial_state(1), []
    with torch.no_grad():
        for frame in torch.from_numpy(x)[:, None]:
            prediction, state = model.network.step(frame, mask, state)
            streamed.append(prediction[0].numpy())
    np.testing.assert_allclose(np.stack(streamed), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "loaded_by"), [(RealmAhead, RealmForDecoding), (RealmStudentPlusAhead, RealmPlusForDecoding)]
)
def test_delayed_network_streams_from_its_checkpoint(
    kind: Any, loaded_by: Any, context: Context, sessions: list[Any], session_maker: Any, tmp_path: Path
) -> None:
    held_out = session_maker(name="held-out", seed=9)
    decoder = quick(kind)
    decoder.adapt(held_out, context, decoder.pretrain(sessions, context))
    decoder.export(tmp_path / "fitted", held_out, "bands50")
    model = loaded_by.from_pretrained(tmp_path / "fitted").eval()
    x = held_out.validation[0].x
    running = NetworkStream(model.network, model.decoded_session().mask)
    assert running.delay == 5
    streamed = [running.step(frame) for frame in x][5:]
    np.testing.assert_allclose(streamed, decoder.predict(x, held_out)[:-5], atol=1e-5)


def test_teacher_gives_its_hidden_states(context: Context, sessions: list[Any], tmp_path: Path) -> None:
    decoder = quick(RealmTeacher)
    artifact = decoder.pretrain(sessions, context)
    decoder.export_artifact(tmp_path / "teacher", artifact, sessions[0], "bands50")
    model = RealmModel.from_pretrained(tmp_path / "teacher").eval()
    encoder = RealmEncoder(decoder.encoder_config(sessions[0])).eval()
    load_arrays_into(encoder, artifact.arrays)
    x, mask = torch.from_numpy(sessions[0].validation[0].x)[None], torch.from_numpy(sessions[0].mask)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(x).last_hidden_state, encoder(x, mask))


def test_transformers_finds_the_class_of_a_checkpoint(
    context: Context, sessions: list[Any], session_maker: Any, tmp_path: Path
) -> None:
    """A teacher is an encoder; so is, without its head, a network that decodes."""
    held_out = session_maker(name="held-out", seed=9)
    x = torch.from_numpy(held_out.validation[0].x)[None]
    teacher, student = quick(RealmTeacher), quick(RealmPooled)
    teacher.export_artifact(tmp_path / "teacher", teacher.pretrain(sessions, context), sessions[0], "bands50")
    student.adapt(held_out, context, student.pretrain(sessions, context))
    student.export(tmp_path / "decoder", held_out, "bands50")
    for folder, own in (("teacher", RealmModel), ("decoder", RealmForDecoding)):
        model, again = AutoModel.from_pretrained(tmp_path / folder), own.from_pretrained(tmp_path / folder)
        assert type(model) is RealmModel
        with torch.no_grad():
            hidden = model.eval()(x).last_hidden_state
            torch.testing.assert_close(hidden, again.eval()(x).last_hidden_state)


@pytest.mark.parametrize("kind", [RealmStudentPlus, RealmTeacherPlus], ids=["student", "teacher"])
def test_pretrained_network_of_plus_is_one_that_transformers_loads(
    kind: Any, context: Context, sessions: list[Any], tmp_path: Path
) -> None:
    decoder = quick(kind)
    artifact = decoder.pretrain(sessions, context)
    decoder.export_artifact(tmp_path / "pretrained", artifact, sessions[0], "bands50")
    model = AutoModel.from_pretrained(tmp_path / "pretrained")
    assert type(model) is RealmPlusForDecoding
    assert model.config.session is None
    with pytest.raises(RealmbenchError, match="fitted to no session"):
        model.decoded_session()
    read_back = decoder.import_arrays(tmp_path / "pretrained")
    assert set(read_back) == set(artifact.arrays) == set(model.network.state_dict())
    for name, value in model.network.state_dict().items():
        np.testing.assert_array_equal(value, artifact.arrays[name])
        np.testing.assert_array_equal(read_back[name], artifact.arrays[name])


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32], ids=str)
def test_what_a_channel_holds_that_is_not_usable_is_not_looked_at(kind: torch.dtype) -> None:
    """Neither behind the gate nor by the skip; masks as transformers' users pass them too."""
    shape = EncoderConfig(
        channels=3, features=1, rate=50, causal=True, variant="paper", d_model=16, layers=1, expand=2, headdim=16,
        d_state=4, dropout=0.0,
    )  # fmt: skip
    config = RealmConfig(shape.model_dump(), outputs=2, skip=True)
    mask = torch.tensor([[True, False, True]]).to(kind)
    silent = torch.randn(1, 20, 3, 1)
    silent[:, :, 1] = 0
    broken = silent.clone()
    broken[:, :, 1] = torch.nan
    decoder, encoder = RealmForDecoding(config).eval(), RealmModel(config).eval()
    with torch.no_grad():
        torch.nn.init.ones_(decoder.network.skip.weight)
        torch.testing.assert_close(decoder(broken, mask).prediction, decoder(silent, mask).prediction)
        torch.testing.assert_close(encoder(broken, mask).last_hidden_state, encoder(silent, mask).last_hidden_state)
        assert torch.isfinite(decoder(broken, mask).prediction).all()
        raised = silent + torch.tensor([0.0, 1.0, 0.0])[:, None]
        assert not torch.allclose(decoder(raised).prediction, decoder(silent).prediction)
