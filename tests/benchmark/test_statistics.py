"""Tables: complete sets only, spreads, words."""

from __future__ import annotations

import numpy as np
import pytest

from realmbench.errors import RealmbenchError, UnknownNameError
from realmbench.leaderboard import markdown, title
from realmbench.records import BlockScore, RunRecord
from realmbench.statistics import compare, in_words, joined, only


def record(template: RunRecord, model: str, session: str, seed: int, r2: float, **update: object) -> RunRecord:
    metrics = {**template.metrics, "r2_axis_mean": r2}
    held_out = {"held_out_sessions": ["s", "t"]}
    return template.model_copy(
        update={"model": model, "session": session, "seed": seed, "metrics": metrics, **held_out, **update}
    )


def test_means_and_spreads_by_hand(template: RunRecord) -> None:
    scores = {("s", 0): 0.1, ("s", 1): 0.3, ("t", 0): 0.5, ("t", 1): 0.9}
    records = [record(template, "m", session, seed, r2) for (session, seed), r2 in scores.items()]
    [(comparison, [row])] = compare(records)
    assert comparison.sessions == ("s", "t")
    assert row.r2 == pytest.approx(0.45)
    assert row.session_r2 == pytest.approx({"s": 0.2, "t": 0.7})
    assert row.session_spread == pytest.approx(np.std([0.2, 0.7], ddof=1))
    assert row.seed_spread == pytest.approx(np.mean([np.std([0.1, 0.3], ddof=1), np.std([0.5, 0.9], ddof=1)]))


def test_missing_session_shows_as_missing_and_never_lifts_a_mean(template: RunRecord) -> None:
    records = [record(template, "whole", session, 0, 0.3) for session in "st"]
    records.append(record(template, "partial", "s", 0, 0.9))
    [(comparison, rows)] = compare(records)
    assert [(row.model, row.r2) for row in rows] == [("whole", pytest.approx(0.3)), ("partial", None)]
    assert "Not run on every session: partial" in in_words(comparison, rows)
    assert "| partial (tiny) | yes | – |" in markdown(records, "x")
    # Of some sessions alone the mean is of these, whatever else has been run.
    [(comparison, rows)] = compare(records, ["s"])
    assert comparison.sessions == ("s",)
    assert [(row.model, row.r2) for row in rows] == [("partial", pytest.approx(0.9)), ("whole", pytest.approx(0.3))]


def test_only_seeds_that_every_session_has_are_counted(template: RunRecord) -> None:
    records = [record(template, "m", "s", seed, 0.2) for seed in range(3)] + [record(template, "m", "t", 0, 0.4)]
    [(comparison, [row])] = compare(records)
    assert (row.seeds, row.r2) == (1, pytest.approx(0.3))
    assert row.left_out == (1, 2)
    assert "Seeds that not every session has are left out: 1, 2 of m (tiny)." in in_words(comparison, [row])


def test_a_bare_name_means_the_method_as_it_is(template: RunRecord) -> None:
    wide = {"changed_options": ["decoder.width"], "config": {"decoder": {"width": 9}}, "config_hash": "w"}
    records = [record(template, "m", "s", 0, 0.2), record(template, "m", "s", 0, 0.3, **wide)]
    records.append(record(template, "n", "s", 0, 0.4, **wide))
    assert only(records, ["m"]) == records[:1]
    assert only(records, ["n (tiny, width=9)", "m"]) == [records[2], records[0]]
    with pytest.raises(UnknownNameError, match="m \\(tiny, width=9\\)"):
        only(records, ["m (tiny, width=8)"])


def test_one_busy_hour_moves_neither_seconds_nor_step_times(template: RunRecord) -> None:
    """Seconds: 2 on one session, 4 on the other, whatever the third seed took. Steps: of the least disturbed run."""
    assert template.latency is not None
    seconds = {("s", 0): 2.0, ("s", 1): 1.0, ("s", 2): 90.0, ("t", 0): 4.0, ("t", 1): 4.0, ("t", 2): 50.0}
    records = [
        record(
            template,
            "m",
            session,
            seed,
            0.2,
            seconds={"fit": taken},
            latency=template.latency.model_copy(update={"p50": 10 + seed, "p95": 100 - 30 * (seed == 1)}),
        )
        for (session, seed), taken in seconds.items()
    ]
    [(_, [row])] = compare(records)
    assert row.training_seconds == pytest.approx((2 + 4) / 2)
    assert (row.latency_p50_us, row.latency_p95_us) == (11, 70)


