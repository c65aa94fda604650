"""Commands that compute: run, sweep, check, data prepare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from realmbench.errors import OptionError, RealmbenchError, unknown_name

from .application import (
    AsJson,
    DataRoot,
    Device,
    FrontEnd,
    PresetName,
    Protocol,
    ResultsDir,
    Settings,
    Threads,
    app,
    data_app,
    is_dataset,
    registry_of,
)

if TYPE_CHECKING:
    from realmbench.records import RunRecord

RUN_EXAMPLES = """
Train a decoder, score it on held-out sessions, and write one record per run.

Examples:

    realmbench run --model realm-student --dataset synthetic-reach

    realmbench run --model wiener --model gru --dataset open-field --seeds 3

    realmbench run --model my_decoder.py:MyDecoder --dataset synthetic-reach:tiny

    realmbench run --model gru --dataset synthetic-reach --set decoder.hidden=128 --set train.updates=500

Finished runs are kept: the same command goes on where it stopped. Seeds are 0, 1, 2, ...; each varies initial weights,
data order, dropout and masking together.
"""


@app.command(help=RUN_EXAMPLES)
def run(
    model: Annotated[list[str], typer.Option(help="Decoder: a name of `list models`, or FILE.py:CLASS. Repeatable.")],
    dataset: Annotated[str, typer.Option(help="Dataset, with a variant after a colon: synthetic-reach:hard.")],
    protocol: Protocol = "blocked-v1",
    front_end: FrontEnd = None,
    preset: PresetName = "small",
    sessions: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Held-out sessions, separated by commas; all by default."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 1,
    device: Device = "cpu",
    threads: Threads = 1,
    settings: Settings = None,
    suite: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Folder of results that the records belong to; local by default."),
    ] = None,
    audit: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="shifted-target: turn the behaviour by half the record; R2 must then be about 0 or below."),
    ] = None,
    fresh: Annotated[bool, typer.Option(help="Run again what is finished.")] = False,
    data_root: DataRoot = None,
    results_dir: ResultsDir = Path("results"),
    as_json: AsJson = False,
) -> None:
    from realmbench.dataset import open_dataset
    from realmbench.machine import limited_threads
    from realmbench.options import parse_settings
    from realmbench.plan import RunRequest, make_plan
    from realmbench.records import recorded_name
    from realmbench.render import err, print_comparisons, progress_events
    from realmbench.runner import FailedRunsError, SessionBank
    from realmbench.runner import run as run_plan

    if twice := sorted({name for name in model if model.count(name) > 1}):
        raise OptionError(f"--model {', '.join(twice)} is given twice")
    for name in model:
        if len(alike := [other for other in model if recorded_name(other) == recorded_name(name)]) > 1:
            raise OptionError(f"--model {' and '.join(alike)}: records call both {recorded_name(name)}; rename a file")
    parsed = parse_settings(settings or [])
    opened = open_dataset(dataset, data_root, parsed["data"])
    wanted = [name.strip() for name in sessions.split(",")] if sessions is not None else None
    plans = []
    for name in model:
        request = RunRequest(
            model=name,
            protocol=protocol,
            front_end=front_end,
            preset=preset,
            sessions=wanted,
            seeds=seeds,
            device=device,
            options=parsed["decoder"],
            train=parsed["train"],
            suite=suite,
            audit=audit,  # type: ignore[arg-type]  # make_plan refuses unknown audits
            fresh=fresh,
        )
        try:
            plans.append(make_plan(request, opened))
        except OptionError as error:
            raise OptionError(f"{name}: {error}" if len(model) > 1 else str(error)) from error
    records: list[RunRecord] = []
    problems: list[str] = []
    for plan in plans:
        total = seeds * sum(len(fold.held_out) for fold in plan.folds)
        with limited_threads(threads), progress_events(total, plan.request.model) as events:
            try:
                # A bank per decoder keeps one fold in memory; frames come from the cache on disk.
                bank = SessionBank(opened, events.stage)
                records += run_plan(plan, opened, results_dir, events, bank)
            except FailedRunsError as error:
                records += error.records
                problems.append(str(error))
            except RealmbenchError as error:
                problems.append(str(error))
            except KeyboardInterrupt:
                err.print("interrupted: finished runs are kept, and the same command goes on from there")
                raise typer.Exit(130) from None
    if as_json:
        print(json.dumps([record.model_dump(mode="json") for record in records], indent=1))
    elif records:
        print_comparisons(records, wanted)
        err.print(f"Records are in {results_dir / plans[0].suite}.", markup=False)
    if problems:
        raise RealmbenchError("; ".join(problems))


SWEEP_EXAMPLES = """
Run a suite: every model on every dataset that it lists, in processes, keeping what is finished.

