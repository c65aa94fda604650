"""Leak tests, from the raw sample to the prediction: does anything reach a prediction that it must not see?

Functions here measure and do not judge; `conformance` holds the results to what a decoder declares. Changes are in
standard deviations of the target; NaN in a prediction counts as an infinite change.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .dataset import Dataset
from .decoder import Decoder
from .errors import RecordingError
from .front_end import FrontEnd
from .manifest import CLOCK_RATE
from .preparation import pad_channels, prepare_session
from .protocol import Protocol
from .recording import Recording
from .session import SessionData

# Raw (T, C) microvolt to (N, D) predictions, one per frame.
Pipeline = Callable[[np.ndarray], np.ndarray]
# What may differ by rounding alone (float32, evaluation mode).
TOLERANCE = 1e-5


def pipeline(decoder: Decoder, session: SessionData, front_end: FrontEnd, sampling_rate: float) -> Pipeline:
    """Return the whole way of a fitted decoder: front end, normaliser, channel mask, network."""

    def run(raw: np.ndarray) -> np.ndarray:
        # A copy: a decoder may use one buffer for all its predictions.
        return np.array(decoder.predict(_frames(raw, session, front_end, sampling_rate), session), np.float64)

    return run


def _frames(raw: np.ndarray, session: SessionData, front_end: FrontEnd, sampling_rate: float) -> np.ndarray:
    frames = pad_channels(front_end.apply(raw, sampling_rate), session.channels, axis=1)
    return session.normaliser.input(frames, session.mask)


def futures(raw: np.ndarray, other: np.ndarray, generator: np.random.Generator) -> Mapping[str, np.ndarray]:
    """Return what the future is replaced by, each shaped like ``raw``; the noise has ten times its deviation."""
    noise = raw.mean(0) + 10 * (raw.std(0) + 1.0) * generator.standard_normal(raw.shape)
    return {
        "noise": noise.astype(raw.dtype),
        "zeros": np.zeros_like(raw),
        "another session": np.resize(other, raw.shape).astype(raw.dtype),
        "NaN": np.full_like(raw, np.nan),
    }


@dataclass(frozen=True)
class Reach:
    """How far the future reaches into predictions.

    Attributes
    ----------
    change : largest change of a prediction that should not change.
    seconds : how long before its permitted horizon the earliest changed prediction lies; 0 where none changed.
    """

    change: float
    seconds: float


def future_reach(
    run: Pipeline,
    raw: np.ndarray,
    replacement: np.ndarray,
    times: Sequence[int],
    sampling_rate: float,
    frame_rate: int,
    look_ahead_s: float = 0.0,
) -> Reach:
    """Replace everything from a raw sample on and compare the predictions that end ``look_ahead_s`` before it.

    Parameters
    ----------
    run : the pipeline.
    raw, replacement : (T, C) microvolt.
    times : sample indices from which on the future is replaced, one after another.
    """
    honest = run(raw)
    change, seconds = 0.0, 0.0
    for time in times:
        changed = run(np.concatenate([raw[:time], replacement[time:]]))
        # Where the look-ahead reaches back beyond the start nothing is protected.
        protected = max(0, int(np.floor(round((time / sampling_rate - look_ahead_s) * frame_rate, 6))))
        difference = largest_change(honest[:protected], changed[:protected], axis=1)
        touched = np.flatnonzero(difference > TOLERANCE)
        if len(touched):
            seconds = max(seconds, (protected - int(touched[0])) / frame_rate)
        change = max(change, float(difference.max(initial=0.0)))
    return Reach(change, seconds)


def length_change(run: Pipeline, raw: np.ndarray, lengths: Sequence[int], look_ahead: int = 0) -> float:
    """Return how much predictions change when the record ends earlier, after ``lengths`` raw samples.

    Parameters
    ----------
    look_ahead : frames of future that predictions wait for; the last ones, which lack theirs, are left out.
    """
    whole = run(raw)
    parts = [run(raw[:length]) for length in lengths]
    complete = [part[: max(0, len(part) - look_ahead)] for part in parts]
    return max(float(largest_change(whole[: len(part)], part)) for part in complete)


def chunk_change(
    decoder: Decoder,
    session: SessionData,
    front_end: FrontEnd,
    sampling_rate: float,
    raw: np.ndarray,
    generator: np.random.Generator,
) -> float:
    """Return how much live predictions differ from the whole pass, raw samples arriving in chunks of random size.

    The device's way: the front end's stream, one normalised frame after another, the decoder's stream.
    """
    live = front_end.stream(raw.shape[1], sampling_rate)

    def frames() -> Iterator[np.ndarray]:
        start = 0
        while start < len(raw):
            stop = start + int(generator.integers(1, max(2, round(sampling_rate / 10))))
            for frame in pad_channels(live.push(raw[start:stop]), session.channels, axis=1):
                yield session.normaliser.input(frame, session.mask)
            start = stop

    predictions = decoder.streamed(frames(), session)
    whole = pipeline(decoder, session, front_end, sampling_rate)(raw)
    return float(largest_change(whole[: len(predictions)], predictions))


def repeat_change(decoder: Decoder, session: SessionData, x: np.ndarray) -> float:
    """Return how much a prediction changes after the decoder has decoded something else in between."""
    first = np.array(decoder.predict(x, session))
    decoder.predict(x[::-1].copy(), session)
    return float(largest_change(first, decoder.predict(x, session)))


def batch_change(decoder: Decoder, session: SessionData, x: np.ndarray) -> float | None:
    """Return how much a network's output changes when other records share its batch; None if it is no network."""
    network = network_of(decoder)
    if network is None:
        return None
    import torch

    device = next(network.parameters()).device
    others = np.stack([x, x[::-1], 3 * x])
    mask = torch.from_numpy(session.mask).to(device)
    with torch.no_grad():
        alone = network(torch.from_numpy(others[:1]).to(device), mask[None])[0]
        shared = network(torch.from_numpy(others.copy()).to(device), mask.expand(3, -1))[0]
    return float(largest_change(alone.cpu().numpy(), shared.cpu().numpy()))


