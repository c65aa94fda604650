"""Decoders that learn from their own guesses on a new day: without any label of it, and beside labels.

What the network of `realm-student-plus` makes of a session's frames is a guess at the target, and one that its memory
has smoothed over time. A read-in fitted to the guess finds the channels that speak of the target today, those too that
said nothing of it on the days of pretraining; with it the guess is better, and so in turn is the read-in. Labels that a
decoder makes itself are an old way to keep one alive (Li et al. 2011, Neural Computation 23:3162).

`realm-student-unlabelled` leaves it at that: all fits are closed forms, nothing is trained on the session.
`realm-student-mixed` has labels, perhaps too few to be trusted alone: it learns from a mean of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field

from realmbench.artifact import Artifact
from realmbench.decoder import Context, ParameterCount, Preset
from realmbench.search import SearchDimension
from realmbench.session import Segment, SessionData
from realmbench.steady import steadied
from realmbench.training.loop import TrainOptions

from .plus import PlusNetwork
from .plus_decoder import PlusOptions, RealmStudentPlus
from .presets import stage_presets
from .pretraining import ScheduledOptions
from .read_in import fit_read_in


class GuessOptions(PlusOptions):
    """Everything of `realm-student-plus`, and how often the read-in is fitted to guesses.

    Attributes
    ----------
    rounds : fits of the read-in, each to what the network makes of the session with the one before. With 0 it stays
        silent; without labels nothing is then known of the session but usable channels and the frames' means and
        deviations.
    """

    rounds: int = Field(3, ge=0)


class MixedOptions(GuessOptions):
    """The same, and how much the guesses count.

    Attributes
    ----------
    guess_s : the guesses count like so many seconds of labels; with 0 labels are all there is.
    """

    guess_s: float = Field(30.0, ge=0)


class UnlabelledTrainOptions(BaseModel):
    """Training of the three stages before the held-out session, as of `realm-student-plus`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    teacher: ScheduledOptions = ScheduledOptions()
    task: TrainOptions = TrainOptions()
    student: TrainOptions = TrainOptions()


class _Guessing(RealmStudentPlus):
    """What both share: the read-in that is fitted to the network's own outputs."""

    depends_on: ClassVar[tuple[str, ...]] = (*RealmStudentPlus.depends_on, "realmbench.realm.plus_decoder")
    options: GuessOptions

    def idle_options(self) -> dict[str, str]:
        idle = super().idle_options()
        idle["decoder.target_prior_s"] = "the network stays in the units of the pretraining sessions"
        if not self.options.read_in.horizons_s:
            idle["decoder.rounds"] = "decoder.read_in.horizons_s is empty: there is no read-in"
        return idle

    @property
    def rounds(self) -> int:
        """How often the read-in is fitted to guesses; never where there is none."""
        return self.options.rounds if self.options.read_in.horizons_s else 0

    def fit_to_guesses(self, session: SessionData, context: Context, artifact: Artifact | None) -> SessionData:
        """Take up the pretrained network and fit its read-in to its own outputs; no target is looked at.

        Returns the steadied session, or one without a training part as it came.
        """
        super().adapt(replace(session, train=()), context, artifact)  # as pretraining left it
        if not session.train:
            return session
        if not self.task_updates:
            context.warnings.append("train.student.updates=0: guesses are those of a head as it was drawn")
        with context.phase("fit"):
            network = self.plus_network
            network.units.meet(session, 0.0)
            steady = steadied(session, self.options.steady_s)
            for number in range(self.rounds):
                context.on_progress(f"guesses at {session.name}", number / self.rounds)
                network.read_in.set(fit_read_in(guessed(network, steady), self.options.read_in).weights)
        return steady

    @property
    def plus_network(self) -> PlusNetwork:
        """The fitted network."""
        network = self.fitted(self.network)
        assert isinstance(network, PlusNetwork)
        return network


class RealmStudentUnlabelled(_Guessing):
    """The pretrained network of `realm-student-plus`, its read-in fitted to its own outputs on the held-out session."""

    Options: ClassVar[type[BaseModel]] = GuessOptions
    TrainOptions: ClassVar[type[BaseModel]] = UnlabelledTrainOptions
    presets: ClassVar[Mapping[str, Preset]] = stage_presets("teacher", "task", "student")
    search_space: ClassVar[Mapping[str, SearchDimension]] = {
        name: dimension
        for name, dimension in RealmStudentPlus.search_space.items()
        if not name.startswith("train.finetune.") and name != "decoder.freeze_tokenizer"
    }
    train_options: UnlabelledTrainOptions  # type: ignore[assignment]

    def idle_options(self) -> dict[str, str]:
        return super().idle_options() | {"decoder.freeze_tokenizer": "nothing is trained on the held-out session"}

    def parameters(self) -> ParameterCount:
        """Of all numbers the session changes its read-in alone."""
        read_in = sum(buffer.numel() for buffer in self.plus_network.read_in.buffers())
        return ParameterCount(super().parameters().deployed, read_in if self.options.rounds else 0)

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        """Fit the read-in to the network's own outputs on the session's frames; no target is looked at."""
        self.fit_to_guesses(session, context, artifact)


class RealmStudentMixed(_Guessing):
    """`realm-student-plus`, adapted to a mean of labels and its own guesses at them: the more labels, the less guesses.

    Validation is of such means too, and nothing gives way to the zero-shot network: what it would say stands in them.
    """

    Options: ClassVar[type[BaseModel]] = MixedOptions
    options: MixedOptions

    def idle_options(self) -> dict[str, str]:
        idle = super().idle_options()
        return idle if self.options.guess_s else {**idle, "decoder.rounds": "decoder.guess_s=0 leaves guesses out"}

    @property
    def rounds(self) -> int:
        return super().rounds if self.options.guess_s else 0

    def adapt(self, session: SessionData, context: Context, artifact: Artifact | None = None) -> None:
        """Fit the read-in and fine-tune, to mixed targets; by those that validate it never ends below its start."""
        steady = self.fit_to_guesses(session, context, artifact)
        if not session.train:
            return
        with context.phase("fit"):
            network = self.plus_network
            seconds = sum(len(segment) for segment in session.train) / session.rate
            share = seconds / (seconds + self.options.guess_s)
            targets = mixed(network.units.given(steady), guessed(network, steady), share)
            self.fine_tune(network, targets, context, self.pretrained(artifact))


@torch.no_grad()
def guessed(network: PlusNetwork, session: SessionData) -> SessionData:
    """Return a steadied session with the network's outputs, in its own units, in the place of all targets."""
    device = network.units.scale.device
    mask = torch.from_numpy(session.mask).to(device)[None]

    def guess(segment: Segment) -> Segment:
        x = torch.from_numpy(segment.x).to(device)[None]  # (1, T, C, F)
        return replace(segment, y=network.decode(x, mask, network.read_in(x))[0].float().cpu().numpy())

    train, validation = (tuple(guess(segment) for segment in part) for part in (session.train, session.validation))
    return replace(session, train=train, validation=validation)


def mixed(session: SessionData, guesses: SessionData, share: float) -> SessionData:
    """Return a session with the weighted mean of its targets, which count ``share``, and those of ``guesses``."""
    train, validation = (
        tuple(replace(own, y=share * own.y + (1 - share) * guess.y) for own, guess in zip(ours, theirs))
        for ours, theirs in ((session.train, guesses.train), (session.validation, guesses.validation))
    )
    return replace(session, train=train, validation=validation)
