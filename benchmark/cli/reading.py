"""Commands that read: list, show, leaderboard, compare, answers, figures."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from realmbench.errors import OptionError, RealmbenchError, unknown_name

from .application import AsJson, DataRoot, ResultsDir, a_folder, app, is_dataset, registry_of

if TYPE_CHECKING:
    from realmbench.records import RunRecord


@app.command("list")
def list_names(
    kind: Annotated[str, typer.Argument(help="models, datasets, protocols, suites, metrics or benches.")],
    as_json: AsJson = False,
) -> None:
    """List what there is. Example: `realmbench list models`."""
    if kind == "suites":
        from realmbench.suite import built_in_suites, read_suite

        entries = [(name, read_suite(name).summary) for name in built_in_suites()]
    elif kind == "metrics":
        from realmbench import metrics

        users = {name: [who for who, ours in metrics.PUBLISHED_AS.items() if ours == name] for name in metrics.NAMES}
        entries = [
            (name, (inspect.getdoc(getattr(metrics, name)) or "").partition("\n")[0] + _published(users[name]))
            for name in metrics.NAMES
        ]
    else:
        registry = registry_of(kind)
        entries = [(name, registry.summary(name)) for name in registry.names()]
    if as_json:
        print(json.dumps(dict(entries), indent=1))
        return
    from realmbench.render import print_listing

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
    from realmbench.render import print_page

    print_page(page)


@app.command()
def leaderboard(
    suite: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Suite to show; needed where results hold more than one."),
    ] = None,
    results_dir: ResultsDir = Path("results"),
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="File to write; leaderboard.md by default. With --json none is written."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write leaderboard.md from the run records of a suite. Example: `realmbench leaderboard --suite core-v1`."""
    from realmbench.statistics import compare as compare_methods

    if as_json and output is not None:
        raise OptionError("--json prints and writes no file; leave --output out")
    chosen, records = _records_of(results_dir, suite)
    if as_json:
        comparisons = [
            {"comparison": vars(comparison), "rows": [row.as_dict() for row in rows]}
            for comparison, rows in compare_methods(records)
        ]
        print(json.dumps(comparisons, indent=1))
        return
    from realmbench.answers import answers
    from realmbench.leaderboard import suite_of, write_leaderboard
    from realmbench.pretrainings import read_pretrainings
    from realmbench.render import err, print_comparisons
    from realmbench.suite import built_in_suites, outstanding, read_suite

    missing, answered = [], []
    if chosen in built_in_suites():
        listed = read_suite(chosen)
        missing, answered = outstanding(listed, records), answers(listed.asked(), records)
    print_comparisons(records)
    path = output or Path("leaderboard.md")
    if output is None and (other := suite_of(path)) not in (None, chosen):
        raise OptionError(f"{path} is that of suite {other}; say by --output where that of {chosen} goes")
    write_leaderboard(records, chosen, path, missing, read_pretrainings(results_dir, chosen), answered)
    err.print(f"Wrote {path} from {len(records)} records.", markup=False)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A model's name, or a label of the tables such as 'gru (small)'.")],
    others: Annotated[list[str], typer.Argument(help="What it is compared with; Holm's correction is over all.")],
    suite: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="Suite whose records are compared; needed where results hold more than one. May be repeated: a method "
            "that several have is taken from the first."
        ),
    ] = None,
    dataset: Annotated[Optional[str], typer.Option(help="Only this dataset.")] = None,  # noqa: UP045
    calibration: Annotated[
        Optional[list[float]],  # noqa: UP045
        typer.Option(help="Compare with so many seconds of calibration; may be repeated. The last point by default."),
    ] = None,
    any_front_end: Annotated[
        bool, typer.Option(help="Compare methods behind different front ends, named as in 'gru on bands50'.")
    ] = False,
    figures: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Draw the differences against seconds of calibration into this folder, too; with --calibration twice "
            "or more.",
            callback=a_folder,
        ),
    ] = None,
    results_dir: ResultsDir = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Say what can and what cannot be claimed of the difference between methods.

    Example: `realmbench compare realm-student realm-pooled gru --suite core-v1`

    With little calibration: `realmbench compare realm-student gru --suite fewshot-v1 --calibration 15`

    What a gain becomes with more of it: `... --calibration 15 --calibration 60 --calibration 240 --figures figures`

    Another input: `realmbench compare "gru on bands50" "gru on lfp100" --any-front-end`

    Presets of two suites: `realmbench compare "gru (small)" "gru (tiny)" --suite fewshot-small-v1 --suite fewshot-v1`
    """
    from realmbench.differences import differences
    from realmbench.statistics import across_front_ends, joined

    records = joined([_records_of(results_dir, name)[1] for name in suite or (None,)])
    if dataset is not None:
        known = {record.dataset for record in records}
        if dataset not in known:
            raise unknown_name("dataset among the records", dataset, known)
        records = [record for record in records if record.dataset == dataset]
    if any_front_end:
        records = across_front_ends(records)
    found = differences(records, _recorded(first), [_recorded(other) for other in others], calibration or ())
    if figures is not None:
        from realmbench.figures import write_gain_figures
        from realmbench.render import err

        for path in write_gain_figures(found, figures):
            err.print(f"Wrote {path}.", markup=False)
    if as_json:
        content = [
            {"comparison": vars(comparison), "differences": [each.as_dict() for each in group]}
            for comparison, group in found
        ]
        print(json.dumps(content, indent=1))
        return
    from realmbench.render import print_differences

    print_differences(found)


@app.command("answers")
def show_answers(
    suite: Annotated[str, typer.Argument(help="A suite of `list suites`, or the path of a TOML file.")],
    results_dir: ResultsDir = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Answer the questions that a suite file asks, each with Holm's correction over all that was decided on together.

    Example: `realmbench answers cohort-v1`

    Write questions down, and commit them, before there are records, at the end of a suite file of your own (decided and
    about are free text; pairs are models of the suite, or lists of a model and what is set; calibration_s may be left
    out). What has not been run stays open, and counts in the correction as if it said nothing:

        [[questions]]
        about = "Does mine beat its control and a GRU?"
        decided = "before any record"
        dataset = "synthetic-reach"
        pairs = [["mine", "gru"], ["mine", ["mine", "decoder.idea=false"]]]
        calibration_s = [15, 240]
    """
    from realmbench.answers import answers
    from realmbench.records import read_records
    from realmbench.suite import read_suite

    asked = read_suite(suite)
    if not asked.questions:
        raise RealmbenchError(f"suite {asked.name} asks no questions; compare its methods with `realmbench compare`")
    found = answers(asked.asked(), read_records(results_dir, asked.name))
    if as_json:
        print(json.dumps([answer.as_dict() for answer in found], indent=1))
        return
    from realmbench.render import print_answers

    print_answers(found)


