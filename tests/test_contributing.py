"""The example of CONTRIBUTING.md is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from realmbench.conformance import check_decoder
from realmbench.dataset import Dataset
from realmbench.plan import RunRequest, make_plan
from realmbench.records import RunRecord
from realmbench.runner import Events, SessionBank, run

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


def test_decoder_of_the_guide_runs(toy: Dataset, tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    file = tmp_path / "least_squares.py"
    file.write_text(code)
    plan = make_plan(RunRequest(model=f"{file}:LeastSquares"), toy)
    events = Events()
    records: list[RunRecord] = run(plan, toy, tmp_path / "results", events, SessionBank(toy, events.stage))
    assert np.mean([record.metrics["r2_axis_mean"] for record in records]) > 0.1
    assert records[0].model == "least_squares:LeastSquares"
    report = check_decoder(f"{file}:LeastSquares", short=True)
    assert report.passed, report.verdict
