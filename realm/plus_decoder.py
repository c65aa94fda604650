"""`realm-student-plus`: REALM with a teacher that knows the task and a read-in for every session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import BaseModel, Field
from torch import nn

from realmbench.artifact import Artifact
from realmbench.decoder import Context, ParameterCount, Preset
from realmbench.search import SearchDimension
from realmbench.session import Session, SessionData
from realmbench.steady import steadied
from realmbench.training.loop import TrainOptions
from realmbench.training.masking import MaskingOptions
from realmbench.training.network_decoder import load_arrays_into

from .decoders import RealmBase, RealmStudent
from .options import NetworkOptions, StudentTrainOptions, stage_presets
from .plus import (
    Aligned,
    HandDownOptions,
    PlusConfig,
    PlusNetwork,
    hand_down,
    learn,
    make_network,
    train_task_teacher,
    validation_r2,
)
from .pretraining import pretrain_teacher
from .read_in import ReadInOptions, Weights, fit_read_in, with_read_in


class PlusOptions(NetworkOptions):
    """Everything of `realm-student-plus`.

    Attributes
    ----------
    masking : corruptions of the teacher's masked autoencoding.
    drop_path : of the teacher, as of `TeacherOptions`.
    read_in : the session's own linear read-in.
    steady_s : time constant in seconds of the normaliser that goes on learning; null leaves it out.
    hand_down : what the student learns from the teacher.
    freeze_tokenizer : fine-tuning leaves the tokenizer as it is.
    """

    masking: MaskingOptions = MaskingOptions()
    drop_path: float = Field(0.0, ge=0, lt=1)
    read_in: ReadInOptions = ReadInOptions()
    steady_s: float | None = Field(30.0, gt=0)
    hand_down: HandDownOptions = HandDownOptions()
    freeze_tokenizer: bool = False


class PlusTrainOptions(StudentTrainOptions):
    """Training of four stages: masked autoencoding, the teacher's task (``task``), student, held-out session."""

    task: TrainOptions = TrainOptions()


class RealmStudentPlus(RealmBase):
    """REALM's student of a teacher that has learnt the task, with a linear read-in fitted to every session."""

    multi_session: ClassVar[bool] = True
    depends_on: ClassVar[tuple[str, ...]] = (
        *RealmBase.depends_on,
        "realmbench.realm.decoders",
        "realmbench.realm.plus",
        "realmbench.realm.read_in",
    )
    Options: ClassVar[type[BaseModel]] = PlusOptions
    TrainOptions: ClassVar[type[BaseModel]] = PlusTrainOptions
    presets: ClassVar[Mapping[str, Preset]] = stage_presets("teacher", "task", "student", "finetune")
    search_space: ClassVar[Mapping[str, SearchDimension]] = RealmStudent.search_space
    options: PlusOptions
    train_options: PlusTrainOptions  # type: ignore[assignment]

    @property
    def zero_shot(self) -> bool:
        """With the mean of the pretraining sessions' read-ins."""
        return True

    def sizes(self) -> Mapping[str, int]:
        """There is no published one."""
        return {}

    def parameters(self) -> ParameterCount:
        """Count the read-in too: it is fitted to the session and used at every step."""
        counted, network = super().parameters(), self.fitted(self.network)
        read_in = sum(buffer.numel() for buffer in network.buffers())
        return ParameterCount(counted.deployed + read_in, counted.trained + read_in)

    def build(self, session: Session) -> nn.Module:
        return make_network(self.plus_config(session))

    def plus_config(self, session: Session, **changes: Any) -> PlusConfig:
        """Describe the network; ``changes`` are of the encoder."""
        encoder = self.encoder_config(session, **changes)
        options = self.options
        return PlusConfig(encoder=encoder, read_in=options.read_in, steady_s=options.steady_s, outputs=session.outputs)

    def pretrain(self, sessions: Sequence[SessionData], context: Context) -> Artifact:
        options, train = self.options, self.train_options
        student = self.plus_config(sessions[0])
        teacher = self.plus_config(sessions[0], causal=False, drop_path=options.drop_path)
        aligned = Aligned(sessions, options.read_in, options.steady_s, context)
        masked = pretrain_teacher(teacher.encoder, options.masking, train.teacher, sessions, context)
        told = train_task_teacher(teacher, train.task, aligned, sessions, context, masked)
        return hand_down(student, teacher, options.hand_down, train.student, aligned, sessions, context, told)

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        """Fit the read-in, choose between it and the pretraining sessions' mean, and fine-tune.

        The read-ins are compared on all that neither network nor read-in has learnt from: validation, and the training
        part with the outputs of read-ins that were fitted to other stretches of it. What ends below the zero-shot
        network on validation gives way to it.
        """
        artifact = self.pretrained(artifact)
        with context.phase("fit"):
            network = self.network = self.fresh(session, context, "fit")
            assert isinstance(network, PlusNetwork)
            load_arrays_into(network, artifact.arrays)
            network.eval()
            if not session.train:
                return
            options = self.options.read_in
            session = steadied(session, self.options.steady_s)
            mean = Weights(artifact.arrays["read_in.weight"], artifact.arrays["read_in.offset"])
            fitted = fit_read_in(session, options, mean)
            shared = with_read_in(session, mean, options)
            starts = [(shared, mean), (fitted.session, fitted.weights)]
            unseen = [replace(start, validation=(*start.train, *start.validation)) for start, _ in starts]
            scores = [validation_r2(network, [start], context.device)() for start in unseen]
            carried, weights = starts[int(scores[1] > scores[0])]
            zero_shot = validation_r2(network, [shared], context.device)()
            network.read_in.set(weights)
            network.encoder.tokenizer.requires_grad_(not self.options.freeze_tokenizer)
            stage = f"fine-tuning on {session.name}"
            config: dict[str, Any] = {**self.identity, "start": artifact.hash}
            checkpoint = context.checkpoint(stage, config, [session])
            result = learn(network, [carried], self.train_options.finetune, context, stage, checkpoint)
            context.seconds["fit"] = context.seconds.get("fit", 0.0) + result.earlier_seconds
            if max(entry["score"] for entry in result.history) < zero_shot:
                load_arrays_into(network, artifact.arrays)
                context.warnings.append(f"{stage}: it ended below the zero-shot network on validation, which is kept")