Examples:

    realmbench sweep smoke --dry-run

    realmbench sweep smoke

    realmbench sweep core-v1 --model gru --model poyo --dataset synthetic-reach

    realmbench sweep my_suite.toml --processes 8 --data-root DIR

    realmbench sweep fewshot-small-v1 --processes 16 --device cuda

A suite of your own names what is run; what stands above the first [[runs]] holds for all of them that do not say
otherwise (a `set` of their own takes the place of the one above, whole). Paths are seen from where you call:

    name = "mine"
    seeds = 3
    preset = "tiny"

    [[runs]]
    models = ["gru", "my_decoder.py:MyDecoder"]
    datasets = ["synthetic-reach"]
    set = ["train.updates=500"]

A failed job is listed with its reason and log, the others go on, and the same command tries it again. The same command
in a second terminal shares the work: each takes jobs that the other has not begun.
"""


@app.command(help=SWEEP_EXAMPLES)
def sweep(
    suite: Annotated[str, typer.Argument(help="A suite of `list suites`, or the path of a TOML file.")],
    model: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Only this model of the suite; may be repeated."),
    ] = None,
    dataset: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Only this dataset of the suite; may be repeated."),
    ] = None,
    processes: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Jobs at a time; as many as there are cores by default."),
    ] = None,
    threads: Threads = 1,
    dry_run: Annotated[bool, typer.Option(help="List the jobs and what of them is recorded, and stop.")] = False,
    fresh: Annotated[bool, typer.Option(help="Run again what is finished.")] = False,
    device: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Device of the decoders that can use one, instead of the suite's; the others keep the CPU."),
    ] = None,
    data_root: DataRoot = None,
    results_dir: ResultsDir = Path("results"),
    as_json: AsJson = False,
) -> None:
    import os

    from realmbench.expected_time import expected_seconds, in_words
    from realmbench.records import read_records
    from realmbench.render import err, print_comparisons, print_jobs, sweep_progress
    from realmbench.suite import read_suite
    from realmbench.sweep import as_dict, plan_jobs, run_jobs

    wanted = read_suite(suite).only(model or (), dataset or ())
    jobs = plan_jobs(wanted, results_dir, data_root, fresh, device)
    count = processes if processes is not None else os.cpu_count() or 1
    seconds = expected_seconds(jobs, read_records(results_dir, wanted.name, skip_damaged=True))
    if dry_run:
        if as_json:
            rows = [
                {"job": job.name, "runs": len(job.sessions), "recorded": job.recorded, "seconds": expected}
                for job, expected in zip(jobs, seconds)
            ]
            print(json.dumps(rows, indent=1))
        else:
            print_jobs(wanted, jobs, seconds, count)
        return
    if words := in_words(jobs, seconds, count):
        err.print(words, markup=False)
    with sweep_progress(wanted.name, jobs) as (on_start, on_end):
        try:
            outcomes = run_jobs(jobs, results_dir, data_root, count, threads, on_start, on_end)
        except KeyboardInterrupt:
            err.print("interrupted: finished runs are kept, and the same command goes on from there")
            raise typer.Exit(130) from None
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        err.print(f"failed: {outcome.job.name}\n  {outcome.reason}\n  log: {outcome.log}", markup=False)
    if as_json:
        print(json.dumps([as_dict(outcome) for outcome in outcomes], indent=1))
    else:
        print_comparisons(read_records(results_dir, wanted.name))
        done = len(outcomes) - len(failed)
        err.print(f"{done} of {len(jobs)} jobs done; records are in {results_dir / wanted.name}.", markup=False)
    if failed:
        raise typer.Exit(1)


CHECK_EXAMPLES = """
Check a decoder or a dataset: what everybody's must do, and causality from the raw sample to the prediction.

