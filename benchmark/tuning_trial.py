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
from .decoder import Decoder
from .errors import ProtocolError, RealmbenchError
from .machine import versions
from .metrics import r2_axis_mean
from .plan import Plan
from .seeds import stable_hash
from .session import Segment, SessionData
from .tuning_record import State, TuningTrial, TuningUnit
from .tuning_study import Study


def fixed_options(plan: Plan) -> dict[str, Any]:
    """Return what the user fixed by ``--set decoder.`` and ``--set train.``."""
    groups = {"decoder": plan.request.options, "train": plan.request.train}
    return {f"{prefix}.{name}": value for prefix, values in groups.items() for name, value in values.items()}


def without_scored(data: SessionData) -> tuple[SessionData, tuple[Segment, ...]]:
    """Take every other validation segment from what the decoder is handed, to score the trial on.

    A decoder may do with its validation part what it likes: stop its training by it, choose a strength, and fit to it
    in the end. A score on the same samples would reward that.

    Returns
    -------
    the session with the rest of its validation segments, and the segments taken.

    Raises
    ------
    ProtocolError : there is only one segment.
    """
    if len(data.validation) < 2:
        raise ProtocolError(
            f"{data.name} has {len(data.validation)} validation segment, and tuning needs one for the decoder and one "
            "to score it; tune with another protocol"
        )
    # A key of its own: unfinished training of the whole session's is not to be taken up.
    handed = replace(data, validation=data.validation[::2], key=stable_hash([data.key, "tuning"]))
    return handed, data.validation[1::2]


def score_on(decoder: Decoder, data: SessionData, segments: Sequence[Segment]) -> float:
    """Return R2 (axis mean) over concatenated segments of a session, their warm-up left out.

    Raises
    ------
    RealmbenchError : wrong shape, values that are not finite, or a target that does not vary.
    """
    truths, predictions = [], []
    for segment in segments:
        output = np.asarray(decoder.predict(segment.x, data))
        if output.shape != segment.y.shape:
            raise RealmbenchError(f"predict returned {output.shape} on {data.name}, expected {segment.y.shape}")
        if not np.isfinite(output).all():
            raise RealmbenchError(f"predict returned NaN or infinite values on {data.name}")
        truths.append(segment.y[segment.warm_up :])
        predictions.append(output[segment.warm_up :])
    score = r2_axis_mean(np.concatenate(truths), np.concatenate(predictions))
    if not np.isfinite(score):
        raise RealmbenchError(f"{data.name}: a target is constant over the scored segments; R2 has no meaning")
    return score


class TrialRunner:
    """Measures sets of options unit by unit until each is done, behind the others, failed, or out of time.

    Parameters
    ----------
    data : prepared sessions by name.
    earlier : trials of an earlier call.

    Raises
    ------
    ProtocolError : as `without_scored`.
    """

    def __init__(
        self,
        plan: Plan,
        units: Sequence[TuningUnit],
        data: Mapping[str, SessionData],
        study: Study,
        earlier: Sequence[TuningTrial],
        on_progress: Callable[[str, float], None],
    ) -> None:
        self._plan, self._units, self._data, self._study = plan, units, data, study
        self._split = {unit.session: without_scored(data[unit.session]) for unit in units}
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
            with tempfile.TemporaryDirectory(prefix="realmbench-tuning-") as folder:
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
        """Learn one unit with a fresh decoder and score it on segments of its session that were not handed in."""
        groups: dict[str, dict[str, Any]] = {"decoder": {}, "train": {}}
        for name, value in {**fixed_options(self._plan), **params}.items():
            prefix, _, option = name.partition(".")
            groups[prefix][option] = value
        request = replace(self._plan.request, options=groups["decoder"], train=groups["train"])
        tried = replace(self._plan, request=request)
        context = replace(
            self._plan.context(request.seed_numbers[0], progress),
            artifacts=ArtifactStore(folder, self._plan.code, versions()),
        )
        artifact = None
        if unit.pretrain:
            artifact = tried.decoder().pretrain([self._data[name] for name in unit.pretrain], context)
        session, scored = self._split[unit.session]
        decoder = tried.decoder()
        decoder.adapt(session, context, artifact)
        return score_on(decoder, session, scored)
