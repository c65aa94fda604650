"""The command that runs recorded runs again."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Optional

import typer

from .application import AsJson, DataRoot, Device, ResultsDir, app

REPRODUCE_EXAMPLES = """
Run recorded runs again and say whether they come out as recorded.

Examples:

    realmbench reproduce core-v1 --model wiener

    realmbench reproduce core-v1 --dataset synthetic-reach

    realmbench reproduce core-v1 --model gru --session s0-test-d150 --seed 2

    realmbench reproduce fewshot-v1 --cached

Of every method on every dataset the first session's lowest seed is run again, everything that it needs trained anew,
with as many threads as then. With --cached, pretrained networks are taken from the cache where code, data and options
of their stage are the same, and the rest is run again: for changes that touch no pretraining.

On the same kind of machine with the same versions, scores come out the same to the last bit; elsewhere rounding makes
networks differ by a little. Exit code 1 means that a run failed, or that an R2, of any point of a calibration curve, is
further off than --tolerance.

What was run again is noted beside the records. One that comes out the same to the last bit, although the code has
changed, vouches for all records of its method there: a sweep does not run them again.
"""


@app.command(help=REPRODUCE_EXAMPLES)
def reproduce(
    suite: Annotated[str, typer.Argument(help="Suite, as a folder of results is named.")],
    model: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Only this model, by name, as FILE.py:CLASS, or as its folder is named; may be repeated."),
    ] = None,
    dataset: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Only this dataset, by name or as FILE.py:CLASS; may be repeated."),
    ] = None,
    session: Annotated[Optional[str], typer.Option(help="Only this held-out session.")] = None,  # noqa: UP045
    seed: Annotated[Optional[int], typer.Option(help="Only this seed.")] = None,  # noqa: UP045
    every: Annotated[bool, typer.Option("--every", help="All records instead of one per method and dataset.")] = False,
    cached: Annotated[
        bool, typer.Option("--cached", help="Take what pretraining left from the cache where its code has not changed.")
    ] = False,
    tolerance: Annotated[float, typer.Option(min=0, help="Largest difference of R2 that counts as reproduced.")] = 0.01,
    device: Device = "cpu",
    data_root: DataRoot = None,
    results_dir: ResultsDir = Path("results"),
    as_json: AsJson = False,
) -> None:
    from realmbench.bank import Events
    from realmbench.dataset import open_dataset
    from realmbench.errors import RealmbenchError
    from realmbench.records import recorded_name
    from realmbench.render import err, print_reproductions, progress_stage
    from realmbench.reproduction import choose
    from realmbench.reproduction import reproduce as run_again

    models = {recorded_name(name): name for name in model or ()}
    datasets = {open_dataset(name, data_root).full_name: name for name in dataset or ()}
    chosen = choose(results_dir, suite, list(models), list(datasets), session, seed, every)
    found, problems = [], []
    with tempfile.TemporaryDirectory() as folder, progress_stage() as stage:
        events, store = Events(stage=stage), None if cached else Path(folder)
        for number, recorded in enumerate(chosen, 1):
            err.print(f"{number} of {len(chosen)}: {recorded.name}", markup=False)
            try:
                entry = run_again(recorded, data_root, store, events, models | datasets, device)
                found.append((recorded, entry))
            except RealmbenchError as error:
                problems.append(str(error))
            except KeyboardInterrupt:
                err.print("interrupted: what was run again so far is noted beside its record")
                raise typer.Exit(130) from None
    if as_json:
        rows = [{"record": str(recorded.path), **entry.model_dump()} for recorded, entry in found]
        print(json.dumps({"reproductions": rows, "problems": problems}, indent=1))
    elif found:
        print_reproductions([(recorded.name, entry) for recorded, entry in found], tolerance)
    for problem in problems:
        err.print(f"failed: {problem}", markup=False)
    if problems or any(entry.largest_difference > tolerance for _, entry in found):
        raise typer.Exit(1)
