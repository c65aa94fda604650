"""The leak tests catch what they must: honest pipelines pass, each classical leak fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter1d
from scipy.signal import sosfiltfilt
from torch import nn

from realmbench import leaks, preparation
from realmbench.conformance.rehearsal import SAMPLING_RATE, Rehearsal
from realmbench.front_end import POWER_FLOOR, FrontEnd, front_end
from realmbench.preparation import prepare_session
from realmbench.protocols import BlockedV1
from realmbench.session import Normaliser, Session, SessionData
from realmbench.training.network_decoder import NetworkDecoder

KINDS = ("noise", "zeros", "another session", "NaN")
RATE = 50


@pytest.fixture(scope="module")
def raw() -> np.ndarray:
    return np.asarray(Rehearsal().load("r2").lfp[:10_000])


@pytest.fixture(scope="module")
def other() -> np.ndarray:
    return np.asarray(Rehearsal().load("r0").lfp[:10_000])


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((6 * 6, 2)) / 6


def reach(run: leaks.Pipeline, raw: np.ndarray, other: np.ndarray, kind: str, look_ahead_s: float = 0) -> leaks.Reach:
    replacement = leaks.futures(raw, other, np.random.default_rng(0))[kind]
    return leaks.future_reach(run, raw, replacement, [4321, 5000, 7777], SAMPLING_RATE, RATE, look_ahead_s)


def scaled(frames: np.ndarray) -> np.ndarray:
    """Normalise with constants, as a frozen normaliser does."""
    return (frames / 10).reshape(len(frames), -1)


def zero_phase(raw: np.ndarray) -> np.ndarray:
    """The front end `bands50` with its filters run forth and back, as in the published chains."""
    chain, frames = front_end("bands50"), []
    filled = np.nan_to_num(raw.astype(np.float64))
    for feature in chain.available(SAMPLING_RATE):
        band, smoother = feature.filters(SAMPLING_RATE)
        output = sosfiltfilt(band, filled, axis=0)
        if smoother is not None:
            output = np.log(np.maximum(sosfiltfilt(smoother, output**2, axis=0), 0) + POWER_FLOOR)
        frames.append(output[9::10])
    return np.stack(frames, axis=-1)


@pytest.mark.parametrize("kind", KINDS)
def test_honest_front_end_and_read_out_pass(raw: np.ndarray, other: np.ndarray, weights: np.ndarray, kind: str) -> None:
    def run(samples: np.ndarray) -> np.ndarray:
        return scaled(front_end("bands50").apply(samples, SAMPLING_RATE)) @ weights

    assert reach(run, raw, other, kind).change <= leaks.TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_zero_phase_front_end_is_caught(raw: np.ndarray, other: np.ndarray, weights: np.ndarray, kind: str) -> None:
    found = reach(lambda samples: scaled(zero_phase(samples)) @ weights, raw, other, kind)
    assert found.change > 1e-2
    assert found.seconds > 0.1  # the reach of a 5 Hz low-pass run backwards


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_of_the_whole_record_are_caught(
    raw: np.ndarray, other: np.ndarray, weights: np.ndarray, kind: str
) -> None:
    def run(samples: np.ndarray) -> np.ndarray:
        frames = front_end("bands50").apply(samples, SAMPLING_RATE)
        return ((frames - frames.mean(0)) / (frames.std(0) + 1)).reshape(len(frames), -1) @ weights

    found = reach(run, raw, other, kind)
    assert found.change > 1e-3
    assert found.seconds > 5  # back to the very first frame
    assert leaks.length_change(run, raw, [5000]) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_centred_smoothing_is_caught_and_passes_where_declared(
    raw: np.ndarray, other: np.ndarray, weights: np.ndarray, kind: str
) -> None:
    def run(samples: np.ndarray) -> np.ndarray:
        output = scaled(front_end("bands50").apply(samples, SAMPLING_RATE)) @ weights
        return uniform_filter1d(output, 5, axis=0)

    found = reach(run, raw, other, kind)
    assert found.change > 1e-3
    assert found.seconds == pytest.approx(2 / RATE)  # a window of five reaches two frames back
    assert leaks.length_change(run, raw, [5000]) > 1e-3
    # Two frames of declared look-ahead make it honest.
    assert reach(run, raw, other, kind, look_ahead_s=0.04).change <= leaks.TOLERANCE


class Cell(nn.Module):
    """A recurrent layer, optionally bidirectional or with a batch norm."""

    def __init__(self, inputs: int, outputs: int, bidirectional: bool = False, norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs) if norm else None
        self.cell = nn.GRU(inputs, 8, batch_first=True, bidirectional=bidirectional)
        self.out = nn.Linear(8 * (1 + bidirectional), outputs)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(2)
        if self.norm is not None:
            flat = self.norm(flat.transpose(1, 2)).transpose(1, 2)
        return self.out(self.cell(flat)[0])


class Made(NetworkDecoder):
    """Wraps a network that calls itself causal."""

    causal = True
    parts: dict[str, bool] = {}  # noqa: RUF012

    def build(self, session: Session) -> nn.Module:
        return Cell(session.channels * session.features, session.outputs, **self.parts)


def made(session: SessionData, training: bool = False, **parts: bool) -> Made:
    decoder = Made("tiny")
    decoder.parts = parts
    torch.manual_seed(0)
    decoder.network = decoder.build(session).train(training)
    return decoder


@pytest.fixture
def session(session_maker: Any) -> SessionData:
    return session_maker(channels=6, features=6)


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((200, 6, 6)).astype(np.float32)


def test_honest_network_passes(session: SessionData, frames: np.ndarray, raw: np.ndarray) -> None:
    decoder = made(session)
    run = leaks.pipeline(decoder, session, front_end("bands50"), SAMPLING_RATE)
    assert leaks.gradient_reach(decoder, session, frames, [10, 100]) == 0
    assert leaks.length_change(run, raw, [5000]) <= leaks.TOLERANCE
    assert leaks.batch_change(decoder, session, frames) == pytest.approx(0, abs=leaks.TOLERANCE)
    assert leaks.repeat_change(decoder, session, frames) <= leaks.TOLERANCE


def test_bidirectional_layer_is_caught(
    session: SessionData, frames: np.ndarray, raw: np.ndarray, other: np.ndarray
) -> None:
    decoder = made(session, bidirectional=True)
    run = leaks.pipeline(decoder, session, front_end("bands50"), SAMPLING_RATE)
    assert leaks.gradient_reach(decoder, session, frames, [100]) > 1e-3  # type: ignore[operator]
    assert reach(run, raw, other, "noise").change > 1e-3
    assert leaks.length_change(run, raw, [5000]) > 1e-3


def test_batch_norm_in_training_mode_is_caught(session: SessionData, frames: np.ndarray, raw: np.ndarray) -> None:
    honest = made(session, norm=True)
    assert leaks.batch_change(honest, session, frames) == pytest.approx(0, abs=leaks.TOLERANCE)
    assert leaks.gradient_reach(honest, session, frames, [100]) == 0
    decoder = made(session, training=True, norm=True)
    assert leaks.batch_change(decoder, session, frames) > 1e-2  # type: ignore[operator]
    assert leaks.gradient_reach(decoder, session, frames, [100]) > 0  # type: ignore[operator]
    run = leaks.pipeline(decoder, session, front_end("bands50"), SAMPLING_RATE)
    assert leaks.length_change(run, raw, [5000]) > 1e-2


class Forgetful(Made):
    """Keeps state from one call to the next."""

    def predict(self, x: np.ndarray, session: Session) -> np.ndarray:
        output = super().predict(x, session) + getattr(self, "last", 0)
        self.last = float(x[0, 0, 0])
        return output


def test_state_kept_between_calls_is_caught(session: SessionData, frames: np.ndarray) -> None:
    decoder = Forgetful("tiny")
    decoder.network = made(session).network
    assert leaks.repeat_change(decoder, session, frames) > 0.1


@pytest.mark.parametrize("name", ["bands50", "lfp100"])
def test_test_blocks_reach_nothing_that_decoders_are_handed(name: str) -> None:
    assert leaks.test_part_reach(Rehearsal(), "r2", BlockedV1(), front_end(name)) < 1e-3


def test_normaliser_of_the_whole_record_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: statistics over all frames, test blocks included, change what decoders are handed."""
    chain = front_end("bands50")

    class WholeRecord(FrontEnd):
        def apply(self, lfp: Any, sampling_rate: float, on_progress: Any = None) -> np.ndarray:
            frames = super().apply(lfp, sampling_rate, on_progress)
            whole.append((frames.mean(0), frames.std(0)))
            return frames

    whole: list[tuple[np.ndarray, np.ndarray]] = []
    fit = Normaliser.fit

    def leaky(x: Any, y: Any) -> Normaliser:
        honest = fit(x, y)
        mean, deviation = whole[-1]
        return replace(honest, x_mean=mean, x_deviation=np.where(deviation > 1e-6, deviation, 1))

    monkeypatch.setattr(preparation.Normaliser, "fit", staticmethod(leaky))
    # A name of its own keeps its frames out of the honest front end's cache.
    fields = {name: getattr(chain, name) for name in ("kind", "rate", "features")}
    leaking = WholeRecord(name="whole-record", version="1", **fields)
    assert leaks.test_part_reach(Rehearsal(), "r2", BlockedV1(), leaking) > 0.1