def test_seconds_of_different_devices_are_neither_mixed_nor_compared(template: RunRecord) -> None:
    def runs(model: str, *spent: tuple[str, int, str, float]) -> list[RunRecord]:
        return [
            record(template, model, session, seed, 0.5, device=device, seconds={"fit": taken}, artifacts=[])
            for session, seed, device, taken in spent
        ]

    slow = runs("slow", ("s", 0, "CPU", 10.0), ("t", 0, "CPU", 10.0))
    mixed = runs("mixed", ("s", 0, "GPU", 1.0), ("t", 0, "GPU", 3.0), ("s", 1, "GPU", 1.0), ("t", 1, "CPU", 500.0))
    [(comparison, rows)] = compare([*slow, *mixed])
    by_model = {row.model: row for row in rows}
    assert (by_model["mixed"].devices, by_model["mixed"].training_seconds) == (("GPU", "CPU"), 2.0)
    assert by_model["slow"].training_seconds == 10.0
    assert "not to be compared: CPU (slow (tiny)); GPU (mixed (tiny))." in in_words(comparison, rows)
    assert "not to be compared: CPU (none); GPU (mixed (tiny))." in in_words(*compare(mixed)[0])
    [(comparison, rows)] = compare(slow)
    assert "different devices" not in in_words(comparison, rows)


def test_what_a_suite_lists_and_nobody_ran_is_named(template: RunRecord) -> None:
    records = [record(template, "m", session, 0, 0.3) for session in "st"]
    said = "Listed by the suite and not run yet: n on here; m (2 of 3 runs) on other."
    assert said in markdown(records, "x", ["n on here", "m (2 of 3 runs) on other"])
    assert "not run yet" not in markdown(records, "x")


def test_different_data_front_ends_and_options_are_never_mixed(template: RunRecord) -> None:
    records = [
        record(template, "m", "s", 0, 0.1),
        record(template, "m", "s", 0, 0.2, front_end="lfp100"),
        record(template, "m", "s", 0, 0.3, dataset_identity="other"),
        record(
            template,
            "m",
            "s",
            0,
            0.4,
            config_hash="ffffffff",
            changed_options=["decoder.a.b", "train.fast"],
            config={"decoder": {"a": {"b": "mse"}}, "train": {"fast": True}},
        ),
    ]
    tables = compare(records)
    assert sorted(len(rows) for _, rows in tables) == [1, 1, 2]
    labels = {row.label for _, rows in tables for row in rows}
    assert labels == {"m (tiny)", "m (tiny, a.b=mse, train.fast=true)"}


def test_of_a_method_that_two_suites_have_the_first_counts(template: RunRecord) -> None:
    first = [template.model_copy(update={"suite": "first", "seed": seed}) for seed in (0, 1)]
    second = [
        template.model_copy(update={"suite": "second", **changes})
        for changes in (
            {"seed": 2},  # the same method: left out, with a seed of its own too
            {"preset": "another"},
            {"dataset": "another"},
            {"front_end": "another"},
            {"config_hash": "another", "changed_options": ["decoder.x"], "config": {"decoder": {"x": 1}}},
        )
    ]
    assert joined([first, second]) == [*first, *second[1:]]
    assert joined([second, first]) == second
    assert joined([first]) == first
    # Of a method whose preset was changed between two suites, the first counts, as of any other.
    retuned = [each.model_copy(update={"config_hash": "retuned"}) for each in second]
    assert joined([second, retuned]) == second
    assert joined([retuned, second]) == retuned


def test_many_changes_are_counted(template: RunRecord) -> None:
    names = [f"train.stage.option_{number}" for number in range(5)]
    config = {"decoder": {}, "train": {"stage": {f"option_{number}": number for number in range(5)}}}
    [(_, [row])] = compare(
        [record(template, "m", "s", 0, 0.4, config_hash="ffffffff", changed_options=names, config=config)]
    )
    assert row.label == "m (tiny, train.stage.option_0=0 and 4 more, ffffff)"


def test_audit_is_a_table_of_its_own_and_ranks_nothing(template: RunRecord) -> None:
    records = [record(template, "m", "s", 0, 0.5), record(template, "m", "s", 0, -0.02, audit="shifted-target")]
    records = [entry.model_copy(update={"held_out_sessions": ["s"]}) for entry in records]
    (_, [plain]), (comparison, rows) = compare(records)
    assert (plain.r2, rows[0].r2) == (0.5, -0.02)
    assert in_words(comparison, rows).endswith("The highest of any session here is -0.020.")
    assert "audit shifted-target" in title(comparison)


def test_words_name_the_best_causal_decoder_and_claim_nothing_from_few_sessions(template: RunRecord) -> None:
    records = [record(template, "a", session, 0, r2) for session, r2 in (("s", 0.4), ("t", 0.6))]
    records += [record(template, "b", session, 0, r2) for session, r2 in (("s", 0.5), ("t", 0.3))]
    records += [record(template, "future", session, 0, 0.9, causal=False, look_ahead_s=None) for session in "st"]
    [(comparison, rows)] = compare(records)
    words = in_words(comparison, rows)
    assert "best causal decoder here is a (tiny): R2 0.500, 0.40 to 0.60 over sessions" in words
    assert "+0.100 from b (tiny), the next, and ahead in 1 of 2 sessions" in words
    assert "future (tiny) sees the future (R2 0.900)" in words
    assert "With 2 sessions no difference can be called significant" in words


