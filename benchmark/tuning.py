"""Tuning: the same budget of trials for every model, on development sessions alone.

A trial is one set of options. It is tried on units of work: for a decoder that learns from one session, development
sessions; for one that learns across sessions, folds, in which the last development session stands for the held-out one.
It is cut as a held-out one, so that a trial is scored as a run is, on blocks that the decoder was not handed; they
belong to a session that no fold ever tests on. Sessions that a fold holds out are neither prepared nor loaded.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .bank import SessionBank
from .dataset import Dataset
from .decoder import Decoder
from .errors import OptionError, ProtocolError, RealmbenchError, unknown_name
from .files import lock_if_free
from .machine import device_description, git_commit, versions
from .options import leaves
from .plan import Plan
from .search import Choice, SearchDimension, space_as_json
from .seeds import stable_hash, stream_seed
from .tuning_record import SCORED, TuningRecord, TuningTrial, TuningUnit, read_tuning, tuning_path, write_tuning
from .tuning_study import PRUNER, SAMPLER, Study, require_optuna
from .tuning_trial import TrialRunner, fixed_options, tried

DEFAULT_SESSIONS = 4

# What must be equal for a study to go on where it stopped, and how a difference is told.
SAME = {
    "code": "the code has changed",
    "space": "the search space has changed",
    "data_key": "the data, their split or the front end have changed",
    "units": "the sessions differ",
    "scored": "trials were scored on other blocks",
    "protocol": "the protocol differs",
    "options": "the options fixed by --set differ",
    "seed": "the seed differs",
    "device": "the device differs",
    "sampler": "the sampler's settings have changed",
    "pruner": "the pruner's settings have changed",
}


@dataclass(frozen=True)
class Budget:
    """What one model may use; the same for every model, or the comparison is not fair.

    Attributes
    ----------
    trials, minutes : whichever is used up first; minutes of computing, those of earlier calls included.
    sessions : development sessions that a single-session decoder is tried on; None takes 4.
    """

    trials: int = 30
    minutes: float = 10.0
    sessions: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("trials", self.trials), ("sessions", self.sessions)):
            if value is not None and value < 1:
                raise OptionError(f"--{name} {value}: at least one is needed")
        if not 0 < self.minutes < float("inf"):
            raise OptionError(f"--minutes {self.minutes:g}: a number above 0 is needed")


@dataclass(frozen=True)
class TuningEvents:
    """How the tuner talks to whoever shows its progress: the work in hand, an ended trial, a plain sentence."""

    stage: Callable[[str, float], None] = lambda _text, _share: None
    trial: Callable[[TuningTrial], None] = lambda _trial: None
    note: Callable[[str], None] = lambda _text: None


def tune(
    plan: Plan,
    dataset: Dataset,
    results_dir: Path,
    budget: Budget,
    events: TuningEvents | None = None,
    only: Sequence[str] = (),
) -> TuningRecord:
    """Search a model's space within the budget, going on where an earlier call stopped, and return the record.

    Parameters
    ----------
    plan : its one seed serves sampler and trials alike; ``fresh`` forgets an earlier record.
    only : options of the space to search, the others being left as the preset has them; empty means all.

    Raises
    ------
    OptionError, ProtocolError : nothing to search, or no development sessions to search on.
    RealmbenchError : Optuna is not installed.
    """
    events = events or TuningEvents()
    space, defaults, units = check_tunable(plan, dataset, budget, only)
    bank = SessionBank(dataset, events.stage)
    # Prepared before the clock starts: how fast a disk is decides no budget.
    pretraining = {name: bank.of(plan, name, "pretrain").data for unit in units for name in unit.pretrain}
    held = {unit.session: bank.of(plan, unit.session, "held-out") for unit in units}
    data_key = stable_hash([data.key for data in (*pretraining.values(), *(session.data for session in held.values()))])
    folder, _, frames, method = plan.place(dataset)
    # A search of some options is another study, and must not take the place of the whole one's record.
    name = f"{method}.only-{stable_hash(sorted(space))[:6]}" if only else method
    path = tuning_path(results_dir, folder, frames, name)
    record = _empty_record(plan, dataset, units, data_key, space, defaults, budget)
    with _alone(path):
        if path.exists() and not plan.request.fresh:
            record = _continued(path, record, events.note)
        # Of its own for every model: one draw for all would tune eight models with the luck of one.
        seed = stream_seed(record.seed, "tuning", plan.model)
        study = Study(space, defaults, seed)
        for trial in record.counted:
            study.replay(trial, len(units))
        runner = TrialRunner(plan, units, pretraining, held, study, record.counted, events.stage)
        if _used_up(record):
            events.note(f"{plan.model}: the budget is used up; raise --trials or --minutes to go on, or say --fresh")
        while not _used_up(record):
            done = record.counted
            trial = runner.run(len(done), budget.minutes * 60 - record.seconds_used, len(done) / budget.trials)
            record = record.with_trials([*done, trial], record.seconds_used + trial.seconds)
            write_tuning(record, path)
            events.trial(trial)
    return record


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep others from writing a study while this one does: the later would take the earlier one's trials away."""
    lock = lock_if_free(path)
    if lock is None:
        raise RealmbenchError(f"another process is tuning {path.name}; wait for it, or give another --results-dir")
    try:
        yield
    finally:
        lock.release()


