"""How pretraining went is kept beside the records, drawn, and set against what came of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from realmbench.dataset import Dataset
from realmbench.errors import RealmbenchError
from realmbench.figures import learning_figure, write_figures
from realmbench.leaderboard import markdown
from realmbench.learning import efforts, learning_curves, reached
from realmbench.plan import RunRequest, make_plan
from realmbench.pretrainings import PRETRAININGS, ArtifactRecord, keep, read_folder, read_pretrainings
from realmbench.records import ArtifactUse, RunRecord
from realmbench.runner import Events, SessionBank, run

SHORT = {stage: {"updates": 20, "evaluate_every": 10, "window_s": 1.0} for stage in ("teacher", "student", "finetune")}


@pytest.fixture
def runs(toy: Dataset, tmp_path: Path) -> list[RunRecord]:
    """Real runs of one fold with one seed."""
    sessions = next(fold.held_out for fold in toy.folds() if "a2" in fold.held_out)
    plan = make_plan(RunRequest(model="realm-student", preset="tiny", sessions=sessions, train=SHORT), toy)
    return run(plan, toy, tmp_path, Events(), SessionBank(toy, Events().stage))


def artifact(address: str, kind: str, scores: list[float], template: ArtifactRecord) -> ArtifactRecord:
    history = [{"update": 10.0 * number, "score": score} for number, score in enumerate(scores)]
    return template.model_copy(update={"hash": address, "digest": address, "kind": kind, "history": history})


def made_from(record: RunRecord, model: str, r2: float, **artifacts: str) -> RunRecord:
    uses = [ArtifactUse(kind=kind, hash=address, parameters=1, seconds=1.0) for kind, address in artifacts.items()]
    metrics = {**record.metrics, "r2_axis_mean": r2}
    return record.model_copy(
        update={"model": model, "metrics": metrics, "artifacts": uses, "changed_options": [], "config_hash": model}
    )


def runs_of_one(record: RunRecord) -> list[RunRecord]:
    """Two sessions with one seed and one with another; the student of the latter has left no course."""
    return [
        made_from(record, "one", 0.6, teacher="t1", student="s1"),
        made_from(record.model_copy(update={"session": "other"}), "one", 0.8, teacher="t1", student="s1"),
        made_from(record.model_copy(update={"seed": 1}), "one", 0.5, teacher="t2", student="forgotten"),
    ]


def test_a_run_keeps_how_its_pretraining_went(runs: list[RunRecord], toy: Dataset, tmp_path: Path) -> None:
    kept = read_pretrainings(tmp_path, runs[0].suite)
    assert sorted(kept) == sorted(use.hash for use in runs[0].artifacts)
    assert sorted(record.kind for record in kept.values()) == ["realm-student", "realm-teacher"]
    assert all([entry["update"] for entry in record.history] == [0, 10, 20] for record in kept.values())
    [file] = tmp_path.rglob(PRETRAININGS)
    assert len(file.read_text().splitlines()) == 2, "sessions that share a pretraining share its line"
    files = write_figures(runs, tmp_path / "figures", kept=kept)
    assert [path.name.partition("-")[0] for path in files][-3:] == ["learning", "alignment", "reached"]
    [(comparison, lines)] = learning_curves(runs, kept)
    assert [axes.get_title() for axes in learning_figure(comparison, lines).axes] == ["realm-student", "realm-teacher"]
    [(_, [aligned])] = learning_curves(runs, kept, "alignment")
    [student] = [record for record in kept.values() if record.kind == aligned.stage == "realm-student"]
    assert aligned.curves == (tuple((entry["update"], entry["alignment"]) for entry in student.history),)
    [panel] = learning_figure(comparison, [aligned], "alignment").axes
    assert panel.get_ylabel() == "distance from the teacher"


def test_damaged_line_is_named(runs: list[RunRecord], tmp_path: Path) -> None:
    [file] = tmp_path.rglob(PRETRAININGS)
    file.write_text(file.read_text() + '{"kind": "realm-teacher"}\n')
    with pytest.raises(RealmbenchError, match="line 3, is no artifact"):
        read_folder(file.parent)


def test_a_score_that_was_not_a_number_stays_one(runs: list[RunRecord], tmp_path: Path) -> None:
    template = next(iter(read_pretrainings(tmp_path, runs[0].suite).values()))
    keep(tmp_path, [artifact("t1", "teacher", [-1.5, math.nan, -0.7, math.nan], template)])
    [back] = read_folder(tmp_path)
    assert [math.isnan(entry["score"]) for entry in back.history] == [False, True, False, True]
    assert back.best_score == -0.7


def test_curves_and_ends_by_hand(runs: list[RunRecord], tmp_path: Path) -> None:
    template = next(iter(read_pretrainings(tmp_path, runs[0].suite).values()))
    kept = {
        record.hash: record
        for record in (
            artifact("t1", "teacher", [-1.5, -0.9, -0.8], template),
            artifact("t2", "teacher", [-1.5, -0.7, -0.9], template),
            # Trained anew after a change of code, and the same to the last bit.
            artifact("t1-again", "teacher", [-1.5, -0.9, -0.8], template).model_copy(update={"digest": "t1"}),
            artifact("s1", "student", [0.0, 0.5], template),
            artifact("untrained", "teacher", [-1.5], template),
        )
    }
    first, second = (runs[0], runs[0].model_copy(update={"seed": 1}))
    records = [
        *runs_of_one(runs[0]),
        made_from(first, "two", 0.4, teacher="t1"),
        made_from(first.model_copy(update={"session": "other"}), "two", 0.2, teacher="t1-again"),
        made_from(second, "two", 0.3, teacher="t2"),
        made_from(first, "three", 0.1, teacher="untrained"),
    ]
    [(_, lines)] = learning_curves(records, kept)
    assert [(line.stage, line.label, len(line.curves)) for line in lines] == [
        ("student", "one (tiny)", 1),
        ("teacher", "one (tiny) and 1 more", 2),
        ("teacher", "two (tiny)", 1),
    ]
    assert lines[1].curves[0] == ((0, -1.5), (10, -0.9), (20, -0.8))
    [(_, ends)] = reached(records, kept)
    # The second seed of both was run on one session of two: its mean would be over another set.
    assert {(end.stage, end.label): end.points for end in ends} == {
        ("student", "one (tiny)"): (("a", 0.5, pytest.approx(0.7)),),
        ("teacher", "one (tiny)"): (("a", -0.8, pytest.approx(0.7)),),
        ("teacher", "two (tiny)"): (("a", -0.8, pytest.approx(0.3)),),
    }


def test_how_long_pretraining_went_on_by_hand(runs: list[RunRecord], tmp_path: Path) -> None:
    """Made is where it ended, kept the first best after the start, however good the start was."""
    template = next(iter(read_pretrainings(tmp_path, runs[0].suite).values()))
    template = template.model_copy(update={"config": {"train": {"updates": 3000}}})
    kept = {
        record.hash: record
        for record in (
            artifact("t1", "teacher", [0.9, 0.1, 0.5, 0.5, 0.4], template),
            artifact("t2", "teacher", [0.0, math.nan, 0.2], template),
            artifact("s1", "student", [0.0, 0.5], template.model_copy(update={"config": {}})),
            artifact("untrained", "teacher", [-1.5], template),
        )
    }
    records = [
        *runs_of_one(runs[0]),
        made_from(runs[0], "never", 0.1, teacher="untrained"),
    ]
    [(_, lines)] = efforts(records, kept)
    assert [(line.label, line.stage, line.allowed, line.made, line.best, line.trainings) for line in lines] == [
        ("one (tiny)", "teacher", 3000, (20, 40), (20, 20), 2),
        ("one (tiny)", "student", None, (10, 10), (10, 10), 1),
    ]
    page = markdown(records, "x", kept=kept)
    assert "| one (tiny) | teacher | 3,000 | 20 to 40 | 20 | 2 |\n| one (tiny) | student | – | 10 | 10 | 1 |" in page
    assert "How long" not in markdown(records, "x")


def test_what_is_there_is_not_written_twice(runs: list[RunRecord], tmp_path: Path) -> None:
    [file] = tmp_path.rglob(PRETRAININGS)
    before = file.read_text()
    keep(file.parent, read_folder(file.parent))
    assert file.read_text() == before
    more = artifact("t1", "teacher", [-1.5, -0.9], read_folder(file.parent)[0])
    keep(file.parent, [more, more])
    assert file.read_text().startswith(before)
    assert read_folder(file.parent)[-1] == more
    assert len(read_folder(file.parent)) == 3
