"""Optuna's study, spoken to in the names and values of this project. Optuna is imported when a study is made."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .errors import RealmbenchError
from .search import Choice, SearchDimension, json_text
from .seeds import stream_seed
from .tuning_record import State, TuningTrial

# The first trials are drawn at random, the defaults aside; then the sampler learns from those before.
SAMPLER: dict[str, Any] = {"name": "TPESampler", "n_startup_trials": 10}
# After one, two, four, ... units a trial goes on if it is in the better half of those that came so far.
PRUNER: dict[str, Any] = {"name": "SuccessiveHalvingPruner", "min_resource": 1, "reduction_factor": 2}


def require_optuna() -> None:
    """Refuse to tune without Optuna.

    Raises
    ------
    RealmbenchError : it is not installed; says how to install it.
    """
    if importlib.util.find_spec("optuna") is None:
        raise RealmbenchError("tuning needs Optuna, which is not installed: pip install 'realmbench[tune]'")


class Study:
    """A search that proposes options and learns what came of them.

    Parameters
    ----------
    space : what is searched, by ``--set`` names.
    defaults : the preset's values; trial 0 runs those that lie inside the space.
    seed : of the proposals.
    """

    def __init__(self, space: Mapping[str, SearchDimension], defaults: Mapping[str, Any], seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._defaults, self._seed = space, defaults, seed
        self._distributions = {name: _distribution(dimension) for name, dimension in space.items()}
        pruner = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=PRUNER["min_resource"], reduction_factor=PRUNER["reduction_factor"]
        )
        self._study = optuna.create_study(direction="maximize", pruner=pruner)

    def propose(self, number: int, params: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a trial, with given options or the sampler's, and return Optuna's trial and the options."""
        import optuna

        # Seeded by the number: a study that was interrupted proposes what it would have proposed without.
        seed = stream_seed(self._seed, "trial", number) % 2**32
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=SAMPLER["n_startup_trials"])
        if number == 0 and params is None:
            params = {name: value for name, value in self._defaults.items() if self._space[name].contains(value)}
        if params:
            self._study.enqueue_trial(
                {name: json_text(value) if self._is_choice(name) else value for name, value in params.items()}
            )
        trial = self._study.ask(self._distributions)
        return trial, {
            name: json.loads(value) if self._is_choice(name) else value for name, value in trial.params.items()
        }

    def behind(self, trial: Any, values: Sequence[float], units: int) -> bool:
        """Report the mean of the units so far, and say whether the trial is to be pruned before the next."""
        trial.report(float(np.mean(values)), len(values))
        return len(values) < units and trial.should_prune()

    def end(self, trial: Any, state: State, value: float | None) -> None:
        """Tell how a trial ended; one that failed or was stopped teaches the sampler nothing."""
        from optuna.trial import TrialState

        told = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        self._study.tell(trial, value, state=told.get(state, TrialState.FAIL))

    def replay(self, recorded: TuningTrial, units: int) -> None:
        """Put a recorded trial back, so that sampler and pruner know what they knew."""
        trial, _ = self.propose(recorded.number, recorded.params)
        for count in range(1, len(recorded.unit_values) + 1):
            self.behind(trial, recorded.unit_values[:count], units)
        self.end(trial, recorded.state, recorded.value)

    def _is_choice(self, name: str) -> bool:
        return isinstance(self._space[name], Choice)


def _distribution(dimension: SearchDimension) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.texts)  # Optuna's choices cannot be lists
    if dimension.integer:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
