"""``open-field``: three rodents foraging freely, one electrode, tracked running. See docs/open-field.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from realmbench.dataset import Dataset, DatasetInfo, Fold, SessionInfo
from realmbench.errors import RecordingError
from realmbench.files import default_data_root
from realmbench.recording import ArrayLike, Recording, ScaledArray

from .axona import eeg_microvolt_per_unit, read_eeg, read_pulses, read_settings, read_tracking
from .published import SourceFile, check_published, fetch_published

NAME = "open-field"
# Standard deviation of the Gaussian that smooths position, seconds.
SMOOTHING_SECONDS = 0.15
# Longer losses of tracking are refused instead of bridged; the longest in the five sessions is 1.6 s.
LONGEST_GAP_SECONDS = 5.0

# Columns of the behaviour and their units, by variant.
TARGETS = {"speed": {"log_speed": "log1p(cm/s)"}, "velocity": {"velocity_x": "cm/s", "velocity_y": "cm/s"}}

_GITHUB = "https://raw.githubusercontent.com"
_M851 = f"{_GITHUB}/rhayman/ephysiopy/b3591a13784eee10e91698b89abea6e0c9ab29d6/src/ephysiopy/tests/data"
_M845 = f"{_GITHUB}/rhayman/ephysiopy/04095d98e25ef1cff9e54866e01916d964fc08d6/ephysiopy/tests/data"
_10073 = f"{_GITHUB}/nguyen-td/activation-patterns/e739050194f38804e2001f330928d9f6b7f16cb2/data/sargolini"


@dataclass(frozen=True)
class Cut:
    """One session: seconds [start, stop) of one subject's record."""

    subject: str
    start: float
    stop: float


FILES: dict[str, SourceFile] = {
    "M851/M851_140908t2rh.eeg": SourceFile(
        600580, "c337dbd05fa54e798a1ef6500e91fbede33ded937789c642dea72bef6b8a55b7", _M851
    ),
    "M851/M851_140908t2rh.pos": SourceFile(
        2401622, "3925bb4b2c749bd9f810443c0fbc93773bb79ae15a4b87ccc4bbd2a08dfdfa07", _M851
    ),
    "M851/M851_140908t2rh.set": SourceFile(
        26535, "bed4f27846330356660893bbd5ab25e1d16d635c5578a5fec8fef9e7c80550bb", _M851
    ),
    "M851/M851_140908t2rh.stm": SourceFile(
        32316, "35c88c2347aa5560c004757e86604568e31ddb525452f27b8a08b2fa12d672fb", _M851
    ),
    "M845/M845_140919t1rh.eeg": SourceFile(
        600581, "c2ba86e87ca9a187b7d71aaed5e5703f9089855fbafbdb79d80789dff0c8e9fe", _M845
    ),
    "M845/M845_140919t1rh.pos": SourceFile(
        2401623, "9f350f6178ce279ed7ecb1c16151705a6acb9b25c9c8da5a1a41185689e2d7b6", _M845
    ),
    "M845/M845_140919t1rh.set": SourceFile(
        26526, "a70bdaa21f89cf3d6a809360a129bab0f2931c7ac975c879bd5c4272f7f7202f", _M845
    ),
    "M845/M845_140919t1rh.stm": SourceFile(
        32317, "8f8c01130cef2f5a9aabd11ecbb0a021e4b71fc8c0cf44f5e67845f3dc12ef53", _M845
    ),
    "10073/10073-17010302_eeg.mat": SourceFile(
        320810, "4e9b764e6dea033681d1eeb76560a01f1a16844047a15d382f33efd0c161e814", _10073
    ),
    "10073/10073-17010302_POS.mat": SourceFile(
        524669, "e7eb5e55ec3691964266480fc753e9b14033041a7fd68aa4b7fc021f980c2a15", _10073
    ),
    # The terms of use; no public address is pinned for it, so it is copied where a copy has it.
    "10073/readme_sargolini2006.txt": SourceFile(
        1870, "13bf6c0c2d4aef6d7630af410407b974289289b46dda5b24a5d3a771770caa18", None
    ),
}

# Light pulses run from 600.07 to 1799.92 s in both mice; `load` checks that none lies inside a session.
CUTS: dict[str, Cut] = {
    "M851-pre": Cut("M851", 0.0, 600.0),
    "M851-post": Cut("M851", 1800.0, 2400.0),
    "M845-pre": Cut("M845", 0.0, 600.0),
    "M845-post": Cut("M845", 1800.0, 2400.0),
    "10073": Cut("10073", 0.0, 600.0),
}

