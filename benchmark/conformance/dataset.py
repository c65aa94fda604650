"""`realmbench check DATASET`: what every loader must do before a number made with it means anything."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from realmbench import leaks
from realmbench.channels import inspect_channels
from realmbench.dataset import Dataset
from realmbench.errors import RealmbenchError, RecordingError
from realmbench.front_end import front_end
from realmbench.manifest import SplitManifest
from realmbench.preparation import prepare_session
from realmbench.protocol import PROTOCOLS
from realmbench.recording import Recording

from .report import Check, Failed, NotApplicable, Report, run_check

# Standard deviation of an LFP channel in microvolt: outside, the loader has most likely mistaken the unit.
PLAUSIBLE_LFP_UV = (1.0, 5_000.0)
# Standard deviation of a behaviour axis by unit; other units are not judged.
PLAUSIBLE_BEHAVIOUR = {"cm/s": (0.1, 500.0), "mm/s": (1.0, 5_000.0), "m/s": (1e-3, 5.0), "cm": (0.1, 500.0)}
# Behaviour sampled more slowly than this cannot be scored at 50 Hz.
SLOWEST_BEHAVIOUR_S = 0.1
LONGEST_HOLE_S = 1.0
# Standard deviations; the filters have forgotten a test block after the gap to a thousandth.
TEST_PART_TOLERANCE = 0.01
# Stretches of each session, in samples, that must stand in no other; so many values in one tell it from a flat line.
PROBES, PROBE, LIVELY = 128, 64, 16


class Loader:
    """A dataset under test; sessions are loaded one at a time."""

    def __init__(self, dataset: Dataset, short: bool) -> None:
        self.dataset = dataset
        names = [info.name for info in dataset.sessions()]
        self.names = names[:1] if short else names
        self.protocol = PROTOCOLS.get("blocked-v1")()

    @cached_property
    def first(self) -> Recording:
        """The first session."""
        return self.dataset.load(self.names[0])

    def each(self) -> Iterator[Recording]:
        """Load every session that is checked, one after another."""
        yield self.first
        for name in self.names[1:]:
            yield self.dataset.load(name)

    def splits(self) -> Iterator[tuple[Recording, SplitManifest]]:
        """Cut every checked recording as a held-out session."""
        for recording in self.each():
            yield recording, self.protocol.split(recording, "held-out", self.dataset.identity)


def described(loader: Loader) -> str:
    """Licence, citation, home and version are stated."""
    info = loader.dataset.info
    if missing := [name for name in ("version", "licence", "citation", "home", "task") if not getattr(info, name)]:
        raise Failed(f"info lacks {', '.join(missing)}")
    return f"version {info.version}, licence: {info.licence}"


def folds_are_sound(loader: Loader) -> str:
    """Every session of a fold exists, each is held out once, none is on both sides."""
    dataset = loader.dataset
    known = Counter(info.name for info in dataset.sessions())
    if doubled := [name for name, count in known.items() if count > 1]:
        raise Failed(f"sessions named twice: {', '.join(doubled)}")
    folds = loader.protocol.folds(dataset)
    if not folds:
        raise Failed("there is no fold, so nothing can be evaluated")
    named = {name for fold in folds for name in (*fold.pretrain, *fold.held_out)}
    if unknown := named - set(known):
        raise Failed(f"folds name unknown sessions: {', '.join(sorted(unknown))}")
    subjects = {info.name: info.subject for info in dataset.sessions()}
    across = sum({subjects[n] for n in fold.pretrain} != {subjects[n] for n in fold.held_out} for fold in folds)
    held_out = sum(len(fold.held_out) for fold in folds)
    return f"{len(folds)} folds, {held_out} held-out sessions, {across} folds across subjects"


def recordings_are_as_declared(loader: Loader) -> str:
    """Recordings say of themselves what the dataset says of them; channels beyond those declared fit in no network."""
    info = loader.dataset.info
    most = 0
    for name, recording in zip(loader.names, loader.each()):
        samples, channels = recording.lfp.shape
        if samples < channels:
            raise Failed(
                f"{name}: the LFP has {samples} samples of {channels} channels; is (samples, channels) turned?"
            )
        session = loader.dataset.session(name)
        for what, there, declared in (
            ("session", recording.session, name),
            ("subject", recording.subject, session.subject),
            ("dataset", recording.dataset, info.name),
            ("sampling rate", recording.sampling_rate, info.sampling_rate),
        ):
            if there != declared:
                raise Failed(f"{name}: its recording's {what} is {there!r}, declared is {declared!r}")
        most = max(most, channels)
    if most > info.channels or (most < info.channels and len(loader.names) == len(loader.dataset.sessions())):
        raise Failed(
            f"the most channels of a session are {most}, declared are {info.channels}, to which every network is padded"
        )
    return f"{most} of {info.channels} channels at {info.sampling_rate:g} Hz"


def units_are_plausible(loader: Loader) -> str:
    """The LFP is in microvolt and the behaviour in the unit that it names."""
    typical = []
    for recording in loader.each():
        lfp = np.asarray(recording.lfp[: round(30 * recording.sampling_rate)], np.float64)
        deviation = float(np.nanmedian(np.nanstd(lfp, axis=0)))
        if not PLAUSIBLE_LFP_UV[0] <= deviation <= PLAUSIBLE_LFP_UV[1]:
            raise Failed(
                f"{recording.session}: the median channel deviates by {deviation:.3g}; LFP in microvolt lies between "
                f"{PLAUSIBLE_LFP_UV[0]:g} and {PLAUSIBLE_LFP_UV[1]:g}: is it in volt or in converter units?"
            )
        typical.append(deviation)
        for name, unit, column in zip(recording.behaviour_names, recording.behaviour_units, recording.behaviour.T):
            low, high = PLAUSIBLE_BEHAVIOUR.get(unit, (0.0, np.inf))
            if not low < column.std() <= high:
                raise Failed(f"{recording.session}: {name} deviates by {column.std():.3g} {unit}")
    behaviour = ", ".join(f"{n} ({u})" for n, u in zip(loader.first.behaviour_names, loader.first.behaviour_units))
    return f"LFP {min(typical):.0f} to {max(typical):.0f} µV; {behaviour}"


def clocks_agree(loader: Loader) -> str:
    """LFP, behaviour and spikes overlap, and the behaviour is sampled finely enough throughout."""
    shortest, coarsest = np.inf, 0.0
    for recording in loader.each():
        start, stop = recording.common_span()
        whole = max(recording.lfp_stop - recording.lfp_start, 1e-9)
        if (stop - start) / whole < 0.5:
            raise Failed(f"{recording.session}: LFP and behaviour share only {stop - start:.1f} of {whole:.1f} s")
        if recording.spike_counts is not None and recording.spike_bin is not None:
            spikes_stop = recording.lfp_start + len(recording.spike_counts) * recording.spike_bin
            if spikes_stop < stop - LONGEST_HOLE_S:
                raise Failed(
                    f"{recording.session}: spikes end {stop - spikes_stop:.1f} s before LFP and behaviour do, so that "
                    "blocks would be cut short; the loader must cut LFP and behaviour there"
                )
        steps = np.diff(recording.behaviour_times)
        if np.median(steps) > SLOWEST_BEHAVIOUR_S:
            raise Failed(f"{recording.session}: behaviour every {np.median(steps):.2f} s is too coarse for 50 Hz")
        if steps.max() > LONGEST_HOLE_S:
            raise Failed(
                f"{recording.session}: the behaviour has a hole of {steps.max():.2f} s, which would become a straight "
                "line in the target; the loader must cut it out"
            )
        shortest, coarsest = min(shortest, stop - start), max(coarsest, float(steps.max()))
    return f"at least {shortest:.0f} s in common, longest step of the behaviour {coarsest:.3f} s"


def sessions_are_distinct(loader: Loader) -> str:
    """No stretch of one session's LFP stands in another's, as where files overlap or one is read twice."""
    if len(loader.names) < 2:
        raise NotApplicable("a single session is loaded")
    # By channel: the keys of the sessions' probes, whose they are, where, and their samples.
    probes: dict[int, list[tuple[float, str, float, np.ndarray]]] = defaultdict(list)
    for recording in loader.each():
        lfp = np.asarray(recording.lfp[:], np.float32)
        for channel, known in probes.items():
            if channel >= lfp.shape[1]:
                continue
            column = lfp[:, channel]
            keys = _keys(column)
            for start in np.flatnonzero(np.isin(keys, [key for key, *_ in known])):
                for key, session, seconds, samples in known:
                    if key == keys[start] and np.array_equal(samples, column[start : start + PROBE]):
                        raise Failed(
                            f"{recording.session} holds at {start / recording.sampling_rate:.1f} s the LFP that "
                            f"{session} holds at {seconds:.1f} s: one recording under two names, or two that overlap"
                        )
        for start in np.linspace(0, len(lfp) - PROBE, PROBES).astype(int):
            part = lfp[start : start + PROBE]
            lively = [channel for channel, column in enumerate(part.T) if len(np.unique(column)) > LIVELY]
            for channel in lively[:1]:
                key = float(_keys(part[:, channel])[0])
                seconds = float(start / recording.sampling_rate)
                probes[channel].append((key, recording.session, seconds, part[:, channel].copy()))
    if not probes:
        raise NotApplicable("every channel is flat wherever it was looked at")
    return f"{sum(map(len, probes.values()))} stretches of {len(loader.names)} sessions stand in no other"


def _keys(column: np.ndarray) -> np.ndarray:
    """Return a number for every stretch of `LIVELY` samples of (T,), the same wherever they are the same."""
    weights = np.random.default_rng(0).standard_normal(LIVELY)
    count = max(0, len(column) - LIVELY + 1)
    keys = np.zeros(count)
    for place, weight in enumerate(weights):
        keys += weight * column[place : place + count]
    return keys


def channels_are_usable(loader: Loader) -> str:
    """At least one channel is usable on training samples."""
    left_out = 0
    for recording, manifest in loader.splits():
        per_bin = recording.sampling_rate / manifest.clock_rate
        spans = [(int(span.start * per_bin), int(span.stop * per_bin)) for span in manifest.of("train")]
        report = inspect_channels(recording.lfp, spans, recording.session)
        left_out = max(left_out, int((~report.mask).sum()))
    return f"{loader.first.channels} channels, at most {left_out} left out"


def can_be_split(loader: Loader) -> str:
    """The default protocol can cut every session, and every target varies in the parts that are scored."""
    scored = []
    for recording, manifest in loader.splits():
        times = recording.lfp_start + np.concatenate(
            [np.arange(span.start + 1, span.stop + 1) / manifest.clock_rate for span in manifest.of("test")]
        )
        truth = recording.behaviour_at(times)
        if constant := [name for name, column in zip(recording.behaviour_names, truth.T) if np.ptp(column) == 0]:
            raise Failed(f"{recording.session}: {', '.join(constant)} is constant over the test blocks")
        scored.append(manifest.seconds("test"))
    return f"{min(scored):.0f} to {max(scored):.0f} s of test per session"


def loads_the_same_twice(loader: Loader) -> str:
    """Loading twice gives the same samples."""
    again = loader.dataset.load(loader.names[0])
    same = (
        loader.first.fingerprint() == again.fingerprint()
        and np.array_equal(np.asarray(loader.first.lfp[:]), np.asarray(again.lfp[:]), equal_nan=True)
        and np.array_equal(loader.first.behaviour, again.behaviour)
    )
    if not same:
        raise Failed(f"{loader.names[0]} differs between two loads: seed it, or read files alone")
    return "bit for bit"


def unknown_sessions_are_refused(loader: Loader) -> str:
    """A session that does not exist is an error that names those that do."""
    try:
        loader.dataset.load("no-such-session")
    except RealmbenchError as error:
        return str(error).split(".")[0]
    raise Failed("load('no-such-session') returned something")


def front_ends_apply(loader: Loader) -> str:
    """At least one front end of the default protocol takes the recordings' sampling rate."""
    taken, refused = [], []
    for name in loader.protocol.front_ends:
        try:
            prepare_session(loader.dataset, loader.names[0], loader.protocol, front_end(name))
            taken.append(name)
        except RealmbenchError as error:
            refused.append(f"{name}: {error}")
    if not taken:
        raise Failed("; ".join(refused))
    return ", ".join(taken)


