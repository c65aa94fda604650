"""open-field: small files in the published layout, the ways to get the files, and the real recordings."""

from __future__ import annotations

import hashlib
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from realmbench.datasets.open_field import Cut, OpenField, bridge_gaps, most_seen_spot, velocity_of
from realmbench.datasets.published import SourceFile
from realmbench.errors import RealmbenchError, RecordingError, UnknownNameError
from realmbench.files import default_data_root

SECONDS = 20
SUBJECTS = ("M851", "M845")
SESSIONS = ["M851-pre", "M851-post", "M845-pre", "M845-post", "10073"]


def axona(lines: str, data: bytes) -> bytes:
    return lines.replace("\n", "\r\n").encode() + b"data_start" + data + b"\r\ndata_end\r\n"


def tracking(frames: int = SECONDS * 50, pixels_per_metre: int = 300, lost: slice | None = None) -> bytes:
    """One LED that moves by one pixel per frame along x."""
    records = np.full(frames, 0, np.dtype([("frame", ">u4"), ("words", ">u2", (8,))]))
    records["frame"] = np.arange(frames)
    records["words"][:, :4] = 1023
    records["words"][:, 0] = np.arange(frames)
    records["words"][:, 1] = 300
    if lost is not None:
        records["words"][lost, :2] = 1023
    header = (
        "timebase 50 hz\nbytes_per_timestamp 4\nsample_rate 50.0 hz\npos_format t,x1,y1,x2,y2,numpix1,numpix2\n"
        f"bytes_per_coord 2\npixels_per_metre {pixels_per_metre}\nnum_pos_samples {frames}\n"
    )
    return axona(header, records.tobytes())


def pulses(*milliseconds: int) -> bytes:
    header = f"timebase 1000 hz\nbytes_per_timestamp 4\ndata_format t\nnum_stm_samples {len(milliseconds)}\n"
    return axona(header, struct.pack(f">{len(milliseconds)}I", *milliseconds))


def mouse(pixels_per_metre: int) -> dict[str, bytes]:
    samples = SECONDS * 250
    header = f"num_chans 1\nsample_rate 250.0 hz\nbytes_per_sample 1\nnum_EEG_samples {samples}    \n"
    settings = "ADC_fullscale_mv 1500\ngain_ch_15 6000\nEEG_ch_1 16\nsaveEEG_ch_1 1\n"
    return {
        "eeg": axona(header, (np.arange(samples) % 200 - 100).astype(np.int8).tobytes()),
        "pos": tracking(pixels_per_metre=pixels_per_metre),
        "set": settings.replace("\n", "\r\n").encode(),
        "stm": pulses(6050, 11900),
    }


def rat(folder: Path, **change: np.ndarray) -> None:
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    frames = np.arange(SECONDS * 50)
    eeg = {"EEG": np.sin(np.arange(SECONDS * 250.0))[:, None], "Fs": np.uint8(250)}
    position = {"posx": 0.3 * frames[:, None], "posy": 0.4 * frames[:, None], "post": frames[:, None] / 50}
    for name, content in (("eeg", eeg), ("POS", position)):
        content |= {key: value for key, value in change.items() if key in content}
        savemat(folder / f"10073-17010302_{name}.mat", content)


