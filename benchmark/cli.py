"""The command line: thin commands over the library. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from .errors import OptionError, RealmbenchError, unknown_name
from .registry import import_object

if TYPE_CHECKING:
    from .records import RunRecord

app = typer.Typer(
    help="The open benchmark of decoders that turn local field potentials (LFP) into movement.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        print(f"realmbench {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


data_app = typer.Typer(help="Fetch or generate what datasets need.", no_args_is_help=True)
app.add_typer(data_app, name="data")

DataRoot = Annotated[
    Optional[Path],  # noqa: UP045  # typer on Python 3.10
    typer.Option(help="Folder that holds one folder per dataset, as in DIR/open-field."),
]
ResultsDir = Annotated[Path, typer.Option(help="Folder of run records.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output, for scripts.")]
Settings = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="PREFIX.NAME=VALUE", help="Change an option: decoder., train. or data."),
]

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
    protocol: Annotated[str, typer.Option(help="How recordings are cut and scored.")] = "blocked-v1",
    front_end: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="bands50 or lfp100; by default the protocol's first that the decoder accepts."),
    ] = None,
    preset: Annotated[str, typer.Option(help="Size of the model: tiny (seconds) or small.")] = "small",
    sessions: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Held-out sessions, separated by commas; all by default."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
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
    from .dataset import open_dataset
    from .options import parse_settings
    from .plan import RunRequest, make_plan
    from .render import err, print_comparisons, progress_events
    from .runner import FailedRunsError, SessionBank
    from .runner import run as run_plan

    parsed = parse_settings(settings or [])
    opened = open_dataset(dataset, data_root, parsed["data"])
    wanted = [name.strip() for name in sessions.split(",")] if sessions is not None else None
    plans = [
        make_plan(
            RunRequest(
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
            ),
            opened,
        )
        for name in model
    ]
    records: list[RunRecord] = []
    problems: list[str] = []
    for plan in plans:
        total = seeds * sum(len(fold.held_out) for fold in plan.folds)
        with progress_events(total, plan.request.model) as events:
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

    realmbench sweep my_suite.toml --processes 8 --data-root DIR

A failed job is listed with its reason and log, the others go on, and the same command tries it again.
"""


@app.command(help=SWEEP_EXAMPLES)
def sweep(
    suite: Annotated[str, typer.Argument(help="A suite of `list suites`, or the path of a TOML file.")],
    processes: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Jobs at a time; as many as there are cores by default."),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="List the jobs and what of them is recorded, and stop.")] = False,
    fresh: Annotated[bool, typer.Option(help="Run again what is finished.")] = False,
    data_root: DataRoot = None,
    results_dir: ResultsDir = Path("results"),
    as_json: AsJson = False,
) -> None:
    import os

    from .records import read_records
    from .render import err, print_comparisons, print_jobs, sweep_progress
    from .suite import read_suite
    from .sweep import as_dict, plan_jobs, run_jobs

    wanted = read_suite(suite)
    jobs = plan_jobs(wanted, results_dir, data_root, fresh)
    if dry_run:
        if as_json:
            rows = [{"job": job.name, "runs": len(job.sessions), "recorded": job.recorded} for job in jobs]
            print(json.dumps(rows, indent=1))
        else:
            print_jobs(wanted, jobs)
        return
    with sweep_progress(wanted.name, jobs) as (on_start, on_end):
        try:
            count = processes if processes is not None else os.cpu_count() or 1
            outcomes = run_jobs(jobs, results_dir, data_root, count, on_start, on_end)
        except KeyboardInterrupt:
            err.print("interrupted: finished runs are kept, and the same command goes on from there")
            raise typer.Exit(130) from None
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if as_json:
        print(json.dumps([as_dict(outcome) for outcome in outcomes], indent=1))
    else:
        print_comparisons(read_records(results_dir, wanted.name))
        for outcome in failed:
            err.print(f"failed: {outcome.job.name}\n  {outcome.reason}\n  log: {outcome.log}", markup=False)
        done = len(outcomes) - len(failed)
        err.print(f"{done} of {len(jobs)} jobs done; records are in {results_dir / wanted.name}.", markup=False)
    if failed:
        raise typer.Exit(1)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A model's name, or a label of the tables such as 'gru (small)'.")],
    others: Annotated[list[str], typer.Argument(help="What it is compared with; Holm's correction is over all.")],
    suite: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Suite whose records are compared; needed where results hold more than one."),
    ] = None,
    dataset: Annotated[Optional[str], typer.Option(help="Only this dataset.")] = None,  # noqa: UP045
    results_dir: ResultsDir = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Say what can and what cannot be claimed of the difference between methods.

    Example: `realmbench compare realm-student realm-pooled gru --suite core-v1`
    """
    from .differences import differences

    records = _records_of(results_dir, suite)[1]
    if dataset is not None:
        known = {record.dataset for record in records}
        if dataset not in known:
            raise unknown_name("dataset among the records", dataset, known)
        records = [record for record in records if record.dataset == dataset]
    found = differences(records, first, others)
    if as_json:
        content = [
            {"comparison": vars(comparison), "differences": [each.as_dict() for each in group]}
            for comparison, group in found
        ]
        print(json.dumps(content, indent=1))
        return
    from .render import print_differences

    print_differences(found)


def _records_of(results_dir: Path, suite: str | None) -> tuple[str, list[RunRecord]]:
    """Return the suite meant and its records."""
    from .plan import AUDIT_SUITE
    from .records import read_records, suites

    known = [name for name in suites(results_dir) if name != AUDIT_SUITE]
    if not known:
        raise RealmbenchError(f"{results_dir} holds no run records; make some with `realmbench run`")
    if suite is None and len(known) > 1:
        raise OptionError(f"{results_dir} holds the suites {', '.join(known)}; name one with --suite")
    chosen = suite or known[0]
    if chosen not in known:
        raise unknown_name("suite", chosen, known)
    return chosen, read_records(results_dir, chosen)


CHECK_EXAMPLES = """
Check a decoder or a dataset: what everybody's must do, and causality from the raw sample to the prediction.

