"""What is printed stands there as it is written."""

from __future__ import annotations

import pytest

from realmbench import render
from realmbench.records import RunRecord


def test_brackets_in_an_options_value_are_printed(template: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    """To rich, which draws the tables, they would be markup: dropped, or an error where they close what is not open."""
    changed = {
        "changed_options": ["decoder.flags", "decoder.place"],
        "config": {"decoder": {"flags": [True, False], "place": "[/tmp/x]"}},
        "data_options": {"kept": "[bold]"},
    }
    render.print_comparisons([template.model_copy(update=changed)], ["a2"])
    printed = "".join(capsys.readouterr().out.split())
    assert printed.count("flags=[true,false],place=[/tmp/x]") == 2  # in the table and in the words below it
    assert "kept=[bold]" in printed


def test_names_in_colons_are_no_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    for console in (render.out, render.err):
        console.print("mine.py:key: it failed", markup=False)
    printed = capsys.readouterr()
    assert printed.out == printed.err == "mine.py:key: it failed\n"
