"""Commands that train one stage and write it as a checkpoint: pretrain, distill, finetune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from realmbench.errors import OptionError

from .application import AsJson, DataRoot, Device, FrontEnd, PresetName, Protocol, ResultsDir, Settings, Threads, app

if TYPE_CHECKING:
    from realmbench.dataset import Dataset
    from realmbench.plan import Plan

Fold = Annotated[Optional[str], typer.Option(help="Fold to pretrain on; needed where the dataset has several.")]  # noqa: UP045
Seed = Annotated[int, typer.Option(help="Seed of weights, data order, dropout and masking.")]
Output = Annotated[Path, typer.Option(help="Folder to write the checkpoint into.")]

PRETRAIN_EXAMPLES = """
Train a teacher on the pretraining sessions of a fold and write it as a checkpoint.

Examples:

    realmbench pretrain --dataset synthetic-reach --fold s0 --output teacher

    realmbench pretrain --dataset synthetic-reach --fold s0 --preset paper --device cuda --output teacher

Students that ask for the same teacher find it in the cache and do not train it again; on another machine, hand it to
`realmbench distill --teacher`. A killed command goes on where it stopped.
"""

DISTILL_EXAMPLES = """
Train a student on the pretraining sessions of a fold and write it as a checkpoint.

Examples:

    realmbench distill --dataset synthetic-reach --fold s0 --output student

    realmbench distill --dataset synthetic-reach --fold s0 --teacher teacher --output student

    realmbench distill --model realm-pooled --dataset synthetic-reach --fold s0 --output control

The teacher comes from --teacher or the cache, or is trained first. A killed command goes on where it stopped.
"""

FINETUNE_EXAMPLES = """
Fit a decoder to a held-out session, score it, and write its record and its checkpoint.

Examples:

    realmbench finetune --from student --session s0-test-d082 --output decoder

    realmbench finetune --model gru --dataset synthetic-reach --session s0-test-d082 --output decoder

