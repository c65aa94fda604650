"""The normaliser that goes on learning: its recurrence, its stream, and what it removes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from realmbench.artifact import ArtifactStore
from realmbench.baselines.recurrent import Gru
from realmbench.baselines.steady import SteadyGru
from realmbench.decoder import Context
from realmbench.realm.ahead import RealmAhead
from realmbench.realm.decoders import RealmPooled, RealmStudent
from realmbench.realm.steady_control import RealmPooledSteady
from realmbench.steady import LEAST_VARIANCE, SteadyInput, SteadyNormaliser, exponential_mean, steadied, steadied_frames


@pytest.mark.parametrize("length", [1, 63, 64, 65, 300])
def test_mean_equals_its_recurrence(length: int) -> None:
    x, start = torch.randn(2, length, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    value, expected = start, []
    for step in x.unbind(1):
        value = 0.97 * value + 0.03 * step
        expected.append(value)
    torch.testing.assert_close(exponential_mean(x, 0.97, start), torch.stack(expected, dim=1), rtol=0, atol=1e-12)


def test_stream_equals_the_whole() -> None:
    normaliser = SteadyNormaliser(2.0, 50)
    x = torch.randn(1, 5000, 4, 2, dtype=torch.float64) * 3 + 5
    state, outputs = normaliser.initial_state(x[:, 0]), []
    for frame in x.unbind(1):
        y, state = normaliser.step(frame, state)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, dim=1), normaliser(x), rtol=0, atol=1e-10)


def test_wrong_statistics_are_forgotten_and_right_ones_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    right = torch.randn(1, 20_000, 3, 1, generator=generator)
    wrong = 4 * right + 7  # another day's gain and offset
    normaliser = SteadyNormaliser(20.0, 50)
    late = slice(10_000, None)
    for x in (right, wrong):
        y = normaliser(x)[:, late]
        assert y.mean().abs() < 0.05
        assert abs(y.std() - 1) < 0.05
    first = normaliser(wrong)[0, 0]
    assert first.abs().mean() > 2  # nothing is known at the start, and nothing is looked ahead


def test_movements_pass() -> None:
    """What oscillates faster than the time constant keeps its size; a constant goes."""
    t = torch.arange(30_000) / 50
    wave = torch.sqrt(torch.tensor(2.0)) * torch.sin(2 * torch.pi * 0.5 * t)
    y = SteadyNormaliser(30.0, 50)(wave[None, :, None, None])[0, 10_000:, 0, 0]
    assert torch.corrcoef(torch.stack([y, wave[10_000:]]))[0, 1] > 0.999
    assert abs(y.std() - 1) < 0.02


def test_silent_channel_stays_silent_and_comes_back_bounded() -> None:
    x = torch.zeros(1, 5000, 1, 1)
    x[:, 4000] = 1.0
    y = SteadyNormaliser(2.0, 50)(x)
    assert torch.equal(y[:, :4000], x[:, :4000])
    assert y.abs().max() <= LEAST_VARIANCE**-0.5 + 1e-6


def test_left_out_it_changes_nothing(session_maker: Any) -> None:
    session = session_maker()
    assert steadied(session, None) is session
    x = torch.randn(1, 10, 2, 2)
    assert SteadyNormaliser(None, 50)(x) is x


def test_segments_are_what_the_network_would_see(session_maker: Any) -> None:
    session = session_maker()
    for before, after in zip(session.train, steadied(session, 5.0).train):
        expected = SteadyNormaliser(5.0, session.rate)(torch.from_numpy(before.x)[None])[0]
        np.testing.assert_array_equal(after.x, expected.numpy())
        np.testing.assert_array_equal(after.y, before.y)


FEW = {"updates": 6, "evaluate_every": 3, "window_s": 1.0}


def test_decoder_behind_the_normaliser_is_the_decoder_of_steadied_frames(tmp_path: Path, session_maker: Any) -> None:
    context = Context(0, "cpu", ArtifactStore(tmp_path, "code", {}), tmp_path)
    session = session_maker()
    behind, plain = SteadyGru("tiny", {}, FEW), Gru("tiny", {}, FEW)
    behind.adapt(session, context)
    plain.restore(behind.arrays(), session)
    x = session.validation[0].x
    expected = plain.predict(steadied_frames(x, 30.0, session.rate), session)
    np.testing.assert_array_equal(behind.predict(x, session), expected)
    stream = behind.stream(session)
    np.testing.assert_allclose([stream.step(frame) for frame in x], expected, atol=1e-5)
    assert np.abs(plain.predict(x, session) - expected).max() > 1e-3  # the normaliser does something


def test_delay_passes_through_the_normaliser(session_maker: Any) -> None:
    class SteadyAhead(SteadyInput, RealmAhead):
        """A student with a delay behind the normaliser."""

    session, decoder = session_maker(), SteadyAhead("tiny")
    decoder.network = decoder.build(session).eval()
    x = session.validation[0].x
    assert decoder.stream(session).delay == 5
    np.testing.assert_allclose(decoder.streamed(x, session), decoder.predict(x, session)[:-5], atol=1e-5)


def test_artifacts_of_steadied_frames_are_others(tmp_path: Path, session_maker: Any) -> None:
    """Same options, sessions and seed; the frames differ, and so must the address."""
    context = Context(0, "cpu", ArtifactStore(tmp_path, "code", {}), tmp_path)
    stages = {f"{stage}.{name}": value for stage in ("student", "finetune") for name, value in FEW.items()}
    sessions = [session_maker(name=name) for name in ("p0", "p1")]
    steady = RealmPooledSteady("tiny", {}, stages).pretrain(sessions, context)
    plain = RealmPooled("tiny", {}, stages).pretrain(sessions, context)
    assert steady.record.config == plain.record.config
    assert steady.hash != plain.hash


def test_sessions_that_a_leaky_protocol_hands_out_are_steadied_too(tmp_path: Path, session_maker: Any) -> None:
    class SteadyStudent(SteadyInput, RealmStudent):
        """The published student behind the normaliser."""

    sessions, held_out = [session_maker(name="a"), session_maker(name="b", seed=1)], session_maker(name="c", seed=2)
    stages = {"teacher.updates": 0, "student.updates": 1, "finetune.updates": 0}

    def selected_on(decoder: type[RealmStudent], selection: Any) -> Any:
        context = Context(0, "cpu", ArtifactStore(tmp_path, "code", {}), tmp_path, selection=[selection])
        artifact = decoder("tiny", {"select_on": "held-out"}, stages).pretrain(sessions, context)
        assert context.selection == [selection]
        return artifact.record.config["selection"]

    assert selected_on(SteadyStudent, held_out) == [steadied(held_out, 30.0).key] != selected_on(RealmStudent, held_out)
