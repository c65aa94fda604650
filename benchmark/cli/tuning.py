"""The command that tunes: the same budget for every model, on development sessions alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from realmbench.errors import RealmbenchError

from .application import AsJson, DataRoot, Device, PresetName, ResultsDir, Settings, Threads, app

TUNE_EXAMPLES = """
Search the options that a decoder declares, on sessions that no fold holds out.

Examples:

    realmbench tune --model gru

    realmbench tune --model gru --model realm-student --trials 50 --minutes 60

    realmbench tune --model poyo --preset small --only train.pretrain.learning_rate --minutes 60

    realmbench tune --model my_decoder.py:MyDecoder --dataset synthetic-lds:tiny

All trials are written below RESULTS_DIR/tuning, and the same command goes on where it stopped.
"""


@app.command(help=TUNE_EXAMPLES)
def tune(
    model: Annotated[list[str], typer.Option(help="Decoder: a name of `list models`, or FILE.py:CLASS. Repeatable.")],
    trials: Annotated[int, typer.Option(help="Sets of options to try, for each model.")] = 30,
    minutes: Annotated[float, typer.Option(help="Minutes of computing at most, for each model.")] = 10.0,
    only: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Search this option of the space and no other but those named too. Repeatable."),
    ] = None,
    sessions: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Sessions to try a single-session decoder on; 4 by default."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="Dataset, with a variant after a colon.")] = "synthetic-reach",
    preset: PresetName = "tiny",
    front_end: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="bands50 or lfp100; by default the first that the decoder accepts."),
    ] = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(help="Of the search and of every training.")] = 0,
    device: Device = "cpu",
    threads: Threads = 1,
    fresh: Annotated[bool, typer.Option(help="Forget earlier trials.")] = False,
    data_root: DataRoot = None,
    results_dir: ResultsDir = Path("results"),
    as_json: AsJson = False,
) -> None:
    from realmbench.dataset import open_dataset
    from realmbench.machine import limited_threads
    from realmbench.options import parse_settings
    from realmbench.plan import RunRequest, make_plan
    from realmbench.render import err, print_trial, print_tuning, progress_stage
    from realmbench.tuning import Budget, TuningEvents, check_tunable, tune
    from realmbench.tuning_record import TUNING_FOLDER

    parsed = parse_settings(settings or [])
    opened = open_dataset(dataset, data_root, parsed["data"])
    budget = Budget(trials, minutes, sessions)
    plans = [
        make_plan(
            RunRequest(
                model=name,
                front_end=front_end,
                preset=preset,
                seeds=(seed,),
                device=device,
                options=parsed["decoder"],
                train=parsed["train"],
                fresh=fresh,
            ),
            opened,
        )
        for name in model
    ]
    for plan in plans:
        check_tunable(plan, opened, budget, only or ())
    records = []
    with limited_threads(threads), progress_stage() as stage:
        events = TuningEvents(stage, print_trial, lambda text: err.print(text, markup=False))
        for plan in plans:
            try:
                records.append(tune(plan, opened, results_dir, budget, events, only or ()))
            except KeyboardInterrupt:
                err.print("interrupted: finished trials are kept, and the same command goes on from there")
                raise typer.Exit(130) from None
    if as_json:
        print(json.dumps([record.model_dump(mode="json") for record in records], indent=1))
    else:
        for record in records:
            print_tuning(record)
        err.print(f"Records are in {results_dir / TUNING_FOLDER}.", markup=False)
    if missing := [record.sentence for record in records if record.best_params is None]:
        raise RealmbenchError("; ".join(missing))