class Made(OpenField):
    """open-field on small files, with sessions of six seconds."""

    cuts = {
        f"{subject}-{part}": Cut(subject, start, start + 6)
        for subject in SUBJECTS
        for part, start in (("pre", 0), ("post", 12))
    } | {"10073": Cut("10073", 0, SECONDS)}

    def __init__(self, root: Path, variant: str | None = None, address: str = "http://127.0.0.1:9") -> None:
        folder = root / "open-field"
        self.files = {
            str(path.relative_to(folder)): SourceFile(
                path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest(), address
            )
            for path in sorted(folder.rglob("*.*"))
        }
        super().__init__(variant, root)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A data root with small files in the published layout."""
    for subject, pixels_per_metre in zip(SUBJECTS, (300, 500)):
        folder = tmp_path / "root" / "open-field" / subject
        folder.mkdir(parents=True)
        for suffix, content in mouse(pixels_per_metre).items():
            (folder / f"{subject}.{suffix}").write_bytes(content)
    rat(tmp_path / "root" / "open-field" / "10073")
    return tmp_path / "root"


# ---------------------------------------------------------------------------------------------------- decoded values


def test_lfp_is_microvolt_from_the_start_of_the_session(made: Path) -> None:
    for session, first in (("M845-pre", 0), ("M845-post", 12 * 250)):
        recording = Made(made).load(session)
        assert recording.lfp.shape == (1500, 1)
        units = (first + np.arange(3)) % 200 - 100
        # 1500 mV / 6000 are 250 µV, which 128 units span.
        np.testing.assert_allclose(recording.lfp[:3, 0], units * 250 / 128, rtol=1e-6)
        assert (recording.lfp_start, recording.lfp_stop, recording.sampling_rate) == (0.0, 6.0, 250.0)
        assert recording.behaviour_times[[0, -1]].tolist() == [0.0, 5.98]
        assert recording.provenance["seconds"] == [first / 250, first / 250 + 6]


@pytest.mark.parametrize(
    ("session", "speed"),
    # A pixel per frame is 50 pixels per second: 10 cm/s at 500 pixels per metre. M851's header is put right to 420.
    [("M845-post", 10.0), ("M851-post", 5000 / 420), ("10073", 25.0)],
)
def test_speed_is_the_log_of_one_plus_cm_per_second(made: Path, session: str, speed: float) -> None:
    recording = Made(made).load(session)
    assert (recording.behaviour_names, recording.behaviour_units) == (("log_speed",), ("log1p(cm/s)",))
    assert recording.behaviour.dtype == np.float32
    # Away from the ends of the whole record, where the smoother has no neighbours.
    np.testing.assert_allclose(recording.behaviour[50:-50], np.log1p(speed), rtol=1e-5)


def test_velocity_has_two_signed_components(made: Path) -> None:
    recording = Made(made, "velocity").load("10073")
    assert recording.behaviour_names == ("velocity_x", "velocity_y")
    assert recording.behaviour_units == ("cm/s", "cm/s")
    np.testing.assert_allclose(recording.behaviour[50:-50], [[15.0, 20.0]] * 900, rtol=1e-5)


def test_short_losses_are_bridged_and_counted(made: Path) -> None:
    path = made / "open-field" / "M845" / "M845.pos"
    path.write_bytes(tracking(pixels_per_metre=500, lost=slice(650, 680)))
    recording = Made(made).load("M845-post")
    np.testing.assert_allclose(recording.behaviour, np.log1p(10.0), rtol=1e-5)
    assert recording.provenance["tracking_lost_share"] == pytest.approx(30 / 300)


def test_helpers_against_hand_computed_values() -> None:
    position = np.array([[np.nan, np.nan], [1.0, 5.0], [np.nan, 6.0], [3.0, 9.0], [np.nan, np.nan]])
    np.testing.assert_allclose(bridge_gaps(position, 50, "x"), [[1, 5], [1, 5], [2, 7], [3, 9], [3, 9]])
    spots = np.full((3, 2, 2), np.nan)
    spots[1:, 1] = 7.0
    np.testing.assert_array_equal(most_seen_spot(spots), spots[:, 1])
    # A sine of 1 Hz loses exp(-(2 pi 0.15)^2 / 2) of its amplitude to the Gaussian of 0.15 s, and is not delayed.
    times = np.arange(1000) / 50
    slow = velocity_of(np.stack([np.sin(2 * np.pi * times), 0 * times], axis=1), 50)[200:-200, 0]
    gain = 2 * np.pi * np.exp(-((2 * np.pi * 0.15) ** 2) / 2)
    np.testing.assert_allclose(slow, gain * np.cos(2 * np.pi * times[200:-200]), atol=0.01 * gain)


def test_folds_hold_out_one_animal_each() -> None:
    dataset = OpenField()
    assert [session.name for session in dataset.sessions()] == SESSIONS
    held_out = [name for fold in dataset.folds() for name in fold.held_out]
    assert sorted(held_out) == sorted(SESSIONS)
    subject = {session.name: session.subject for session in dataset.sessions()}
    for fold in dataset.folds():
        assert {subject[name] for name in fold.held_out} == {fold.name}
        assert set(fold.pretrain) == set(SESSIONS) - set(fold.held_out)


# -------------------------------------------------------------------------------------------------- unusable recordings


def test_missing_files_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        RecordingError, match=r"M851_140908t2rh\.eeg is missing; get it with `realmbench data prepare open-field`"
    ):
        OpenField(data_root=tmp_path).load("M851-pre")
    monkeypatch.setenv("REALMBENCH_DATA", str(tmp_path / "elsewhere"))
    assert OpenField().folder == default_data_root() / "open-field" == tmp_path / "elsewhere" / "open-field"


def test_unknown_sessions_and_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="M851-pre"):
        OpenField(data_root=tmp_path).load("M851-per")
    with pytest.raises(UnknownNameError, match="velocity"):
        OpenField("velocty")
    with pytest.raises(RealmbenchError, match=r"data\.smoothing does not apply"):
        OpenField(options={"smoothing": 1})


@pytest.mark.parametrize(
    ("file", "session"), [("M845/M845.pos", "M845-pre"), ("10073/10073-17010302_eeg.mat", "10073")]
)
def test_a_truncated_file_is_named_with_its_bytes(made: Path, file: str, session: str) -> None:
    dataset = Made(made)
    path = made / "open-field" / file
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(
        RecordingError, match=f"{path.name} is damaged: expected {len(content)} bytes, found {len(content) - 100}"
    ):
        dataset.load(session)


def test_a_scrambled_matlab_file_is_named(made: Path) -> None:
    path = made / "open-field" / "10073" / "10073-17010302_POS.mat"
    path.write_bytes(path.read_bytes()[:128] + b"\xff" * (path.stat().st_size - 128))
    with pytest.raises(RecordingError, match=r"_POS\.mat is damaged: cannot read posx, posy, post"):
        Made(made).load("10073")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"EEG": np.full((5000, 1), np.nan)}, "EEG finite"),
        ({"EEG": np.zeros((0, 0))}, "not empty"),
        ({"Fs": np.uint8(0)}, "Fs must be one positive rate"),
        ({"posx": np.zeros((10, 1))}, "equally long"),
        ({"post": np.zeros((1000, 1))}, "evenly timed"),
        ({"post": np.r_[0, 0.02, np.full(998, np.nan)]}, "evenly timed"),
        ({"posx": np.full((1000, 1), np.nan)}, "the LED was never seen"),
        ({"EEG": np.zeros((250, 1))}, r"the LFP ends at 1\.00 s"),
    ],
)
def test_unusable_matlab_content_is_refused(made: Path, change: dict[str, np.ndarray], message: str) -> None:
    rat(made / "open-field" / "10073", **change)
    with pytest.raises(RecordingError, match=message):
        Made(made).load("10073")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tracking(lost=slice(None)), "the LED was never seen"),
        (tracking(lost=slice(100, 400)), r"tracking is lost for 6\.0 s from 2\.0 s"),
        (tracking(lost=slice(0, 300)), r"tracking is lost for 6\.0 s from 0\.0 s"),
        (tracking(frames=250), r"the tracking ends at 5\.00 s"),
    ],
)
def test_unusable_tracking_is_refused(made: Path, content: bytes, message: str) -> None:
    (made / "open-field" / "M845" / "M845.pos").write_bytes(content)
    with pytest.raises(RecordingError, match=message):
        Made(made).load("M845-pre")


def test_a_pulse_inside_a_session_is_refused(made: Path) -> None:
    (made / "open-field" / "M845" / "M845.stm").write_bytes(pulses(5999, 6050))
    with pytest.raises(RecordingError, match=r"1 light pulses lie inside the session, from 6\.00 s"):
        Made(made).load("M845-pre")
    assert Made(made).load("M845-post").channels == 1


# ------------------------------------------------------------------------------------------------- copy and download


def fresh(made: Path, target: Path, address: str = "http://127.0.0.1:9") -> Made:
    """The same dataset, to be prepared in an empty data root."""
    dataset = Made(made, address=address)
    dataset.data_root = target
    return dataset


@pytest.mark.parametrize("inner", [True, False])
def test_copies_from_the_folder_or_its_parent_and_only_once(made: Path, tmp_path: Path, inner: bool) -> None:
    dataset = fresh(made, tmp_path / "new")
    source = made / "open-field" if inner else made
    assert dataset.prepare(source) == tmp_path / "new" / "open-field"
    copied = {name: (dataset.folder / name).stat().st_mtime_ns for name in dataset.files}
    damaged = dataset.folder / "M845/M845.eeg"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    dataset.prepare(source)
    again = {name: (dataset.folder / name).stat().st_mtime_ns for name in dataset.files}
    assert [name for name in copied if copied[name] != again[name]] == ["M845/M845.eeg"]
    assert dataset.load("M845-pre").channels == 1
    # All is there, so that nothing is asked of the network.
    assert dataset.prepare() == dataset.folder


def test_a_wrong_hash_is_refused_and_leaves_nothing(made: Path, tmp_path: Path) -> None:
    dataset = fresh(made, tmp_path / "new")
    path = made / "open-field" / "M845/M845.eeg"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(RealmbenchError, match=r"M845\.eeg is not the published file: expected \d+ bytes with SHA-256"):
        dataset.prepare(made)
    assert not list((tmp_path / "new").rglob("*M845.eeg*"))
    path.unlink()
    with pytest.raises(RealmbenchError, match=r"M845\.eeg is missing; a copy must hold every file"):
        dataset.prepare(made)
    with pytest.raises(RealmbenchError, match="is no copy of open-field"):
        dataset.prepare(tmp_path / "nowhere")


def test_a_file_without_address_is_optional(made: Path, tmp_path: Path) -> None:
    dataset = fresh(made, tmp_path / "new")
    dataset.files = dict(dataset.files) | {
        "10073/readme.txt": SourceFile(5, hashlib.sha256(b"terms").hexdigest(), None)
    }
    dataset.prepare(made)
    assert not (dataset.folder / "10073/readme.txt").exists()
    (made / "open-field/10073/readme.txt").write_text("terms")
    dataset.prepare(made)
    assert (dataset.folder / "10073/readme.txt").read_text() == "terms"
    assert dataset.load("10073").channels == 1


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class Breaking(Quiet):
    """Announces the whole file and hangs up after a half of it."""

    def copyfile(self, source, outputfile) -> None:  # type: ignore[no-untyped-def]
        content = source.read()
        outputfile.write(content[: len(content) // 2])
        self.close_connection = True


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Serve a folder on this machine and return its address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers: list[ThreadingHTTPServer] = []

    def start(folder: Path, handler: type[Quiet] = Quiet) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def published(made: Path, tmp_path: Path) -> Path:
    """The files as the public folders hold them: all in one."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (made / "open-field").rglob("*.*"):
        (flat / path.name).write_bytes(path.read_bytes())
    return flat


