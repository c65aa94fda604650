"""Running recorded runs again, to see whether they come out as recorded: elsewhere, or after a change of code.

What was run again is told in `reproduced.jsonl` beside the records (`records.Reproduction`). A run that came out the
same to the last bit with other code than its record's vouches for the records of its folder: the same method, data and
protocol need not be run again because a line was rewritten.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bank import Events, SessionBank
from .dataset import DATASETS, open_dataset
from .decoder import DECODERS
from .errors import OptionError, RealmbenchError, unknown_name
from .machine import limited_threads
from .options import leaves
from .plan import Plan, RunRequest, make_plan
from .records import HEADLINE, Reproduction, RunRecord, note_reproduction, read_record, record_files
from .runner import pretraining_key, run

# What another run of the same may say otherwise: when, where, with which code, how fast, and in which words.
PASSING = {
    *("suite", "code", "git_commit", "created", "versions", "device", "threads", "processes", "warnings"),
    *("seconds", "latency", "front_end_latency", "peak_memory_mb", "peak_memory_of_run", "peak_device_memory_mb"),
    "pretraining_key",  # compared before, where the record has one
}


@dataclass(frozen=True)
class Recorded:
    """A record and the file it stands in."""

    path: Path
    record: RunRecord

    @property
    def model_names(self) -> set[str]:
        """The names that its method goes by: the model's, and its folder's, which tells presets and options apart."""
        return {self.record.model, self.path.parent.name}

    @property
    def name(self) -> str:
        """Say in a line what it is."""
        record = self.record
        return f"{self.path.parent.name} on {record.dataset}, {record.front_end}, {record.session}, seed {record.seed}"


def choose(
    results_dir: Path,
    suite: str,
    models: Sequence[str] = (),
    datasets: Sequence[str] = (),
    session: str | None = None,
    seed: int | None = None,
    every: bool = False,
) -> list[Recorded]:
    """Return the records to be run again: of every method on every dataset the first session's lowest seed, or all.

    Parameters
    ----------
    models, datasets : only these, by the names that records have; a model also by its folder's (``gru.small``).

    Raises
    ------
    UnknownNameError : no record is of a model or dataset that is named.
    OptionError : nothing is left.
    """
    everything = [Recorded(path, read_record(path)) for path in record_files(results_dir / suite)]
    for kind, wanted, there in (
        ("model", models, {name for found in everything for name in found.model_names}),
        ("dataset", datasets, {found.record.dataset for found in everything}),
    ):
        for name in wanted:
            if everything and name not in there:
                raise unknown_name(f"{kind} among the records of suite {suite}", name, there)
    chosen: dict[tuple[Path, ...], Recorded] = {}
    for found in everything:
        path, record = found.path, found.record
        if (
            (models and not found.model_names & set(models))
            or (datasets and record.dataset not in datasets)
            or session not in (None, record.session)
            or seed not in (None, record.seed)
        ):
            continue
        # Files come sorted by name: the first of a folder is its first session's lowest seed.
        chosen.setdefault((path,) if every else (path.parent,), found)
    if not chosen:
        raise OptionError(f"suite {suite} in {results_dir} holds no such record")
    return list(chosen.values())


def reproduce(
    recorded: Recorded,
    data_root: Path | None,
    store: Path | None,
    events: Events,
    names: Mapping[str, str] | None = None,
    device: str = "cpu",
) -> Reproduction:
    """Run one record's run again and note what came out beside it.

    It runs with the record's number of threads.

    Parameters
    ----------
    store : folder for what pretraining leaves, shared by the records that are run again together; empty at first, so
        that everything is trained anew. None takes the cache's: what stages of unchanged code left there is used.
    names : by recorded name, how a model or dataset is called that no registry knows (``file.py:Class``).

    Raises
    ------
    RealmbenchError : the run fails, or cannot be the same one: its options, its data, its split or its points of
        calibration have changed.
    """
    record, names = recorded.record, names or {}
    for kind, name, known in (("dataset", record.dataset, DATASETS), ("model", record.model, DECODERS)):
        if name not in names and name.partition(":")[0] not in known:
            raise RealmbenchError(f"{recorded.name}: its {kind} is of a file; name it by --{kind} FILE.py:CLASS")
    dataset = open_dataset(names.get(record.dataset, record.dataset), data_root, record.data_options)
    plan = make_plan(_request(record, names.get(record.model, record.model), store, device), dataset)
    if plan.config_hash != record.config_hash:
        raise RealmbenchError(f"{recorded.name}: presets or options are not what they were: {_changed(plan, record)}")
    bank = SessionBank(dataset, events.stage)
    data_changed = bank.of(plan, record.session, "held-out").data.key != record.data_key
    if data_changed or record.pretraining_key not in (None, pretraining_key(record, plan, bank)):
        made_with = " and ".join(f"{name} {record.versions[name]}" for name in ("numpy", "scipy"))
        raise RealmbenchError(
            f"{recorded.name}: the data, their split or the front end have changed; or the recording is generated "
            f"and rounded otherwise, by this processor or without {made_with} (docs/synthetic-reach.md tells how to "
            "make the same)"
        )
    with tempfile.TemporaryDirectory() as folder, limited_threads(record.threads):
        [again] = run(plan, dataset, Path(folder), events, bank)
    entry = Reproduction(
        session=record.session,
        seed=record.seed,
        cached=store is None,
        recorded_code=record.code,
        code=again.code,
        recorded_r2=record.metrics[HEADLINE],
        r2=again.metrics[HEADLINE],
        largest_difference=_largest_difference(again, record),
        exact=_measured(again) == _measured(record),
        recorded_device=record.device,
        device=again.device,
        threads=again.threads,
        versions=again.versions,
        git_commit=again.git_commit,
        created=again.created,
    )
    note_reproduction(recorded.path.parent, entry)
    if set(again.r2_by_calibration) != set(record.r2_by_calibration):
        raise RealmbenchError(f"{recorded.name}: it is scored with other seconds of calibration than its record has")
    return entry


def _request(record: RunRecord, model: str, store: Path | None, device: str) -> RunRequest:
    values = leaves(record.config)
    options, train = (
        {name.removeprefix(prefix): values[name] for name in record.changed_options if name.startswith(prefix)}
        for prefix in ("decoder.", "train.")
    )
    return RunRequest(
        model=model,
        protocol=record.protocol,
        front_end=record.front_end,
        preset=record.preset,
        sessions=(record.session,),
        seeds=(record.seed,),
        device=device,
        options=options,
        train=train,
        audit=record.audit,  # type: ignore[arg-type]  # make_plan refuses unknown audits
        fresh=True,
        store=store,
    )


def _changed(plan: Plan, record: RunRecord) -> str:
    ours, theirs = leaves(plan.config), leaves(record.config)
    return ", ".join(
        f"{name} was {theirs.get(name)!r} and is {ours.get(name)!r}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    )


def _measured(record: RunRecord) -> dict[str, Any]:
    """Return what a run must say again to be the same."""
    content = record.model_dump(exclude=PASSING)
    # An artifact's address and seconds tell of code and time, not of what came out.
    content["artifacts"] = [(use.kind, use.parameters) for use in record.artifacts]
    content["curve"] = [point.model_dump(exclude={"seconds", "warnings"}) for point in record.curve]
    return content


def _largest_difference(first: RunRecord, second: RunRecord) -> float:
    """Return by how much R2 differs at most, of the runs' own and of the points of calibration that both have."""
    ours, theirs = first.r2_by_calibration, second.r2_by_calibration
    both = [(first.metrics[HEADLINE], second.metrics[HEADLINE])]
    both += [(ours[seconds], theirs[seconds]) for seconds in ours.keys() & theirs.keys()]
    return max(abs(one - other) for one, other in both)
