"""Each check of the conformance suite fails on a decoder that breaks just that part of the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from realmbench.conformance import Report, check_decoder
from realmbench.errors import OptionError, UnknownNameError

BASE = """
from typing import ClassVar
import numpy as np
from realmbench.decoder import Decoder, FlopCount, ParameterCount, Stream

class _Stream(Stream):
    def __init__(self, weights): self.weights = weights
    def step(self, frame): return frame.ravel() @ self.weights

class Honest(Decoder):
    "Least squares on the present frame."
    causal: ClassVar[bool] = True
    weights = None
    def adapt(self, session, context, artifact=None):
        with context.phase("fit"):
            x = np.concatenate([segment.x for segment in session.train])
            y = np.concatenate([segment.y for segment in session.train])
            flat = x.reshape(len(x), -1)
            self.weights = np.linalg.solve(flat.T @ flat + np.eye(flat.shape[1]), flat.T @ y)
    def predict(self, x, session):
        session.check_frames(x)
        return x.reshape(len(x), -1) @ self.fitted(self.weights)
    def stream(self, session): return _Stream(self.weights)
    def arrays(self): return {"weights": self.weights}
    def restore(self, arrays, session): self.weights = arrays["weights"]
    def flops(self, session): return FlopCount(2 * self.weights.size)
