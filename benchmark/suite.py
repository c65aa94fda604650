"""Suites: versioned lists of runs, read from a TOML file.

name = "core-v1"
summary = "what the leaderboard shows"
seeds = 3                     # what stands at the top holds for every [[runs]] that does not say otherwise
preset = "small"

[[runs]]
models = ["wiener", "gru"]
datasets = ["synthetic-reach", "open-field"]

[[runs]]
models = ["realm-student"]
datasets = ["synthetic-reach:hard"]
front_end = "lfp100"
set = ["decoder.d_model=128", "train.student.updates=2000"]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import OptionError, RealmbenchError, unknown_name
from .options import parse_settings
from .plan import SUITE_NAME, recorded_name
from .question import Method, Question, has_options
from .records import RunRecord, held_out_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHARED = ("protocol", "front_end", "preset", "seeds", "device", "sessions", "set")


class Entry(BaseModel):
    """One ``[[runs]]``: every model on every dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    models: tuple[str, ...] = Field(min_length=1)
    datasets: tuple[str, ...] = Field(min_length=1)
    protocol: str = "blocked-v1"
    front_end: str | None = None
    preset: str = "small"
    seeds: int = Field(1, ge=1)
    device: str = "cpu"
    sessions: tuple[str, ...] | None = Field(None, min_length=1)
    settings: tuple[str, ...] = Field((), alias="set")

    def covers(self, record: RunRecord, dataset: str, model: str) -> bool:
        """Say whether a record is of this entry's runs of a model on a dataset; none named is any front end."""
        if (record.dataset, record.model) != (dataset, recorded_name(model)):
            return False
        options = parse_settings(self.settings)
        data = options.pop("data")
        return (
            (record.preset, record.protocol) == (self.preset, self.protocol)
            and self.front_end in (None, record.front_end)
            and record.data_options == data
            and has_options(record, options)
        )

    def wanted(self, records: Sequence[RunRecord]) -> set[tuple[str, int]]:
        """Return the sessions and seeds of a model on a dataset, as far as its records name the sessions."""
        return {(name, seed) for name in self.sessions or held_out_of(records) for seed in range(self.seeds)}


class Suite(BaseModel):
    """A named list of runs; its records lie in ``results/<name>``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=f"^{SUITE_NAME}$")
    summary: str = ""
    runs: tuple[Entry, ...] = Field(min_length=1)
    questions: tuple[Question, ...] = ()

    @model_validator(mode="after")
    def _asks_about_its_runs(self) -> Suite:
        """Refuse a question about what the suite does not run: a slip in a name would leave it open for ever."""
        for question in self.questions:
            listed = {
                Method(model=recorded_name(model), settings=entry.settings).name
                for entry, dataset, model in self.pairs()
                if dataset == question.dataset
            }
            for method in question.methods:
                if method.name not in listed:
                    where = f"method on {question.dataset} in the suite"
                    raise ValueError(f"question {question.about!r}: {unknown_name(where, method.name, listed)}")
        return self

    def pairs(self) -> Iterator[tuple[Entry, str, str]]:
        """Yield entry, dataset and model of everything in the suite."""
        for entry in self.runs:
            for dataset in entry.datasets:
                for model in entry.models:
                    yield entry, dataset, model

    def only(self, models: Sequence[str] = (), datasets: Sequence[str] = ()) -> Suite:
        """Return the part of the suite with these models and on these datasets; nothing named is everything.

        Raises
        ------
        UnknownNameError : the suite lists no such model or dataset.
        """
        pairs = list(self.pairs())
        for kind, wanted, listed in (
            ("model", models, {model for _, _, model in pairs}),
            ("dataset", datasets, {dataset for _, dataset, _ in pairs}),
        ):
            for name in wanted:
                if name not in listed:
                    raise unknown_name(f"{kind} of suite {self.name}", name, listed)
        kept = []
        for entry in self.runs:
            part = {
                "models": tuple(name for name in entry.models if not models or name in models),
                "datasets": tuple(name for name in entry.datasets if not datasets or name in datasets),
            }
            if all(part.values()):
                kept.append(entry.model_copy(update=part))
        if not kept:
            raise OptionError(f"suite {self.name} lists {', '.join(models)}, but not on {', '.join(datasets)}")
        return self.model_copy(update={"runs": tuple(kept)})


def outstanding(suite: Suite, records: Sequence[RunRecord]) -> list[str]:
    """Say what a suite lists and the records lack, a text per dataset: methods without any run, and those begun."""
    lacking: dict[str, list[str]] = {}
    pairs = list(suite.pairs())
    for entry, dataset, model in pairs:
        alike = [other for other, *what in pairs if what == [dataset, model] and other.settings == entry.settings]
        elsewhere = {other.front_end for other in alike} - {entry.front_end}
        own = [r for r in records if entry.covers(r, dataset, model) and r.front_end not in elsewhere]
        wanted = entry.wanted(own)
        there = wanted & {(record.session, record.seed) for record in own}
        if not there or there != wanted:
            notes = [*filter(None, [entry.front_end]), *entry.settings]
            if there:
                notes.append(f"{len(there)} of {len(wanted)} runs")
            lacking.setdefault(dataset, []).append(f"{model} ({', '.join(notes)})" if notes else model)
    return [f"{', '.join(methods)} on {dataset}" for dataset, methods in lacking.items()]


def built_in_suites() -> dict[str, Path]:
    """Return the suites that come with the package, by name."""
    folder = Path(str(resources.files("realmbench"))) / "suites"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_suite(name: str) -> Suite:
    """Read a suite by the name of a built-in one or the path of a TOML file.

    Raises
    ------
    RealmbenchError : unknown name, missing file, or a key that does not exist or has a wrong value.
    """
    path = Path(name)
    if path.suffix != ".toml":
        known = built_in_suites()
        if name not in known:
            raise unknown_name("suite (or give the path of a .toml file)", name, known)
        path = known[name]
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RealmbenchError(f"cannot read {path}: {error.strerror or error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RealmbenchError(f"{path} is not valid TOML: {error}") from error
    defaults = {key: content.pop(key) for key in SHARED if key in content}
    runs = content.get("runs", [])
    if isinstance(runs, list):
        content["runs"] = [{**defaults, **entry} if isinstance(entry, dict) else entry for entry in runs]
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
        raise OptionError(f"{path}, {where or 'suite'}: {first['msg']}") from error