def test_blocks_are_kept_apart(loader: Loader) -> str:
    """Noise in place of every test block changes nothing of what decoders are handed, in any front end that applies."""
    session, largest = loader.dataset.folds()[0].held_out[0], 0.0
    recording = loader.dataset.load(session)
    for chain in map(front_end, loader.protocol.front_ends):
        if chain.kind == "spikes" and not loader.dataset.spikes:
            continue
        _, rate = recording.signal(chain.kind)
        try:
            chain.available(rate)
        except RecordingError:
            continue
        largest = max(largest, leaks.test_part_reach(loader.dataset, session, loader.protocol, chain))
    if largest > TEST_PART_TOLERANCE:
        raise Failed(f"training or validation data of {session} change by {largest:.2g} deviations")
    return f"largest change {largest:.1g} deviations"


def ceilings_are_ordered(loader: Loader) -> str:
    """Where the best possible R2 is known, it grows with look-ahead and lies below 1."""
    session = loader.dataset.folds()[0].held_out[0]
    ceilings = [loader.dataset.ceiling(session, look_ahead) for look_ahead in (0.0, 0.1, np.inf)]
    known = [ceiling for ceiling in ceilings if ceiling is not None]
    if not known:
        raise NotApplicable("not known for these recordings")
    if len(known) < len(ceilings) or not 0 < known[0] <= known[1] <= known[2] < 1:
        raise Failed(f"ceilings for 0 s, 0.1 s and all of the future are {ceilings}")
    return f"causal {known[0]:.3f}, 0.1 s ahead {known[1]:.3f}, whole record {known[2]:.3f}"


