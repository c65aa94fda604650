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
from realmbench.decoder import Decoder

from .candidate import Candidate
from .causality import CAUSALITY
from .contract import CONTRACT
from .report import Check, Report, run_check


def check_decoder(
    model: str,
    dataset: Dataset | None = None,
    chain: str | None = None,
    short: bool = False,
    on_progress: Callable[[str, float], None] = lambda _text, _share: None,
) -> Report:
    """Run every check on a decoder.

    Parameters
    ----------
    model : registered name or ``file.py:Class``.
    dataset : its first fold is used; None takes a small simulated one.
    chain : name of a front end; None takes the first that the decoder accepts.
    short : fewer times and shorter streams, for continuous integration.

    Raises
    ------
    RealmbenchError : unknown model, or one that no front end serves.
    """
    with tempfile.TemporaryDirectory() as folder:
        candidate = Candidate(model, dataset, chain, short, Path(folder))
        everything = {**CONTRACT, **CAUSALITY}
        checks = []
        for number, (name, function) in enumerate(everything.items()):
            on_progress(f"{model}: {name}", number / len(everything))
            checks.append(run_check(name, function, candidate))
            if name == "learns and predicts" and checks[-1].status == "fail":
                break  # nothing else can be asked of it
        on_progress(f"{model}: done", 1.0)
    checks = _as_declared(checks, candidate.cls)
    return Report(model, tuple(checks), _verdict(model, checks, candidate.cls))


def _as_declared(checks: Sequence[Check], cls: type[Decoder]) -> list[Check]:
    """Count failed causality as declared for a decoder of the whole record, and demand that there is some."""
    if not np.isinf(cls.look_ahead_s):
        return list(checks)
    result = []
    for check in checks:
        if check.name in CAUSALITY and check.status == "fail":
            check = Check(check.name, "as declared", f"not causal: {check.detail}")
        elif check.name == "future replaced by noise" and check.status == "pass":
            check = Check(check.name, "fail", "declared to see the whole record, but nothing of the future reaches it")
        result.append(check)
    return result


def _verdict(model: str, checks: Sequence[Check], cls: type[Decoder]) -> str:
    failed = [check.name for check in checks if check.status == "fail"]
    if failed:
        return f"{model} fails {len(failed)} of {len(checks)} checks: {', '.join(failed)}."
    ran = sum(check.status != "not applicable" for check in checks)
    if cls.causal:
        return f"{model} passes all {ran} checks and is causal from the raw sample to the prediction."
    if np.isinf(cls.look_ahead_s):
        return (
            f"{model} passes all checks of a decoder that sees the whole record. It fails causality, as it declares: "
            "it cannot run in real time."
        )
    return f"{model} passes all {ran} checks and needs {cls.look_ahead_s:g} s of the future, as it declares."
