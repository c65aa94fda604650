"""What tests of tables, comparisons and figures share: one real record to make others from."""

from __future__ import annotations

import pytest

from realmbench.dataset import open_dataset
from realmbench.plan import RunRequest, make_plan
from realmbench.records import RunRecord
from realmbench.runner import Events, SessionBank, run


@pytest.fixture(scope="session")
def template(toy_name: str, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """Return the record of a run of ``mean`` on one of the toy's held-out sessions, seed 0."""
    toy = open_dataset(toy_name)
    plan = make_plan(RunRequest(model="mean", preset="tiny", sessions=["a2"]), toy)
    [record] = run(plan, toy, tmp_path_factory.mktemp("template"), Events(), SessionBank(toy, Events().stage))
    return record