"""

BROKEN = {
    "declares what it is": '    presets: ClassVar = {}\n    causal: ClassVar[bool] = True\n    look_ahead_s = 0.1',
    "learns and predicts": '    def predict(self, x, session): return np.zeros((len(x), 5))',
    "any length": '''    def predict(self, x, session):
        super().predict(x, session)
        return np.resize(x.reshape(len(x), -1) @ self.weights, (max(len(x), 5), 2))[: max(len(x), 5)]''',
    "same seed, same numbers": '''    def adapt(self, session, context, artifact=None):
        super().adapt(session, context)
        self.weights = self.weights + 1e-4 * np.random.default_rng().standard_normal(self.weights.shape)''',
    "training timed": '''    def adapt(self, session, context, artifact=None):
        from realmbench.decoder import Context
        super().adapt(session, Context(0, "cpu", context.artifacts, context.checkpoints))''',
    "operations counted": '    def flops(self, session): return FlopCount(0)',
    "validation at rest": '''    def adapt(self, session, context, artifact=None):
        super().adapt(session, context)
        assert np.ptp(np.concatenate([segment.y for segment in session.validation])), "no R2"''',
    "parameters declared": '    def parameters(self): return ParameterCount(10**6, 1)',
    "save and load": '    def arrays(self): return {"weights": np.round(self.weights, 2)}',
    "wrong input refused": '''    def predict(self, x, session):
        return x.reshape(len(x), -1) @ np.resize(self.weights, (x[0].size, 2))''',
    "calls independent": '''    calls = 0
    def predict(self, x, session):
        self.calls += 1
        return super().predict(x, session) + 0.01 * self.calls''',
    "stream equals predict": '''    def stream(self, session):
        return _Stream(self.weights * 1.001)''',
    "stream in constant memory": '''    def stream(self, session):
        class Keeps(_Stream):
            def __init__(self, weights): super().__init__(weights); self.kept = []
            def step(self, frame): self.kept.append(frame); return super().step(frame)
        return Keeps(self.weights)''',
    "future replaced by noise": '''    def predict(self, x, session):
        return np.roll(super().predict(x, session), -3, axis=0)''',
    "length of the record": '''    def predict(self, x, session):
        return super().predict(x, session) - x.mean()''',
}  # fmt: skip


# What they break, and a word of what the check says.
MORE_BROKEN = {
    "complex": ("learns and predicts", "numbers of type complex128", '''
    def predict(self, x, session): return super().predict(x, session) + 0j'''),
    "a list": ("learns and predicts", "returned a list", '''
    def predict(self, x, session): return super().predict(x, session).tolist()'''),
    "exits": ("learns and predicts", "SystemExit: no licence", '''
    def adapt(self, session, context, artifact=None): raise SystemExit("no licence")'''),
    "precision of all": ("learns and predicts", "has set torch's default precision from", '''
    def adapt(self, session, context, artifact=None):
        import torch
        torch.set_default_dtype(torch.float64)
        super().adapt(session, context)'''),
    "writes into training data": ("learns and predicts", "adapt writes into session.train[0].x", '''
    def adapt(self, session, context, artifact=None):
        session.train[0].x[:, 0] = 0
        super().adapt(session, context)'''),
    "writes into statistics": ("learns and predicts", "adapt writes into session.normaliser.y_mean", '''
    def adapt(self, session, context, artifact=None):
        super().adapt(session, context)
        session.normaliser.y_mean[:] += 1'''),
    "writes into an artifact": ("learns and predicts", "adapt writes into artifact.arrays['start']", '''
    multi_session = True
    def pretrain(self, sessions, context):
        from realmbench.artifact import Trained
        return context.artifact("start", {}, sessions, lambda: Trained({"start": np.zeros(1)}, 1, []))
    def adapt(self, session, context, artifact=None):
        artifact.arrays["start"] += 1
        super().adapt(session, context)'''),
    "writes while it pretrains": ("learns and predicts", "pretrain writes into sessions[0].train[0].y", '''
    multi_session = True
    def pretrain(self, sessions, context):
        from realmbench.artifact import Trained
        sessions[0].train[0].y[:] += 1
        return context.artifact("start", {}, sessions, lambda: Trained({"start": np.zeros(1)}, 1, []))'''),
    "writes into frames": ("calls independent", "predict writes into the frames", '''
    def predict(self, x, session):
        output = super().predict(x, session)
        x *= 0.5
        return output'''),
    "all sessions in the class": ("same seed, same numbers", "with one on r0 in between", '''
    pool: ClassVar = []
    def adapt(self, session, context, artifact=None):
        super().adapt(session, context)
        self.pool.append(self.weights)
        self.weights = np.mean(self.pool, axis=0)'''),
    "weights in the class": ("same seed, same numbers", "kept outside of the instance", '''
    def adapt(self, session, context, artifact=None):
        super().adapt(session, context)
        type(self).weights = self.weights
        del self.weights'''),
    "needs training data to predict": ("save and load", "has no attribute 'train'", '''
    def predict(self, x, session): return super().predict(x, session) + 0 * session.train[0].y.mean()'''),
    "what it saw first": ("calls independent", "what is decoded first after loading", '''
    first = None
    def predict(self, x, session):
        output = super().predict(x, session)
        if self.first is None: self.first = output[:50].mean(0)
        return output - self.first'''),
    "one buffer for all, of the whole call": ("future replaced by noise", "earlier change", '''
    buffer = np.zeros((10**5, 2))
    def predict(self, x, session):
        output = super().predict(x, session)
        self.buffer[:len(x)] = output - output.mean(0)
        return self.buffer[:len(x)]'''),
    "steps of another shape": ("stream equals predict", "step of Candidate's stream returned (1, 2)", '''
    def stream(self, session):
        class Row(_Stream):
            def step(self, frame): return super().step(frame)[None]
        return Row(self.weights)'''),
}  # fmt: skip


# Decodes the frame two frames later, as its declared look-ahead permits or not.
LATE = """    causal: ClassVar[bool] = False
    look_ahead_s = {declared}
    def stream(self, session):
        late = round(0.04 * session.rate)
        class Late(_Stream):
            delay, seen = late, 0
            def step(self, frame):
                self.seen += 1
                return super().step(frame) if self.seen > late else np.full(2, np.nan)
        return Late(self.weights)
    def predict(self, x, session):
        output, late = super().predict(x, session), round(0.04 * session.rate)
        return np.concatenate([output[late:], output[-1:].repeat(late, axis=0)])[: len(x)]"""


def check(tmp_path: Path, body: str) -> Report:
    # A file is imported once under its path: every candidate needs one of its own.
    file = tmp_path / f"candidate_{len(list(tmp_path.glob('*.py')))}.py"
    file.write_text(f"{BASE}\nclass Candidate(Honest):\n    'A candidate.'\n{body}\n")
    return check_decoder(f"{file}:Candidate", short=True)


def failed(report: Report) -> set[str]:
    return {entry.name.removesuffix(", lfp100") for entry in report.checks if entry.failed}


def test_a_decoder_of_thirty_lines_passes(tmp_path: Path) -> None:
    report = check(tmp_path, "    pass")
    assert report.passed, report.verdict
    assert "is causal from the raw sample to the prediction" in report.verdict


@pytest.mark.parametrize("name", BROKEN)
def test_each_breach_is_caught_by_its_check(name: str, tmp_path: Path) -> None:
    report = check(tmp_path, BROKEN[name])
    assert name in failed(report), report
    assert not report.passed
    assert name in report.verdict


@pytest.mark.parametrize("name", MORE_BROKEN)
def test_accidents_of_honest_people_are_caught(name: str, tmp_path: Path) -> None:
    check_name, words, body = MORE_BROKEN[name]
    report = check(tmp_path, body)
    assert check_name in failed(report), report
    assert words in str(report)


def test_one_buffer_for_frames_and_predictions_is_no_breach(tmp_path: Path) -> None:
    report = check(tmp_path, """
    def predict(self, x, session):
        self.buffer = getattr(self, "buffer", np.zeros((10**5, 2)))
        self.buffer[:len(x)] = super().predict(x, session)
        return self.buffer[:len(x)]
    def stream(self, session):
        class Reuses(_Stream):
            buffer = np.zeros(2)
            def step(self, frame):
                self.buffer[:] = super().step(frame)
                frame *= 0
                return self.buffer
        return Reuses(self.weights)""")  # fmt: skip
    assert report.passed, report.verdict


def test_without_calibration_it_is_asked_again(tmp_path: Path) -> None:
    """What decodes honestly once it has been calibrated may still see a whole call before."""
    body = """
    multi_session = zero_shot = True
    def pretrain(self, sessions, context):
        from realmbench.artifact import Trained
        return context.artifact("nothing", {{}}, sessions, lambda: Trained({{"nothing": np.zeros(1)}}, 1, []))
    def adapt(self, session, context, artifact=None):
        if session.train: return super().adapt(session, context)
        self.weights = np.ones((session.channels * session.features, session.outputs))
    def predict(self, x, session):
        output = super().predict(x, session)
        return output - {factor} * output.mean(0) * bool((self.weights == 1).all())"""
    report = check(tmp_path, body.format(factor=0))
    assert report.passed, report.verdict
    assert sum(entry.name.endswith(", zero-shot") for entry in report.checks) == 11
    report = check(tmp_path, body.format(factor=1))
    assert {"future replaced by noise, zero-shot", "length of the record, zero-shot"} <= failed(report)
    assert all(name.endswith(", zero-shot") for name in failed(report))


def test_left_out_channel_that_counts_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: without the harness's mask, noise on a dead electrode would reach predictions."""
    from realmbench.session import Normaliser

    honest = Normaliser.input
    monkeypatch.setattr(Normaliser, "input", lambda self, frames, mask: honest(self, frames, mask | True))
    assert "left-out channels" in failed(check(tmp_path, "    def adapt(self, s, c, a=None):\n"
        "        super().adapt(s, c)\n        self.weights = self.weights + 0.1"))  # fmt: skip