# M851's header says 300, the program's default. The tracked extent of the same 100 cm enclosure is 432 x 434 pixels
# there and 441 x 444 in M845, whose header says 420: the camera did not move, the number was not typed in.
PIXELS_PER_METRE = {"M851": 420.0}


@dataclass(frozen=True)
class RawRecord:
    """The whole record of one subject as its files hold it.

    Attributes
    ----------
    lfp : (T, 1) microvolt.
    sampling_rate : LFP samples per second.
    position : (T', 2) cm, NaN where tracking was lost; sample k at ``k / tracking_rate`` seconds.
    tracking_rate : position samples per second.
    pulses : (N,) onsets of light pulses, seconds.
    clipped : (T,) bool, True where the converter was at an end of its range.
    facts : for the provenance.
    """

    lfp: ArrayLike
    sampling_rate: float
    position: np.ndarray
    tracking_rate: float
    pulses: np.ndarray
    clipped: np.ndarray
    facts: dict[str, Any]


class OpenField(Dataset):
    """Real LFP of three foraging rodents, one electrode each, with tracked running (docs/open-field.md).

    The default variant asks for running speed, ``log(1 + cm/s)``. ``velocity`` asks for its two components, which a
    single theta channel does not carry: a decoder that scores above 0 there deserves suspicion.
    """

    variants: ClassVar[Mapping[str, str]] = {
        "speed": "running speed, log(1 + cm/s)",
        "velocity": "velocity along x and y, cm/s: the documented negative, R2 about 0",
    }
    depends_on: ClassVar[tuple[str, ...]] = ("realmbench.datasets.axona",)
    files: ClassVar[Mapping[str, SourceFile]] = FILES
    cuts: ClassVar[Mapping[str, Cut]] = CUTS

    @property
    def info(self) -> DatasetInfo:
        """Static facts."""
        return DatasetInfo(
            name=NAME,
            version="1",
            summary="real LFP of two mice and a rat foraging freely, one electrode, 250 Hz, 50 Hz video tracking",
            licence="MIT (M851, M845); free use with the source named (10073)",
            citation=(
                "M851, M845: R. Hayman, ephysiopy, https://github.com/rhayman/ephysiopy. 10073: Sargolini et al., "
                "Conjunctive representation of position, direction, and velocity in entorhinal cortex, "
                "Science 312:758-762 (2006), doi:10.1126/science.1125572"
            ),
            home="https://github.com/rhayman/ephysiopy, https://github.com/nguyen-td/activation-patterns",
            size=f"{sum(file.size for file in self.files.values()) / 1e6:.1f} MB",
            task="foraging in an open field; decode running speed",
            signals="1 LFP channel, medial entorhinal cortex / hippocampus",
            channels=1,
            sampling_rate=250.0,
        )

    def sessions(self) -> list[SessionInfo]:
        """List the five sessions of ten minutes; each animal was recorded on one day."""
        return [SessionInfo(name=name, subject=cut.subject, day=0.0) for name, cut in self.cuts.items()]

    def folds(self) -> list[Fold]:
        """Return one fold per animal: pretrain on the other two animals, evaluate all sessions of this one."""
        subjects = dict.fromkeys(cut.subject for cut in self.cuts.values())
        return [
            Fold(
                name=subject,
                pretrain=tuple(name for name, cut in self.cuts.items() if cut.subject != subject),
                held_out=tuple(name for name, cut in self.cuts.items() if cut.subject == subject),
            )
            for subject in subjects
        ]

    @property
    def folder(self) -> Path:
        """Where the files lie: ``<data_root>/open-field``."""
        return (self.data_root or default_data_root()) / NAME

    def load(self, session: str) -> Recording:
        """Load one session of 600 s; its clock starts at 0 with its first LFP sample.

        Raises
        ------
        UnknownNameError : no such session.
        RecordingError : a file is missing, truncated or damaged, tracking is lost for too long, the files are
            shorter than the session, or a light pulse lies inside it.
        """
        self.session(session)
        cut = self.cuts[session]
        where = f"{NAME}/{session}"
        raw = self._read(cut.subject)

        ends = {"LFP": raw.lfp.shape[0] / raw.sampling_rate, "tracking": len(raw.position) / raw.tracking_rate}
        for what, end in ends.items():
            if end < cut.stop:
                raise RecordingError(
                    f"{where}: the {what} ends at {end:.2f} s, before the session does ({cut.stop:g} s)"
                )
        inside = raw.pulses[(raw.pulses >= cut.start) & (raw.pulses < cut.stop)]
        if len(inside):
            raise RecordingError(f"{where}: {len(inside)} light pulses lie inside the session, from {inside[0]:.2f} s")

        # Gaps are bridged and position is smoothed over the whole record, so that a cut has no edge of its own.
        span = slice(round(cut.start * raw.tracking_rate), round(cut.stop * raw.tracking_rate))
        lost = np.isnan(raw.position).any(axis=1)
        velocity = velocity_of(bridge_gaps(raw.position, raw.tracking_rate, where), raw.tracking_rate)[span]
        samples = slice(round(cut.start * raw.sampling_rate), round(cut.stop * raw.sampling_rate))
        if self.variant == "speed":
            behaviour = np.log1p(np.hypot(velocity[:, :1], velocity[:, 1:]))
        else:
            behaviour = velocity
        columns = TARGETS[self.variant]
        return Recording(
            dataset=NAME,
            subject=cut.subject,
            session=session,
            lfp=_span(raw.lfp, samples),
            sampling_rate=raw.sampling_rate,
            lfp_start=0.0,
            behaviour=behaviour.astype(np.float32),
            behaviour_times=np.arange(len(behaviour)) / raw.tracking_rate,
            behaviour_names=tuple(columns),
            behaviour_units=tuple(columns.values()),
            provenance={
                "files": [file.link(name) for name, file in self._needed(cut.subject).items()],
                "seconds": [cut.start, cut.stop],
                "smoothing_seconds": SMOOTHING_SECONDS,
                "tracking_lost_share": float(lost[span].mean()),
                "clipped_share": float(raw.clipped[samples].mean()),
                **raw.facts,
            },
        )

    def require(self, session: str) -> None:
        subject = self.session(session).subject
        for name, file in self._needed(subject).items():
            check_published(NAME, name, file, self.folder)

    def prepare(self, from_dir: Path | None = None) -> Path:
        """Bring the files to ``<data_root>/open-field``, by download or from a folder; files already there stay.

        Parameters
        ----------
        from_dir : a folder that holds ``M851/``, ``M845/`` and ``10073/``, or its parent with ``open-field/``.

        Raises
        ------
        RealmbenchError : a file is absent or has another SHA-256, the download fails, or pooch is not installed.
        """
        return fetch_published(NAME, self.files, self.folder, from_dir)

    def _needed(self, subject: str) -> dict[str, SourceFile]:
        """Return the files of one subject that `load` reads."""
        return {name: file for name, file in self.files.items() if name.startswith(f"{subject}/") and file.address}

    def _read(self, subject: str) -> RawRecord:
        paths = [check_published(NAME, name, file, self.folder) for name, file in self._needed(subject).items()]

        def ending(text: str) -> Path:
            return next(path for path in paths if path.name.endswith(text))

        if any(path.suffix == ".mat" for path in paths):
            return _read_sargolini(ending("_eeg.mat"), ending("_POS.mat"))
        return _read_axona(ending(".eeg"), ending(".pos"), ending(".set"), ending(".stm"), subject)


