"""One trial of tuning: a set of options measured on units of work, by their score on development sessions."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .artifact import ArtifactStore
from .errors import RealmbenchError
from .evaluation import evaluate
from .machine import versions
from .others_code import others_code
from .plan import Plan
from .preparation import Prepared
from .seeds import stable_hash
from .session import SessionData
from .tuning_record import State, TuningTrial, TuningUnit
from .tuning_study import Study


def fixed_options(plan: Plan) -> dict[str, Any]:
    """Return what the user fixed by ``--set decoder.`` and ``--set train.``."""
    groups = {"decoder": plan.request.options, "train": plan.request.train}
    return {f"{prefix}.{name}": value for prefix, values in groups.items() for name, value in values.items()}


def tried(plan: Plan, params: Mapping[str, Any]) -> Plan:
    """Return the plan with these options, by their ``--set`` names, beside what the user fixed."""
    groups: dict[str, dict[str, Any]] = {"decoder": {}, "train": {}}
    for name, value in {**fixed_options(plan), **params}.items():
        prefix, _, option = name.partition(".")
        groups[prefix][option] = value
    return replace(plan, request=replace(plan.request, options=groups["decoder"], train=groups["train"]))


class TrialRunner:
    """Measures sets of options unit by unit until each is done, behind the others, failed, or out of time.

    Parameters
    ----------
    pretraining : prepared pretraining sessions by name.
    held : by name the sessions that a decoder is adapted to, prepared as held-out ones.
    earlier : trials of an earlier call.
    """

    def __init__(
        self,
        plan: Plan,
        units: Sequence[TuningUnit],
        pretraining: Mapping[str, SessionData],
        held: Mapping[str, Prepared],
        study: Study,
        earlier: Sequence[TuningTrial],
        on_progress: Callable[[str, float], None],
    ) -> None:
        self._plan, self._units, self._study = plan, units, study
        self._pretraining, self._held = pretraining, held
        self._on_progress = on_progress
        # Options that come up again are not measured again: seeds are fixed, so the scores would be the same.
        self._measured = {stable_hash(trial.params): trial.unit_values for trial in earlier if trial.state != "failed"}

    def run(self, number: int, seconds_left: float, share: float) -> TuningTrial:
        """Run one trial; ``share`` of the study is done."""
        started = time.perf_counter()
        proposal, params = self._study.propose(number)
        known = self._measured.get(stable_hash(params), [])
        values: list[float] = []

        def progress(unit: TuningUnit) -> Callable[[str, float], None]:
            return lambda text, _share: self._on_progress(f"trial {number}, {unit.session}: {text}", share)

        state: State = "complete"
        reason = None
        try:
            # What pretraining leaves is of no use to another trial, and a study would fill the store.
            with others_code("the decoder"), tempfile.TemporaryDirectory(prefix="realmbench-tuning-") as folder:
                for index, unit in enumerate(self._units):
                    if time.perf_counter() - started >= seconds_left:
                        state = "stopped"
                        break
                    if index < len(known):
                        values.append(known[index])
                    else:
                        values.append(self._measure(unit, params, Path(folder), progress(unit)))
                    if self._study.behind(proposal, values, len(self._units)):
                        state = "pruned"
                        break
        except Exception as error:
            # Options may break anything, memory included; the study goes on without them.
            state, reason = "failed", str(error) if isinstance(error, RealmbenchError) else f"{error!r}"
        value = float(np.mean(values)) if state == "complete" else None
        self._study.end(proposal, state, value)
        if state in ("complete", "pruned"):
            self._measured[stable_hash(params)] = values
        return TuningTrial(
            number=number,
            params=params,
            state=state,
            value=value,
            unit_values=values,
            seconds=time.perf_counter() - started,
            reason=reason,
        )

    def _measure(
        self, unit: TuningUnit, params: Mapping[str, Any], folder: Path, progress: Callable[[str, float], None]
    ) -> float:
        """Learn one unit with a fresh decoder and score it as a run would be, R2 (axis mean) on the test blocks."""
        plan = tried(self._plan, params)
        context = replace(
            plan.context(plan.request.seed_numbers[0], progress),
            artifacts=ArtifactStore(folder, self._plan.code, versions()),
        )
        artifact = None
        if unit.pretrain:
            artifact = plan.decoder().pretrain([self._pretraining[name] for name in unit.pretrain], context)
        decoder, session = plan.decoder(), self._held[unit.session]
        decoder.adapt(session.data, context, artifact)
        return evaluate(decoder, session).metrics["r2_axis_mean"]
