"""Search spaces refuse what cannot be searched, and know which values are theirs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from realmbench.search import Choice, Range, space_as_json


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Choice((1,)), "at least two"),
        (lambda: Choice((1, 2, 1)), "lists 1 twice"),
        (lambda: Choice((1, {2})), "JSON values"),
        (lambda: Choice((1.0, math.nan)), "JSON values"),
        (lambda: Range(2, 1), "is empty"),
        (lambda: Range(0, 1, log=True), "above 0"),
        (lambda: Range(1, 2.5, integer=True), "whole"),
        (lambda: Range(0, math.inf), "finite"),
        (lambda: Range("0", 1), "finite"),  # type: ignore[arg-type]
    ],
)
def test_impossible_dimensions_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_dimensions_know_their_values() -> None:
    choice = Choice((None, (1, 2), "a"))
    assert [choice.contains(value) for value in (None, [1, 2], (1, 2), "a", [2, 1])] == [True, True, True, True, False]
    whole = Range(1, 8, log=True, integer=True)
    assert [whole.contains(value) for value in (1, 8, 8.0, 2.5, 9, True, "4")] == [True, True, True] + [False] * 4
    assert space_as_json({"decoder.x": choice}) == {"decoder.x": {"values": [None, [1, 2], "a"]}}
