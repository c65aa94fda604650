"""What a run holds its decoder to: the past, its stream, and leaving alone what it is handed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from realmbench.dataset import Dataset
from realmbench.errors import OptionError, RealmbenchError
from realmbench.records import RunRecord
from realmbench.runner import Events, FailedRunsError

Execute = Callable[..., list[RunRecord]]

BROKEN = """
import numpy as np
from realmbench.artifact import Trained
from realmbench.baselines.mean import Mean
from realmbench.decoder import Stream

class Liar(Mean):
    "Declares itself causal and predicts from the future."
    def predict(self, x, session):
        return np.roll(x[:, :2, 0], -25, axis=0)

class Late(Stream):
    delay = 25
    def __init__(self): self.seen = 0
    def step(self, frame):
        self.seen += 1
        return frame[:2, 0] if self.seen > self.delay else np.full(2, np.nan)

class Waits(Mean):
    "Says that it is causal; stream and predictions agree, half a second late."
    def stream(self, session): return Late()
    def predict(self, x, session): return np.concatenate([x[25:, :2, 0], np.zeros((25, 2))])[: len(x)]

class WaitsLonger(Waits):
    "Waits half a second where it declares a tenth."
    causal, look_ahead_s = False, 0.1

class WaitsAsDeclared(Waits):
    causal, look_ahead_s = False, 0.5

class SeesMore(WaitsAsDeclared):
    "Waits as it declares, and predicts from more."
    def predict(self, x, session): return np.concatenate([x[26:, :2, 0], np.zeros((26, 2))])[: len(x)]

class Present(Mean):
    "Decodes the frame at hand."
    def predict(self, x, session): return x[:, :2, 0].astype(np.float64)
    def stream(self, session): return Now()

class Now(Stream):
    def step(self, frame): return frame[:2, 0].astype(np.float64)

class NowOtherwise(Stream):
    def step(self, frame): return 1.01 * frame[:2, 0]

class StreamsOtherwise(Present):
    "Predicts honestly, and streams something else."
    def stream(self, session): return NowOtherwise()

class SeesMoreLater(Present):
    "Sees the future from the 310th frame on."
    def predict(self, x, session):
        output = super().predict(x, session)
        output[310:-1] = output[311:]
        return output

class SeesMoreAtFirst(Present):
    "Sees the whole call before it has anything of the session."
    multi_session = zero_shot = True
    bare = False
    def pretrain(self, sessions, context):
        return context.artifact("nothing", {}, sessions, lambda: Trained({"nothing": np.zeros(1)}, 1, []))
    def adapt(self, session, context, artifact=None):
        self.bare = not session.train
        if session.train: super().adapt(session, context, artifact)
    def predict(self, x, session):
        return super().predict(x, session) - self.bare * x[:, :2, 0].mean(0)

class HonestAtFirst(SeesMoreAtFirst):
    "Knows nothing of the session at first, and sees nothing of the call."
    def predict(self, x, session): return Present.predict(self, x, session)

class WritesOn(Mean):
    "Clips the training frames where they lie."
    def adapt(self, session, context, artifact=None):
        np.clip(session.train[0].x, -1, 1, out=session.train[0].x)
        super().adapt(session, context, artifact)

class WritesWhilePredicting(Present):
    "Centres what it is handed, where it lies."
    def predict(self, x, session):
        x -= 0.1
        return super().predict(x, session)

class WritesOnTheTeacher(HonestAtFirst):
    "Goes on training the artifact's own array."
    def adapt(self, session, context, artifact=None):
        artifact.arrays["nothing"] += 1
        super().adapt(session, context, artifact)

class WritesWhilePretraining(HonestAtFirst):
    "Clips other sessions where they lie."
    def pretrain(self, sessions, context):
        np.clip(sessions[0].train[0].x, -1, 1, out=sessions[0].train[0].x)
        return super().pretrain(sessions, context)

class StreamsOtherwiseAtFirst(HonestAtFirst):
    "Streams something else before it has anything of the session."
    def stream(self, session): return NowOtherwise() if self.bare else Now()

class NotYet(Present):
    "Says that it does not stream."
    streams = False

class FromNothing(Present):
    "Needs neither calibration nor pretraining, it says."
    zero_shot = True

class CausalAndNot(Present):
    "Contradicts itself."
    look_ahead_s = 0.2

class KeepsBack(Present):
    "Predicts honestly, and streams it half a second late."
    def stream(self, session): return Late()
