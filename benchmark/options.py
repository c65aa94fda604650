"""Options from the command line: ``--set decoder.hidden=64`` becomes a checked field of a pydantic model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from .errors import OptionError, unknown_name

PREFIXES = ("decoder", "data", "train")

Model = TypeVar("Model", bound=BaseModel)


class NoOptions(BaseModel):
    """For datasets and decoders that take no options of a kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse_settings(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Sort ``PREFIX.NAME=VALUE`` strings by prefix; a value is read as JSON where it parses, else as text.

    Raises
    ------
    OptionError : a setting without ``=``, without a known prefix, or given twice.
    """
    parsed: dict[str, dict[str, Any]] = {prefix: {} for prefix in PREFIXES}
    for setting in settings:
        key, equals, text = setting.partition("=")
        prefix, dot, name = key.strip().partition(".")
        if not equals or not dot or not name:
            raise OptionError(f"--set {setting!r} is not of the form PREFIX.NAME=VALUE, as in decoder.hidden=64")
        if prefix not in PREFIXES:
            raise OptionError(str(unknown_name("prefix of --set", prefix, PREFIXES)))
        if name in parsed[prefix]:
            raise OptionError(f"--set {prefix}.{name} is given twice")
        parsed[prefix][name] = _value(text.strip())
    return parsed


def build_options(
    model: type[Model], values: Mapping[str, Any], prefix: str, defaults: Mapping[str, Any] | None = None
) -> Model:
    """Build a model of options from defaults and what the user set; dotted names reach into nested models.

    A mapping sets what it names, and what it does not name stays as the defaults have it.

    Raises
    ------
    OptionError : an unknown name (with the nearest ones), a wrong type or value, or one given in two ways.
    """
    merged = _copy(defaults or {})
    given = list(_named(model, values, prefix))
    for name, value in given:
        if [other for other, _ in given].count(name) > 1:
            raise OptionError(f"--set {prefix}.{name} is given twice")
        *parents, last = name.split(".")
        level: dict[str, Any] = merged
        level_model: type[BaseModel] = model
        path = prefix
        for parent in parents:
            nested = _nested(_field(level_model, parent, path))
            if nested is None:
                raise OptionError(f"--set {path}.{parent} holds one value and has no options below it")
            level, level_model, path = level.setdefault(parent, {}), nested, f"{path}.{parent}"
            if not isinstance(level, dict):
                raise OptionError(f"--set {path}={level!r} and --set {path}.{last} contradict each other")
        _field(level_model, last, path)
        level[last] = value
    try:
        return model(**merged)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if not name:  # a rule about several options together
            raise OptionError(f"--set {prefix}.: {first['msg'].removeprefix('Value error, ')}") from error
        raise OptionError(f"--set {prefix}.{name}={first['input']!r} is not valid: {first['msg']}") from error


def added_later(default: Any, **rules: Any) -> Any:
    """Declare an option that older records do not know; its default is what they were made with."""
    return Field(default, json_schema_extra={"added_later": True}, **rules)


def as_recorded(options: BaseModel, preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as JSON values, those that were added later only where they or the preset say something.

    A record from before such an option so has the same configuration as one from after it.
    """
    values = options.model_dump(mode="json")
    for name, field in type(options).model_fields.items():
        later = isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("added_later")
        if later and values[name] == field.default and name not in preset:
            del values[name]
    return values


def changed_leaves(values: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    """Return the dotted names of the values that differ from the usual ones."""
    usually = leaves(usual)
    return [name for name, value in leaves(values).items() if value != usually.get(name)]


def whole_frames(option: str, seconds: float, rate: int) -> int:
    """Return what an option says in seconds as a number of frames.

    Raises
    ------
    OptionError : it is no whole number; to round it would be to measure something else than was asked for.
    """
    frames = seconds * rate
    if abs(frames - round(frames)) > 1e-6:
        raise OptionError(f"{option}={seconds:g} is no whole number of frames at {rate} Hz")
    return round(frames)


def leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def _named(model: type[BaseModel], values: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values: a mapping for nested options is the values that it names."""
    for name, value in values.items():
        nested = None if "." in name else _nested(_field(model, name, path))
        if nested is not None and isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", each) for inner, each in _named(nested, value, f"{path}.{name}"))
        else:
            yield name, value


def _nested(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of options that a field holds, None where it holds one value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _field(model: type[BaseModel], name: str, path: str) -> FieldInfo:
    """Look a field up, with a readable refusal."""
    if name in model.model_fields:
        return model.model_fields[name]
    if not model.model_fields:
        raise OptionError(f"--set {path}.{name} does not apply: there are no {path}. options here")
    raise OptionError(str(unknown_name(f"option {path}.", name, model.model_fields)))


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    """Copy nested dictionaries; two that are one object become two, so that setting one leaves the other alone."""
    return {name: _copy(value) if isinstance(value, Mapping) else value for name, value in values.items()}


# What Python writes where JSON writes true, false and null.
PYTHON_VALUES = {"True": True, "False": False, "None": None}


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except json.JSONDecodeError:
        return PYTHON_VALUES.get(text, text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise OptionError(f"{text} is no value for --set; give a finite number")
    return value