Examples:

    realmbench check realm-student

    realmbench check my_decoder.py:MyDecoder --dataset open-field

    realmbench check open-field

A decoder is trained for a few updates only: the check is of what it is, not of how well it decodes. Exit code 1 means
that a check failed.
"""


@app.command(help=CHECK_EXAMPLES)
def check(
    names: Annotated[list[str], typer.Argument(help="Models or datasets; FILE.py:CLASS is taken for a model.")],
    dataset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Check models on this dataset's first fold instead of a small simulated one."),
    ] = None,
    short: Annotated[bool, typer.Option(help="Fewer times and shorter streams; one session of a dataset.")] = False,
    settings: Settings = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    from .conformance import check_dataset, check_decoder
    from .dataset import open_dataset
    from .options import parse_settings
    from .render import print_report, progress_stage

    parsed = parse_settings(settings or [])
    if parsed["decoder"] or parsed["train"]:
        raise OptionError("check trains every model with preset tiny and few updates; only --set data. applies")
    models, datasets = _registry("models"), _registry("datasets")
    on_dataset = open_dataset(dataset, data_root, parsed["data"]) if dataset is not None else None
    subjects: list[Any] = []
    for name in names:
        if ".py" not in name and name.partition(":")[0] in datasets:
            if dataset is not None:
                raise OptionError(f"--dataset does not apply to {name}, which is a dataset itself")
            subjects.append(open_dataset(name, data_root, parsed["data"]))
        else:
            if ".py" not in name and name not in models:
                raise unknown_name("model or dataset", name, [*models.names(), *datasets.names()])
            subjects.append(name)
    if parsed["data"] and dataset is None and all(isinstance(subject, str) for subject in subjects):
        raise OptionError("--set data. applies to a dataset; name one")
    reports = []
    with progress_stage() as stage:
        for subject in subjects:
            if isinstance(subject, str):
                reports.append(check_decoder(subject, on_dataset, short, stage))
            else:
                reports.append(check_dataset(subject, short, stage))
            if not as_json:
                print_report(reports[-1])
    if as_json:
        print(json.dumps([report.as_dict() for report in reports], indent=1))
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


@app.command("list")
def list_names(
    kind: Annotated[str, typer.Argument(help="models, datasets, protocols, suites or metrics.")],
    as_json: AsJson = False,
) -> None:
    """List what there is. Example: `realmbench list models`."""
    if kind == "suites":
        from .suite import built_in_suites, read_suite

        entries = [(name, read_suite(name).summary) for name in built_in_suites()]
    elif kind == "metrics":
        from . import metrics

        users = {name: [who for who, ours in metrics.PUBLISHED_AS.items() if ours == name] for name in metrics.NAMES}
        entries = [
            (name, (inspect.getdoc(getattr(metrics, name)) or "").partition("\n")[0] + _published(users[name]))
            for name in metrics.NAMES
        ]
    else:
        registry = _registry(kind)
        entries = [(name, registry.summary(name)) for name in registry.names()]
    if as_json:
        print(json.dumps(dict(entries), indent=1))
        return
    from .render import print_listing

    print_listing(kind, entries)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A model, dataset (with variant) or protocol.")],
    preset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Preset whose values are shown, for models; small by default."),
    ] = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Show all about a model, a dataset or a protocol. Example: `realmbench show realm-student`."""
    page = _page(name, preset, data_root)
    if as_json:
        print(json.dumps(page, indent=1))
        return
    from .render import print_page

    print_page(page)


