"""The tables of docs/results.md are what the records give."""

from __future__ import annotations

import re
from pathlib import Path

from realmbench.answers import answers
from realmbench.records import read_records
from realmbench.suite import built_in_suites, read_suite

ROOT = Path(__file__).parents[1]
SHOWN = [line for line in (ROOT / "docs" / "results.md").read_text().splitlines() if line.startswith("|")]
NUMBER = r"([+-]\d\.\d{3})"
CELLS = re.compile(rf"{NUMBER} \({NUMBER} to {NUMBER}\) \| (\d+ of \d+)(?: \| ([^|]*))?")


def test_every_row_of_comparisons_is_an_answer() -> None:
    """A row is of one pair of methods; its cells stand in the order of the points of calibration, or of the data."""
    given: dict[tuple[str, str, str], list[tuple[str, ...]]] = {}
    for suite in map(read_suite, built_in_suites()):
        for answer in answers(suite.asked(), read_records(ROOT / "results", suite.name)):
            for each in answer.differences:
                if each.interval is not None:
                    numbers = (f"{value:+.3f}" for value in (each.mean, each.interval.low, each.interval.high))
                    p_value = "" if each.p_adjusted is None else f"{each.p_adjusted:.3f}"
                    cells = (*numbers, f"{each.ahead} of {len(each.sessions)}", p_value, str(each.claimed))
                    given.setdefault((suite.name, each.first, each.second), []).append(cells)
    rows = [(line, found) for line in SHOWN if (found := CELLS.findall(line))]
    assert len(rows) > 25
    for line, found in rows:
        assert any(_same(found, cells) for cells in given.values()), line


def _same(found: list[tuple[str, ...]], given: list[tuple[str, ...]]) -> bool:
    """Compare numbers, and where a row makes a claim or gives an adjusted p, these too."""
    for start in range(len(given) - len(found) + 1):
        pairs = zip(found, given[start:])
        if all(
            shown[:4] == there[:4]
            and all(p_value == there[4] for p_value in re.findall(r"p = (0\.\d{3})", shown[4]))
            and (not shown[4] or shown[4].startswith("none") == (there[5] == "False"))
            for shown, there in pairs
        ):
            return True
    return False


def test_every_calibration_curve_in_its_tables_is_on_a_page() -> None:
    """Pages are compared with the records in ``tests/benchmark/test_pages.py``."""

    def curve(line: str) -> list[str]:
        return re.findall(r"-?\d\.\d{3} (?:± \d\.\d{3}|\(-?\d\.\d{3} to -?\d\.\d{3}\))", line)

    pages = [ROOT / "leaderboard.md", *(ROOT / "results").glob("*/README.md")]
    given = [curve(line) for page in pages for line in page.read_text().splitlines() if line.startswith("|")]
    shown = [line for line in SHOWN if len(curve(line)) > 2]
    assert len(shown) > 30
    assert [line for line in shown if curve(line) not in given] == []
