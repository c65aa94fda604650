"""Presets: tuned values reach the right place, and the defaults are those that tuning found."""

from __future__ import annotations

from pathlib import Path

import pytest

from realmbench.decoder import DECODERS, Preset, tuned
from realmbench.tuning import unfrozen
from realmbench.tuning_record import TuningRecord, read_tuning

TUNING = Path(__file__).parents[2] / "results" / "tuning" / "synthetic-reach"
RECORDS = sorted(TUNING.rglob("*.json"))


def test_tuned_values_reach_small_and_tiny_and_leave_paper_and_the_original_alone() -> None:
    stage = {"updates": 5}
    presets = {name: Preset(train={"a": stage, "b": stage}) for name in ("tiny", "small", "paper")}
    changed = tuned(presets, {"train.a.learning_rate": 0.5, "decoder.dropout": 0.1})
    for name in ("tiny", "small"):
        assert changed[name].train == {"a": {"updates": 5, "learning_rate": 0.5}, "b": {"updates": 5}}
        assert changed[name].decoder == {"dropout": 0.1}
    assert changed["paper"] == presets["paper"] == Preset(train={"a": {"updates": 5}, "b": {"updates": 5}})


def test_values_found_at_one_size_stay_there() -> None:
    presets = {name: Preset(decoder={"dropout": 0.2}) for name in ("tiny", "small")}
    changed = tuned(presets, {"decoder.dropout": 0.1}, sizes=("small",))
    assert changed == {"tiny": presets["tiny"], "small": Preset(decoder={"dropout": 0.1})}


# A control must differ in nothing but what it controls for.
FAMILY = (
    *("realm-student", "realm-pooled", "realm-pooled-steady", "realm-teacher", "realm-student-transformer"),
    *("realm-student-s", "realm-student-l", "realm-student-ahead", "realm-student-plus", "realm-teacher-plus"),
    *("realm-bi", "realm-student-unlabelled", "realm-student-mixed", "realm-student-plus-ahead"),
)
TUNED_AS = {
    **dict.fromkeys(FAMILY, "realm-student"),
    "gru-steady": "gru",
    "gru-pooled-steady": "gru-pooled",
    "tcn-pooled-steady": "tcn-pooled",
}


def record_of(name: str) -> TuningRecord:
    [path] = [path for path in RECORDS if path.name == f"{name}.tiny.json"]
    return read_tuning(path)


@pytest.mark.parametrize("name", [name for name in DECODERS.names() if name != "mean"])
def test_defaults_are_what_tuning_found(name: str) -> None:
    record = record_of(TUNED_AS.get(name, name))
    space = DECODERS.get(name).search_space
    best = {key: value for key, value in (record.best_params or {}).items() if key in space}
    record = record.model_copy(update={"best_params": best})
    assert unfrozen(record, DECODERS.get(name)) == []
    # Positive control: had the search found something else, it would be named.
    key, dimension = next(iter(space.items()))
    values = getattr(dimension, "values", None) or (dimension.low, dimension.high)
    other = next(value for value in values if value != best[key])
    changed = record.model_copy(update={"best_params": {**best, key: other}})
    assert unfrozen(changed, DECODERS.get(name)) == [key]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_tuning_record_counts(path: Path) -> None:
    assert read_tuning(path).counted


def test_every_model_had_the_same_budget_and_one_a_search_more() -> None:
    """At `tiny`, over the whole space. One search of one option at another size came on top of it (docs/tuning.md)."""
    records = [read_tuning(path) for path in RECORDS]
    assert len({(record.trials_allowed, record.minutes_allowed) for record in records if record.preset == "tiny"}) == 1
    [extra] = [record for record in records if record.preset != "tiny"]
    assert (extra.model, extra.preset, list(extra.space)) == ("poyo", "small", ["train.pretrain.learning_rate"])
    assert unfrozen(extra, DECODERS.get("poyo")) == []
