"""One run: a decoder adapted to one held-out session with one seed, scored, timed, and put into a record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from .artifact import Artifact, ArtifactRecord, ArtifactStore
from .bank import Events, SessionBank
from .cost import PeakMemory, decoder_latency, front_end_latency, stream_bytes
from .dataset import Dataset, Fold
from .decoder import Context, Decoder
from .evaluation import Evaluation, check_stream, evaluate
from .machine import device_description, git_commit, peak_device_memory_mb, reset_device_memory, versions
from .plan import Plan
from .preparation import Prepared, prepare_session
from .records import ArtifactUse, CurvePoint, RunRecord
from .session import SessionData
from .uncertainty import LEAK_ERRORS, block_sums, errors_above_ceiling


@dataclass(frozen=True)
class SingleRun:
    """Everything that one run needs.

    Attributes
    ----------
    artifact : what pretraining on the fold left; None for single-session decoders.
    bank : prepared sessions, shared by the runs of a process.
    """

    plan: Plan
    fold: Fold
    session: str
    seed: int
    artifact: Artifact | None
    bank: SessionBank
    events: Events

    @property
    def dataset(self) -> Dataset:
        return self.bank.dataset

    def record(self) -> RunRecord:
        """Train, score and time; return the record."""
        import torch

        memory = PeakMemory()
        reset_device_memory(self.plan.request.device)
        curve = self._curve()
        prepared = self.bank.of(self.plan, self.session, "held-out")
        decoder, evaluation, context = self._fit_and_score(prepared)
        if decoder.streams:
            check_stream(decoder, prepared)
        threads = torch.get_num_threads()
        device = device_description(self.plan.request.device)
        latency = decoder_latency(decoder, prepared.data, device) if decoder.streams else None
        front_end = self.plan.front_end
        bandwidth = front_end.bandwidth(prepared.channels.channels, prepared.sampling_rate)
        parameters, flops = decoder.parameters(), decoder.flops(prepared.data)
        ceiling = self.dataset.ceiling(self.session, decoder.look_ahead_s)
        uses = _artifact_chain(self.artifact.record, context.artifacts) if self.artifact is not None else []
        info = self.dataset.session(self.session)
        self.events.stage(f"scored {self.session}", 1.0)
        return RunRecord(
            suite=self.plan.suite,
            model=self.plan.model,
            preset=self.plan.request.preset,
            config=self.plan.config,
            changed_options=self.plan.changed_options,
            config_hash=self.plan.config_hash,
            code=self.plan.code,
            causal=decoder.causal,
            look_ahead_s=decoder.look_ahead_s if decoder.look_ahead_s != float("inf") else None,
            dataset=self.dataset.full_name,
            dataset_identity=self.dataset.identity,
            dataset_version=self.dataset.info.version,
            data_options=self.dataset.changed_options,
            fold=self.fold.name,
            held_out_sessions=[name for each in self.plan.protocol.folds(self.dataset) for name in each.held_out],
            session=self.session,
            subject=info.subject,
            day=info.day,
            training_sessions=[*self._pretrained_on(), self.session],
            front_end=front_end.name,
            front_end_left_out=list(prepared.left_out),
            channels=prepared.channels,
            protocol=self.plan.protocol.name,
            leaky=self.plan.protocol.leaky,
            split=prepared.manifest,
            split_hash=prepared.manifest.hash,
            data_key=prepared.data.key,
            train_s=prepared.manifest.seconds("train"),
            validation_s=prepared.manifest.seconds("validation"),
            test_s=prepared.manifest.seconds("test"),
            seed=self.seed,
            audit=self.plan.request.audit,
            metrics=evaluation.metrics,
            axes=evaluation.axes,
            blocks=evaluation.blocks,
            calibration_s=self.bank.stages(self.session, self.plan.protocol)[-1].calibration_s,
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
            front_end_latency=front_end_latency(
                front_end, prepared.channels.channels, prepared.sampling_rate, device_description("cpu")
            ),
            group_delay_s=front_end.group_delays(prepared.sampling_rate),
            sampled_kbit_s=bandwidth.sampled,
            frames_kbit_s=bandwidth.frames,
            stream_bytes=stream_bytes(decoder, prepared.data) if decoder.streams else None,
            peak_memory_mb=memory.megabytes(),
            peak_memory_of_run=memory.of_run,
            peak_device_memory_mb=peak_device_memory_mb(self.plan.request.device),
            device=device,
            threads=threads,
            processes=self.plan.request.processes,
            versions=versions(),
            git_commit=git_commit(),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            warnings=[
                *([sentence] if (sentence := prepared.channels.sentence()) else []),
                *context.warnings,
                *_leak_warning(evaluation, ceiling),
            ],
        )

    def _pretrained_on(self) -> tuple[str, ...]:
        """Return the sessions that the artifact has seen: of the fold's, some decoders use fewer."""
        return self.artifact.record.sessions if self.artifact is not None else ()

    def _curve(self) -> list[CurvePoint]:
        """Train and score the stages before the last, each from the pretrained start again."""
        points = []
        for stage in self.bank.stages(self.session, self.plan.protocol)[:-1]:
            assert stage.calibration_s is not None
            references: list[SessionData] = []
            if stage.calibration_s == 0:
                if not self.plan.decoder().zero_shot:
                    continue
                references = [self.bank.of(self.plan, name, "pretrain").data for name in self._pretrained_on()]
            prepared = prepare_session(
                self.dataset,
                self.session,
                stage,
                self.plan.front_end,
                shift_target=self.plan.request.shift_target,
                on_progress=self.events.stage,
                references=references,
                privileged=self.plan.decoder_class.privileged if stage.calibration_s else None,
            )
            _, evaluation, context = self._fit_and_score(prepared)
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
            r2 = evaluation.metrics["r2_axis_mean"]
            self.events.note(f"{self.session}, {stage.calibration_s:g} s: R2 {r2:.3f}")
        return points

    def _fit_and_score(self, prepared: Prepared) -> tuple[Decoder, Evaluation, Context]:
        context = self.plan.context(self.seed, self.events.stage)
        decoder = self.plan.decoder()
        decoder.adapt(prepared.data, context, self.artifact)
        self.events.stage(f"scoring {prepared.data.name}", 0.0)
        with context.phase("predict"):
            evaluation = evaluate(decoder, prepared)
        return decoder, evaluation, context


def _leak_warning(evaluation: Evaluation, ceiling: float | None) -> list[str]:
    if ceiling is None:
        return []
    above = errors_above_ceiling([block_sums([evaluation.blocks])], [ceiling])
    if above is None or above <= LEAK_ERRORS:
        return []
    return [
        f"LEAK: R2 is {above:.1f} standard errors above {ceiling:.3f}, the highest that the declared look-ahead permits"
    ]


def _artifact_chain(record: ArtifactRecord, store: ArtifactStore) -> list[ArtifactUse]:
    """List an artifact and, before it, everything that it was made from."""
    chain = [use for parent in record.parents for use in _artifact_chain(store.record_of(parent), store)]
    return [
        *chain,
        ArtifactUse(kind=record.kind, hash=record.hash, parameters=record.parameters, seconds=record.seconds),
    ]