With --from, model, options and data are those of the checkpoint; only what the held-out session changes may be set.
"""


@app.command(help=PRETRAIN_EXAMPLES)
def pretrain(
    dataset: Annotated[str, typer.Option(help="Dataset, with a variant after a colon.")],
    output: Output,
    model: Annotated[str, typer.Option(help="Whose pretraining: a name of `list models`, or FILE.py:CLASS.")] = (
        "realm-teacher"
    ),
    fold: Fold = None,
    protocol: Protocol = "blocked-v1",
    front_end: FrontEnd = None,
    preset: PresetName = "small",
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
    settings: Settings = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    request = {"model": model, "protocol": protocol, "front_end": front_end, "preset": preset, "device": device}
    _pretrain(request, dataset, fold, seed, output, settings, data_root, threads, as_json, None)


@app.command(help=DISTILL_EXAMPLES)
def distill(
    dataset: Annotated[str, typer.Option(help="Dataset, with a variant after a colon.")],
    output: Output,
    model: Annotated[str, typer.Option(help="The student: a name of `list models`, or FILE.py:CLASS.")] = (
        "realm-student"
    ),
    teacher: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Checkpoint of the teacher, where it was trained elsewhere."),
    ] = None,
    fold: Fold = None,
    protocol: Protocol = "blocked-v1",
    front_end: FrontEnd = None,
    preset: PresetName = "small",
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
    settings: Settings = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    request = {"model": model, "protocol": protocol, "front_end": front_end, "preset": preset, "device": device}
    _pretrain(request, dataset, fold, seed, output, settings, data_root, threads, as_json, teacher)


@app.command(help=FINETUNE_EXAMPLES)
def finetune(
    session: Annotated[str, typer.Option(help="The held-out session.")],
    output: Output,
    start: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--from", help="Checkpoint that `pretrain` or `distill` wrote."),
    ] = None,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Decoder, without --from: a name of `list models`, or FILE.py:CLASS."),
    ] = None,
    dataset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Dataset; with --from the checkpoint's, and needed only where that is FILE.py:CLASS."),
    ] = None,
    protocol: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Without --from: how recordings are cut; blocked-v1 by default."),
    ] = None,
    front_end: FrontEnd = None,
    preset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Without --from: size of the model; small by default."),
    ] = None,
    seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Without --from: the seed; 0 by default."),
    ] = None,
    device: Device = "cpu",
    threads: Threads = 1,
    settings: Settings = None,
    suite: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Folder of results that the record belongs to; local by default."),
    ] = None,
    data_root: DataRoot = None,
    results_dir: ResultsDir = Path("results"),
    as_json: AsJson = False,
) -> None:
    from realmbench import checkpoint
    from realmbench.bank import SessionBank
    from realmbench.machine import limited_threads
    from realmbench.render import err, print_comparisons, progress_events

    own = {"--model": model, "--protocol": protocol, "--preset": preset, "--front-end": front_end, "--seed": seed}
    request: dict[str, Any] = {"device": device, "suite": suite, "sessions": [session]}
    if start is not None:
        named = [name for name, value in own.items() if value is not None]
        if named:
            raise OptionError(f"{', '.join(named)}: with --from the checkpoint decides it")
        plan, opened, seed = _plan_of_checkpoint(start, dataset, request, settings, data_root)
    else:
        if model is None or dataset is None:
            raise OptionError("give --from, or --model and --dataset")
        request |= {"model": model, "front_end": front_end}
        request |= {"protocol": protocol or "blocked-v1", "preset": preset or "small"}
        plan, opened = _plan(request, dataset, settings, data_root)
    with limited_threads(threads), progress_events(1, plan.request.model) as events:
        bank = SessionBank(opened, events.stage)
        record = checkpoint.finetune(plan, session, seed or 0, output, results_dir, bank, events, start)
    if as_json:
        print(record.model_dump_json(indent=1))
        return
    print_comparisons([record], [session])
    err.print(f"Checkpoint in {output}, record in {results_dir / plan.suite}.", markup=False)


def _pretrain(
    request: dict[str, Any],
    dataset: str,
    fold: str | None,
    seed: int,
    output: Path,
    settings: list[str] | None,
    data_root: Path | None,
    threads: int,
    as_json: bool,
    given: Path | None,
) -> None:
    from realmbench import checkpoint
    from realmbench.bank import SessionBank
    from realmbench.machine import limited_threads
    from realmbench.render import err, progress_events

    plan, opened = _plan(request, dataset, settings, data_root)
    chosen = checkpoint.fold_of(plan, fold)
    with limited_threads(threads), progress_events(1, plan.request.model) as events:
        bank = SessionBank(opened, events.stage)
        artifact = checkpoint.pretrain(plan, chosen, seed, output, bank, events, given)
    record = artifact.record
    if as_json:
        print(record.model_dump_json(indent=1))
        return
    err.print(
        f"{record.kind} {record.hash}: {record.parameters:,} parameters, "
        f"best validation score {record.best_score:.3f}, {record.seconds:.0f} s of training. Checkpoint in {output}.",
        markup=False,
    )


def _plan(
    request: dict[str, Any], dataset: str, settings: list[str] | None, data_root: Path | None
) -> tuple[Plan, Dataset]:
    from realmbench.dataset import open_dataset
    from realmbench.options import parse_settings
    from realmbench.plan import RunRequest, make_plan

    parsed = parse_settings(settings or [])
    opened = open_dataset(dataset, data_root, parsed["data"])
    return make_plan(RunRequest(**request, options=parsed["decoder"], train=parsed["train"]), opened), opened


def _plan_of_checkpoint(
    start: Path, dataset: str | None, request: dict[str, Any], settings: list[str] | None, data_root: Path | None
) -> tuple[Plan, Dataset, int]:
    """Ask for what the checkpoint was trained with; ``--set`` changes what comes after it."""
    from realmbench.dataset import DATASETS, open_dataset
    from realmbench.options import leaves, parse_settings
    from realmbench.plan import RunRequest, make_plan
    from realmbench.provenance import read_training

    training = read_training(start)
    parsed = parse_settings(settings or [])
    if parsed["data"]:
        raise OptionError("--set data.: with --from the checkpoint decides it")
    later = (
        *("finetune.", "adaptation", "freeze_tokenizer", "frozen_layers", "fresh_head", "fresh_skip"),
        *("rounds", "guess_s"),
    )
    options, train = leaves(training.config["decoder"]), leaves(training.config["train"])
    for prefix, values, changed in (("decoder", options, parsed["decoder"]), ("train", train, parsed["train"])):
        for name, value in changed.items():
            if not name.startswith(later):
                raise OptionError(f"--set {prefix}.{name}: with --from the checkpoint decides it")
            values[name] = value
    if dataset is None and training.dataset.partition(":")[0] not in DATASETS:
        raise OptionError(f"{start}: its dataset {training.dataset} is of a file; name it by --dataset FILE.py:CLASS")
    opened = open_dataset(dataset or training.dataset, data_root, training.data)
    asked = RunRequest(
        model=training.model, protocol=training.protocol, front_end=training.front_end, preset=training.preset,
        options=options, train=train, **request,
    )  # fmt: skip
    return make_plan(asked, opened), opened, training.seed
