"""A question that a suite asks: comparisons that were decided on together, best before their records are there.

    [[questions]]
    about = "Is it the method, or are they more sessions?"
    decided = "before any record of the two"
    dataset = "synthetic-reach"
    pairs = [["realm-student", "realm-pooled"], ["realm-student", ["gru-pooled", "train.pretrain.updates=600"]]]
    calibration_s = [15, 240]     # points of the curves; left out, the records' own scores are compared

All its comparisons, pairs times points, are one family: each has to stand against all that were decided on with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .options import leaves, parse_settings
from .records import RunRecord, recorded_name

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Method(BaseModel):
    """A model with what is set; written as its name, or as a list of its name and the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    settings: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"model": value}
        return {"model": value[0], "settings": value[1:]} if isinstance(value, (list, tuple)) and value else value

    @field_validator("model")
    @classmethod
    def _as_recorded(cls, model: str) -> str:
        return recorded_name(model)

    @field_validator("settings")
    @classmethod
    def _in_one_order(cls, settings: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(settings))

    @property
    def written(self) -> str:
        """As a suite file names it among its pairs; the quotes around a name alone are left out."""
        return json.dumps([self.model, *self.settings]) if self.settings else self.model

    @property
    def name(self) -> str:
        """Name and settings in a line."""
        return f"{self.model} ({', '.join(self.settings)})" if self.settings else self.model

    def made(self, record: RunRecord) -> bool:
        """Say whether a record is of this method, with these settings and no others."""
        options = parse_settings(self.settings)
        data = options.pop("data")
        same_data = leaves(record.data_options) == leaves(data)
        return record.model == self.model and same_data and has_options(record, options)


class Question(BaseModel):
    """Comparisons that were decided on together.

    Attributes
    ----------
    about : the question, in words.
    decided : when, and what had been seen by then.
    pairs : first and second; positive differences favour the first.
    preset, protocol, front_end : of what is compared; needed only where the suite runs these methods with several.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    decided: str
    dataset: str
    pairs: tuple[tuple[Method, Method], ...] = Field(min_length=1)
    calibration_s: tuple[Seconds, ...] = ()
    preset: str | None = None
    protocol: str | None = None
    front_end: str | None = None

    @model_validator(mode="after")
    def _asks_everything_once(self) -> Question:
        """Refuse what would swell the family, and what can have no answer."""
        if len(set(map(frozenset, self.pairs))) < len(self.pairs):
            raise ValueError("pairs holds two methods twice; that would count as one more comparison")
        if len(set(self.calibration_s)) < len(self.calibration_s):
            raise ValueError("calibration_s holds a point twice; that would count as more comparisons")
        for first, second in self.pairs:
            if first == second:
                raise ValueError(f"pairs compares {first.name} with itself")
            if parse_settings(first.settings)["data"] != parse_settings(second.settings)["data"]:
                raise ValueError(f"pairs compares {first.name} and {second.name} on different data")
        return self

    @property
    def comparisons(self) -> int:
        """How many comparisons share the error that is allowed."""
        return len(self.pairs) * max(1, len(self.calibration_s))

    @property
    def methods(self) -> list[Method]:
        """All methods that are compared, each once."""
        return list(dict.fromkeys(method for pair in self.pairs for method in pair))

    def concerns(self, record: RunRecord) -> bool:
        """Say whether a record is of the data and the kind of run that is asked about."""
        return (record.audit, record.dataset) == (None, self.dataset) and all(
            wanted in (None, there)
            for wanted, there in (
                (self.preset, record.preset),
                (self.protocol, record.protocol),
                (self.front_end, record.front_end),
            )
        )


def has_options(record: RunRecord, options: Mapping[str, Any]) -> bool:
    """Say whether a record was made with these options of ``decoder`` and ``train`` and no others."""
    wanted, there = leaves(options), leaves(record.config)
    as_wanted = all(there.get(name) == value for name, value in wanted.items())
    return as_wanted and set(record.changed_options) <= set(wanted)