def test_mask_found_on_the_whole_record_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: channels judged on test samples too change the mask when those are disturbed."""
    honest = preparation.inspect_channels

    def leaky(lfp: Any, spans: Any, where: str) -> Any:
        report = honest(lfp, [(0, lfp.shape[0])], where)
        quiet = np.asarray(lfp[:]).std(0) < 40  # a threshold that noise in the test blocks crosses
        return report.model_copy(update={"dead": tuple(np.flatnonzero(quiet).tolist()), "constant": ()})

    monkeypatch.setattr(preparation, "inspect_channels", leaky)
    monkeypatch.setattr(preparation, "_cache_path", lambda key, suffix: Path("/nonexistent") / f"{key}{suffix}")
    monkeypatch.setattr(preparation, "write_text_whole", lambda *_: None)
    monkeypatch.setattr(preparation, "_frames", lambda recording, chain, *_: chain.apply(recording.lfp, 500.0))
    assert leaks.test_part_reach(Rehearsal(), "r2", BlockedV1(), front_end("lfp100")) == np.inf


def test_raw_chunks_of_any_size_give_what_the_whole_pass_gives(raw: np.ndarray, tmp_path: Path) -> None:
    from realmbench.artifact import ArtifactStore
    from realmbench.decoder import DECODERS, Context

    prepared = prepare_session(Rehearsal(), "r2", BlockedV1(), front_end("bands50")).data
    options = {"histories_s": [0.2], "lag_step": 1}  # a past of its own, for the control below to spoil
    decoder = DECODERS.get("wiener")("tiny", options)
    decoder.adapt(prepared, Context(0, "cpu", ArtifactStore(tmp_path, "c", {}), tmp_path))
    chain, generator = front_end("bands50"), np.random.default_rng(0)
    assert leaks.chunk_change(decoder, prepared, chain, SAMPLING_RATE, raw, generator) <= leaks.TOLERANCE

    class Delayed(type(decoder)):  # type: ignore[misc]
        def stream(self, session: Session) -> Any:
            running = super().stream(session)
            running.step(np.zeros((6, 6), np.float32) + 1)  # one frame of somebody else's past
            return running

    late = Delayed("tiny", options)
    late.restore(decoder.arrays(), prepared)
    assert leaks.chunk_change(late, prepared, chain, SAMPLING_RATE, raw, generator) > leaks.TOLERANCE


def test_prediction_that_turns_into_nan_counts_as_changed(raw: np.ndarray, other: np.ndarray) -> None:
    """A transform over the whole record spreads one NaN everywhere: that is a leak, not equality."""

    def run(samples: np.ndarray) -> np.ndarray:
        spectrum = np.fft.rfft(samples[:, :2], axis=0)
        spectrum[200:] = 0
        return np.fft.irfft(spectrum, len(samples), axis=0)[9::10]

    found = reach(run, raw, other, "NaN")
    assert np.isinf(found.change)
    assert found.seconds > 5


def test_look_ahead_beyond_the_cut_protects_nothing(raw: np.ndarray, other: np.ndarray) -> None:
    """An honest decoder that looks further ahead than the cut lies from the start has no prediction to keep."""
    cut = 1000
    look_ahead_s = cut / SAMPLING_RATE + 1.0
    ahead = round(look_ahead_s * RATE)

    def run(samples: np.ndarray) -> np.ndarray:
        frames = samples[:: round(SAMPLING_RATE / RATE), :2]
        return np.concatenate([frames[ahead:], np.zeros((ahead, 2))])

    def change(look_ahead_s: float) -> float:
        return leaks.future_reach(run, raw, other, [cut], SAMPLING_RATE, RATE, look_ahead_s).change

    assert change(look_ahead_s) == 0
    assert change(cut / SAMPLING_RATE - 0.5) > leaks.TOLERANCE  # one that declares too little is still caught
    assert leaks.length_change(run, raw, [cut // 2], ahead) == 0
