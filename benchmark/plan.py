"""What is to be run: a request with every name resolved, and everything refused that cannot be run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .artifact import ArtifactStore
from .dataset import Dataset, Fold
from .decoder import DECODERS, DEFAULT_PRESET, Context, Decoder
from .errors import OptionError, ProtocolError, unknown_name
from .files import cache_dir
from .fingerprint import code_of, helpers_of, is_ours
from .front_end import FrontEnd, front_end
from .machine import ready_device, versions
from .options import changed_leaves
from .others_code import others_code
from .protocol import PROTOCOLS, Protocol
from .records import recorded_name
from .seeds import stable_hash
from .tuning_record import TUNING_FOLDER

Audit = Literal["shifted-target"]
AUDITS: tuple[Audit, ...] = ("shifted-target",)
DEFAULT_SUITE, AUDIT_SUITE = "local", "audit"
# A suite is a folder of results.
SUITE_NAME = r"[a-z0-9][a-z0-9.-]*"


@dataclass(frozen=True)
class RunRequest:
    """What the user asked for.

    Attributes
    ----------
    model : registered name or ``file.py:Class``.
    front_end : None takes the protocol's first that the decoder accepts.
    sessions : held-out sessions; None takes all.
    seeds : how many (0, 1, 2, ...), or which; each varies initial weights, data order, dropout and masking together.
    options, train : values of ``--set decoder.`` and ``--set train.``.
    suite : folder of results; None takes ``local``.
    audit : turn the target by half the record; such records are kept in suite ``audit``.
    fresh : run again what is finished.
    processes : jobs that the sweep runs at a time; goes into the record, for whoever reads its seconds.
    store : folder for what pretraining leaves and for unfinished training; None takes the cache's.
    """

    model: str
    protocol: str = "blocked-v1"
    front_end: str | None = None
    preset: str = DEFAULT_PRESET
    sessions: Sequence[str] | None = None
    seeds: int | Sequence[int] = 1
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    suite: str | None = None
    audit: Audit | None = None
    fresh: bool = False
    processes: int = 1
    store: Path | None = None

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """The seeds themselves."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)

    @property
    def shift_target(self) -> bool:
        """Whether the audit turns the target."""
        return self.audit == "shifted-target"


@dataclass(frozen=True)
class Plan:
    """A request with every name resolved and every refusal behind it."""

    request: RunRequest
    decoder_class: type[Decoder]
    protocol: Protocol
    front_end: FrontEnd
    folds: list[Fold]
    config: dict[str, Any]
    code: str

    @property
    def config_hash(self) -> str:
        return stable_hash([self.model, self.request.preset, self.config, self.request.audit])

    @property
    def method(self) -> str:
        """Model and preset, with a hash where the user changed options."""
        changed = f".{self.config_hash[:6]}" if self.changed_options else ""
        return f"{self.model.replace(':', '~')}.{self.request.preset}{changed}"

    @property
    def model(self) -> str:
        """The model's name as records have it."""
        return recorded_name(self.request.model)

    @property
    def changed_options(self) -> list[str]:
        """Names of the options that differ from the preset's."""
        return changed_leaves(self.config, self.decoder_class(self.request.preset).config)

    @property
    def suite(self) -> str:
        return AUDIT_SUITE if self.request.audit else self.request.suite or DEFAULT_SUITE

    def place(self, dataset: Dataset) -> tuple[str, str, str, str]:
        """Return the folders below the suite in which its records stand."""
        return dataset.full_name + dataset.suffix, self.protocol.name, self.front_end.name, self.method

    def context(self, seed: int, on_progress: Callable[[str, float], None]) -> Context:
        """Make what a decoder is lent while it learns."""
        folder = self.request.store or cache_dir()
        # A stage of ours names what shapes it, so that students share a teacher; whether a stage of others does, nobody
        # has checked.
        code = self.code if is_ours(self.decoder_class.__module__) else stable_hash([self.code, self.config])
        store = ArtifactStore(folder / "artifacts", code, versions())
        return Context(seed, self.request.device, store, folder / "checkpoints", on_progress)

    def decoder(self) -> Decoder:
        """Make a fresh, unfitted decoder."""
        return self.decoder_class(self.request.preset, self.request.options, self.request.train)


