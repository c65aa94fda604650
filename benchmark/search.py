"""Search spaces: which options of a decoder may be tuned, and within which bounds.

A decoder declares them by the names that ``--set`` uses: ``{"train.learning_rate": Range(3e-4, 1e-2, log=True)}``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Union


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes
    ----------
    values : JSON values, tuples included; at least two, all different.

    Raises
    ------
    ValueError : too few values, one twice, or one that JSON cannot hold.
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2:
            raise ValueError(f"a choice needs at least two values, not {self.values}")
        texts = self.texts
        for text in texts:
            if texts.count(text) > 1:
                raise ValueError(f"a choice lists {text} twice")

    @property
    def texts(self) -> tuple[str, ...]:
        """The values as JSON text: the one form in which lists, numbers and words are told apart alike."""
        return tuple(json_text(value) for value in self.values)

    def contains(self, value: Any) -> bool:
        """Say whether a value is one of them; a tuple equals the list that JSON makes of it."""
        return json_text(value) in self.texts

    def same(self, first: Any, second: Any) -> bool:
        """Say whether two values are the same choice."""
        return json_text(first) == json_text(second)


@dataclass(frozen=True)
class Range:
    """A number between two bounds, both included.

    Attributes
    ----------
    low, high : bounds; whole numbers where ``integer``.
    log : drawn evenly on a logarithmic scale.

    Raises
    ------
    ValueError : bounds that are not finite numbers, in the wrong order, or not fit for the scale.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        for bound in (self.low, self.high):
            if not _is_number(bound):
                raise ValueError(f"a range is bounded by finite numbers, not by {bound!r}")
        if not self.low < self.high:
            raise ValueError(f"the range from {self.low} to {self.high} is empty")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, not at {self.low}")
        if self.integer and (self.low != int(self.low) or self.high != int(self.high)):
            raise ValueError(f"the bounds {self.low} and {self.high} of an integer range must be whole")

    def contains(self, value: Any) -> bool:
        """Say whether a value is a number of this range."""
        return _is_number(value) and self.low <= value <= self.high and not (self.integer and value != int(value))

    def same(self, first: Any, second: Any) -> bool:
        """Say whether two values are the same to three significant digits, or equal where ``integer``."""
        if not (_is_number(first) and _is_number(second)):
            return bool(first == second)
        return first == second if self.integer else math.isclose(first, second, rel_tol=5e-3)


SearchDimension = Union[Choice, Range]  # noqa: UP007  # evaluated at run time on Python 3.10


def space_as_json(space: Mapping[str, SearchDimension]) -> dict[str, dict[str, Any]]:
    """Return a search space as JSON values, for records and for comparing two of them."""
    return {name: json.loads(json.dumps(asdict(dimension))) for name, dimension in space.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def json_text(value: Any) -> str:
    """Write a value as JSON, always in the same form.

    Raises
    ------
    ValueError : JSON cannot hold it.
    """
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a choice holds JSON values, not {value!r}") from error