def _recorded(name: str) -> str:
    """Return a model's name as records have it: of ``folder/file.py:Class``, ``file:Class``."""
    from realmbench.records import recorded_name

    return recorded_name(name) if ".py:" in name else name


def _records_of(results_dir: Path, suite: str | None) -> tuple[str, list[RunRecord]]:
    """Return the suite meant and its records."""
    from realmbench.plan import AUDIT_SUITE
    from realmbench.records import read_records, suites

    known = [name for name in suites(results_dir) if name != AUDIT_SUITE]
    if not known:
        raise RealmbenchError(f"{results_dir} holds no run records; make some with `realmbench run`")
    if suite is None and len(known) > 1:
        raise OptionError(f"{results_dir} holds the suites {', '.join(known)}; name one with --suite")
    chosen = suite or known[0]
    if chosen not in known:
        there = f"suite in {results_dir} (`realmbench sweep` runs those of `list suites`)"
        raise unknown_name(there, chosen, known)
    return chosen, read_records(results_dir, chosen)


@app.command()
def figures(
    suite: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Suite to draw; needed where results hold more than one."),
    ] = None,
    results_dir: ResultsDir = Path("results"),
    model: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Only this method, by a model's name or a label of the tables; may be repeated."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the files.", callback=a_folder)] = Path("figures"),
    file_format: Annotated[str, typer.Option("--format", help="svg, png or pdf.")] = "svg",
) -> None:
    """Draw every figure that a suite's records allow.

    R2 by seconds of calibration, by day, and by time in a stream; learning curves of pretraining, how near students
    come to their teachers, and R2 by what pretraining reached.

    Example: `realmbench figures --suite fewshot-v1 --model realm-student-plus --model gru`
    """
    from realmbench.days import day_curves, in_words
    from realmbench.figures import write_figures
    from realmbench.pretrainings import read_pretrainings
    from realmbench.render import err, out
    from realmbench.statistics import only

    chosen, records = _records_of(results_dir, suite)
    records = only(records, model) if model else records
    for path in write_figures(records, output, file_format, read_pretrainings(results_dir, chosen)):
        err.print(f"Wrote {path}.", markup=False)
    for _, lines in day_curves(records):
        out.print(in_words(lines), markup=False, highlight=False)


def _published(users: list[str]) -> str:
    return f" Published by {', '.join(users)}." if users else ""


def _page(name: str, preset: str | None, data_root: Path | None) -> dict[str, Any]:
    """Collect what `show` prints: sections of names and values."""
    from realmbench.decoder import DEFAULT_PRESET

    registries = {kind: registry_of(kind) for kind in ("models", "datasets", "protocols")}
    base = name if ".py" in name else name.partition(":")[0]
    names_dataset = is_dataset(name)
    if preset is not None and (names_dataset or base in registries["protocols"]):
        raise OptionError(f"--preset does not apply to {base}: datasets and protocols have none")
    if names_dataset:
        from realmbench.dataset import open_dataset

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
        **(
            {f"parameters for the published input, 96 channels of amplitude (preset {preset})": sizes}
            if (sizes := dict(decoder.sizes()))
            else {}
        ),
        f"decoder options (preset {preset})": decoder.options.model_dump(mode="json"),
        f"train options (preset {preset})": decoder.train_options.model_dump(mode="json"),
    }
