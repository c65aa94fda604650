"""The application that the commands belong to, and the options that several of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from realmbench.errors import OptionError, RealmbenchError, unknown_name
from realmbench.registry import import_object

app = typer.Typer(
    help="The open benchmark of decoders that turn local field potentials (LFP) into movement.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from realmbench import __version__

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


def a_folder(parameter: typer.CallbackParam, value: Path | None) -> Path | None:
    """Refuse, before anything is computed, a folder that cannot be one."""
    if value is None:
        return None
    existing = next(part for part in (value, *value.absolute().parents) if part.exists())
    if not existing.is_dir():
        raise OptionError(f"{parameter.opts[0]} {value}: {existing} is a file; name a folder")
    return value


DataRoot = Annotated[
    Optional[Path],  # noqa: UP045  # typer on Python 3.10
    typer.Option(help="Folder that holds one folder per dataset, as in DIR/open-field."),
]
ResultsDir = Annotated[Path, typer.Option(help="Folder of run records.", callback=a_folder)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output, for scripts.")]
Protocol = Annotated[str, typer.Option(help="How recordings are cut and scored.")]
FrontEnd = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="bands50, lfp100 or spikes50; by default the protocol's first that the decoder accepts."),
]
PresetName = Annotated[
    str,
    typer.Option(
        "--preset",
        help="Size of the model: tiny (seconds), small, paper, or one that show MODEL lists (REALM: paper-v1).",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")]
Threads = Annotated[
    int,
    typer.Option(min=1, help="Threads to compute with; small networks are fastest with one, preset paper with more."),
]
Settings = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="PREFIX.NAME=VALUE", help="Change an option: decoder., train. or data."),
]


def registry_of(kind: str) -> Any:
    """Return the registry of models, datasets, protocols or benches."""
    places = {
        "models": "realmbench.decoder:DECODERS",
        "datasets": "realmbench.dataset:DATASETS",
        "protocols": "realmbench.protocol:PROTOCOLS",
        "benches": "realmbench.bench:BENCHES",
    }
    if kind not in places:
        raise unknown_name("kind", kind, [*places, "suites", "metrics"])
    return import_object(places[kind])


def is_dataset(name: str) -> bool:
    """Tell a dataset from a model; a class that is neither is left to the models to refuse."""
    registry = registry_of("datasets")
    path, in_file, rest = name.partition(".py:")
    if not in_file:
        return name.partition(":")[0] in registry
    try:
        registry.get(f"{path}.py:{rest.partition(':')[0]}")
    except RealmbenchError:
        return False
    return True
