"""The comparisons that docs/results.md shows are the answers that the records give."""

from __future__ import annotations

import re
from pathlib import Path

from realmbench.answers import answers
from realmbench.records import read_records
from realmbench.suite import built_in_suites, read_suite

ROOT = Path(__file__).parents[1]
NUMBER = r"([+-]\d\.\d{3})"
CELLS = re.compile(rf"{NUMBER} \({NUMBER} to {NUMBER}\) \| (\d+ of \d+)")


def test_every_comparison_in_its_tables_is_an_answer() -> None:
    given = set()
    for suite in map(read_suite, built_in_suites()):
        for answer in answers(suite.questions, read_records(ROOT / "results", suite.name)):
            for each in answer.differences:
                assert each.interval is not None
                numbers = (f"{value:+.3f}" for value in (each.mean, each.interval.low, each.interval.high))
                given.add((*numbers, f"{each.ahead} of {len(each.sessions)}"))
    lines = (ROOT / "docs" / "results.md").read_text().splitlines()
    shown = [(line, found.groups()) for line in lines if line.startswith("|") for found in CELLS.finditer(line)]
    assert len(shown) > 50
    assert [line for line, cells in shown if cells not in given] == []
