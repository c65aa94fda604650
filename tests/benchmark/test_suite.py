"""Suite files: defaults, overrides, and errors that name the line to mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from realmbench.dataset import Dataset
from realmbench.errors import OptionError, RealmbenchError, UnknownNameError
from realmbench.plan import RunRequest, make_plan
from realmbench.records import RunRecord
from realmbench.runner import Events, SessionBank, run
from realmbench.suite import Suite, built_in_suites, outstanding, read_suite


def written(folder: Path, text: str) -> str:
    path = folder / "suite.toml"
    path.write_text(text)
    return str(path)


def test_entries_take_what_stands_at_the_top_and_may_say_otherwise(tmp_path: Path) -> None:
    suite = read_suite(
        written(
            tmp_path,
            """
            name = "mine-v1"
            seeds = 3
            preset = "tiny"
            set = ["decoder.hidden=8"]
            [[runs]]
            models = ["gru", "lstm"]
            datasets = ["a", "b"]
            [[runs]]
            models = ["wiener"]
            datasets = ["a"]
            seeds = 1
            set = []
            """,
        )
    )
    first, second = suite.runs
    assert (first.seeds, first.preset, first.settings) == (3, "tiny", ("decoder.hidden=8",))
    assert (second.seeds, second.preset, second.settings) == (1, "tiny", ())
    pairs = [(dataset, model) for _, dataset, model in suite.pairs()]
    assert pairs == [("a", "gru"), ("a", "lstm"), ("b", "gru"), ("b", "lstm"), ("a", "wiener")]


def test_part_of_a_suite(tmp_path: Path) -> None:
    text = """
        name = "mine"
        [[runs]]
        models = ["gru", "lstm"]
        datasets = ["a", "b"]
        seeds = 2
        [[runs]]
        models = ["gru"]
        datasets = ["c"]
        """
    suite = read_suite(written(tmp_path, text))

    def listed(part: Suite) -> list[tuple[str, str, int]]:
        return [(dataset, model, entry.seeds) for entry, dataset, model in part.pairs()]

    assert suite.only() == suite
    assert listed(suite.only(["gru"])) == [("a", "gru", 2), ("b", "gru", 2), ("c", "gru", 1)]
    assert listed(suite.only(["gru"], ["c", "b"])) == [("b", "gru", 2), ("c", "gru", 1)]
    with pytest.raises(UnknownNameError, match="unknown model of suite mine 'gruu'"):
        suite.only(["gruu"])
    with pytest.raises(UnknownNameError, match="unknown dataset of suite mine 'd'"):
        suite.only((), ["d"])
    with pytest.raises(OptionError, match="suite mine lists lstm, but not on c"):
        suite.only(["lstm"], ["c"])


def test_what_is_listed_and_not_run_is_named_with_its_options(tmp_path: Path, toy: Dataset) -> None:
    def records(seeds: int, **options: object) -> list[RunRecord]:
        request = RunRequest(model="wiener", preset="tiny", seeds=seeds, options=options)
        return run(make_plan(request, toy), toy, tmp_path, Events(), SessionBank(toy, Events().stage))

    text = f"""
        name = "mine"
        preset = "tiny"
        seeds = 2
        [[runs]]
        models = ["wiener", "kalman"]
        datasets = ["{toy.full_name}"]
        [[runs]]
        models = ["wiener"]
        datasets = ["{toy.full_name}", "other"]
        set = ["decoder.lag_step=2"]
        [[runs]]
        models = ["wiener"]
        datasets = ["{toy.full_name}"]
        front_end = "lfp100"
        """
    suite = read_suite(written(tmp_path, text))
    plain, changed = records(2), records(1, lag_step=2)
    assert {record.session for record in plain} == {"a2", "b2"}
    also = "wiener (decoder.lag_step=2) on other"
    everything = "wiener, kalman, wiener (decoder.lag_step=2), wiener (lfp100)"
    assert outstanding(suite, []) == [f"{everything} on {toy.full_name}", also]
    lacking = "kalman, wiener (decoder.lag_step=2, 2 of 4 runs), wiener (lfp100)"
    assert outstanding(suite, [*plain, *changed]) == [f"{lacking} on {toy.full_name}", also]
    for index in range(4):  # one session of one seed lacks
        [here, _] = outstanding(suite, plain[:index] + plain[index + 1 :])
        assert here.startswith("wiener (3 of 4 runs), kalman, wiener (decoder.lag_step=2), ")
    elsewhere = [record.model_copy(update={"protocol": "calibration-v1"}) for record in plain]
    assert outstanding(suite, elsewhere) == outstanding(suite, [])
    # What another entry names with its front end is that entry's.
    [here, _] = outstanding(suite, [record.model_copy(update={"front_end": "lfp100"}) for record in plain])
    assert here.startswith("wiener, kalman, wiener (decoder.lag_step=2) on")


def test_entry_of_some_sessions_asks_for_these_alone(tmp_path: Path, toy: Dataset) -> None:
    entry = f'models = ["mean"]\ndatasets = ["{toy.full_name}"]\nsessions = ["a2"]'
    suite = read_suite(written(tmp_path, f'name = "mine"\npreset = "tiny"\n[[runs]]\n{entry}'))
    plan = make_plan(RunRequest(model="mean", preset="tiny"), toy)
    both = run(plan, toy, tmp_path, Events(), SessionBank(toy, Events().stage))
    assert outstanding(suite, [record for record in both if record.session == "a2"]) == []
    assert outstanding(suite, [record for record in both if record.session == "b2"]) == [f"mean on {toy.full_name}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'name = "x"\n[[runs]]\nmodels = ["a"]\ndatasets = ["b"]\nsed = 3',
            r"runs\.1\.sed: unknown key 'sed'. Did you mean 'seeds' or 'set'",
        ),
        (
            'name = "x"\nseed = 3\n[[runs]]\nmodels = ["a"]\ndatasets = ["b"]',
            "seed: unknown key 'seed'. Did you mean 'seeds'",
        ),
        ('name = "x"\n[[runs]]\nmodel = ["a"]\ndatasets = ["b"]', r"runs\.1\.model: .* Did you mean 'models'"),
        ('name = "x"\n[[runs]]\nmodels = ["a"]\ndatasets = ["b"]\nset = "a=1"', r"runs\.1\.set: a list is needed"),
        ('name = "x"\nruns = []', "runs: at least one is needed"),
        ('name = "x"\n[[question]]\nabout = "x"', "question: unknown key 'question'. Did you mean 'questions'"),
        ('name = "x"\n[[runs]]\nmodels = ["a"]\ndatasets = []', r"runs\.1\.datasets"),
        ('name = "x"\n[[runs]]\nmodels = ["a"]\ndatasets = ["b"]\nseeds = 0', r"runs\.1\.seeds"),
        (
            'name = "Has Spaces"\n[[runs]]\nmodels = ["a"]\ndatasets = ["b"]',
            "name: only a to z, digits, dots and hyphens",
        ),
        ('name = "x"\n[[runs]]\nmodels = ["a"]\ndatasets = ["b"]\nsessions = []', r"runs\.1\.sessions"),
        ('name = "x"', "runs: "),
    ],
)
def test_wrong_keys_and_values_are_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        read_suite(written(tmp_path, text))


def test_what_is_no_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RealmbenchError, match="is not valid TOML"):
        read_suite(written(tmp_path, "name = "))
    with pytest.raises(RealmbenchError, match=r"cannot read .*absent\.toml: No such file"):
        read_suite(str(tmp_path / "absent.toml"))
    with pytest.raises(UnknownNameError, match="Did you mean 'smoke'"):
        read_suite("smok")


@pytest.mark.parametrize("name", sorted(built_in_suites()))
def test_built_in_suites_are_sound(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name in them exists and every combination can be run; that files are there is not asked."""
    from realmbench.datasets.open_field import OpenField
    from realmbench.sweep import plan_jobs

    monkeypatch.setattr(OpenField, "require", lambda self, session: None)
    suite = read_suite(name)
    assert suite.name == name
    assert suite.summary
    assert plan_jobs(suite, Path("/nonexistent"), None)


def test_protocols_of_one_method_are_told_apart(tmp_path: Path, toy: Dataset) -> None:
    """What is recorded with one front end, where the other protocol names it, is not taken for not run."""
    text = f"""
        name = "mine"
        preset = "tiny"
        [[runs]]
        models = ["mean"]
        datasets = ["{toy.full_name}"]
        [[runs]]
        models = ["mean"]
        datasets = ["{toy.full_name}"]
        protocol = "calibration-v1"
        front_end = "bands50"
        """
    suite = read_suite(written(tmp_path, text))
    plain = run(
        make_plan(RunRequest(model="mean", preset="tiny"), toy), toy, tmp_path, Events(),
        SessionBank(toy, Events().stage),
    )  # fmt: skip
    calibrated = [record.model_copy(update={"protocol": "calibration-v1"}) for record in plain]
    both = f"mean (tiny, blocked-v1), mean (tiny, calibration-v1, bands50) on {toy.full_name}"
    assert outstanding(suite, []) == [both]
    assert outstanding(suite, plain) == [f"mean (tiny, calibration-v1, bands50) on {toy.full_name}"]
    assert outstanding(suite, [*plain, *calibrated]) == []
