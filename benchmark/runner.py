"""Running one decoder over held-out sessions and seeds: resumes what is finished, writes one record per run.

Everything that can be refused has been refused by `plan.make_plan`. Per fold and seed, pretraining runs once; then, per
held-out session, adaptation, scoring and the record (`held_run`).
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from .artifact import Artifact
from .bank import Events, SessionBank
from .dataset import Dataset, Fold
from .decoder import Context
from .errors import RealmbenchError
from .held_run import HeldRun
from .others_code import others_code
from .plan import Plan
from .preparation import Prepared
from .pretrainings import keep
from .records import RunRecord, failed_path, read_record, record_path, same_code, write_failure, write_record
from .seeds import stable_hash

__all__ = ["Events", "FailedRunsError", "SessionBank", "run"]


class FailedRunsError(RealmbenchError):
    """Some runs failed; ``records`` holds those of the runs that did not."""

    def __init__(self, message: str, records: list[RunRecord]) -> None:
        super().__init__(message)
        self.records = records


def run(plan: Plan, dataset: Dataset, results_dir: Path, events: Events, bank: SessionBank) -> list[RunRecord]:
    """Run a plan and return the records of all its runs, finished earlier or now.

    A run that fails leaves its traceback beside where its record would stand, the others go on, and the first failure
    is raised at the end. An interruption leaves finished runs whole; the next call goes on from there.

    Raises
    ------
    FailedRunsError : at least one run failed; names the first reason, and holds the records of the others.
    """
    records: list[RunRecord] = []
    failures: list[str] = []
    for fold in plan.folds:
        bank.keep_only([*fold.pretrain, *fold.held_out])
        for seed in plan.request.seed_numbers:
            artifact: Artifact | None = None
            context = plan.context(seed, events.stage)
            for session in fold.held_out:
                path = record_path(results_dir, plan.suite, *plan.place(dataset), session, seed)
                pretraining = False
                try:
                    finished = _finished(path, plan, session, bank, events)
                    if finished is not None:
                        failed_path(path).unlink(missing_ok=True)
                        records.append(finished)
                        events.done(finished, True)
                        continue
                    if plan.decoder_class.multi_session and artifact is None:
                        pretraining = True
                        artifact = pretrain_on(plan, fold, context, bank)
                    pretraining = False
                    record = HeldRun(plan, fold, session, seed, artifact, bank, events).record()
                    record = with_pretraining(record, plan, bank, context)
                    if record.artifacts:
                        keep(path.parent, [context.artifacts.record_of(use.hash) for use in record.artifacts])
                    write_record(record, path)
                except (Exception, SystemExit) as error:  # a loader that exits ends its own run, not all
                    write_failure(path, traceback.format_exc())
                    reason = str(error) if isinstance(error, RealmbenchError) else _told(error, plan)
                    what = f"pretraining of fold {fold.name}" if pretraining else session
                    artifact = None  # it may have been written into; the store has it whole
                    failures.append(f"{what}, seed {seed}: {reason}")
                    events.failed(path, failures[-1])
                    if pretraining:
                        break  # it would fail in the same way for the fold's other sessions
                    continue
                records.append(record)
                events.done(record, False)
    if failures:
        more = f" (and {len(failures) - 1} more failures)" if len(failures) > 1 else ""
        raise FailedRunsError(f"{plan.request.model}: {failures[0]}{more}", records)
    return records


def _told(error: BaseException, plan: Plan) -> str:
    """Say what an unforeseen error was, and the line of the decoder's file, or else the last one, that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    file = getattr(sys.modules.get(plan.decoder_class.__module__), "__file__", None)
    own = [frame for frame in frames if frame.filename == file]
    place = (own or frames)[-1]
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})"


def pretrain_on(plan: Plan, fold: Fold, context: Context, bank: SessionBank) -> Artifact:
    """Pretrain the plan's decoder on a fold; what the store already holds is not trained again."""
    handed = [bank.of(plan, name, "pretrain") for name in fold.pretrain]
    selection: list[Prepared] = []
    if plan.protocol.leaky:
        selection = [bank.of(plan, name, "held-out") for name in fold.held_out]
        context.selection = [prepared.data for prepared in selection]
    with others_code(plan.request.model), bank.left_alone(plan.request.model, [*handed, *selection]):
        return plan.decoder().pretrain([prepared.data for prepared in handed], context)


def with_pretraining(record: RunRecord, plan: Plan, bank: SessionBank, context: Context) -> RunRecord:
    """Add what is known of pretraining: of what data it was, and what it warned of, now or when it was trained."""
    warnings = [*context.warnings, *record.warnings]
    return record.model_copy(update={"warnings": warnings, "pretraining_key": pretraining_key(record, plan, bank)})


def pretraining_key(record: RunRecord, plan: Plan, bank: SessionBank) -> str | None:
    """Return the content address of the other sessions that a run learnt from; None if there are none."""
    others = [name for name in record.training_sessions if name != record.session]
    there = {info.name for info in bank.dataset.sessions()}
    keys = [bank.of(plan, name, "pretrain").data.key if name in there else None for name in others]
    return stable_hash(keys) if others else None


def _finished(path: Path, plan: Plan, session: str, bank: SessionBank, events: Events) -> RunRecord | None:
    """Return the record of a finished run that still holds; say why if one is there and does not."""
    if plan.request.fresh or not path.exists():
        return None
    try:
        record = read_record(path)
    except RealmbenchError as error:
        events.note(f"running again: {error}")
        return None
    reasons = []
    if record.config_hash != plan.config_hash:
        reasons.append("its options differ")
    if not same_code(path.parent, record.code, plan.code):
        reasons.append("the code has changed since")
    if record.data_key != bank.of(plan, session, "held-out").data.key:
        reasons.append("data, split or front end have changed since")
    elif record.pretraining_key not in (None, pretraining_key(record, plan, bank)):
        reasons.append("the data of its pretraining have changed since")
    if reasons:
        events.note(f"running {path.name} of {plan.method} again: {', '.join(reasons)}")
        return None
    return record