def bridge_gaps(position: np.ndarray, rate: float, where: str) -> np.ndarray:
    """Fill lost tracking linearly; before the first and after the last sighting the position stands still.

    Parameters
    ----------
    position : (T, 2) cm, NaN where tracking was lost.
    rate : samples per second.
    where : name of the recording, for the error.

    Returns
    -------
    (T, 2) cm without NaN.

    Raises
    ------
    RecordingError : nothing was tracked, or tracking was lost for more than 5 s at a stretch.
    """
    seen = np.flatnonzero(np.isfinite(position).all(axis=1))
    if len(seen) == 0:
        raise RecordingError(f"{where}: the tracking is empty, the LED was never seen")
    borders = np.concatenate([[-1], seen, [len(position)]])
    gaps = np.diff(borders) - 1
    longest = int(gaps.argmax())
    if gaps[longest] > LONGEST_GAP_SECONDS * rate:
        raise RecordingError(
            f"{where}: tracking is lost for {gaps[longest] / rate:.1f} s from {(borders[longest] + 1) / rate:.1f} s, "
            f"more than the {LONGEST_GAP_SECONDS:g} s that may be bridged"
        )
    index = np.arange(len(position))
    return np.stack([np.interp(index, seen, column[seen]) for column in position.T], axis=1)


