"""`realm-student-plus`: a teacher that knows the task, a read-in for every session; and `realm-teacher-plus`."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, Field
from torch import nn

from realmbench.artifact import Artifact
from realmbench.decoder import Context, ParameterCount, Preset
from realmbench.search import SearchDimension
from realmbench.session import Session, SessionData
from realmbench.steady import steadied
from realmbench.training.loop import TrainOptions, best_score
from realmbench.training.masking import MaskingOptions
from realmbench.training.network_decoder import conclude, load_arrays_into

from .base import RealmBase, Trainings
from .decoders import RealmStudent, RealmTeacher
from .encoder import EncoderConfig
from .options import NetworkOptions, TeacherTrainOptions
from .plus import (
    HandDownOptions,
    PlusConfig,
    PlusNetwork,
    Rehearsed,
    hand_down,
    learn,
    make_network,
    train_task_teacher,
    validation_r2,
)
from .presets import stage_presets
from .pretraining import pretrain_teacher
from .read_in import ReadInOptions, fit_read_in, no_weights, with_read_in


class TaughtOptions(NetworkOptions):
    """Everything of `realm-teacher-plus`.

    Attributes
    ----------
    masking : corruptions of the teacher's masked autoencoding.
    drop_path : of the teacher, as of `TeacherOptions`.
    read_in : the session's own linear read-in.
    steady_s : time constant in seconds of the normaliser that goes on learning; null leaves it out.
    target_prior_s : the target's statistics are mixed with other sessions' as if these had been so many seconds of this
        one; 0 takes the session's own alone.
    freeze_tokenizer : fine-tuning leaves the tokenizer as it is.
    """

    masking: MaskingOptions = MaskingOptions()
    drop_path: float = Field(0.0, ge=0, lt=1)
    read_in: ReadInOptions = ReadInOptions()
    steady_s: float | None = Field(30.0, gt=0)
    target_prior_s: float = Field(30.0, ge=0)
    freeze_tokenizer: bool = False


class PlusOptions(TaughtOptions):
    """Everything of `realm-student-plus`.

    Attributes
    ----------
    hand_down : what the student learns from the teacher.
    """

    hand_down: HandDownOptions = HandDownOptions()


class TaughtTrainOptions(TeacherTrainOptions):
    """Training of three stages: masked autoencoding, the teacher's task (``task``), held-out session."""

    task: TrainOptions = TrainOptions()


class PlusTrainOptions(TaughtTrainOptions):
    """Training of all four stages."""

    student: TrainOptions = TrainOptions()


class _Plus(RealmBase):
    """What teacher and student share: the network, and how a held-out session changes it."""

    multi_session: ClassVar[bool] = True
    depends_on: ClassVar[tuple[str, ...]] = (
        *RealmBase.depends_on,
        "realmbench.realm.decoders",
        "realmbench.realm.plus",
        "realmbench.realm.pretrained_plus",
        "realmbench.realm.read_in",
    )
    options: TaughtOptions
    train_options: TaughtTrainOptions  # type: ignore[assignment]

    @property
    def zero_shot(self) -> bool:
        """With a silent read-in, where the task has been learnt before."""
        return self.task_updates > 0

    @property
    @abstractmethod
    def task_updates(self) -> int:
        """With how many updates its own network learns the task on the pretraining sessions."""

    def idle_options(self) -> dict[str, str]:
        idle = super().idle_options()
        if not self.options.read_in.horizons_s:
            names = ("decoder.read_in.parts", "decoder.read_in.few_s")
            idle |= dict.fromkeys(names, "decoder.read_in.horizons_s is empty: there is no read-in")
        rehearsing = {"train.task", "train.student"}
        if not any(training.updates for name, training in self.trainings().items() if name in rehearsing):
            idle["decoder.read_in.few_s"] = "no network learns the task on other sessions"
        return idle | self.idle_teacher_options(self.train_options.teacher, self.options.layers)

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

    def plus_config(self, session: Session) -> PlusConfig:
        """Describe the decoder's own network."""
        return self._config(self.encoder_config(session), session)

    def teacher_config(self, session: Session) -> PlusConfig:
        """Describe the teacher's network."""
        encoder = self.encoder_config(session, causal=False, drop_path=self.options.drop_path, look_ahead=0)
        return self._config(encoder, session)

    def _config(self, encoder: EncoderConfig, session: Session) -> PlusConfig:
        options = self.options
        return PlusConfig(encoder=encoder, read_in=options.read_in, steady_s=options.steady_s, outputs=session.outputs)

    def teach(self, rehearsed: Rehearsed, sessions: Sequence[SessionData], context: Context) -> Artifact:
        """Pretrain the teacher: masked autoencoding, then the task."""
        teacher = self.teacher_config(sessions[0])
        training = self.train_options
        masked = pretrain_teacher(teacher.encoder, self.options.masking, training.teacher, sessions, context)
        return train_task_teacher(teacher, training.task, rehearsed, sessions, context, masked)

    def rehearsed(self, sessions: Sequence[SessionData], context: Context) -> Rehearsed:
        """Return the pretraining sessions as both networks meet them."""
        return Rehearsed(sessions, self.options.read_in, self.options.steady_s, context)

    def export(self, folder: Path, session: Session, front_end: str) -> None:
        """Write the fitted network so that `realmbench.realm.pretrained_plus.RealmPlusForDecoding` loads it."""
        from .pretrained_plus import save_plus

        save_plus(folder, self.plus_config(session), self.arrays(), front_end, session)

    def export_artifact(self, folder: Path, artifact: Artifact, session: Session, front_end: str) -> None:
        """Write the pretrained network, its read-in silent, so that `RealmPlusForDecoding` loads it."""
        from .pretrained_plus import save_plus

        save_plus(folder, self.plus_config(session), artifact.arrays, front_end, None)

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        """Fit the read-in and fine-tune; what ends below the zero-shot network on validation gives way to it."""
        artifact = self.pretrained(artifact)
        with context.phase("fit"):
            network = self.network = self.fresh(session, context, "fit")
            assert isinstance(network, PlusNetwork)
            load_arrays_into(network, artifact.arrays)
            network.eval()
            if not session.train:
                return
            session = steadied(session, self.options.steady_s)
            network.units.meet(session, 0.0)
            zero_shot = self._zero_shot_score(network, session, context) if self.zero_shot else -math.inf
            network.units.meet(session, self._own_share(session))
            history = self.fine_tune(network, network.units.given(session), context, artifact)
            if best_score(history) < zero_shot:
                load_arrays_into(network, artifact.arrays)
                network.units.meet(session, 0.0)
                context.warnings.append(
                    f"fine-tuning on {session.name}: it ended below the zero-shot network on validation, which is kept"
                )

    def fine_tune(
        self, network: PlusNetwork, targets: SessionData, context: Context, artifact: Artifact
    ) -> list[dict[str, float]]:
        """Fit the read-in to a session whose targets are in the network's units, train on both, return the history."""
        fitted = fit_read_in(targets, self.options.read_in)
        network.read_in.set(fitted.weights)
        network.encoder.tokenizer.requires_grad_(not self.options.freeze_tokenizer)
        stage = f"fine-tuning on {targets.name}"
        checkpoint = context.checkpoint(stage, {**self.identity, "start": artifact.hash}, [targets])
        finetune = self.train_options.finetune
        result = learn(network, [fitted.session], finetune, context, stage, checkpoint, start_counts=self.zero_shot)
        conclude(result, context, stage, start_counts=self.zero_shot)
        return result.history

    def _own_share(self, session: SessionData) -> float:
        """Return how much the session's own target statistics count."""
        seconds = sum(len(segment) for segment in session.train) / session.rate
        return seconds / (seconds + self.options.target_prior_s)

    def _zero_shot_score(self, network: PlusNetwork, session: SessionData, context: Context) -> float:
        silent = with_read_in(network.units.given(session), no_weights(session, self.options.read_in))
        return validation_r2(network, [silent], context.device)()


