"""Names of figures: what is drawn of other data goes to another file."""

from __future__ import annotations

from realmbench.figures import _slug


def test_values_that_differ_by_their_sign_have_names_of_their_own() -> None:
    assert _slug("toy, shift=-1 v1") == "toy-shift-minus-1-v1"
    assert _slug("toy, shift=1 v1") == "toy-shift-1-v1"