"""


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    return file


def test_causal_in_name_only_is_caught(execute: Execute, toy: Dataset, tmp_path: Path, broken: Path) -> None:
    """From the first frames on, after those that the stream is held to, or without any calibration."""
    assert len(execute(toy, tmp_path, model=f"{broken}:Present")) == 2
    for name in ("Liar", "SeesMoreLater"):
        with pytest.raises(RealmbenchError, match=f"{name} is declared causal, but its predictions of the test block"):
            execute(toy, tmp_path, model=f"{broken}:{name}")
    at_first = {"protocol": "calibration-v1", "sessions": ["a2"]}
    assert execute(toy, tmp_path, model=f"{broken}:HonestAtFirst", **at_first)[0].curve[0].calibration_s == 0
    with pytest.raises(RealmbenchError, match="SeesMoreAtFirst is declared causal, but its predictions"):
        execute(toy, tmp_path, model=f"{broken}:SeesMoreAtFirst", **at_first)


def test_stream_of_something_else_is_caught(execute: Execute, toy: Dataset, tmp_path: Path, broken: Path) -> None:
    with pytest.raises(RealmbenchError, match="declared causal, but its stream differs from predict"):
        execute(toy, tmp_path, model=f"{broken}:StreamsOtherwise")
    with pytest.raises(RealmbenchError, match="declared causal, but its stream differs from predict"):
        execute(toy, tmp_path, model=f"{broken}:StreamsOtherwiseAtFirst", protocol="calibration-v1", sessions=["a2"])


def test_what_pretraining_hands_on_and_is_handed_stays_as_it_is(
    execute: Execute, toy: Dataset, tmp_path: Path, broken: Path
) -> None:
    failures: list[str] = []
    events = Events(failed=lambda _path, reason: failures.append(reason))
    for name, words in (
        ("WritesOnTheTeacher", "written into the arrays of the artifact"),
        ("WritesWhilePretraining", r"written into what it was handed \(a0: train\[0\].x"),
    ):
        with pytest.raises(FailedRunsError, match=words):
            execute(toy, tmp_path, events, model=f"{broken}:{name}", seeds=2)
    assert len(failures) == 8


@pytest.mark.parametrize(
    ("name", "array"), [("WritesOn", r"train\[0\].x"), ("WritesWhilePredicting", "frames of test block 0")]
)
def test_decoder_that_writes_into_its_data_is_refused_with_every_seed(
    execute: Execute, toy: Dataset, tmp_path: Path, broken: Path, name: str, array: str
) -> None:
    """Also with the second, which finds what the first has left: clipping again would change nothing."""
    failures: list[str] = []
    events = Events(failed=lambda _path, reason: failures.append(reason))
    with pytest.raises(FailedRunsError, match=f"written into what it was handed .*a2: {array}"):
        execute(toy, tmp_path, events, model=f"{broken}:{name}", sessions=["a2"], seeds=2)
    assert len(failures) == 2


def test_what_waits_longer_than_declared_is_caught(
    execute: Execute, toy: Dataset, tmp_path: Path, broken: Path
) -> None:
    for name, declared in (("Waits", "causal"), ("WaitsLonger", "to wait for 0.1 s of the future")):
        with pytest.raises(RealmbenchError, match=f"{name} is declared {declared}, but its predictions"):
            execute(toy, tmp_path, model=f"{broken}:{name}")
    message = r"the stream of KeepsBack lags by 0\.5 s, more than its declared look-ahead of 0 s"
    with pytest.raises(RealmbenchError, match=message):
        execute(toy, tmp_path, model=f"{broken}:KeepsBack")
    assert execute(toy, tmp_path, model=f"{broken}:WaitsAsDeclared")[0].look_ahead_s == 0.5
    with pytest.raises(RealmbenchError, match=r"declared to wait for 0\.5 s of the future, but its predictions"):
        execute(toy, tmp_path, model=f"{broken}:SeesMore")


def test_decoder_that_contradicts_itself_is_refused(
    execute: Execute, toy: Dataset, tmp_path: Path, broken: Path
) -> None:
    with pytest.raises(OptionError, match="NotYet overrides streams, by which runs hold it to its stream"):
        execute(toy, tmp_path, model=f"{broken}:NotYet")
    with pytest.raises(OptionError, match="FromNothing is zero_shot and not multi_session"):
        execute(toy, tmp_path, model=f"{broken}:FromNothing")
    with pytest.raises(OptionError, match=r"causal=True contradicts look_ahead_s=0\.2"):
        execute(toy, tmp_path, model=f"{broken}:CausalAndNot")