CHECKS: dict[str, Callable[[Loader], str]] = {
    "described": described,
    "folds": folds_are_sound,
    "recordings as declared": recordings_are_as_declared,
    "units": units_are_plausible,
    "clocks": clocks_agree,
    "sessions distinct": sessions_are_distinct,
    "channels": channels_are_usable,
    "split": can_be_split,
    "front ends": front_ends_apply,
    "test blocks kept apart": test_blocks_are_kept_apart,
    "deterministic": loads_the_same_twice,
    "unknown session refused": unknown_sessions_are_refused,
    "ceilings": ceilings_are_ordered,
}


def check_dataset(
    dataset: Dataset, short: bool = False, on_progress: Callable[[str, float], None] = lambda _text, _share: None
) -> Report:
    """Run every check on a dataset.

    Parameters
    ----------
    short : load the first session alone.

    Raises
    ------
    RealmbenchError : a session's files are missing; `realmbench data prepare` brings them.
    """
    name = dataset.full_name
    for info in dataset.sessions():
        dataset.require(info.name)
    loader = Loader(dataset, short)
    checks: list[Check] = []
    for number, (title, function) in enumerate(CHECKS.items()):
        on_progress(f"{name}: {title}", number / len(CHECKS))
        checks.append(run_check(title, function, loader))
    on_progress(f"{name}: done", 1.0)
    failed = [check.name for check in checks if check.failed]
    sessions = f"{len(loader.names)} of {len(dataset.sessions())} sessions loaded"
    verdict = f"fails {len(failed)} checks: {', '.join(failed)}" if failed else "passes all checks"
    return Report(name, tuple(checks), f"{name} {verdict} ({sessions}).")
