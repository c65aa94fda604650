"""What tests of tables, comparisons and figures share: one real record to make others from; and a run in one call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realmbench.dataset import Dataset, open_dataset
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


@pytest.fixture
def execute() -> Callable[..., list[RunRecord]]:
    """Return what runs a request (its fields by name, preset ``tiny``) on a dataset into a folder."""

    def one(dataset: Dataset, results: Path, events: Events | None = None, **request: Any) -> list[RunRecord]:
        plan = make_plan(RunRequest(**{"preset": "tiny", **request}), dataset)
        events = events or Events()
        return run(plan, dataset, results, events, SessionBank(dataset, events.stage))

    return one