def check_tunable(
    plan: Plan, dataset: Dataset, budget: Budget, only: Sequence[str] = ()
) -> tuple[dict[str, SearchDimension], dict[str, Any], list[TuningUnit]]:
    """Refuse what cannot be tuned before anything is computed; return space, defaults and what trials are tried on.

    Raises
    ------
    RealmbenchError : as `tune`.
    """
    require_optuna()
    if len(plan.request.seed_numbers) != 1:
        raise OptionError(f"tuning takes one seed, not {len(plan.request.seed_numbers)}")
    space = searched(plan, only)
    defaults = _options_by_name(plan.config, space, f"option in the search space of {plan.model}")
    _refuse_what_every_trial_would(plan, space, defaults)
    return space, defaults, tuning_units(plan, dataset, budget.sessions)


def _refuse_what_every_trial_would(
    plan: Plan, space: Mapping[str, SearchDimension], defaults: Mapping[str, Any]
) -> None:
    """Refuse a searched option that the decoder refuses at every other value, as beside what the user fixed it may."""
    for name, dimension in space.items():
        tries = dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)
        refusals = [_refusal(plan, {name: value}) for value in tries if not dimension.same(value, defaults[name])]
        if all(refusals):
            raise OptionError(f"{name} cannot be searched: {refusals[-1]}; name by --only what is to be searched")


def _refusal(plan: Plan, params: Mapping[str, Any]) -> OptionError | None:
    """Return why the decoder refuses these options, or None where it takes them."""
    try:
        tried(plan, params).decoder()
    except OptionError as error:
        return error
    return None


def tuning_units(plan: Plan, dataset: Dataset, sessions: int | None = None) -> list[TuningUnit]:
    """Return what every trial is tried on, made of pretraining sessions that no fold holds out.

    Raises
    ------
    ProtocolError : there are too few such sessions.
    OptionError : more ``sessions`` than there are, or any for a decoder that is tried on folds.
    """
    folds = plan.protocol.folds(dataset)
    held_out = {name for fold in folds for name in fold.held_out}
    development = {fold.name: [name for name in fold.pretrain if name not in held_out] for fold in folds}
    needed = 2 if plan.decoder_class.multi_session else 1
    for fold, found in development.items():
        if len(found) < needed:
            raise ProtocolError(
                f"{plan.model} cannot be tuned on {dataset.full_name}: in fold {fold}, {len(found)} of the pretraining "
                f"sessions are held out nowhere, and at least {needed} must be; tune on another dataset"
            )
    if plan.decoder_class.multi_session:
        if sessions is not None:
            raise OptionError(f"{plan.model} learns across sessions and is tuned on folds; leave --sessions out")
        return [TuningUnit(fold=fold, pretrain=found[:-1], session=found[-1]) for fold, found in development.items()]
    owners = {name: fold for fold, found in development.items() for name in found}
    turns = itertools.chain.from_iterable(itertools.zip_longest(*development.values()))
    chosen = [name for name in dict.fromkeys(turns) if name is not None][: sessions or DEFAULT_SESSIONS]
    if sessions is not None and len(chosen) < sessions:
        raise OptionError(f"--sessions {sessions}: {dataset.full_name} has {len(chosen)} that no fold holds out")
    return [TuningUnit(fold=owners[name], pretrain=[], session=name) for name in chosen]


