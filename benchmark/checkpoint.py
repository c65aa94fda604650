"""Checkpoints: a trained stage as a folder that others can load, with a card made from its records.

    config.json, model.safetensors   as the method's ecosystem loads them (`Decoder.export`)
    realmbench.json                  how it was trained: model, options, data, seed, artifacts
    record.json                      the run record, after fine-tuning
    README.md                        the card

A folder appears whole or not at all.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .artifact import Artifact, ArtifactStore
from .bank import Events, SessionBank
from .card import card_of_artifact, card_of_run
from .dataset import Fold
from .decoder import DECODERS, Decoder
from .errors import OptionError, ProtocolError, RealmbenchError, unknown_name
from .files import readable_by_all, write_text_whole
from .held_run import HeldRun
from .plan import Plan
from .pretrainings import ArtifactRecord, keep
from .provenance import TRAINING, Training, read_training
from .records import RunRecord, read_record, record_path, same_code, write_record
from .runner import pretrain_on, with_pretraining
from .seeds import stable_hash

RECORD, CARD = "record.json", "README.md"


def fold_of(plan: Plan, name: str | None) -> Fold:
    """Return the fold by its name; the only one without a name.

    Raises
    ------
    OptionError, UnknownNameError : there are several, or none of this name.
    """
    names = [fold.name for fold in plan.folds]
    if name is None:
        if len(names) > 1:
            raise OptionError(f"the dataset has the folds {', '.join(names)}; name one with --fold")
        return plan.folds[0]
    if name not in names:
        raise unknown_name("fold", name, names)
    return plan.folds[names.index(name)]


def pretrain(
    plan: Plan, fold: Fold, seed: int, folder: Path, bank: SessionBank, events: Events, given: Path | None = None
) -> Artifact:
    """Pretrain on a fold and write the checkpoint; what the store already holds is not trained again.

    Parameters
    ----------
    given : checkpoint of an earlier stage, which is then used and not trained.

    Raises
    ------
    OptionError : the decoder has no pretraining.
    RealmbenchError : what is given is not the stage that is asked for.
    """
    folder = _checked(folder, given)
    if not plan.decoder_class.multi_session:
        raise OptionError(f"{plan.model} learns from one session alone and has no pretraining")
    context = plan.context(seed, events.stage)
    start = None if given is None else _give(context.artifacts, given)
    artifact = pretrain_on(plan, fold, context, bank)
    if start is not None and start.hash == artifact.hash:
        raise OptionError(f"{given} holds the {start.record.kind} that is asked for, not what it is made from")
    for warning in context.warnings:
        events.note(warning)
    if unused := context.artifacts.given_in_vain():
        raise OptionError(f"{given} holds a {', '.join(unused)}, which {plan.model} does not learn from")
    training = _training(plan, bank, fold, None, seed, _chain(artifact.record, context.artifacts))

    any_session = bank.of(plan, fold.pretrain[0], "pretrain").data

    def write(place: Path) -> None:
        plan.decoder().export_artifact(place, artifact, any_session, plan.front_end.name)
        (place / CARD).write_text(card_of_artifact(training, bank.dataset.info), encoding="utf-8")

    _write_whole(folder, training, write)
    return artifact


def finetune(
    plan: Plan,
    session: str,
    seed: int,
    folder: Path,
    results_dir: Path,
    bank: SessionBank,
    events: Events,
    given: Path | None = None,
) -> RunRecord:
    """Fit a decoder to a held-out session, score it, and write its record and its checkpoint.

    Parameters
    ----------
    given : checkpoint of the pretraining to start from; without it pretraining comes from the store, or is done. One of
        other code, or of recordings that round otherwise, is used; the record warns of it and has a code of its own, so
        that no run is taken for finished by it.

    Raises
    ------
    RealmbenchError : what is given was pretrained on other data.
    """
    folder = _checked(folder, given)
    fold = next((fold for fold in plan.folds if session in fold.held_out), None)
    if fold is None:
        raise unknown_name("held-out session", session, [name for each in plan.folds for name in each.held_out])
    remembering = _RememberingPlan(**vars(plan))
    context = plan.context(seed, events.stage)
    artifact: Artifact | None = None
    if given is not None:
        _check_matched(read_training(given), plan, bank, fold, session)
        artifact = _give(context.artifacts, given)
    elif plan.decoder_class.multi_session:
        artifact = pretrain_on(plan, fold, context, bank)
    artifacts = [] if artifact is None else _chain(artifact.record, context.artifacts)
    path = record_path(results_dir, plan.suite, *plan.place(bank.dataset), session, seed)
    foreign = given is not None and not _made_here(artifacts, plan, fold, seed, bank)
    if given is not None:
        context.warnings.extend(warning for each in artifacts for warning in each.warnings)
    if foreign:
        if path.exists() and same_code(path.parent, read_record(path).code, plan.code):
            raise RealmbenchError(
                f"{path} is a run of the present code, whose place a start of other code or data would take; name "
                "another --results-dir"
            )
        context.warnings.append(
            f"the {artifacts[-1].kind} that it starts from is not what the present code makes of the present data; "
            "`run` will train its own"
        )
    record = HeldRun(remembering, fold, session, seed, artifact, bank, events).record()
    record = with_pretraining(record, plan, bank, context)
    if foreign:
        record = record.model_copy(update={"code": stable_hash([record.code, artifacts[-1].hash])})
    if artifacts:
        keep(path.parent, artifacts)
    write_record(record, path)
    decoder = remembering.made[-1]
    training = _training(plan, bank, fold, session, seed, artifacts)

    def write(place: Path) -> None:
        decoder.export(place, bank.of(plan, session, "held-out").data, plan.front_end.name)
        write_record(record, place / RECORD)
        (place / CARD).write_text(card_of_run(training, record, bank.dataset.info), encoding="utf-8")

    _write_whole(folder, training, write)
    return record


@dataclass(frozen=True)
class _RememberingPlan(Plan):
    """A plan that keeps the decoders it makes: the last is the one that the record speaks of."""

    made: list[Decoder] = field(default_factory=list)

    def decoder(self) -> Decoder:
        self.made.append(super().decoder())
        return self.made[-1]


def _training(
    plan: Plan, bank: SessionBank, fold: Fold, session: str | None, seed: int, artifacts: list[ArtifactRecord]
) -> Training:
    return Training(
        stage="pretrained" if session is None else "fitted",
        model=plan.request.model,
        preset=plan.request.preset,
        config=plan.config,
        dataset=bank.dataset.full_name,
        version=bank.dataset.info.version,
        data=bank.dataset.changed_options,
        protocol=plan.protocol.name,
        front_end=plan.front_end.name,
        fold=fold.name,
        session=session,
        seed=seed,
        artifacts=artifacts,
    )


def _chain(record: ArtifactRecord, store: ArtifactStore) -> list[ArtifactRecord]:
    return [*(each for parent in record.parents for each in _chain(store.record_of(parent), store)), record]


def _give(store: ArtifactStore, folder: Path) -> Artifact:
    """Put a checkpoint's artifact into the store and let no other of its kind be trained."""
    training = read_training(folder)
    if training.stage != "pretrained":
        raise RealmbenchError(
            f"{folder} is fitted to {training.session} already; give what `pretrain` or `distill` wrote"
        )
    decoder = DECODERS.get(training.model)(training.preset, training.config["decoder"], training.config["train"])
    *ancestors, record = training.artifacts
    artifact = Artifact(decoder.import_arrays(folder), record)
    store.give(artifact, ancestors)
    return artifact


