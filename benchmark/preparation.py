"""From a dataset to what decoders and the scorer see: front end, split, channel mask, normalisation, in this order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from .channels import ChannelReport, inspect_channels, inspect_units
from .dataset import Dataset
from .errors import ProtocolError
from .files import cache_dir, locked, write_text_whole, write_whole
from .fingerprint import fingerprint
from .front_end import FRONT_ENDS, FrontEnd
from .manifest import SessionRole, Span, SplitManifest
from .protocol import Protocol, assert_no_leak
from .recording import Recording
from .seeds import stable_hash
from .session import Normaliser, Segment, SessionData

OnProgress = Callable[[str, float], None]


@dataclass(frozen=True)
class TestBlock:
    """A test block: normalised input frames with warm-up, and the truth in the behaviour's own units.

    Attributes
    ----------
    x : (warm_up + T, C, F).
    truth : (T // stride, D) on the 50 Hz clock.
    stride : frames per 50 Hz bin; the last frame of each bin is scored.
    start_s, stop_s : scored seconds from the first LFP sample.
    """

    __test__ = False  # not a pytest class

    x: np.ndarray
    truth: np.ndarray
    warm_up: int
    stride: int
    start_s: float
    stop_s: float

    def scored(self, prediction: np.ndarray) -> np.ndarray:
        """Pick from (warm_up + T, D) predictions those that the protocol scores."""
        return prediction[self.warm_up + self.stride - 1 :: self.stride]


@dataclass(frozen=True)
class Prepared:
    """One session, ready: what the decoder gets (``data``) and what only the scorer sees (``test``)."""

    data: SessionData
    test: tuple[TestBlock, ...]
    manifest: SplitManifest
    channels: ChannelReport
    target_units: tuple[str, ...]
    left_out: tuple[str, ...]
    sampling_rate: float


def prepare_session(
    dataset: Dataset,
    session: str,
    protocol: Protocol,
    front_end: FrontEnd,
    role: SessionRole = "held-out",
    shift_target: bool = False,
    on_progress: OnProgress | None = None,
    references: Sequence[SessionData] = (),
    privileged: str | None = None,
) -> Prepared:
    """Load a session and run it through front end, split and normalisation.

    Parameters
    ----------
    role : pretraining sessions are cut without a test part.
    shift_target : audit: turn the behaviour by half the record, so that any honest decoder scores about 0.
    on_progress : called with a sentence and the share done.
    references : pretraining sessions, whose statistics and channels stand in where the split has no training part.
    privileged : a second front end, whose frames are put beside the training and validation segments.

    Raises
    ------
    RecordingError, ProtocolError : unusable recording; see the modules called here.
    """
    recording = dataset.load(session)
    manifest = protocol.split(recording, role, dataset.identity)
    signal, sampling_rate = recording.signal(front_end.kind)
    assert_no_leak(manifest, front_end, sampling_rate)
    content = recording.fingerprint()
    frames_key = _data_key(dataset, session, content, front_end)
    frames = _frames(recording, front_end, frames_key, on_progress)
    behaviour = _behaviour_on_frames(recording, front_end, manifest, len(frames), shift_target)

    stride = front_end.rate // manifest.clock_rate
    train = [slice(span.start * stride, span.stop * stride) for span in manifest.of("train")]
    recorded = signal.shape[1]
    # Units are each session's own; electrodes are the dataset's.
    channels = recorded if front_end.kind == "spikes" else max(dataset.info.channels, recorded)
    if train:
        report = _channel_report(dataset, recording, front_end, manifest, _data_key(dataset, session, content, None))
        mask = pad_channels(report.mask, channels, axis=0)
        fitted = Normaliser.fit([frames[part] for part in train], [behaviour[part] for part in train])
        normaliser = Normaliser(
            pad_channels(fitted.x_mean, channels, axis=0),
            pad_channels(fitted.x_deviation, channels, axis=0, value=1.0),
            fitted.y_mean,
            fitted.y_deviation,
        )
    elif references:
        normaliser, mask = Normaliser.pooled(references)
        # Which channels a recording has is known without a sample of it.
        mask = mask & (np.arange(channels) < recorded)
        report = ChannelReport(channels=recorded)
    else:
        raise ProtocolError(f"{session}: a split without a training part needs pretraining sessions for its statistics")

    def inputs(span: Span) -> np.ndarray:
        part = np.asarray(frames[(span.start - span.warm_up) * stride : span.stop * stride])
        return normaliser.input(pad_channels(part, channels, axis=1), mask)

    def segment(span: Span) -> Segment:
        first = (span.start - span.warm_up) * stride
        target = normaliser.target(behaviour[first : span.stop * stride])
        return Segment(inputs(span), target.astype(np.float32), span.warm_up * stride, first)

    def test_block(span: Span) -> TestBlock:
        truth = behaviour[span.start * stride + stride - 1 : span.stop * stride : stride]
        return TestBlock(
            inputs(span),
            truth,
            span.warm_up * stride,
            stride,
            span.start / manifest.clock_rate,
            span.stop / manifest.clock_rate,
        )

    beside: tuple[SessionData, ...] = ()
    if privileged is not None:
        second = FRONT_ENDS[privileged]
        beside = (prepare_session(dataset, session, protocol, second, role, shift_target, on_progress).data,)

    def with_privileged(segments: tuple[Segment, ...], name: str) -> tuple[Segment, ...]:
        if not beside:
            return segments
        pairs = zip(segments, getattr(beside[0], name), strict=True)
        return tuple(replace(segment, privileged=other.x) for segment, other in pairs)

    info = dataset.session(session)
    data = SessionData(
        dataset=dataset.identity,
        subject=info.subject,
        name=session,
        rate=front_end.rate,
        mask=mask,
        normaliser=normaliser,
        feature_names=tuple(feature.name for feature in front_end.available(sampling_rate)),
        target_names=recording.behaviour_names,
        train=with_privileged(tuple(segment(span) for span in manifest.of("train")), "train"),
        validation=with_privileged(tuple(segment(span) for span in manifest.of("validation")), "validation"),
        key=stable_hash(
            [frames_key, manifest.hash, shift_target, *(other.key for other in (*references, *beside))],
        ),
    )
    return Prepared(
        data=data,
        test=tuple(test_block(span) for span in manifest.of("test")),
        manifest=manifest,
        channels=report,
        target_units=recording.behaviour_units,
        left_out=front_end.left_out(sampling_rate),
        sampling_rate=sampling_rate,
    )


def _data_key(dataset: Dataset, session: str, content: str, front_end: FrontEnd | None) -> str:
    # Code and content are part of the key: a mended loader, front end or file must never meet yesterday's cache.
    code = [fingerprint(module) for module in (type(dataset).__module__, *dataset.depends_on)]
    name = None
    if front_end is not None:
        code.append(fingerprint("realmbench.front_end"))
        name = f"{front_end.name}@{front_end.version}"
    return stable_hash([dataset.identity, session, content, name, code])


def _frames(recording: Recording, front_end: FrontEnd, key: str, on_progress: OnProgress | None) -> np.ndarray:
    """Return (N, C, F) frames as a memory map of the feature cache, computing them if they are not there whole."""
    path = _cache_path(key, ".npy")

    def progress(share: float) -> None:
        if on_progress is not None:
            on_progress(f"{front_end.name} of {recording.session}", share)

    with locked(path):
        if path.exists():
            try:
                return np.load(path, mmap_mode="r")
            except (ValueError, EOFError, OSError):
                path.unlink()  # damaged: made again below
        frames = front_end.apply(*recording.signal(front_end.kind), progress)
        write_whole(path, lambda temporary: np.save(temporary, frames))
        return np.load(path, mmap_mode="r")


def _channel_report(
    dataset: Dataset, recording: Recording, front_end: FrontEnd, manifest: SplitManifest, data_key: str
) -> ChannelReport:
    spikes = front_end.kind == "spikes"
    code = fingerprint("realmbench.channels")
    path = _cache_path(stable_hash([data_key, manifest.hash, "units" if spikes else "channels", code]), ".json")
    if path.exists():
        try:
            return ChannelReport.model_validate_json(path.read_text())
        except ValidationError:
            path.unlink()  # damaged: it is made again below
    signal, sampling_rate = recording.signal(front_end.kind)
    per_bin = sampling_rate / manifest.clock_rate
    spans = [(int(span.start * per_bin), int(span.stop * per_bin)) for span in manifest.of("train")]
    inspect = inspect_units if spikes else inspect_channels
    report = inspect(signal, spans, f"{dataset.full_name}, {recording.session}")
    write_text_whole(path, report.model_dump_json())
    return report


def _cache_path(key: str, suffix: str) -> Path:
    return cache_dir() / "features" / f"{key}{suffix}"


def _behaviour_on_frames(
    recording: Recording, front_end: FrontEnd, manifest: SplitManifest, frames: int, shift_target: bool
) -> np.ndarray:
    """Return (N, D) behaviour at the end of every frame, the moment at which the frame's prediction appears."""
    times = recording.lfp_start + np.arange(1, frames + 1) / front_end.rate
    behaviour = recording.behaviour_at(times)
    if shift_target:
        stride = front_end.rate // manifest.clock_rate
        used = slice(manifest.first_bin * stride, manifest.last_bin * stride)
        behaviour[used] = np.roll(behaviour[used], (used.stop - used.start) // 2, axis=0)
    return behaviour


def pad_channels(array: np.ndarray, size: int, axis: int, value: float = 0) -> np.ndarray:
    """Fill the channel axis up to the dataset's number of channels, so that sessions of one dataset share a shape."""
    missing = size - array.shape[axis]
    if not missing:
        return array
    widths = [(0, missing if index == axis else 0) for index in range(array.ndim)]
    return np.pad(array, widths, constant_values=value)
