"""Running one decoder over held-out sessions and seeds: resumes what is finished, writes one record per run.

Everything that can be refused has been refused by `plan.make_plan`. Per fold and seed, pretraining runs once; then, per
held-out session, adaptation, scoring and the record.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .artifact import Artifact, ArtifactRecord, ArtifactStore
from .cost import PeakMemory, decoder_latency, front_end_latency, stream_bytes
from .dataset import Dataset, Fold
from .decoder import Context, Decoder
from .errors import RealmbenchError
from .evaluation import Evaluation, check_stream, evaluate
from .files import cache_dir
from .front_end import FrontEnd
from .machine import device_description, git_commit, peak_device_memory_mb, versions
from .manifest import SessionRole
from .plan import Plan
from .preparation import Prepared, prepare_session
from .protocol import Protocol
from .records import ArtifactUse, CurvePoint, RunRecord, read_record, record_path, write_failure, write_record
from .session import SessionData
from .uncertainty import LEAK_ERRORS, block_sums, errors_above_ceiling


@dataclass(frozen=True)
class Events:
    """How the runner talks to whoever shows its progress.

    Attributes
    ----------
    stage : a sentence and the share done of the work in hand.
    done : a run's record, and whether it was finished before.
    failed : a run's path and the one-line reason.
    note : a plain sentence.
    """

    stage: Callable[[str, float], None] = lambda _text, _share: None
    done: Callable[[RunRecord, bool], None] = lambda _record, _reused: None
    failed: Callable[[Path, str], None] = lambda _path, _reason: None
    note: Callable[[str], None] = lambda _text: None


class FailedRunsError(RealmbenchError):
    """Some runs failed; ``records`` holds those of the runs that did not."""

    def __init__(self, message: str, records: list[RunRecord]) -> None:
        super().__init__(message)
        self.records = records


class SessionBank:
    """Prepared sessions, each made once per process."""

    def __init__(self, dataset: Dataset, on_progress: Callable[[str, float], None]) -> None:
        self.dataset = dataset
        self._on_progress = on_progress
        self._prepared: dict[tuple[Any, ...], Prepared] = {}
        self._stages: dict[tuple[str, str], Sequence[Protocol]] = {}

    def get(
        self, session: str, protocol: Protocol, frames: FrontEnd, role: SessionRole, shift_target: bool
    ) -> Prepared:
        """Return a session prepared for training, or for the last stage of its protocol, on the first call."""
        key = (session, protocol.name, frames.name, role, shift_target)
        if key not in self._prepared:
            cut = self.stages(session, protocol)[-1] if role == "held-out" else protocol
            self._prepared[key] = prepare_session(
                self.dataset, session, cut, frames, role, shift_target, self._on_progress
            )
        return self._prepared[key]

    def stages(self, session: str, protocol: Protocol) -> Sequence[Protocol]:
        """Return the cuts that a run of this session goes through."""
        key = (session, protocol.name)
        if key not in self._stages:
            self._stages[key] = protocol.stages(self.dataset.load(session))
        return self._stages[key]

    def keep_only(self, sessions: Iterable[str]) -> None:
        """Forget the sessions of other folds, so that memory holds one fold."""
        wanted = set(sessions)
        self._prepared = {key: value for key, value in self._prepared.items() if key[0] in wanted}


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
            context = _context(plan, seed, events)
            for session in fold.held_out:
                path = record_path(results_dir, plan.suite, *plan.place(dataset), session, seed)
                pretraining = False
                try:
                    finished = _finished(path, plan, dataset, session, bank, events)
                    if finished is not None:
                        records.append(finished)
                        events.done(finished, True)
                        continue
                    if plan.decoder_class.multi_session and artifact is None:
                        pretraining = True
                        artifact = _pretrain(plan, fold, context, bank)
                    pretraining = False
                    record = _run_one(plan, dataset, fold, session, seed, artifact, bank, events)
                    write_record(record, path)
                except Exception as error:
                    write_failure(path, traceback.format_exc())
                    reason = str(error) if isinstance(error, RealmbenchError) else f"{type(error).__name__}: {error}"
                    what = f"pretraining of fold {fold.name}" if pretraining else session
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


def _run_one(
    plan: Plan,
    dataset: Dataset,
    fold: Fold,
    session: str,
    seed: int,
    artifact: Artifact | None,
    bank: SessionBank,
    events: Events,
) -> RunRecord:
    import torch

    memory = PeakMemory()
    curve = _curve(plan, dataset, fold, session, seed, artifact, bank, events)
    prepared = _prepared(plan, session, "held-out", bank)
    decoder, evaluation, context = _fit_and_score(plan, prepared, seed, artifact, events)
    if decoder.causal:
        check_stream(decoder, prepared)
    threads = torch.get_num_threads()
    device = device_description(plan.request.device)
    latency = decoder_latency(decoder, prepared.data, device) if decoder.causal else None
    front_end = plan.front_end
    parameters, flops = decoder.parameters(), decoder.flops(prepared.data)
    ceiling = dataset.ceiling(session, decoder.look_ahead_s)
    uses = _artifact_chain(artifact.record, context.artifacts) if artifact is not None else []
    info = dataset.session(session)
    events.stage(f"scored {session}", 1.0)
    return RunRecord(
        suite=plan.suite,
        model=plan.model,
        preset=plan.request.preset,
        config=plan.config,
        changed_options=plan.changed_options,
        config_hash=plan.config_hash,
        code=plan.code,
        causal=decoder.causal,
        look_ahead_s=decoder.look_ahead_s if decoder.look_ahead_s != float("inf") else None,
        dataset=dataset.full_name,
        dataset_identity=dataset.identity,
        dataset_version=dataset.info.version,
        data_options=dataset.changed_options,
        fold=fold.name,
        held_out_sessions=[name for each in plan.protocol.folds(dataset) for name in each.held_out],
        session=session,
        subject=info.subject,
        day=info.day,
        training_sessions=[*(fold.pretrain if decoder.multi_session else ()), session],
        front_end=front_end.name,
        front_end_left_out=list(prepared.left_out),
        channels=prepared.channels,
        protocol=plan.protocol.name,
        leaky=plan.protocol.leaky,
        split=prepared.manifest,
        split_hash=prepared.manifest.hash,
        data_key=prepared.data.key,
        train_s=prepared.manifest.seconds("train"),
        validation_s=prepared.manifest.seconds("validation"),
        test_s=prepared.manifest.seconds("test"),
        seed=seed,
        audit=plan.request.audit,
        metrics=evaluation.metrics,
        axes=evaluation.axes,
        blocks=evaluation.blocks,
        calibration_s=bank.stages(session, plan.protocol)[-1].calibration_s,
        curve=curve,
        training_mean=prepared.data.normaliser.y_mean.tolist(),
        ceiling=ceiling,
        parameters_deployed=parameters.deployed,
        parameters_trained=parameters.trained,
        artifacts=uses,
        seconds=context.seconds,
        flops_per_step=flops.per_step,
        flops_elementwise=flops.elementwise,
        flops_uncounted=list(flops.uncounted),
        latency=latency,
        front_end_latency=front_end_latency(front_end, prepared.channels.channels, prepared.sampling_rate, device),
        group_delay_s=front_end.group_delays(prepared.sampling_rate),
        stream_bytes=stream_bytes(decoder, prepared.data) if decoder.causal else None,
        peak_memory_mb=memory.megabytes(),
        peak_memory_of_run=memory.of_run,
        peak_device_memory_mb=peak_device_memory_mb(plan.request.device),
        device=device,
        threads=threads,
        versions=versions(),
        git_commit=git_commit(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        warnings=[
            *([sentence] if (sentence := prepared.channels.sentence()) else []),
            *context.warnings,
            *_leak_warning(evaluation, ceiling),
        ],
    )


def _curve(
    plan: Plan,
    dataset: Dataset,
    fold: Fold,
    session: str,
    seed: int,
    artifact: Artifact | None,
    bank: SessionBank,
    events: Events,
) -> list[CurvePoint]:
    """Train and score the stages before the last, each from the pretrained start again."""
    points = []
    for stage in bank.stages(session, plan.protocol)[:-1]:
        assert stage.calibration_s is not None
        references: list[SessionData] = []
        if stage.calibration_s == 0:
            if not plan.decoder().zero_shot:
                continue
            references = [_prepared(plan, name, "pretrain", bank).data for name in fold.pretrain]
        shifted = plan.request.audit == "shifted-target"
        prepared = prepare_session(
            dataset, session, stage, plan.front_end, "held-out", shifted, events.stage, references
        )
        _, evaluation, context = _fit_and_score(plan, prepared, seed, artifact, events)
        points.append(
            CurvePoint(
                calibration_s=stage.calibration_s,
                metrics=evaluation.metrics,
                blocks=evaluation.blocks,
                seconds=context.seconds,
                split_hash=prepared.manifest.hash,
                warnings=context.warnings,
            )
        )
        events.note(f"{session}, {stage.calibration_s:g} s: R2 {evaluation.metrics['r2_axis_mean']:.3f}")
    return points


def _fit_and_score(
    plan: Plan, prepared: Prepared, seed: int, artifact: Artifact | None, events: Events
) -> tuple[Decoder, Evaluation, Context]:
    context = _context(plan, seed, events)
    decoder = plan.decoder()
    decoder.adapt(prepared.data, context, artifact)
    events.stage(f"scoring {prepared.data.name}", 0.0)
    with context.phase("predict"):
        evaluation = evaluate(decoder, prepared)
    return decoder, evaluation, context


def _leak_warning(evaluation: Evaluation, ceiling: float | None) -> list[str]:
    if ceiling is None:
        return []
    above = errors_above_ceiling([block_sums([evaluation.blocks])], [ceiling])
    if not above > LEAK_ERRORS:
        return []
    return [
        f"LEAK: R2 is {above:.1f} standard errors above {ceiling:.3f}, the highest that the declared look-ahead permits"
    ]


def _pretrain(plan: Plan, fold: Fold, context: Context, bank: SessionBank) -> Artifact:
    sessions = [_prepared(plan, name, "pretrain", bank).data for name in fold.pretrain]
    return plan.decoder().pretrain(sessions, context)


def _prepared(plan: Plan, session: str, role: SessionRole, bank: SessionBank) -> Prepared:
    return bank.get(session, plan.protocol, plan.front_end, role, plan.request.audit == "shifted-target")


def _artifact_chain(record: ArtifactRecord, store: ArtifactStore) -> list[ArtifactUse]:
    """List an artifact and, before it, everything that it was made from."""
    chain = [use for parent in record.parents for use in _artifact_chain(store.record_of(parent), store)]
    return [
        *chain,
        ArtifactUse(kind=record.kind, hash=record.hash, parameters=record.parameters, seconds=record.seconds),
    ]


def _context(plan: Plan, seed: int, events: Events) -> Context:
    return Context(
        seed=seed,
        device=plan.request.device,
        artifacts=ArtifactStore(cache_dir() / "artifacts", plan.code, versions()),
        checkpoints=cache_dir() / "checkpoints",
        on_progress=events.stage,
    )


def _finished(
    path: Path, plan: Plan, dataset: Dataset, session: str, bank: SessionBank, events: Events
) -> RunRecord | None:
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
    if record.code != plan.code:
        reasons.append("the code has changed since")
    if record.data_key != _prepared(plan, session, "held-out", bank).data.key:
        reasons.append("data, split or front end have changed since")
    if reasons:
        events.note(f"running {path.name} of {plan.method} again: {', '.join(reasons)}")
        return None
    return record