def make_plan(request: RunRequest, dataset: Dataset) -> Plan:
    """Resolve a request and refuse what cannot be run, before anything is computed.

    Raises
    ------
    UnknownNameError, OptionError, ProtocolError : each names what is wrong and what would be right.
    """
    protocol = PROTOCOLS.get(request.protocol)()
    with others_code(request.model):
        decoder_class = DECODERS.get(request.model)
        decoder = decoder_class(request.preset, request.options, request.train)
    refuse_contradictions(request.model, decoder)
    chosen = _front_end(request, protocol, decoder)
    if protocol.causal_only and not decoder.causal:
        raise ProtocolError(f"protocol {protocol.name} takes causal decoders only; {request.model} looks ahead")
    if not request.seed_numbers:
        raise OptionError(f"--seeds {request.seeds}: at least one seed is needed")
    folds = _wanted_folds(protocol.folds(dataset), request.sessions, dataset)
    if decoder.multi_session and any(not fold.pretrain for fold in folds):
        raise ProtocolError(
            f"{request.model} learns across sessions, but {dataset.full_name} has a fold without pretraining sessions"
        )
    second = front_end(decoder.privileged) if decoder.privileged is not None else None
    if second is not None and second.rate != chosen.rate:
        raise OptionError(
            f"{request.model} learns from {second.name} too, at {second.rate} frames per second; "
            f"front end {chosen.name} gives {chosen.rate}"
        )
    if not dataset.spikes and "spikes" in (chosen.kind, second and second.kind):
        raise OptionError(
            f"{request.model} needs spikes, which {dataset.full_name} does not have; synthetic recordings do"
        )
    if request.audit is not None and request.audit not in AUDITS:
        raise unknown_name("audit", request.audit, AUDITS)
    if request.suite is not None and (request.audit or request.suite == AUDIT_SUITE):
        raise OptionError(f"suite {AUDIT_SUITE} holds audits and nothing else; leave --suite {request.suite} out")
    if request.suite is not None and not re.fullmatch(SUITE_NAME, request.suite):
        raise OptionError(f"--suite {request.suite!r}: a suite's name has lower-case letters, digits, dots and hyphens")
    if request.suite == TUNING_FOLDER:
        raise OptionError(f"the folder {TUNING_FOLDER} holds what `realmbench tune` writes; name the suite otherwise")
    ready_for(request.model, decoder_class, request.device)
    for fold in folds:
        for session in (*(fold.pretrain if decoder.multi_session else ()), *fold.held_out):
            dataset.require(session)
    code = code_of((decoder_class.__module__, *decoder_class.depends_on, *helpers_of(decoder_class)))
    return Plan(request, decoder_class, protocol, chosen, folds, decoder.config, code)


def refuse_contradictions(model: str, decoder: Decoder) -> None:
    """Refuse a decoder that contradicts itself, or would not be held to its stream.

    Raises
    ------
    OptionError : says what contradicts what.
    """
    if decoder.causal != (decoder.look_ahead_s == 0):
        raise OptionError(f"{model}: causal={decoder.causal} contradicts look_ahead_s={decoder.look_ahead_s:g}")
    if decoder.zero_shot and not decoder.multi_session:
        raise OptionError(
            f"{model} is zero_shot and not multi_session: without pretraining there is nothing to predict by"
        )
    if own := [name for name in ("streams", "streamed") if getattr(type(decoder), name) is not getattr(Decoder, name)]:
        raise OptionError(
            f"{model} overrides {' and '.join(own)}, by which runs hold it to its stream; whether a decoder streams "
            "follows from look_ahead_s"
        )


def ready_for(model: str, decoder_class: type[Decoder], device: str) -> None:
    """Make a device ready for a decoder.

    Raises
    ------
    OptionError : unknown device, or a decoder that runs on the CPU alone.
    """
    if ready_device(device) != "cpu" and not decoder_class.accelerated:
        raise OptionError(f"{model} runs on the CPU alone; leave --device {device} out")


def _front_end(request: RunRequest, protocol: Protocol, decoder: Decoder) -> FrontEnd:
    if request.front_end is not None:
        chosen = front_end(request.front_end)
        if chosen.name not in protocol.front_ends:
            raise ProtocolError(
                f"protocol {protocol.name} permits front ends {', '.join(protocol.front_ends)}, not {chosen.name}"
            )
        if chosen.kind not in decoder.inputs:
            raise OptionError(
                f"{request.model} accepts {' or '.join(decoder.inputs)} input; "
                f"front end {chosen.name} gives {chosen.kind}"
            )
        return chosen
    for name in protocol.front_ends:
        if (candidate := front_end(name)).kind in decoder.inputs:
            return candidate
    raise ProtocolError(
        f"{request.model} accepts {' or '.join(decoder.inputs)} input, which no front end of {protocol.name} gives"
    )


def _wanted_folds(folds: list[Fold], sessions: Sequence[str] | None, dataset: Dataset) -> list[Fold]:
    """Keep only the wanted held-out sessions and the folds that have any."""
    if sessions is None:
        return folds
    known = [session for fold in folds for session in fold.held_out]
    if len(set(sessions)) < len(sessions):
        raise OptionError(f"--sessions {','.join(sessions)} names a session twice")
    for session in sessions:
        if session not in known:
            raise unknown_name(f"held-out session of {dataset.full_name}", session, known)
    kept = (
        fold.model_copy(update={"held_out": tuple(name for name in fold.held_out if name in sessions)})
        for fold in folds
    )
    return [fold for fold in kept if fold.held_out]