def searched(plan: Plan, only: Sequence[str] = ()) -> dict[str, SearchDimension]:
    """Return the options to search, by their ``--set`` names: ``only`` these of the declared space, or all of it.

    Raises
    ------
    OptionError : the model declares no search space, or the user fixed a searched option.
    UnknownNameError : ``only`` names what is not declared.
    """
    declared = plan.decoder_class.search_space
    if not declared:
        raise OptionError(f"{plan.model} declares no search_space; there is nothing to tune")
    for name in only:
        if name not in declared:
            raise unknown_name(f"option in the search space of {plan.model}", name, declared)
    space = {name: dimension for name, dimension in declared.items() if name in only or not only}
    for name in fixed_options(plan):
        if name in space:
            raise OptionError(f"--set {name} fixes what {plan.model} is searched over; leave it out")
    return space


def unfrozen(record: TuningRecord, decoder_class: type[Decoder]) -> list[str]:
    """Return the searched options whose preset values in the code are not the best that the record found.

    Numbers are equal if they agree to three significant digits. Nothing is unfrozen where no trial was completed.
    """
    best = record.best_params or {}
    options = decoder_class(record.preset).config
    values = _options_by_name(options, best, f"option tuned in {record.model}.{record.preset}")
    space = decoder_class.search_space
    return [
        name
        for name, value in best.items()
        if not (space[name].same(value, values[name]) if name in space else value == values[name])
    ]


def _empty_record(
    plan: Plan,
    dataset: Dataset,
    units: list[TuningUnit],
    data_key: str,
    space: Mapping[str, SearchDimension],
    defaults: dict[str, Any],
    budget: Budget,
) -> TuningRecord:
    import torch

    [seed] = plan.request.seed_numbers
    return TuningRecord(
        model=plan.model,
        preset=plan.request.preset,
        options=fixed_options(plan),
        space=space_as_json(space),
        code=plan.code,
        dataset=dataset.full_name,
        dataset_identity=dataset.identity,
        data_key=data_key,
        protocol=plan.protocol.name,
        front_end=plan.front_end.name,
        units=units,
        scored=SCORED,
        sampler=SAMPLER,
        pruner=PRUNER,
        seed=seed,
        device=plan.request.device,
        trials_allowed=budget.trials,
        minutes_allowed=budget.minutes,
        trials=[],
        defaults=defaults,
        defaults_value=None,
        best_trial=None,
        best_params=None,
        best_value=None,
        seconds_used=0.0,
        machine=device_description(plan.request.device),
        threads=torch.get_num_threads(),
        versions=versions() | {"optuna": version("optuna")},
        git_commit=git_commit(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _continued(path: Path, fresh: TuningRecord, note: Callable[[str], None]) -> TuningRecord:
    """Return the record with the trials of the file if they still hold, else set it aside, say why, begin with none."""
    try:
        earlier = read_tuning(path)
        reasons = [reason for name, reason in SAME.items() if getattr(earlier, name) != getattr(fresh, name)]
    except RealmbenchError as error:
        reasons = [str(error)]
    if reasons:
        note(f"tuning {path.name} anew: {', '.join(reasons)}; what it held is in {_set_aside(path).name}")
        return fresh
    note(f"going on after {len(earlier.counted)} trials of {path.name}")
    return fresh.with_trials(earlier.trials, earlier.seconds_used).model_copy(update={"created": earlier.created})


def _set_aside(path: Path) -> Path:
    """Give a file the first free name of those with a number, and return it."""
    names = (path.with_suffix(f".{number}.older") for number in itertools.count(1))
    free = next(name for name in names if not name.exists())
    return path.rename(free)


def _used_up(record: TuningRecord) -> bool:
    return len(record.counted) >= record.trials_allowed or record.seconds_used >= record.minutes_allowed * 60


def _options_by_name(config: Mapping[str, Any], names: Iterable[str], kind: str) -> dict[str, Any]:
    """Look dotted names up in a decoder's configuration."""
    known = leaves(config)
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)
    return {name: known[name] for name in names}
