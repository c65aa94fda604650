"""The tuning record: one JSON file per model and preset, written whole after every trial.

It holds all trials, the failed ones too, so that anyone can see what was tried before the presets were frozen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import RealmbenchError
from .files import write_text_whole

TUNING_FOLDER = "tuning"
# What of a unit's session scores a trial. Records made before `scored` was written have the other value.
SCORED = "test blocks of development sessions, cut as held-out ones"

State = Literal["complete", "pruned", "failed", "stopped"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TuningUnit(_Part):
    """One piece of a trial's work: what is learnt from before, and the session on which the trial is scored."""

    fold: str
    pretrain: list[str]  # empty for decoders that learn from one session alone
    session: str


class TuningTrial(_Part):
    """One set of options and what came of it."""

    number: int
    params: dict[str, Any]  # by the names that --set uses
    # pruned: behind the others after some units; stopped: unfinished when the budget ended, and not counted.
    state: State
    value: float | None  # mean over all units; None unless complete
    unit_values: list[float]  # R2 (axis mean) on what `scored` names of each unit's session
    seconds: float
    reason: str | None = None  # why it failed


class TuningRecord(_Part):
    """Everything about the tuning of one model with one preset on one dataset and front end."""

    schema_version: Literal[1] = 1
    # what was tuned
    model: str
    preset: str
    options: dict[str, Any]  # what the user fixed by --set
    space: dict[str, dict[str, Any]]  # as the decoder declares it
    code: str  # fingerprint of decoder, training, front end and protocol sources
    # on what
    dataset: str
    dataset_identity: str
    data_key: str  # hash of the prepared development sessions
    protocol: str
    front_end: str
    units: list[TuningUnit]
    scored: str = "all validation segments"
    # how
    sampler: dict[str, Any]
    pruner: dict[str, Any]
    seed: int
    device: str
    trials_allowed: int
    minutes_allowed: float
    # what came out
    trials: list[TuningTrial]
    defaults: dict[str, Any]  # the preset's values of the searched options
    defaults_value: float | None  # None where the defaults lie outside the space or were not completed
    best_trial: int | None
    best_params: dict[str, Any] | None
    best_value: float | None
    seconds_used: float
    # where and with what
    machine: str
    threads: int
    versions: dict[str, str]
    git_commit: str | None
    created: str

    @property
    def counted(self) -> list[TuningTrial]:
        """The trials that the budget counts."""
        return [trial for trial in self.trials if trial.state != "stopped"]

    def with_trials(self, trials: Sequence[TuningTrial], seconds_used: float) -> TuningRecord:
        """Return a copy that holds these trials and what follows from them."""
        complete = [trial for trial in trials if trial.value is not None]
        # The earliest of equals, so that a tie keeps the defaults.
        best = max(complete, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)
        default = next((trial.value for trial in complete if trial.params == self.defaults), None)
        found = {
            "trials": list(trials),
            "defaults_value": default,
            "best_trial": best.number if best else None,
            "best_params": best.params if best else None,
            "best_value": best.value if best else None,
            "seconds_used": seconds_used,
        }
        return self.model_copy(update=found)

    @property
    def sentence(self) -> str:
        """What came out, in words."""
        trials = "1 trial" if len(self.counted) == 1 else f"{len(self.counted)} trials"
        heading = f"{self.model} ({self.preset}) on {self.dataset}, {self.front_end}: "
        if self.best_params is None or self.best_value is None:
            reasons = "; ".join(dict.fromkeys(trial.reason for trial in self.trials if trial.reason))
            return f"{heading}none of {trials} was completed ({reasons or 'more --minutes are needed'})"
        defaults = "not completed" if self.defaults_value is None else f"{self.defaults_value:.3f}"
        found = f"{heading}best of {trials}: {self.best_value:.3f} on development sessions (the defaults: {defaults}); "
        changed = {name: value for name, value in self.best_params.items() if value != self.defaults[name]}
        if not changed:
            return f"{found}keep the defaults"
        return f"{found}set {' '.join(f'{name}={as_text(value)}' for name, value in changed.items())}"


def as_text(value: Any) -> str:
    """Write an option's value as ``--set`` takes it, fractions to three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value, separators=(",", ":"))


def tuning_path(results_dir: Path, dataset: str, front_end: str, method: str) -> Path:
    """Return where a record stands: ``tuning/dataset/front-end/method.json``."""
    return results_dir / TUNING_FOLDER / dataset.replace(":", "~") / front_end / f"{method}.json"


def write_tuning(record: TuningRecord, path: Path) -> None:
    """Write a record whole."""
    write_text_whole(path, json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=False) + "\n")


def read_tuning(path: Path) -> TuningRecord:
    """Read one record.

    Raises
    ------
    RealmbenchError : the file is missing or is not a tuning record; the message names the first offending key.
    """
    try:
        return TuningRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        detail = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            detail = f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"
        raise RealmbenchError(f"{path} is not a tuning record ({detail})") from error