def gradient_reach(
    decoder: Decoder, session: SessionData, x: np.ndarray, times: Sequence[int], look_ahead_s: float = 0.0
) -> float | None:
    """Return the largest gradient of an output with respect to inputs beyond its look-ahead; None if it is no network.

    Exactly zero for an honest network: no path, however faint, leads from the future to the output.
    """
    network = network_of(decoder)
    if network is None:
        return None
    import torch

    device = next(network.parameters()).device
    mask = torch.from_numpy(session.mask).to(device)[None]
    ahead = round(look_ahead_s * session.rate)
    largest = 0.0
    for time in times:
        inputs = torch.from_numpy(x).to(device)[None].requires_grad_()
        # A GPU's own recurrent layers have no gradient outside training.
        with torch.backends.cudnn.flags(enabled=False):
            output = network(inputs, mask)[0, time].sum()
            (gradient,) = torch.autograd.grad(output, inputs)
        beyond = torch.nan_to_num(gradient[0, time + ahead + 1 :].abs(), nan=torch.inf)
        largest = max(largest, float(beyond.max()))
    return largest


def network_of(decoder: Decoder) -> Any:
    """Return the torch network inside a fitted decoder, or None."""
    from .training.network_decoder import NetworkDecoder

    return decoder.network if isinstance(decoder, NetworkDecoder) else None


def test_part_reach(dataset: Dataset, session: str, protocol: Protocol, front_end: FrontEnd) -> float:
    """Replace the raw samples of every test block by noise and return how much changes of what decoders are handed.

    Training and validation frames and normalised targets are compared, through masks and statistics. Filters forget a
    test block within the protocol's gap, to a thousandth of a deviation.

    Raises
    ------
    RecordingError : the noise did not arrive, so that nothing can be said.
    """
    before = prepare_session(dataset, session, protocol, front_end)
    spans = [(span.start / CLOCK_RATE, span.stop / CLOCK_RATE) for span in before.manifest.of("test")]
    after = prepare_session(_disturbed(dataset, spans), session, protocol, front_end)
    if all(np.array_equal(old.x, new.x) for old, new in zip(before.test, after.test, strict=True)):
        raise RecordingError(
            f"{session}: noise in the test blocks changed no test frame; is the recording cached by name?"
        )
    if not np.array_equal(before.data.mask, after.data.mask):
        return float("inf")
    change = 0.0
    for old, new in zip(
        (*before.data.train, *before.data.validation), (*after.data.train, *after.data.validation), strict=True
    ):
        change = max(change, float(largest_change(old.x, new.x)), float(largest_change(old.y, new.y)))
    return change


test_part_reach.__test__ = False  # type: ignore[attr-defined]  # not a test


def _disturbed(dataset: Dataset, spans: Sequence[tuple[float, float]]) -> Dataset:
    """Return the dataset with noise for LFP, spikes and behaviour within spans of seconds from the first LFP sample."""

    def load(session: str) -> Recording:
        recording = dataset.load(session)
        generator = np.random.default_rng(0)
        lfp, behaviour = np.array(recording.lfp[:], np.float32), recording.behaviour.copy()
        spikes = None if recording.spike_counts is None else recording.spike_counts.copy()
        scale = np.nanstd(lfp, axis=0)
        times = recording.behaviour_times - recording.lfp_start
        step = float(np.median(np.diff(times)))
        for start, stop in spans:
            part = slice(round(start * recording.sampling_rate), round(stop * recording.sampling_rate))
            lfp[part] = 10 * scale * generator.standard_normal(lfp[part].shape)
            if spikes is not None and recording.spike_bin is not None:
                bins = slice(round(start / recording.spike_bin), round(stop / recording.spike_bin))
                spikes[bins] = generator.integers(0, 50, spikes[bins].shape)
            # The behaviour's samples at either edge also serve, by interpolation, the frames outside.
            inside = (times > start + step) & (times < stop - step)
            noise = generator.standard_normal((int(inside.sum()), behaviour.shape[1]))
            behaviour[inside] = 10 * behaviour.std(0) * noise
        return replace(recording, lfp=lfp, behaviour=behaviour, spike_counts=spikes)

    changed = copy.copy(dataset)
    changed.load = load  # type: ignore[method-assign]  # everything else stays the dataset's own
    return changed


def largest_change(first: np.ndarray, second: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Return the largest absolute difference, over everything or along an axis; infinite where NaN meets a number."""
    difference = np.abs(np.asarray(first, np.float64) - np.asarray(second, np.float64))
    return np.where(np.isnan(difference), np.inf, difference).max(axis=axis, initial=0.0)