def test_parameter_without_gradient_is_caught(tmp_path: Path) -> None:
    file = tmp_path / "network.py"
    file.write_text("""
from torch import nn
from realmbench.training.network_decoder import NetworkDecoder

class Net(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.out, self.unused = nn.Linear(inputs, outputs), nn.Linear(2, 2)
    def forward(self, x, mask): return self.out(x.flatten(2))
    def initial_state(self, batch): return None
    def step(self, frame, mask, state): return self.out(frame.flatten(1)), None

class Dead(NetworkDecoder):
    "Has a layer that it does not use."
    causal = True
    def build(self, session): return Net(session.channels * session.features, session.outputs)
""")
    report = check_decoder(f"{file}:Dead", short=True)
    assert failed(report) == {"gradient for every parameter"}
    assert "no gradient reaches unused.weight, unused.bias" in str(report)


def test_look_ahead_is_held_to_what_is_declared(tmp_path: Path) -> None:
    report = check(tmp_path, LATE.format(declared=0.04))
    assert report.passed, report.verdict
    assert "needs 0.04 s of the future, as it declares" in report.verdict
    assert "frames, 0.04 s late" in str(report)
    assert "future replaced by noise" in failed(check(tmp_path, LATE.format(declared=0.02)))
    # Honest predictions, from a stream that keeps them back.
    kept = LATE.replace("def predict", "def _unused").replace("False", "True")
    report = check(tmp_path, kept.format(declared=0.0))
    assert failed(report) == {"stream equals predict", "live chunks"}
    assert "the stream of Candidate lags by 0.04 s, more than its declared look-ahead of 0 s" in str(report)


def test_decoder_with_a_delay_must_stream(tmp_path: Path) -> None:
    """A delay is a promise to run in real time, and a promise is kept in frames."""
    refuses = LATE.format(declared=0.04) + "\n    def stream(self, session): return Decoder.stream(self, session)"
    report = check(tmp_path, refuses)
    assert {"stream equals predict", "stream in constant memory", "live chunks"} <= failed(report)
    assert "Candidate has not implemented a stream" in str(report)
    early = LATE.format(declared=0.04).replace("np.full(2, np.nan)", "np.zeros(2)")
    report = check(tmp_path, early)
    assert failed(report) == {"stream equals predict", "live chunks"}
    assert "the first 2 steps of Candidate's stream are of no frame and must be NaN" in str(report)


def test_a_decoder_of_the_whole_record_must_fail_causality(tmp_path: Path) -> None:
    body = """    causal: ClassVar[bool] = False
    look_ahead_s = float("inf")
    def stream(self, session): return Decoder.stream(self, session)"""
    report = check(tmp_path, body)
    assert failed(report) == {"future replaced by noise"}
    assert "nothing of the future reaches it" in str(report)
    sees = body + "\n    def predict(self, x, session): return super().predict(x, session)[::-1]"
    report = check(tmp_path, sees)
    assert report.passed
    assert "It fails causality, as it declares" in report.verdict
    assert {entry.status for entry in report.checks} >= {"as declared", "not applicable"}


