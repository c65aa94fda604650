"""Every registered decoder passes the conformance suite: in its short form here, whole under `-m slow`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from realmbench.artifact import ArtifactStore
from realmbench.conformance import Report, check_decoder
from realmbench.decoder import DECODERS, Context
from realmbench.errors import RealmbenchError
from realmbench.search import Range

NAMES = DECODERS.names()


def assert_conforms(name: str, report: Report) -> None:
    assert report.passed, report.verdict
    statuses = {check.status for check in report.checks}
    assert ("as declared" in statuses) == np.isinf(DECODERS.get(name).look_ahead_s)


@pytest.mark.parametrize("name", NAMES)
def test_decoder_passes_the_short_check(name: str) -> None:
    assert_conforms(name, check_decoder(name, short=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_decoder_passes_the_whole_check(name: str) -> None:
    assert_conforms(name, check_decoder(name))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", [name for name in NAMES if DECODERS.get(name).accelerated])
def test_decoder_passes_the_short_check_on_a_gpu(name: str) -> None:
    assert_conforms(name, check_decoder(name, short=True, device="cuda"))


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_search_space_are_declared(name: str) -> None:
    """Every option that is searched exists, and the defaults lie where the search may find them again."""
    decoder_class = DECODERS.get(name)
    assert {"tiny", "small", "paper"} <= set(decoder_class.presets)
    assert bool(decoder_class.search_space) == (name != "mean")
    for preset in ("tiny", "small"):
        config = decoder_class(preset).config
        for key, dimension in decoder_class.search_space.items():
            value = config
            for part in key.split("."):
                value = value[part]
            if isinstance(dimension, Range):
                assert dimension.low <= value <= dimension.high, (preset, key)
            else:
                assert value in dimension.values, (preset, key)


@pytest.mark.parametrize("name", NAMES)
def test_file_of_another_decoder_or_a_damaged_one_is_refused(name: str, session_maker: Any, tmp_path: Path) -> None:
    context = Context(0, "cpu", ArtifactStore(tmp_path, "code", {}), tmp_path)
    mean, session = DECODERS.get("mean")("tiny"), session_maker()
    mean.adapt(session, context)
    path = mean.save(tmp_path / "decoder.safetensors", session)
    if name != "mean":
        with pytest.raises(RealmbenchError, match="not a"):
            DECODERS.get(name).load(path, session)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(RealmbenchError, match="is damaged"):
        DECODERS.get(name).load(path, session)


def test_decoders_that_look_alike_keep_their_unfinished_training_apart(session_maker: Any, tmp_path: Path) -> None:
    """gru, lstm and bigru share options, session and seed; a checkpoint of one must never be resumed by another."""
    context = Context(0, "cpu", ArtifactStore(tmp_path, "code", {}), tmp_path)
    session = session_maker()
    paths = {
        context.checkpoint("fit", DECODERS.get(name)("tiny").identity, [session]) for name in ("gru", "lstm", "bigru")
    }
    assert len(paths) == 3
    on_gpu = Context(0, "cuda:1", ArtifactStore(tmp_path, "code", {}), tmp_path)
    assert on_gpu.checkpoint("fit", DECODERS.get("gru")("tiny").identity, [session]) not in paths