Examples:

    realmbench check realm-student

    realmbench check my_decoder.py:MyDecoder --dataset open-field

    realmbench check realm-student gru --short --device cuda

    realmbench check open-field

A decoder is trained for a few updates only: the check is of what it is, not of how well it decodes. Exit code 1 means
that a check failed.
"""


@app.command(help=CHECK_EXAMPLES)
def check(
    names: Annotated[list[str], typer.Argument(help="Models or datasets, by name or as FILE.py:CLASS.")],
    dataset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Check models on this dataset's first fold instead of a small simulated one."),
    ] = None,
    front_end: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Check models on this front end; by default on all that they accept."),
    ] = None,
    short: Annotated[bool, typer.Option(help="Fewer times and shorter streams; one session of a dataset.")] = False,
    device: Device = "cpu",
    settings: Settings = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    from realmbench.conformance import check_dataset, check_decoder
    from realmbench.dataset import open_dataset
    from realmbench.options import parse_settings
    from realmbench.render import print_report, progress_stage

    parsed = parse_settings(settings or [])
    if parsed["decoder"] or parsed["train"]:
        raise OptionError("check trains every model with preset tiny and few updates; only --set data. applies")
    on_dataset = open_dataset(dataset, data_root, parsed["data"]) if dataset is not None else None
    subjects: list[Any] = []
    for name in names:
        if is_dataset(name):
            moved = None if device == "cpu" else device
            for option, value in (("dataset", dataset), ("front-end", front_end), ("device", moved)):
                if value is not None:
                    raise OptionError(f"--{option} does not apply to {name}, which is a dataset itself")
            subjects.append(open_dataset(name, data_root, parsed["data"]))
        else:
            if ".py" not in name and name not in registry_of("models"):
                known = [*registry_of("models").names(), *registry_of("datasets").names()]
                raise unknown_name("model or dataset", name, known)
            subjects.append(name)
    if parsed["data"] and dataset is None and all(isinstance(subject, str) for subject in subjects):
        raise OptionError("--set data. applies to a dataset; name one")
    reports = []
    try:
        for subject in subjects:
            with progress_stage() as stage:
                if isinstance(subject, str):
                    report = check_decoder(subject, on_dataset, front_end, short, stage, device)
                else:
                    report = check_dataset(subject, short, stage)
            reports.append(report)
            if not as_json:
                print_report(report)
    finally:  # what was checked is told, though a later one may want files that are not there
        if as_json and reports:
            print(json.dumps([report.as_dict() for report in reports], indent=1))
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


@data_app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="Dataset, with a variant after a colon.")],
    from_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Copy from this folder instead of downloading."),
    ] = None,
    settings: Settings = None,
    data_root: DataRoot = None,
) -> None:
    """Download, copy or generate a dataset. Example: `realmbench data prepare open-field --from-dir DIR`."""
    from realmbench.dataset import open_dataset
    from realmbench.options import parse_settings
    from realmbench.render import err

    parsed = parse_settings(settings or [])
    for prefix in ("decoder", "train"):
        if parsed[prefix]:
            raise OptionError(f"--set {prefix}. does not apply to data prepare")
    opened = open_dataset(dataset, data_root, parsed["data"])
    place = opened.prepare(from_dir)
    err.print(f"{opened.full_name} is ready" + (f" in {place}." if place else "."), markup=False)
