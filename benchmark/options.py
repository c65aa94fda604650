"""Options from the command line: ``--set decoder.hidden=64`` becomes a checked field of a pydantic model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import OptionError, unknown_name

PREFIXES = ("decoder", "data", "train")

Model = TypeVar("Model", bound=BaseModel)


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
    model: type[Model], values: Mapping[str, Any], prefix: str, defaults: Mapping[str, Any] = {}
) -> Model:
    """Build a model of options from defaults and what the user set.

    Raises
    ------
    OptionError : an unknown name (with the nearest ones), a wrong type or value.
    """
    for name in values:
        if name not in model.model_fields:
            known = list(model.model_fields)
            if not known:
                raise OptionError(f"--set {prefix}.{name} does not apply: there are no {prefix}. options here")
            raise OptionError(str(unknown_name(f"option {prefix}.", name, known)))
    try:
        return model(**{**defaults, **values})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise OptionError(f"--set {prefix}.{name}={first['input']!r} is not valid: {first['msg']}") from error


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
