"""The command that measures speed."""

from __future__ import annotations

import json
from typing import Annotated, Optional

import typer

from .application import AsJson, Device, app

BENCH_EXAMPLES = """
Measure speed: ratios inside one process, medians.

Examples:

    realmbench bench ssd

    realmbench bench ssd --threads 1 --rounds 9 --json
"""


@app.command(help=BENCH_EXAMPLES)
def bench(
    name: Annotated[str, typer.Argument(help="What to measure; `realmbench list benches`.")],
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is timed.")] = 5,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Threads of torch; by default as many as it takes by itself."),
    ] = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    import torch

    from realmbench.bench import BENCHES
    from realmbench.machine import device_description, ready_device, versions
    from realmbench.render import print_bench, progress_stage

    measured = BENCHES.get(name)()
    ready_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    with progress_stage() as on_progress:
        result = measured.measure(device, rounds, on_progress)
    count, where = torch.get_num_threads(), device_description(device)
    if as_json:
        machine = {"device": where, "threads": count, "rounds": rounds, "versions": versions()}
        print(json.dumps({"name": name, **machine, **result.model_dump()}, indent=1))
        return
    threads_text = f"{count} thread{'s' if count > 1 else ''}"
    print_bench(result, f"{where}, {threads_text}, torch {torch.__version__}; medians of {rounds}.")