def test_download(made: Path, published: Path, tmp_path: Path, serve: Callable[..., str]) -> None:
    pytest.importorskip("pooch")
    dataset = fresh(made, tmp_path / "new", serve(published))
    assert dataset.prepare() == tmp_path / "new" / "open-field"
    for name in dataset.files:
        assert (dataset.folder / name).read_bytes() == (made / "open-field" / name).read_bytes()
    assert len(list(dataset.folder.rglob("*.*"))) == len(dataset.files)


def test_failed_downloads_leave_nothing_and_say_why(
    made: Path, published: Path, tmp_path: Path, serve: Callable[..., str]
) -> None:
    pytest.importorskip("pooch")
    broken = fresh(made, tmp_path / "broken", serve(published, Breaking))
    with pytest.raises(RealmbenchError, match=r"cannot download http://127.*\.mat: .*--from-dir DIR"):
        broken.prepare()
    gone = fresh(made, tmp_path / "gone", serve(tmp_path / "nothing"))
    with pytest.raises(RealmbenchError, match="404"):
        gone.prepare()
    unreachable = fresh(made, tmp_path / "unreachable", "http://127.0.0.1:9")
    with pytest.raises(RealmbenchError, match=r"cannot download http://127\.0\.0\.1:9/"):
        unreachable.prepare()
    for path in published.iterdir():
        path.write_bytes(b"<html>sorry</html>")
    other = fresh(made, tmp_path / "other", serve(published))
    with pytest.raises(RealmbenchError, match="does not match the known hash"):
        other.prepare()
    for name in ("broken", "gone", "unreachable", "other"):
        assert not [path for path in (tmp_path / name).rglob("*") if path.is_file()], name


def test_download_without_pooch_names_the_extra(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(RealmbenchError, match=r"pip install 'realmbench\[data\]'"):
        fresh(made, tmp_path / "new").prepare()
