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

import functools
import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from .dataset import open_dataset
from .errors import OptionError, RealmbenchError, unknown_name
from .front_end import FRONT_ENDS
from .options import leaves, parse_settings
from .plan import SUITE_NAME
from .protocol import PROTOCOLS, Protocol
from .question import Method, Question, has_options
from .records import RunRecord, held_out_of, recorded_name

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
        if (record.dataset, record.model) != (recorded_dataset(dataset), recorded_name(model)):
            return False
        options = parse_settings(self.settings)
        data = options.pop("data")
        return (
            (record.preset, record.protocol) == (self.preset, self.protocol)
            and self.front_end in (None, record.front_end)
            and leaves(record.data_options) == leaves(data)
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
        self.asked()
        return self

    def asked(self) -> list[Question]:
        """Return the questions with the data, preset and protocol of the runs that they are about.

        Raises
        ------
        ValueError : the suite does not run what is asked about, or in several ways of which the question names none.
        """
        return [self._resolved(question) for question in self.questions]

    def _resolved(self, question: Question) -> Question:
        datasets = {dataset for _, dataset, _ in self.pairs()}
        if question.dataset not in datasets:
            raise ValueError(f"{question.about!r}: {unknown_name('dataset of the suite', question.dataset, datasets)}")
        if question.front_end not in (None, *FRONT_ENDS):
            raise ValueError(f"{question.about!r}: {unknown_name('front end', str(question.front_end), FRONT_ENDS)}")
        listed: dict[Method, list[Entry]] = {}
        for entry, dataset, model in self.pairs():
            if dataset == question.dataset:
                listed.setdefault(Method(model=model, settings=entry.settings), []).append(entry)
        ways: list[set[tuple[str, str]]] = []
        for method in question.methods:
            if method not in listed:
                what = f"method of the suite on {question.dataset}"
                raise ValueError(
                    f"{question.about!r}: {unknown_name(what, method.written, [m.written for m in listed])}"
                )
            if question.front_end is None and len({entry.front_end for entry in listed[method]}) > 1:
                raise ValueError(f"{question.about!r}: {method.name} is run behind several front ends; name front_end")
            ways.append({(entry.preset, entry.protocol) for entry in listed[method]})
        common = [
            (preset, protocol)
            for preset, protocol in set.intersection(*ways)
            if question.preset in (None, preset) and question.protocol in (None, protocol)
        ]
        if len(common) != 1:
            several = "runs these methods with several presets or protocols; name preset or protocol"
            how = several if common else "does not run these methods with one preset and protocol"
            raise ValueError(f"{question.about!r}: the suite {how}")
        [(preset, protocol)] = common
        self._refuse_points_that_cannot_be(question, protocol)
        update = {"dataset": recorded_dataset(question.dataset), "preset": preset, "protocol": protocol}
        return question.model_copy(update=update)

    def _refuse_points_that_cannot_be(self, question: Question, name: str) -> None:
        if not question.calibration_s:
            return
        protocol = PROTOCOLS.get(name)
        if protocol.stages is Protocol.stages:
            raise ValueError(f"{question.about!r}: {name} has no points of calibration; leave calibration_s out")
        points = getattr(protocol, "seconds", None)
        if isinstance(points, tuple) and (wrong := set(question.calibration_s) - set(points)):
            known = ", ".join(f"{point:g}" for point in points)
            raise ValueError(f"{question.about!r}: {name} scores with {known} s, not with {min(wrong):g}")

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


@functools.cache
def recorded_dataset(name: str) -> str:
    """Return a dataset's name as records have it: of ``folder/file.py:Class``, the one that the class gives itself."""
    return open_dataset(name).full_name if ".py:" in name else name


def outstanding(suite: Suite, records: Sequence[RunRecord]) -> list[str]:
    """Say what a suite lists and the records lack, a text per dataset: methods without any run, and those begun."""
    lacking: dict[str, list[str]] = {}
    listed: dict[tuple[str, Method], list[Entry]] = {}
    for entry, dataset, model in suite.pairs():
        listed.setdefault((dataset, Method(model=model, settings=entry.settings)), []).append(entry)
    for entry, dataset, model in suite.pairs():
        alike = listed[dataset, Method(model=model, settings=entry.settings)]
        ways = {(other.preset, other.protocol) for other in alike}
        same_way = [each for each in alike if (each.preset, each.protocol) == (entry.preset, entry.protocol)]
        elsewhere = {other.front_end for other in same_way} - {entry.front_end}
        own = [r for r in records if entry.covers(r, dataset, model) and r.front_end not in elsewhere]
        wanted = entry.wanted(own)
        there = wanted & {(record.session, record.seed) for record in own}
        if not there or there != wanted:
            way = [entry.preset, entry.protocol] if len(ways) > 1 else []
            notes = [*way, *filter(None, [entry.front_end]), *entry.settings]
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
        # A wrong key comes before what lacks because of it.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        where = ".".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
        raise OptionError(f"{path}, {where or 'suite'}: {_in_words(first)}") from error


def _in_words(error: ErrorDetails) -> str:
    """Say what is wrong with a suite file as one who writes TOML would."""
    *place, key = error["loc"] or ("",)
    if error["type"] == "extra_forbidden":
        parts: dict[str, type[BaseModel]] = {"runs": Entry, "questions": Question}
        part = Method if "pairs" in place else parts.get(str(next(iter(place), "")), Suite)
        fields = [field.alias or name for name, field in part.model_fields.items()]
        return str(unknown_name("key", str(key), [*fields, *SHARED] if part is Suite else fields))
    own = {"tuple_type": "a list is needed, as in [...]", "too_short": "at least one is needed"}
    if error["type"] == "string_pattern_mismatch":
        return "only a to z, digits, dots and hyphens" if key == "name" else error["msg"]
    return own.get(error["type"], error["msg"].removeprefix("Value error, "))