@app.command()
def leaderboard(
    suite: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Suite to show; needed where results hold more than one."),
    ] = None,
    results_dir: ResultsDir = Path("results"),
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("leaderboard.md"),
    as_json: AsJson = False,
) -> None:
    """Write leaderboard.md from the run records of a suite. Example: `realmbench leaderboard --suite core-v1`."""
    from .statistics import compare as compare_methods

    chosen, records = _records_of(results_dir, suite)
    if as_json:
        comparisons = [
            {"comparison": vars(comparison), "rows": [row.as_dict() for row in rows]}
            for comparison, rows in compare_methods(records)
        ]
        print(json.dumps(comparisons, indent=1))
        return
    from .leaderboard import write_leaderboard
    from .render import err, print_comparisons

    print_comparisons(records)
    err.print(f"Wrote {write_leaderboard(records, chosen, output)} from {len(records)} records.", markup=False)


@app.command()
def figures(
    suite: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Suite to draw; needed where results hold more than one."),
    ] = None,
    results_dir: ResultsDir = Path("results"),
    output: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("figures"),
    file_format: Annotated[str, typer.Option("--format", help="svg, png or pdf.")] = "svg",
) -> None:
    """Draw every figure that a suite's records allow. Example: `realmbench figures --suite calibration-v1`."""
    from .figures import write_figures
    from .render import err

    for path in write_figures(_records_of(results_dir, suite)[1], output, file_format):
        err.print(f"Wrote {path}.", markup=False)


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
    from .dataset import open_dataset
    from .options import parse_settings
    from .render import err

    parsed = parse_settings(settings or [])
    for prefix in ("decoder", "train"):
        if parsed[prefix]:
            raise OptionError(f"--set {prefix}. does not apply to data prepare")
    opened = open_dataset(dataset, data_root, parsed["data"])
    place = opened.prepare(from_dir)
    err.print(f"{opened.full_name} is ready" + (f" in {place}." if place else "."), markup=False)


def _published(users: list[str]) -> str:
    return f" Published by {', '.join(users)}." if users else ""


def _registry(kind: str) -> Any:
    places = {
        "models": "realmbench.decoder:DECODERS",
        "datasets": "realmbench.dataset:DATASETS",
        "protocols": "realmbench.protocol:PROTOCOLS",
    }
    if kind not in places:
        raise unknown_name("kind", kind, [*places, "suites", "metrics"])
    return import_object(places[kind])


def _page(name: str, preset: str | None, data_root: Path | None) -> dict[str, Any]:
    """Collect what `show` prints: sections of names and values."""
    from .decoder import DEFAULT_PRESET

    registries = {kind: _registry(kind) for kind in ("models", "datasets", "protocols")}
    base = name if ".py" in name else name.partition(":")[0]
    if preset is not None and (base in registries["datasets"] or base in registries["protocols"]):
        raise OptionError(f"--preset does not apply to {base}: datasets and protocols have none")
    if base in registries["datasets"]:
        from .dataset import open_dataset

        dataset = open_dataset(name, data_root)
        return {
            "name": dataset.full_name,
            "about": inspect.getdoc(type(dataset)) or "",
            "info": dataset.info.model_dump(),
            "variants": dict(dataset.variants),
            "data options": dataset.options.model_dump(mode="json"),
            "folds": {
                fold.name: f"pretrain {', '.join(fold.pretrain)}; held out {', '.join(fold.held_out)}"
                for fold in dataset.folds()
            },
        }
    if base in registries["protocols"]:
        protocol = registries["protocols"].get(base)
        return {
            "name": protocol.name,
            "about": inspect.getdoc(protocol) or "",
            "rules": {
                "front ends": ", ".join(protocol.front_ends),
                "causal decoders only": protocol.causal_only,
                "leaky": protocol.leaky,
                "headline": protocol.headline,
            },
        }
    if base not in registries["models"] and ".py" not in base:
        known = [known for registry in registries.values() for known in registry.names()]
        raise unknown_name("model, dataset or protocol", name, known)
    cls = registries["models"].get(name)
    preset = preset or DEFAULT_PRESET
    decoder = cls(preset)
    look_ahead = "whole block" if cls.look_ahead_s == float("inf") else f"{cls.look_ahead_s:g} s"
    return {
        "name": name,
        "about": inspect.getdoc(cls) or "",
        "contract": {
            "causal": cls.causal,
            "look-ahead": look_ahead,
            "accepts": ", ".join(cls.inputs),
            "learns across sessions": cls.multi_session,
            "presets": ", ".join(cls.presets),
        },
        f"decoder options (preset {preset})": decoder.config["decoder"],
        f"train options (preset {preset})": decoder.config["train"],
    }


def main() -> None:
    """Run the command line; bad input is one line and exit code 2."""
    try:
        app()
    except RealmbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