def velocity_of(position: np.ndarray, rate: float) -> np.ndarray:
    """Smooth position with a zero-phase Gaussian (standard deviation 0.15 s) and take central differences.

    The smoother looks ahead. It shapes the target alone, never an input.

    Parameters
    ----------
    position : (T, 2) cm.
    rate : samples per second.

    Returns
    -------
    (T, 2) cm/s.
    """
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(position, SMOOTHING_SECONDS * rate, axis=0, mode="nearest")
    return np.gradient(smooth, 1 / rate, axis=0)


def most_seen_spot(spots: np.ndarray) -> np.ndarray:
    """Return (T, 2) positions of the LED that was seen most often, from (T, 2, 2) (sample, LED, x and y).

    The mean of both would jump whenever one of them is hidden.
    """
    return spots[:, int(np.isfinite(spots).all(axis=2).sum(axis=0).argmax())]


def _read_axona(eeg_path: Path, tracking_path: Path, settings_path: Path, pulse_path: Path, subject: str) -> RawRecord:
    """Read one Axona trial."""
    scale = eeg_microvolt_per_unit(read_settings(settings_path), settings_path)
    eeg, tracking = read_eeg(eeg_path), read_tracking(tracking_path)
    if tracking.times[0] != 0:
        raise RecordingError(f"{tracking_path}: the tracking starts at {tracking.times[0]:.2f} s instead of 0")
    pixels_per_metre = PIXELS_PER_METRE.get(subject, tracking.pixels_per_metre)
    return RawRecord(
        lfp=ScaledArray(eeg.samples[:, None], scale),
        sampling_rate=eeg.sampling_rate,
        position=most_seen_spot(tracking.spots) * (100 / pixels_per_metre),
        tracking_rate=tracking.sampling_rate,
        pulses=read_pulses(pulse_path),
        clipped=(eeg.samples == 127) | (eeg.samples == -128),
        facts={
            "microvolt_per_unit": scale,
            "pixels_per_metre": pixels_per_metre,
            "pixels_per_metre_in_file": tracking.pixels_per_metre,
        },
    )


def _read_sargolini(eeg_path: Path, position_path: Path) -> RawRecord:
    """Read one session in the MATLAB form of Sargolini et al. (2006)."""
    eeg, rate = _matlab(eeg_path, "EEG", "Fs")
    x, y, times = _matlab(position_path, "posx", "posy", "post")
    if rate.size != 1 or not 0 < rate[0] < np.inf or len(eeg) == 0 or not np.all(np.isfinite(eeg)):
        raise RecordingError(f"{eeg_path}: Fs must be one positive rate, and EEG finite and not empty; damaged?")
    # Comparisons with NaN are false, so each is written such that NaN fails it.
    if not (len(x) == len(y) == len(times) > 1 and times[0] == 0 < times[1] and np.ptp(np.diff(times)) <= 1e-6):
        raise RecordingError(f"{position_path}: posx, posy and post must be equally long and evenly timed from 0 s")
    return RawRecord(
        # The file names no unit; its range of +-736 in 8 bits is taken for microvolt.
        lfp=eeg.astype(np.float32)[:, None],
        sampling_rate=float(rate[0]),
        position=np.stack([x, y], axis=1),
        tracking_rate=round(1 / float(times[1]), 6),
        pulses=np.zeros(0),
        clipped=(eeg == eeg.max()) | (eeg == eeg.min()),
        facts={"microvolt_per_unit": 1.0, "unit_assumed": "microvolt"},
    )


def _matlab(path: Path, *names: str) -> list[np.ndarray]:
    """Read variables of a MATLAB 5 file as flat float64 arrays."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=names)
        return [np.asarray(content[name], np.float64).ravel() for name in names]
    # SciPy answers damage with errors of many kinds (zlib, struct, ValueError, TypeError, KeyError, ...).
    except Exception as error:
        raise RecordingError(
            f"{path} is damaged: cannot read {', '.join(names)} ({type(error).__name__}: {error}); "
            f"`realmbench data prepare {NAME}` mends it"
        ) from error


def _span(lfp: ArrayLike, samples: slice) -> ArrayLike:
    if isinstance(lfp, ScaledArray):
        return ScaledArray(lfp.raw[samples], lfp.microvolt_per_unit)
    return lfp[samples]
