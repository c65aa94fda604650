"""The pages in the repository are what the run records in it give."""

from __future__ import annotations

from pathlib import Path

import pytest

from realmbench.answers import answers
from realmbench.leaderboard import markdown
from realmbench.plan import AUDIT_SUITE
from realmbench.pretrainings import read_pretrainings
from realmbench.records import read_records, suites
from realmbench.suite import built_in_suites, outstanding, read_suite

RESULTS = Path(__file__).parents[2] / "results"
LEADERBOARD = RESULTS.parent / "leaderboard.md"
SUITES = [name for name in suites(RESULTS) if name != AUDIT_SUITE]


def test_there_are_results() -> None:
    assert "core-v1" in SUITES
    assert len(SUITES) > 3


@pytest.mark.parametrize("suite", SUITES)
def test_page_is_what_the_records_give(suite: str) -> None:
    """``make pages`` writes them."""
    page = LEADERBOARD if suite == "core-v1" else RESULTS / suite / "README.md"
    records = read_records(RESULTS, suite)
    missing, answered = [], []
    if suite in built_in_suites():
        listed = read_suite(suite)
        missing, answered = outstanding(listed, records), answers(listed.asked(), records)
    assert page.read_text() == markdown(records, suite, missing, read_pretrainings(RESULTS, suite), answered)