def test_decoder_that_cannot_learn_ends_the_check(tmp_path: Path) -> None:
    report = check(tmp_path, "    def adapt(self, session, context, artifact=None): raise ValueError('no')")
    assert failed(report) == {"learns and predicts"}
    assert "ValueError: no" in str(report)


def test_crash_is_an_error_and_never_counts_as_declared(tmp_path: Path) -> None:
    body = """    causal: ClassVar[bool] = False
    look_ahead_s = float("inf")
    def stream(self, session): return Decoder.stream(self, session)
    def predict(self, x, session):
        if np.abs(x).max() >= 9.9: raise ZeroDivisionError("crash on artefacts")
        return super().predict(x, session)[::-1]"""
    report = check(tmp_path, body)
    assert "future replaced by noise" in failed(report)
    assert "ZeroDivisionError: crash on artefacts" in str(report)


def test_every_accepted_front_end_is_checked(tmp_path: Path) -> None:
    body = """    def predict(self, x, session):
        output = super().predict(x, session)
        return output if session.rate == 50 else np.roll(output, -3, axis=0)"""
    report = check(tmp_path, body)
    assert "future replaced by noise, lfp100" in [entry.name for entry in report.checks if entry.failed]
    assert "(front ends bands50, lfp100)" in check(tmp_path, "    pass").verdict


def test_decoder_that_ignores_the_lfp_is_not_called_causal(tmp_path: Path) -> None:
    body = """    def adapt(self, session, context, artifact=None):
        super().adapt(session, context)
        self.weights = 0 * self.weights"""
    report = check(tmp_path, body)
    assert report.passed
    assert report.verdict.endswith("its predictions ignore the LFP, so that causality is trivial.")


def test_bounded_window_is_constant_memory(tmp_path: Path) -> None:
    body = """    def stream(self, session):
        from collections import deque
        class Window(_Stream):
            def __init__(self, weights): super().__init__(weights); self.kept = deque(maxlen=256)
            def step(self, frame): self.kept.append(frame); return super().step(frame)
        return Window(self.weights)"""
    report = check(tmp_path, body)
    assert report.passed, report.verdict


def test_memory_that_grows_out_of_sight_is_caught(tmp_path: Path) -> None:
    body = """    def stream(self, session):
        class Hidden(_Stream):
            __slots__ = ("kept",)
            def __init__(self, weights): super().__init__(weights); self.kept = []
            def step(self, frame): self.kept.append(frame.copy()); return super().step(frame)
        return Hidden(self.weights)"""
    assert "stream in constant memory" in failed(check(tmp_path, body))


def test_long_look_ahead_of_a_network_can_be_checked(tmp_path: Path) -> None:
    file = tmp_path / "ahead.py"
    file.write_text("""
import torch
from torch import nn
from realmbench.training.network_decoder import NetworkDecoder

class Net(nn.Module):
    def __init__(self, inputs, outputs, ahead):
        super().__init__()
        self.out, self.look_ahead = nn.Linear(inputs, outputs), ahead
    def forward(self, x, mask):
        flat = nn.functional.pad(x.flatten(2), (0, 0, 0, self.look_ahead))
        return self.out(flat[:, self.look_ahead:])
    def initial_state(self, batch): return 0
    def step(self, frame, mask, seen):
        return self.out(frame.flatten(1)) if seen >= self.look_ahead else torch.full((1, 2), torch.nan), seen + 1

class Ahead(NetworkDecoder):
    "Decodes the frame 0.2 s later."
    causal, look_ahead_s = False, 0.2
    def build(self, session):
        return Net(session.channels * session.features, session.outputs, round(0.2 * session.rate))
""")
    report = check_decoder(f"{file}:Ahead", short=True)
    assert report.passed, report.verdict
    assert "needs 0.2 s of the future, as it declares" in report.verdict


def test_front_end_can_be_chosen(tmp_path: Path) -> None:
    report = check_decoder("mean", chain="lfp100", short=True)
    assert "lfp100, 6 channels x 1 features" in str(report)
    file = tmp_path / "picky.py"
    file.write_text(f"{BASE}\nclass Picky(Honest):\n    'Takes bands alone.'\n    inputs = ('bands',)\n")
    with pytest.raises(OptionError, match="accepts bands input, not that of lfp100"):
        check_decoder(f"{file}:Picky", chain="lfp100")


def test_unknown_model_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'wiener'"):
        check_decoder("wienr")


def test_device_that_a_decoder_cannot_use_is_refused() -> None:
    with pytest.raises(OptionError, match="wiener runs on the CPU alone"):
        check_decoder("wiener", short=True, device="meta")
    with pytest.raises(OptionError, match="--device nowhere cannot be used here"):
        check_decoder("gru", short=True, device="nowhere")
