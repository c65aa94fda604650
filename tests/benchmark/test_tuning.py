"""Tuning: development sessions alone, an equal budget, every trial written, and no failed trial that wins."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from realmbench.bank import SessionBank
from realmbench.dataset import Dataset, Fold
from realmbench.decoder import Preset
from realmbench.errors import OptionError, ProtocolError, RealmbenchError, UnknownNameError
from realmbench.files import cache_dir
from realmbench.plan import Plan, RunRequest, make_plan
from realmbench.recording import Recording
from realmbench.search import Range
from realmbench.tuning import Budget, TuningEvents, check_tunable, tune, tuning_units, unfrozen
from realmbench.tuning_record import TuningRecord, TuningTrial, read_tuning, tuning_path, write_tuning

MODELS = Path(__file__).parents[1] / "examples" / "tunable.py"


def planned(name: str, dataset: Dataset, seed: int = 0, **request: Any) -> Plan:
    return make_plan(RunRequest(model=f"{MODELS}:{name}", preset="tiny", seeds=(seed,), **request), dataset)


def path_of(plan: Plan, dataset: Dataset, results: Path) -> Path:
    folder, _, front_end, method = plan.place(dataset)
    return tuning_path(results, folder, front_end, method)


def essence(trials: Sequence[TuningTrial]) -> list[tuple[Any, ...]]:
    return [(trial.number, trial.params, trial.state, trial.unit_values) for trial in trials]


def test_finds_the_known_optimum_and_writes_every_trial(toy: Dataset, tmp_path: Path) -> None:
    plan = planned("Gain", toy)
    record = tune(plan, toy, tmp_path, Budget(trials=25))
    assert record == read_tuning(path_of(plan, toy, tmp_path))
    assert [unit.session for unit in record.units] == ["a0", "b0", "a1", "b1"]
    assert [trial.number for trial in record.trials] == list(range(25))
    first = record.trials[0]
    assert (first.params, first.value) == ({"decoder.gain": 0.2}, record.defaults_value)
    # R2 as a function of the gain g of an unbiased fit is R2(1) * g * (2 - g): 0.36 of the best at 0.2.
    assert record.best_params is not None
    assert record.best_value is not None
    assert record.best_params["decoder.gain"] == pytest.approx(1.0, abs=0.15)
    assert record.defaults_value == pytest.approx(0.36 * record.best_value, rel=0.25)
    assert "best of 25 trials" in record.sentence
    assert "set decoder.gain=" in record.sentence
    # Successive halving: what is behind after a unit is not tried on the others.
    states = [trial.state for trial in record.trials]
    assert set(states) == {"complete", "pruned"}
    for trial in record.trials:
        assert (len(trial.unit_values) < 4) == (trial.state == "pruned") == (trial.value is None)
        if trial.value is not None:
            assert trial.value == pytest.approx(np.mean(trial.unit_values))
    assert max(trial.value or -1 for trial in record.trials) == record.best_value


def test_a_trial_is_scored_as_a_run_is(toy: Dataset, tmp_path: Path) -> None:
    """On test blocks of a development session, which the decoder was not handed; no fold tests on that session."""
    from sklearn.metrics import r2_score

    plan = planned("Gain", toy)
    record = tune(plan, toy, tmp_path, Budget(trials=1, sessions=1))
    prepared = SessionBank(toy, lambda _text, _share: None).of(plan, "a0", "held-out")
    assert all("a0" not in fold.held_out for fold in toy.folds())
    decoder = plan.decoder()
    decoder.adapt(prepared.data, plan.context(0, lambda _text, _share: None))
    truth = np.concatenate([block.truth for block in prepared.test])
    guess = np.concatenate([block.scored(decoder.predict(block.x, prepared.data)) for block in prepared.test])
    guess = prepared.data.normaliser.physical(guess)
    assert record.trials[0].unit_values == pytest.approx([r2_score(truth, guess)], rel=1e-5)


def test_learning_validation_by_heart_wins_nothing(toy: Dataset, tmp_path: Path) -> None:
    """A decoder may fit to its validation part in the end, as `wiener` does; the score is of what it has not seen."""
    record = tune(planned("ByHeart", toy), toy, tmp_path, Budget(trials=6, sessions=1))
    values = {trial.params["decoder.by_heart"]: trial.unit_values[0] for trial in record.trials}
    assert values[True] < 0 < values[False]
    assert record.best_params == {"decoder.by_heart": False}


def test_an_interrupted_study_goes_on_as_if_it_had_not_been(toy: Dataset, tmp_path: Path) -> None:
    plan = planned("Gain", toy)
    whole = tune(plan, toy, tmp_path / "whole", Budget(trials=16))

    def interrupt(trial: TuningTrial) -> None:
        if trial.number == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(plan, toy, tmp_path / "parts", Budget(trials=16), TuningEvents(trial=interrupt))
    assert len(read_tuning(path_of(plan, toy, tmp_path / "parts")).trials) == 7
    now: list[TuningTrial] = []
    notes: list[str] = []
    events = TuningEvents(trial=now.append, note=notes.append)
    resumed = tune(plan, toy, tmp_path / "parts", Budget(trials=16), events)
    assert [trial.number for trial in now] == list(range(7, 16))
    assert notes == ["going on after 7 trials of tunable~Gain.tiny.json"]
    assert essence(resumed.trials) == essence(whole.trials)
    # A finished study runs nothing more, and a raised budget goes on.
    now.clear()
    assert tune(plan, toy, tmp_path / "parts", Budget(trials=16), events) == resumed
    assert not now
    assert "the budget is used up" in notes[-1]
    assert len(tune(plan, toy, tmp_path / "parts", Budget(trials=17), events).trials) == 17


def test_what_differs_starts_anew_and_says_why(toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("Gain", toy)
    notes: list[str] = []
    now: list[TuningTrial] = []
    events = TuningEvents(trial=now.append, note=notes.append)

    def anew(plan: Plan, sessions: int = 1) -> str:
        notes.clear()
        now.clear()
        tune(plan, toy, tmp_path, Budget(trials=2, sessions=sessions), events)
        assert [trial.number for trial in now] == [0, 1]
        return "; ".join(notes)

    assert anew(plan) == ""
    path = path_of(plan, toy, tmp_path)
    before = path.read_text()
    assert anew(plan, sessions=2).endswith(
        "anew: the data, their split or the front end have changed, the sessions differ; "
        f"what it held is in {path.stem}.1.older"
    )
    assert path.with_suffix(".1.older").read_text() == before
    assert "anew: the code has changed; what it held is in" in anew(replace(plan, code="other"), sessions=2)
    assert path.with_suffix(".1.older").read_text() == before
    assert "the seed differs" in anew(planned("Gain", toy, seed=3), sessions=2)
    monkeypatch.setattr(plan.decoder_class, "search_space", {"decoder.gain": Range(0.0, 3.0)})
    assert "the search space has changed" in anew(plan)
    assert anew(replace(plan, request=replace(plan.request, fresh=True))) == ""
    path_of(plan, toy, tmp_path).write_text("{}")
    assert "is not a tuning record" in anew(plan)
    # Changed options are another file.
    fixed = planned("Gain", toy, options={"share": 0.5})
    assert anew(fixed) == ""
    assert read_tuning(path_of(fixed, toy, tmp_path)).options == {"decoder.share": 0.5}


def test_minutes_end_a_study_between_units(toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that goes a second further whenever it is read: at the start, before each unit, at the end.
    seconds = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: float(next(seconds)))
    monkeypatch.setattr("realmbench.tuning_trial.time", clock)
    plan = planned("Lists", toy)  # all its options score alike, so that none is pruned
    record = tune(plan, toy, tmp_path, Budget(trials=50, minutes=7.5 / 60))
    first, last = record.trials
    assert (first.state, len(first.unit_values), first.seconds) == ("complete", 4, 5.0)
    # 2.5 s are left: two units begin, the third does not.
    assert (last.state, len(last.unit_values), last.value) == ("stopped", 2, None)
    assert record.counted == [first]
    assert record.seconds_used == 9.0
    assert (record.trials_allowed, record.minutes_allowed) == (50, 7.5 / 60)
    assert "best of 1 trial:" in record.sentence
    # The time of both calls counts, and with more of it the unfinished trial is run again, with the same options.
    assert tune(plan, toy, tmp_path, Budget(trials=50, minutes=9 / 60)).trials == record.trials
    more = tune(plan, toy, tmp_path, Budget(trials=2, minutes=1))
    assert more.trials[0] == first
    assert (more.trials[1].number, more.trials[1].params, more.trials[1].state) == (1, last.params, "complete")
    assert more.seconds_used == 9.0 + more.trials[1].seconds


def test_failures_are_recorded_and_never_win(toy: Dataset, tmp_path: Path) -> None:
    record = tune(planned("Breaks", toy), toy, tmp_path, Budget(trials=20, sessions=2))
    assert len(record.trials) == 20
    by_way = {trial.params["decoder.how"]: trial for trial in record.trials}
    reasons = {
        "raises": "broken on purpose",
        "runs out": "no memory left",
        "exits": "no licence",
        "nan": "NaN or infinite",
    }
    assert set(by_way) == {"well", *reasons}
    for way, reason in reasons.items():
        assert (by_way[way].state, by_way[way].value) == ("failed", None)
        assert reason in (by_way[way].reason or "")
    assert record.best_params == {"decoder.how": "well"}
    assert record.sentence.endswith("keep the defaults")
    # Options that come up again are not measured again, and count.
    again = [trial for trial in record.trials if trial.params == {"decoder.how": "well"}]
    assert len(again) > 1
    assert len({tuple(trial.unit_values) for trial in again if trial.state == "complete"}) == 1
    lost = tune(planned("AlwaysBreaks", toy), toy, tmp_path, Budget(trials=3, sessions=1))
    assert lost.best_params is None
    assert "none of 3 trials was completed" in lost.sentence
    assert "broken on purpose" in lost.sentence or "NaN" in lost.sentence


@pytest.mark.parametrize("name", ["Gain", "Across"])
def test_held_out_sessions_are_not_loaded(
    name: str, toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = type(toy).load
    forbidden = {"a2", "b2"}

    def guarded(self: Dataset, session: str) -> Recording:
        if session in forbidden:
            raise AssertionError(f"{session} was loaded")
        return load(self, session)

    monkeypatch.setattr(type(toy), "load", guarded)
    plan = planned(name, toy)
    assert tune(plan, toy, tmp_path, Budget(trials=2)).best_value is not None
    # Positive control: the guard does see what is loaded.
    forbidden.add("b1")
    with pytest.raises(AssertionError, match="b1 was loaded"):
        tune(plan, toy, tmp_path, Budget(trials=2))


def test_what_any_fold_holds_out_is_no_development_session(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def fold(name: str, *pretrain: str) -> Fold:
        return Fold(name=name, pretrain=pretrain, held_out=(f"{name}2",))

    monkeypatch.setattr(type(toy), "folds", lambda self: [fold("a", "a0", "a1", "b2"), fold("b", "b0", "a2")])
    assert [unit.session for unit in tuning_units(planned("Gain", toy), toy)] == ["a0", "b0", "a1"]
    with pytest.raises(ProtocolError, match="in fold b, 1 of the pretraining sessions are held out nowhere"):
        tuning_units(planned("Across", toy), toy)
    # Every session of this one is evaluated somewhere, as where animals are left out in turn.
    monkeypatch.setattr(type(toy), "folds", lambda self: [fold("a", "b2"), fold("b", "a2")])
    with pytest.raises(ProtocolError, match="tune on another dataset"):
        tuning_units(planned("Gain", toy), toy)


def test_decoders_across_sessions_are_tried_on_folds(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    plan = planned("Across", toy)
    before = set((cache_dir() / "artifacts").glob("*"))
    record = tune(plan, toy, tmp_path, Budget(trials=3))
    assert [(unit.fold, unit.pretrain, unit.session) for unit in record.units] == [
        ("a", ["a0"], "a1"),
        ("b", ["b0"], "b1"),
    ]
    assert record.best_value is not None
    assert not any(trial.reason for trial in record.trials)
    # What pretraining leaves is gone with its trial.
    assert not list((tmp_path / "temporary").iterdir())
    assert set((cache_dir() / "artifacts").glob("*")) == before
    with pytest.raises(OptionError, match="leave --sessions out"):
        tune(plan, toy, tmp_path, Budget(sessions=2))


def test_lists_are_chosen_whole_and_come_back_as_they_were(toy: Dataset, tmp_path: Path) -> None:
    plan = planned("Lists", toy)
    record = tune(plan, toy, tmp_path, Budget(trials=10, sessions=1))
    assert record.trials[0].params == {"decoder.channels": [0]} == record.defaults
    assert {tuple(trial.params["decoder.channels"]) for trial in record.trials} == {(0,), (0, 1), (1, 2, 3)}
    resumed = tune(plan, toy, tmp_path, Budget(trials=12, sessions=1))
    assert essence(resumed.trials[:10]) == essence(record.trials)


def test_some_options_of_the_space_can_be_searched_alone(toy: Dataset, tmp_path: Path) -> None:
    """The others stay as the preset has them, fixed by the user or not; the record says what was searched."""
    plan = planned("Two", toy, options={"channels": [0, 1]})
    with pytest.raises(OptionError, match=r"--set decoder.channels fixes"):
        tune(plan, toy, tmp_path, Budget(trials=3, sessions=1))
    record = tune(plan, toy, tmp_path, Budget(trials=3, sessions=1), only=["decoder.gain"])
    assert list(record.space) == list(record.defaults) == ["decoder.gain"]
    assert all(list(trial.params) == ["decoder.gain"] for trial in record.trials)
    # The whole search has a record of its own, which the other leaves as it is.
    both = planned("Two", toy)
    whole = tune(both, toy, tmp_path, Budget(trials=2, sessions=1))
    assert list(whole.space) == ["decoder.gain", "decoder.channels"]
    notes: list[str] = []
    tune(both, toy, tmp_path, Budget(trials=1, sessions=1), TuningEvents(note=notes.append), only=["decoder.gain"])
    assert not notes
    assert read_tuning(path_of(both, toy, tmp_path)) == whole


def test_what_cannot_be_tuned_is_refused(toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"Plain declares no search_space"):
        tune(planned("Plain", toy), toy, tmp_path, Budget())
    with pytest.raises(UnknownNameError, match=r"'decoder.gian'. Did you mean 'decoder.gain'"):
        tune(planned("Wrong", toy), toy, tmp_path, Budget())
    with pytest.raises(OptionError, match=r"--set decoder.gain fixes"):
        tune(planned("Gain", toy, options={"gain": 1.0}), toy, tmp_path, Budget())
    with pytest.raises(UnknownNameError, match=r"'decoder.gian'. Did you mean 'decoder.gain'"):
        tune(planned("Gain", toy), toy, tmp_path, Budget(), only=["decoder.gian"])
    none = {"teacher.updates": 0}
    untrained = make_plan(RunRequest(model="realm-teacher", preset="tiny", train=none), toy)
    with pytest.raises(OptionError, match=r"teacher.learning_rate cannot be searched: .*=0 trains nothing.*--only"):
        check_tunable(untrained, toy, Budget())
    assert list(check_tunable(untrained, toy, Budget(), ["decoder.dropout"])[0]) == ["decoder.dropout"]
    for budget, message in (({"trials": 0}, "--trials 0"), ({"minutes": 0}, "--minutes 0"), ({"sessions": 0}, "--ses")):
        with pytest.raises(OptionError, match=message):
            Budget(**budget)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RealmbenchError, match=r"pip install 'realmbench\[tune\]'"):
        tune(planned("Gain", toy), toy, tmp_path, Budget())
    assert not (tmp_path / "tuning").exists()


def test_defaults_outside_the_space_are_said_to_be_so(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned("Gain", toy)
    monkeypatch.setattr(plan.decoder_class, "search_space", {"decoder.gain": Range(0.5, 2.0)})
    record = tune(plan, toy, tmp_path, Budget(trials=2, sessions=1))
    assert record.defaults == {"decoder.gain": 0.2}
    assert record.defaults_value is None
    assert all(trial.params["decoder.gain"] >= 0.5 for trial in record.trials)
    assert "(the defaults: not completed)" in record.sentence


def test_unfrozen_names_the_options_whose_presets_are_not_the_best(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned("Gain", toy)
    record = tune(plan, toy, tmp_path, Budget(trials=8, sessions=1))
    assert record.best_params is not None
    assert unfrozen(record, plan.decoder_class) == ["decoder.gain"]
    written = float(f"{record.best_params['decoder.gain']:.3g}")
    monkeypatch.setattr(plan.decoder_class, "presets", {"tiny": Preset(decoder={"gain": written})})
    assert unfrozen(record, plan.decoder_class) == []
    monkeypatch.setattr(plan.decoder_class, "presets", {"tiny": Preset(decoder={"gain": 1.02 * written})})
    assert unfrozen(record, plan.decoder_class) == ["decoder.gain"]


def test_a_record_refuses_what_it_does_not_know(toy: Dataset, tmp_path: Path) -> None:
    plan = planned("Gain", toy)
    record: TuningRecord = tune(plan, toy, tmp_path, Budget(trials=1, sessions=1))
    path = path_of(plan, toy, tmp_path)
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "extra": 1}))
    with pytest.raises(RealmbenchError, match=r"is not a tuning record \(extra"):
        read_tuning(path)
    write_tuning(record, path)
    assert read_tuning(path) == record


def test_one_study_is_written_by_one_process(toy: Dataset, tmp_path: Path) -> None:
    plan = planned("Gain", toy)

    def tunes_again(_trial: TuningTrial) -> None:
        with pytest.raises(RealmbenchError, match=r"another process is tuning tunable~Gain\.tiny\.json"):
            tune(plan, toy, tmp_path, Budget(trials=5))

    assert len(tune(plan, toy, tmp_path, Budget(trials=2), TuningEvents(trial=tunes_again)).trials) == 2
    assert len(tune(plan, toy, tmp_path, Budget(trials=3)).trials) == 3


def test_more_sessions_than_there_are_is_refused(toy: Dataset) -> None:
    with pytest.raises(OptionError, match="--sessions 5: toy has 4 that no fold holds out"):
        tuning_units(planned("Gain", toy), toy, 5)
