"""`realmbench check MODEL`: every check on one decoder, held to what it declares.

Causality checks are of what the decoder declares: one that looks at the whole record must fail them, and the report
says so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from realmbench.dataset import Dataset
from realmbench.decoder import DECODERS, Decoder
from realmbench.others_code import others_code
from realmbench.plan import ready_for

from .candidate import Candidate, accepted_front_ends
from .causality import CAUSALITY
from .contract import CONTRACT, DEAF
from .report import Check, Report, run_check

LEARNS = "learns and predicts"
# What is asked again on every further front end, and without calibration.
AGAIN = {name: CONTRACT[name] for name in (LEARNS, "listens to the LFP", "stream equals predict")}
ZERO_SHOT = "zero-shot"


def check_decoder(
    model: str,
    dataset: Dataset | None = None,
    chain: str | None = None,
    short: bool = False,
    on_progress: Callable[[str, float], None] = lambda _text, _share: None,
    device: str = "cpu",
) -> Report:
    """Run every check on a decoder.

    Parameters
    ----------
    model : registered name or ``file.py:Class``.
    dataset : its first fold is used; None takes a small simulated one.
    chain : name of a front end; None takes all that the decoder accepts.
    short : fewer times and shorter streams, for continuous integration.
    device : where it is fitted and predicts; what is saved there is loaded on the CPU and must predict the same.

    Raises
    ------
    RealmbenchError : unknown model or device, one that does not run there, or one that no front end serves.
    """
    with others_code(model):
        cls = DECODERS.get(model)
        also_zero_shot = "tiny" in cls.presets and cls("tiny").zero_shot
    ready_for(model, cls, device)
    checks: list[Check] = []
    chains = accepted_front_ends(model, chain)
    # The contract is one; causality, and the stream that proves it, are of every front end, and of what predicts
    # without a second of calibration.
    rounds = [(each, {**(AGAIN if place else CONTRACT), **CAUSALITY}, False) for place, each in enumerate(chains)]
    if also_zero_shot:
        rounds.append((chains[0], {**AGAIN, "calls independent": CONTRACT["calls independent"], **CAUSALITY}, True))
    for place, (each, wanted, zero_shot) in enumerate(rounds):
        where = ZERO_SHOT if zero_shot else each.name
        with tempfile.TemporaryDirectory() as folder:
            candidate = Candidate(model, dataset, each, short, Path(folder), device, zero_shot)
            for number, (name, function) in enumerate(wanted.items()):
                on_progress(f"{model}, {where}: {name}", (place + number / len(wanted)) / len(rounds))
                title = f"{name}, {where}" if place else name
                checks.append(_as_declared(run_check(title, function, candidate), name, candidate.cls))
                if name == LEARNS and checks[-1].failed:
                    break  # nothing else can be asked of it
    on_progress(f"{model}: done", 1.0)
    return Report(model, tuple(checks), _verdict(model, checks, cls, [each.name for each in chains]))


def _as_declared(check: Check, name: str, cls: type[Decoder]) -> Check:
    """Count failed causality as declared for a decoder of the whole record, and demand that there is some."""
    if np.isinf(cls.look_ahead_s) and name in CAUSALITY:
        if check.status == "fail":
            return Check(check.name, "as declared", f"not causal: {check.detail}")
        if name == "future replaced by noise" and check.status == "pass":
            return Check(check.name, "fail", "declared to see the whole record, but nothing of the future reaches it")
    return check


def _verdict(model: str, checks: Sequence[Check], cls: type[Decoder], chains: Sequence[str]) -> str:
    failed = [check.name for check in checks if check.failed]
    if failed:
        return f"{model} fails {len(failed)} of {len(checks)} checks: {', '.join(failed)}."
    ran = sum(check.status != "not applicable" for check in checks)
    where = f" (front ends {', '.join(chains)})" if len(chains) > 1 else f" (front end {chains[0]})"
    if any(check.detail == DEAF for check in checks):
        return f"{model} passes all {ran} checks; {DEAF}."
    if cls.causal:
        return f"{model} passes all {ran} checks and is causal from the raw sample to the prediction{where}."
    if np.isinf(cls.look_ahead_s):
        return (
            f"{model} passes all checks of a decoder that sees the whole record. It fails causality, as it declares: "
            "it cannot run in real time."
        )
    return f"{model} passes all {ran} checks and needs {cls.look_ahead_s:g} s of the future, as it declares{where}."