def test_session_that_nobody_ran_shows_as_missing(template: RunRecord) -> None:
    [(comparison, [row])] = compare([record(template, "m", "s", 0, 0.9)])
    assert comparison.sessions == ("s", "t")
    assert row.r2 is None
    assert in_words(comparison, [row]).startswith("No method has been run on every session")
    [(comparison, [row])] = compare([record(template, "m", "s", 0, 0.9)], ["s"])
    assert row.r2 == 0.9
    assert "These are 1 of the 2 held-out sessions." in in_words(comparison, [row])
    assert "1 of 2 sessions" in title(comparison)


def test_records_that_cannot_be_compared_are_refused(template: RunRecord) -> None:
    with pytest.raises(RealmbenchError, match="different splits"):
        compare([record(template, "a", "s", 0, 0.1), record(template, "b", "s", 0, 0.2, split_hash="other")])
    with pytest.raises(
        RealmbenchError, match=r"two records of a \(tiny\), s, seed 0, configuration .* in suite .*: delete one"
    ):
        compare([record(template, "a", "s", 0, 0.1), record(template, "a", "s", 0, 0.2)])


def scoring(template: RunRecord, level: float) -> list[BlockScore]:
    """Make a dozen blocks that score about so much."""
    return [
        block.model_copy(update={"sse": [(1 - level) * total * (1 + 0.05 * (-1) ** n) for total in block.sst]})
        for n, block in enumerate(template.blocks * 6)
    ]


def test_score_above_the_exact_ceiling_is_flagged_as_a_leak(template: RunRecord) -> None:
    whole = {"held_out_sessions": ["s"], "ceiling": 0.5}
    honest = record(template, "honest", "s", 0, 0.4, blocks=scoring(template, 0.4), **whole)
    leaky = record(template, "leaky", "s", 0, 0.7, blocks=scoring(template, 0.7), **whole)
    [(comparison, rows)] = compare([honest, leaky])
    assert {row.model: row.leaks for row in rows} == {"leaky": True, "honest": False}
    words = in_words(comparison, rows)
    assert "LEAK: leaky (tiny) scores" in words
    assert "The best causal decoder here is honest (tiny)" in words  # never the leaking one
    assert {row.model: row.fraction_of_ceiling for row in rows} == pytest.approx({"leaky": 1.4, "honest": 0.8})
    text = markdown([honest, leaky], "x")
    assert "| 140% LEAK |" in text
    assert "| 80% |" in text


def test_finite_look_ahead_runs_with_delay(template: RunRecord) -> None:
    records = [record(template, "soon", name, 0, 0.5, causal=False, look_ahead_s=0.1) for name in "st"]
    [(comparison, rows)] = compare(records)
    assert "soon (tiny) (R2 0.500) runs in real time with 0.1 s of delay" in in_words(comparison, rows)


def test_mean_over_several_versions_of_the_code_says_so(template: RunRecord) -> None:
    [(comparison, rows)] = compare([record(template, "m", "s", 0, 0.5), record(template, "m", "t", 0, 0.5, code="old")])
    said = "Made by several versions of the code or of the data: m (tiny); run them again."
    assert said in in_words(comparison, rows)


def test_mean_over_seeds_that_were_handed_different_data_says_so(template: RunRecord) -> None:
    runs = [record(template, "m", session, seed, 0.5, data_key=session) for session in "st" for seed in (0, 1)]
    [(comparison, [row])] = compare(runs)
    assert row.versions == 1, "sessions have data of their own"
    runs[1] = runs[1].model_copy(update={"data_key": "mended"})
    [(comparison, [row])] = compare(runs)
    assert row.versions == 2
    assert "Made by several versions of the code or of the data: m (tiny)" in in_words(comparison, [row])


def test_half_a_count_of_operations_is_shown_as_none(template: RunRecord) -> None:
    [(_, [row])] = compare([record(template, "m", "s", 0, 0.5, flops_elementwise=None)])
    assert row.flops_per_step is None


def test_devices_of_a_table_are_those_of_its_own_runs(template: RunRecord) -> None:
    other = {"dataset_identity": "other", "data_options": {"noise": 9}, "device": "OTHER MACHINE"}
    text = markdown([record(template, "m", "s", 0, 0.2), record(template, "m", "s", 0, 0.3, **other)], "x")
    [mine, theirs] = [line for line in text.splitlines() if "Devices: " in line]
    assert ("OTHER MACHINE" in mine) != ("OTHER MACHINE" in theirs)
