"""The tables of docs/results.md are what the records give."""

from __future__ import annotations

import re
from pathlib import Path

from realmbench.answers import answers
from realmbench.records import read_records
from realmbench.suite import built_in_suites, read_suite

ROOT = Path(__file__).parents[1]
SHOWN = (ROOT / "docs" / "results.md").read_text().splitlines()
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
    shown = [(line, found.groups()) for line in SHOWN if line.startswith("|") for found in CELLS.finditer(line)]
    assert len(shown) > 50
    assert [line for line, cells in shown if cells not in given] == []


def test_every_calibration_curve_in_its_tables_is_on_a_page() -> None:
    """Pages are compared with the records in ``tests/benchmark/test_pages.py``."""

    def curve(line: str) -> list[str]:
        return re.findall(r"-?\d\.\d{3} ± \d\.\d{3}", line) if line.startswith("|") else []

    pages = [ROOT / "leaderboard.md", *(ROOT / "results").glob("*/README.md")]
    given = [curve(line) for page in pages for line in page.read_text().splitlines()]
    shown = [line for line in SHOWN if len(curve(line)) > 2]
    assert len(shown) > 30
    assert [line for line in shown if curve(line) not in given] == []