def _made_here(artifacts: list[ArtifactRecord], plan: Plan, fold: Fold, seed: int, bank: SessionBank) -> bool:
    """Tell whether the present code would leave these artifacts of the present data; nothing is trained to find out."""
    context = plan.context(seed, lambda _text, _share: None)
    context.artifacts.expect(artifacts)
    try:
        return pretrain_on(plan, fold, context, bank).hash == artifacts[-1].hash
    except Exception:  # another is asked for, or a decoder looks at arrays that are not there: it has not been shown
        return False


def _check_matched(training: Training, plan: Plan, bank: SessionBank, fold: Fold, session: str) -> None:
    """Refuse a pretraining on other data than the run's: its record would say what is not true."""
    ours = _training(plan, bank, fold, session, training.seed, [])
    names = ("model", "dataset", "version", "data", "protocol", "front_end", "fold")
    pairs = ((name.replace("_", " "), getattr(training, name), getattr(ours, name)) for name in names)
    differing = [f"{name} {theirs!r}, not {own!r}" for name, theirs, own in pairs if theirs != own]
    if differing:
        raise ProtocolError(f"{session} cannot start from this checkpoint: it has {'; '.join(differing)}")


def _checked(folder: Path, given: Path | None) -> Path:
    """Refuse, before anything is trained, a place where no checkpoint can be written; return it in full."""
    folder = folder.resolve()
    if folder in (Path.cwd(), *Path.cwd().parents):
        raise OptionError(f"--output {folder} holds the working directory; name a folder inside it")
    if given is not None and folder == given.resolve():
        raise OptionError(f"--output {folder} is what the command starts from; choose another folder")
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"--output {folder} is a file; choose another name")
    if folder.exists() and any(folder.iterdir()) and not (folder / TRAINING).is_file():
        raise RealmbenchError(f"{folder} holds something that is no checkpoint; choose another --output")
    return folder


def _write_whole(folder: Path, training: Training, write: Callable[[Path], None]) -> None:
    """Write a checkpoint beside its place and move it there; an older one is only deleted when the new one stands."""
    from safetensors import SafetensorError

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            write(place)
            write_text_whole(place / TRAINING, training.model_dump_json(indent=1) + "\n")
            place.chmod(0o755)
            for file in filter(Path.is_file, place.rglob("*")):
                readable_by_all(file)
            older = place.with_name(f"{place.name}.older")
            if folder.exists():
                folder.rename(older)
            try:
                place.rename(folder)
            except OSError:
                if older.exists():
                    older.rename(folder)
                raise
            shutil.rmtree(older, ignore_errors=True)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    except (OSError, SafetensorError) as error:  # the latter is how a method's ecosystem may say that the disk is full
        raise RealmbenchError(f"cannot write {folder}: {getattr(error, 'strerror', None) or error}") from error
