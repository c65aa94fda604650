"""What every registered decoder must do, whoever wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realmbench.artifact import Artifact, ArtifactStore
from realmbench.decoder import DECODERS, Context, Decoder
from realmbench.errors import RealmbenchError
from realmbench.session import SessionData

NAMES = DECODERS.names()
CAUSAL = [name for name in NAMES if DECODERS.get(name).causal]
SHORT: dict[str, Any] = {"updates": 4, "evaluate_every": 2, "window_s": 1.0}


def make(name: str, **options: Any) -> Decoder:
    cls = DECODERS.get(name)
    stages = [stage for stage in ("teacher", "student", "finetune") if stage in cls.TrainOptions.model_fields]
    train = {f"{stage}.{key}": value for stage in stages for key, value in SHORT.items()}
    if not stages and cls.TrainOptions.model_fields:
        train = SHORT
    return cls("tiny", options, train)


def fitted(name: str, session_maker: Any, folder: Path, seed: int = 0) -> tuple[Decoder, SessionData]:
    context = Context(seed, "cpu", ArtifactStore(folder / "artifacts", "code", {}), folder / "checkpoints")
    decoder, session = make(name), session_maker()
    artifact: Artifact | None = None
    if decoder.multi_session:
        artifact = decoder.pretrain([session_maker(name=f"p{index}", seed=index + 1) for index in range(2)], context)
    decoder.adapt(session, context, artifact)
    return decoder, session


@pytest.mark.parametrize("name", CAUSAL)
def test_stream_equals_predict_far_past_the_training_window(name: str, session_maker: Any, tmp_path: Path) -> None:
    decoder, session = fitted(name, session_maker, tmp_path)
    x = np.random.default_rng(0).standard_normal((10_000, 3, 2)).astype(np.float32)
    stream = decoder.stream(session)
    stepped = np.stack([stream.step(frame) for frame in x])
    # Normalised targets have a standard deviation of 1.
    np.testing.assert_allclose(stepped, decoder.predict(x, session), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_future_reaches_the_past_only_where_declared(name: str, session_maker: Any, tmp_path: Path) -> None:
    decoder, session = fitted(name, session_maker, tmp_path)
    x = np.random.default_rng(0).standard_normal((300, 3, 2)).astype(np.float32)
    changed = x.copy()
    changed[200:] = 3.0
    difference = np.abs(decoder.predict(x, session) - decoder.predict(changed, session))[:200].max()
    if decoder.causal:
        assert difference <= 1e-5
    else:
        assert difference > 1e-4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 2, 777])
def test_any_length(name: str, length: int, session_maker: Any, tmp_path: Path) -> None:
    decoder, session = fitted(name, session_maker, tmp_path)
    assert decoder.predict(np.zeros((length, 3, 2), np.float32), session).shape == (length, 2)


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_predicts_the_same(name: str, session_maker: Any, tmp_path: Path) -> None:
    decoder, session = fitted(name, session_maker, tmp_path)
    x = np.random.default_rng(0).standard_normal((100, 3, 2)).astype(np.float32)
    path = decoder.save(tmp_path / "decoder.safetensors", session)
    loaded = type(decoder).load(path, session)
    # Another place in memory may round differently in the last bit.
    np.testing.assert_allclose(loaded.predict(x, session), decoder.predict(x, session), rtol=0, atol=1e-6)
    assert loaded.parameters().deployed == decoder.parameters().deployed
    assert loaded.config == decoder.config
    other = DECODERS.get("mean" if name != "mean" else "wiener")
    with pytest.raises(RealmbenchError, match="not a"):
        other.load(path, session)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(RealmbenchError, match="is damaged"):
        type(decoder).load(path, session)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_numbers(name: str, session_maker: Any, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((100, 3, 2)).astype(np.float32)
    first, second = (fitted(name, session_maker, tmp_path / folder) for folder in "ab")
    np.testing.assert_array_equal(first[0].predict(x, first[1]), second[0].predict(x, second[1]))


@pytest.mark.parametrize("name", NAMES)
def test_declares_what_the_contract_asks(name: str) -> None:
    cls = DECODERS.get(name)
    assert {"tiny", "small"} <= set(cls.presets)
    assert cls.__doc__
    assert (cls.look_ahead_s == 0) == cls.causal
    for preset in cls.presets:
        cls(preset)


@pytest.mark.parametrize("name", [name for name in NAMES if not DECODERS.get(name).causal])
def test_decoder_that_looks_ahead_refuses_to_stream(name: str, session_maker: Any, tmp_path: Path) -> None:
    decoder, session = fitted(name, session_maker, tmp_path)
    with pytest.raises(RealmbenchError, match="not causal and cannot have a stream"):
        decoder.stream(session)


def test_decoders_that_look_alike_keep_their_unfinished_training_apart(session_maker: Any, tmp_path: Path) -> None:
    """gru, lstm and bigru share options, session and seed; a checkpoint of one must never be resumed by another."""
    context = Context(0, "cpu", ArtifactStore(tmp_path, "code", {}), tmp_path)
    session = session_maker()
    paths = {context.checkpoint("fit", make(name).identity, [session]) for name in ("gru", "lstm", "bigru")}
    assert len(paths) == 3
