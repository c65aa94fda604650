"""`synthetic-cohort`: the simulation of synthetic-reach, for subjects of its own."""

from __future__ import annotations

import numpy as np
import pytest

from realmbench.dataset import open_dataset
from realmbench.datasets.synthetic.electrodes import dead, tuning
from realmbench.datasets.synthetic.simulate import simulate_session
from realmbench.datasets.synthetic_cohort import SUBJECTS, SyntheticCohort


@pytest.mark.parametrize("variant", list(SUBJECTS))
def test_every_subject_is_a_fold_of_its_own_with_one_held_out_session(variant: str) -> None:
    dataset = open_dataset(f"synthetic-cohort:{variant}")
    sessions = {session.name: session for session in dataset.sessions()}
    assert len(dataset.folds()) == len(SUBJECTS[variant])
    for fold in dataset.folds():
        [held_out] = fold.held_out
        assert {sessions[name].subject for name in (*fold.pretrain, held_out)} == {fold.name}
        day = sessions[held_out].day
        assert day is not None
        assert all((sessions[name].day or 0) < day for name in fold.pretrain)
    names = [name for fold in dataset.folds() for name in (*fold.pretrain, *fold.held_out)]
    assert sorted(names) == sorted(sessions)


def test_no_subject_is_one_that_was_looked_at() -> None:
    looked_at = {session.subject for session in open_dataset("synthetic-reach").sessions()}
    cohort = open_dataset("synthetic-cohort").sessions()
    assert looked_at.isdisjoint(session.subject for session in cohort)
    days = [session.day for session in cohort if "test" in session.name]
    assert {day: days.count(day) for day in days} == {82: 3, 105: 3, 150: 3, 240: 3}


def test_subjects_differ_and_are_those_of_the_simulator() -> None:
    dataset = SyntheticCohort("tiny")
    first, second = dataset.load("s1-test-d020"), dataset.load("s2-test-d020")
    assert (first.dataset, first.subject, first.session) == ("synthetic-cohort", "s1", "s1-test-d020")
    assert abs(np.corrcoef(first.behaviour[:, 0], second.behaviour[:, 0])[0, 1]) < 0.3
    np.testing.assert_array_equal(np.asarray(first.lfp.raw), simulate_session(dataset.config, 1, 20, 100).lfp)


def test_every_subject_has_tuning_and_dead_electrodes_of_its_own() -> None:
    config = SyntheticCohort("default").config
    loadings = {subject: tuning(config, "any", 4, subject, 75, 1.0).ravel() for subject in SUBJECTS["default"]}
    between = np.corrcoef(list(loadings.values()))[np.triu_indices(len(loadings), 1)]
    assert np.abs(between).max() < 0.5
    assert np.corrcoef(loadings[2], tuning(config, "any", 4, 2, 76, 1.0).ravel())[0, 1] > 0.9
    assert len({dead(config, subject, 75).tobytes() for subject in SUBJECTS["default"]}) == len(loadings)
