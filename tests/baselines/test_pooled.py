"""Baselines that begin from other sessions: what pretraining leaves is where the new session starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from realmbench.baselines.pooled import Pooled, PooledGru, PooledTcn
from realmbench.decoder import DECODERS, Context
from realmbench.metrics import r2_axis_mean
from realmbench.session import SessionData

BOTH = pytest.mark.parametrize("decoder_class", [PooledGru, PooledTcn])


@pytest.fixture
def sessions(session_maker: Any) -> list[SessionData]:
    return [session_maker(seconds=60.0, name=f"s{number}", seed=number) for number in range(3)]


def score(decoder: Pooled, session: SessionData) -> float:
    validation = session.validation[0]
    prediction = decoder.predict(validation.x, session)
    return r2_axis_mean(validation.y[validation.warm_up :], prediction[validation.warm_up :])


@BOTH
def test_what_others_taught_is_the_start(
    decoder_class: type[Pooled], sessions: list[SessionData], context: Context
) -> None:
    decoder = decoder_class("tiny")
    assert decoder.multi_session
    assert decoder.zero_shot
    artifact = decoder.pretrain(sessions[:2], context)
    assert artifact.record.kind == decoder.kind
    assert artifact.record.sessions == ("s0", "s1")
    decoder.adapt(replace(sessions[2], train=()), context, artifact)
    for name, array in decoder.arrays().items():
        np.testing.assert_array_equal(array, artifact.arrays[name])
    start = score(decoder, sessions[2])
    assert start > 0.5  # the electrodes of these sessions mean the same
    decoder.adapt(sessions[2], context, artifact)
    assert score(decoder, sessions[2]) >= start - 1e-6


@BOTH
def test_sessions_that_teach_something_else_are_unlearnt(
    decoder_class: type[Pooled], sessions: list[SessionData], context: Context
) -> None:
    """Control: the start comes from the artifact; turned round, it is far below zero, and the session corrects it."""
    decoder = decoder_class("tiny", {}, {"finetune.updates": 200, "finetune.learning_rate": 5e-3})
    turned = [
        replace(
            session, train=tuple(replace(segment, y=-segment.y) for segment in session.train), key=session.key + "-"
        )
        for session in sessions[:2]
    ]
    turned = [
        replace(session, validation=tuple(replace(segment, y=-segment.y) for segment in session.validation))
        for session in turned
    ]
    artifact = decoder.pretrain(turned, context)
    decoder.adapt(replace(sessions[2], train=()), context, artifact)
    start = score(decoder, sessions[2])
    assert start < -1
    decoder.adapt(sessions[2], context, artifact)
    assert score(decoder, sessions[2]) > start + 0.5


@pytest.mark.parametrize(
    ("name", "single"),
    [("gru-pooled", "gru"), ("tcn-pooled", "tcn"), ("gru-pooled-steady", "gru"), ("tcn-pooled-steady", "tcn")],
)
@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
def test_the_network_is_that_of_one_session(name: str, single: str, preset: str, sessions: list[SessionData]) -> None:
    pooled, alone = DECODERS.get(name)(preset), DECODERS.get(single)(preset)
    searched = {key.removeprefix("decoder.") for key in pooled.search_space if key.startswith("decoder.")}
    assert pooled.options.model_dump(exclude=searched) == alone.options.model_dump(exclude=searched)
    assert type(pooled.build(sessions[0])) is type(alone.build(sessions[0]))
    # And it is trained as long as REALM's control is.
    realm = DECODERS.get("realm-pooled")(preset).train_options
    stages = (pooled.train_options.pretrain, realm.student), (pooled.train_options.finetune, realm.finetune)
    for ours, theirs in stages:
        assert (ours.updates, ours.batch_size) == (theirs.updates, theirs.batch_size)