class RealmStudentPlus(_Plus):
    """REALM's student of a teacher that has learnt the task, with a linear read-in fitted to every session."""

    Options: ClassVar[type[BaseModel]] = PlusOptions
    TrainOptions: ClassVar[type[BaseModel]] = PlusTrainOptions
    presets: ClassVar[Mapping[str, Preset]] = stage_presets("teacher", "task", "student", "finetune")
    search_space: ClassVar[Mapping[str, SearchDimension]] = RealmStudent.search_space
    options: PlusOptions
    train_options: PlusTrainOptions

    def idle_options(self) -> dict[str, str]:
        idle = super().idle_options()
        if not self.train_options.student.updates:
            idle["decoder.hand_down."] = "train.student.updates=0 hands nothing down"
        if not self.has_teacher:
            names = ("decoder.masking.", "decoder.drop_path", "train.teacher.", "train.task.")
            why = "hand_down.outputs=0 and hand_down.alignment=0, or train.student.updates=0, leave the teacher out"
            idle |= dict.fromkeys(names, why)
        elif not self.train_options.task.updates:
            if self.options.hand_down.outputs:
                idle["train.task.updates"] = (
                    "a teacher without the task has no outputs to hand down; hand_down.outputs=0"
                )
            if not self.train_options.teacher.updates:
                idle["decoder.drop_path"] = "the teacher is not trained"
        return idle

    @property
    def task_updates(self) -> int:
        return self.train_options.student.updates

    @property
    def has_teacher(self) -> bool:
        """Whether its training takes anything from a teacher."""
        return self.options.hand_down.from_teacher and self.train_options.student.updates > 0

    def trainings(self) -> Trainings:
        trainings = super().trainings()
        if not self.has_teacher:
            del trainings["train.teacher"], trainings["train.task"]
        return trainings

    def pretrain(self, sessions: Sequence[SessionData], context: Context) -> Artifact:
        rehearsed, weights = self.rehearsed(sessions, context), self.options.hand_down
        teacher = None
        if self.has_teacher:
            teacher = self.teacher_config(sessions[0]), self.teach(rehearsed, sessions, context)
        training = self.train_options.student
        return hand_down(self.plus_config(sessions[0]), weights, training, rehearsed, sessions, context, teacher)


class RealmTeacherPlus(_Plus):
    """The teacher that has learnt the task, adapted like its student: sees the whole block, an upper reference."""

    causal: ClassVar[bool] = False
    look_ahead_s: ClassVar[float] = float("inf")
    Options: ClassVar[type[BaseModel]] = TaughtOptions
    TrainOptions: ClassVar[type[BaseModel]] = TaughtTrainOptions
    presets: ClassVar[Mapping[str, Preset]] = stage_presets("teacher", "task", "finetune")
    search_space: ClassVar[Mapping[str, SearchDimension]] = RealmTeacher.search_space

    @property
    def task_updates(self) -> int:
        return self.train_options.task.updates

    def plus_config(self, session: Session) -> PlusConfig:
        return self.teacher_config(session)

    def pretrain(self, sessions: Sequence[SessionData], context: Context) -> Artifact:
        return self.teach(self.rehearsed(sessions, context), sessions, context)
