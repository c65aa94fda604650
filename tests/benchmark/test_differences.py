"""What `compare` claims and refuses to claim, on records made from one real one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from realmbench.differences import Difference, differences, in_words
from realmbench.errors import RealmbenchError, UnknownNameError
from realmbench.records import CurvePoint, RunRecord
from realmbench.statistics import across_front_ends


def records_of(template: RunRecord, model: str, scores: np.ndarray, **update: Any) -> list[RunRecord]:
    """Make records whose block sums give the (S, K) scores exactly."""
    names = [f"s{index}" for index in range(len(scores))]
    made = []
    for s, name in enumerate(names):
        for k, score in enumerate(scores[s]):
            blocks = [
                block.model_copy(update={"sse": [(1 - score) * total for total in block.sst]})
                for block in template.blocks
            ]
            changed = {"model": model, "session": name, "seed": k, "blocks": blocks, "held_out_sessions": names}
            metrics = {**template.metrics, "r2_axis_mean": score}
            made.append(template.model_copy(update={**changed, "metrics": metrics, **update}))
    return made


def compared(template: RunRecord, a: np.ndarray, b: np.ndarray) -> Difference:
    records = records_of(template, "a", a) + records_of(template, "b", b)
    [(_, [difference])] = differences(records, "a", ["b"])
    return difference


@pytest.fixture
def base() -> np.ndarray:
    return np.random.default_rng(0).normal(0.5, 0.1, (8, 2))


def test_a_clear_difference_is_claimed_for_the_better_one(template: RunRecord, base: np.ndarray) -> None:
    found = compared(template, base, base + 0.03 + 0.01 * np.random.default_rng(1).standard_normal(base.shape))
    assert found.mean == pytest.approx(-0.03, abs=0.01)
    assert found.p_value == pytest.approx(2 / 2**8)
    assert found.claimed
    assert "claimed that b (tiny) is better than a (tiny)" in in_words(found)


def test_no_difference_is_not_claimed(template: RunRecord, base: np.ndarray) -> None:
    found = compared(template, base, base + 0.05 * np.random.default_rng(2).standard_normal(base.shape))
    assert not found.claimed
    assert "No difference can be claimed; a true difference anywhere from" in in_words(found)


def test_tiny_differences_are_called_practically_equal(template: RunRecord, base: np.ndarray) -> None:
    noise = 0.002 * np.random.default_rng(3).standard_normal(base.shape)
    found = compared(template, base, base + noise - noise.mean())
    assert "practically equal: the whole interval lies within 0.01" in in_words(found)
    assert found.probabilities is not None
    assert found.probabilities[1] > 0.9


def test_below_six_sessions_nothing_is_claimed_however_large(template: RunRecord, base: np.ndarray) -> None:
    five = compared(template, base[:5] + 0.3, base[:5])
    assert not five.claimed
    assert five.p_value is None
    assert five.probabilities is None
    assert "with fewer than 6 sessions chance is too likely" in in_words(five)
    three = compared(template, base[:3] + 0.3, base[:3])
    assert three.interval is None
    assert "nothing can be said about any other session" in in_words(three)


def test_holm_is_over_all_that_is_asked(template: RunRecord, base: np.ndarray) -> None:
    noise = np.random.default_rng(4).normal(0.03, 0.01, (8, 2))
    records = [
        record
        for number in range(4)
        for record in records_of(template, f"m{number}", base + (number > 0) * noise * number)
    ]
    [(_, group)] = differences(records, "m0", ["m1", "m2", "m3"])
    assert [each.p_value for each in group] == pytest.approx([2 / 2**8] * 3)
    assert [each.p_adjusted for each in group] == pytest.approx([6 / 2**8] * 3)


def test_a_claim_that_only_the_number_of_comparisons_forbids_says_so(template: RunRecord, base: np.ndarray) -> None:
    noise = np.random.default_rng(1).normal(0.03, 0.01, (8, 2))
    records = records_of(template, "m0", base)
    for number in range(1, 9):  # 8 x 2 / 2**8 is more than 0.05
        records += records_of(template, f"m{number}", base + noise)
    [(_, group)] = differences(records, "m0", [f"m{number}" for number in range(1, 9)])
    assert not any(each.claimed for each in group)
    assert all("too much was compared at once, alone it could be" in in_words(each) for each in group)
    [(_, [alone])] = differences(records, "m0", ["m1"])
    assert alone.claimed


def test_holm_is_over_all_datasets(template: RunRecord, base: np.ndarray) -> None:
    records = [
        record
        for place in ("lfp100", "bands50", "other")
        for model, scores in (("a", base), ("b", base - 0.1))
        for record in records_of(template, model, scores, front_end=place)
    ]
    found = differences(records, "a", ["b"])
    assert len(found) == 3
    assert [group[0].p_adjusted for _, group in found] == pytest.approx([3 * 2 / 2**8] * 3)


def test_only_common_sessions_and_seeds_count(template: RunRecord, base: np.ndarray) -> None:
    records = records_of(template, "a", base) + records_of(template, "b", base[:6, :1] - 0.1)
    [(_, [found])] = differences(records, "a", ["b"])
    assert (len(found.sessions), found.seeds) == (6, 1)
    assert found.missing == ("s6", "s7")
    assert not found.claimed
    assert found.left_out == (1,)
    assert "Seed 1 is left out: one of the two lacks it on some session." in in_words(found)
    assert "Nothing is claimed: 2 of 8 held-out sessions are missing (s6, s7)" in in_words(found)


def test_a_seed_that_one_session_lacks_is_left_out_everywhere_and_said(template: RunRecord, base: np.ndarray) -> None:
    three = np.column_stack([base, base[:, 0]])
    records = records_of(template, "a", three + 0.1) + records_of(template, "b", three)
    [(_, [found])] = differences(records, "a", ["b"])
    assert (found.seeds, found.left_out) == (3, ())
    assert "left out" not in in_words(found)
    [(_, [found])] = differences(
        [record for record in records if (record.session, record.seed) != ("s3", 1)], "a", ["b"]
    )
    assert (found.seeds, found.left_out, len(found.sessions)) == (2, (1,), 8)


def test_methods_that_were_handed_different_data_are_told_apart(template: RunRecord, base: np.ndarray) -> None:
    records = records_of(template, "a", base + 0.1) + records_of(template, "b", base)
    [(_, [found])] = differences(records, "a", ["b"])
    assert found.other_data == ()
    assert "different data" not in in_words(found)
    other = [
        record.model_copy(update={"data_key": "other"}) if (record.model, record.session) == ("b", "s3") else record
        for record in records
    ]
    [(_, [found])] = differences(other, "a", ["b"])
    assert found.other_data == ("s3",)
    assert "Their records name different data (other frames, or spikes beside them): s3." in in_words(found)


def test_records_of_several_versions_of_the_code_claim_nothing(template: RunRecord, base: np.ndarray) -> None:
    records = records_of(template, "a", base + 0.1) + records_of(template, "b", base)
    [(_, [found])] = differences(records, "a", ["b"])
    assert found.claimed
    old = [record.model_copy(update={"code": "older"}) if record.seed else record for record in records[: base.size]]
    [(_, [found])] = differences(old + records[base.size :], "a", ["b"])
    assert found.mixed == ("a (tiny)",)
    assert not found.claimed
    assert "several versions of the code or of the data made the records of a (tiny)." in in_words(found)


def test_names_that_fit_none_or_several_are_refused(template: RunRecord, base: np.ndarray) -> None:
    records = records_of(template, "a", base) + records_of(template, "b", base)
    records += records_of(template, "b", base, preset="small")
    with pytest.raises(RealmbenchError, match=r"run in several ways here; name one of 'b \(small\)', 'b \(tiny\)'"):
        differences(records, "a", ["b"])
    assert differences(records, "a", ["b (small)"])
    with pytest.raises(UnknownNameError, match="unknown method among the records 'c'"):
        differences(records, "a", ["c"])
    with pytest.raises(RealmbenchError, match="no dataset, protocol and front end has records of all"):
        differences([*records, *records_of(template, "c", base, front_end="lfp100")], "a", ["c"])


def test_bare_name_means_the_method_as_it_is(template: RunRecord, base: np.ndarray) -> None:
    changed = {"changed_options": ["decoder.x"], "config_hash": "other", "config": {"decoder": {"x": 1}}}
    records = records_of(template, "a", base) + records_of(template, "b", base)
    records += records_of(template, "b", base - 0.2, **changed)
    [(_, [found])] = differences(records, "a", ["b"])
    assert (found.second, found.mean) == ("b (tiny)", pytest.approx(0))
    [(_, [found])] = differences(records, "a", ["b (tiny, x=1)"])
    assert found.mean == pytest.approx(0.2)
    only = [record for record in records if record.model == "a" or record.changed_options]
    [(_, [found])] = differences(only, "a", ["b"])
    assert found.second == "b (tiny, x=1)"


def test_audits_are_never_compared(template: RunRecord, base: np.ndarray) -> None:
    records = records_of(template, "a", base) + records_of(template, "b", base, audit="shifted-target")
    with pytest.raises(UnknownNameError):
        differences(records, "a", ["b"])


def test_front_ends_are_compared_when_asked_for(template: RunRecord, base: np.ndarray) -> None:
    records = records_of(template, "a", base + 0.1, front_end="bands50") + records_of(
        template, "a", base, front_end="lfp100"
    )
    [(comparison, [found])] = differences(across_front_ends(records), "a on bands50", ["a on lfp100"])
    assert found.mean == pytest.approx(0.1)
    assert found.name == "a on bands50 (tiny) minus a on lfp100 (tiny)"
    assert comparison.front_end == "any front end"
    with pytest.raises(UnknownNameError):
        differences(records, "a on bands50", ["a on lfp100"])


def curve_records(template: RunRecord, model: str, stages: dict[float, np.ndarray]) -> list[RunRecord]:
    """Make records with a point of the curve per stage, the last one as their own score."""
    *earlier, last = [(seconds, records_of(template, model, scores)) for seconds, scores in stages.items()]
    made = []
    for index, record in enumerate(last[1]):
        points = [
            CurvePoint(
                calibration_s=seconds,
                metrics=records[index].metrics,
                blocks=records[index].blocks,
                seconds={},
                split_hash=f"split-{seconds:g}",
                warnings=[],
            )
            for seconds, records in earlier
        ]
        made.append(record.model_copy(update={"calibration_s": last[0], "curve": points}))
    return made


def test_every_point_of_the_curve_can_be_compared(template: RunRecord, base: np.ndarray) -> None:
    noise = np.random.default_rng(5).normal(0, 0.01, base.shape)
    noise -= noise.mean()
    a = curve_records(template, "a", {0.0: base + 0.3 + noise, 15.0: base + 0.1 + noise, 60.0: base})
    b = curve_records(template, "b", {15.0: base, 60.0: base + 0.2 + noise})
    [(_, group)] = differences(a + b, "a", ["b"], [15.0, 60.0])
    assert [each.calibration_s for each in group] == [15.0, 60.0]
    assert [each.mean for each in group] == pytest.approx([0.1, -0.2])
    assert [each.p_adjusted for each in group] == pytest.approx([2 * 2 / 2**8] * 2), "Holm is over the points, too"
    assert in_words(group[0]).startswith("a (tiny) minus b (tiny), 15 s of calibration: +0.100 R2")
    [(_, [last])] = differences(a + b, "a", ["b"])
    assert last.mean == pytest.approx(group[1].mean)
    assert last.calibration_s is None


def test_a_point_that_is_not_there_is_named(template: RunRecord, base: np.ndarray) -> None:
    a = curve_records(template, "a", {0.0: base, 60.0: base})
    b = curve_records(template, "b", {15.0: base, 60.0: base})
    with pytest.raises(RealmbenchError, match=r"b \(tiny\) on s0, seed 0, has no score with 0 s .* it has 15, 60"):
        differences(a + b, "a", ["b"], [0.0])
    with pytest.raises(RealmbenchError, match="was not run with seconds of calibration"):
        differences(records_of(template, "a", base) + b, "a", ["b"], [60.0])


def test_seeds_that_were_handed_different_data_claim_nothing(template: RunRecord, base: np.ndarray) -> None:
    records = records_of(template, "a", base + 0.1) + records_of(template, "b", base)
    records[1] = records[1].model_copy(update={"data_key": "mended"})
    [(_, [found])] = differences(records, "a", ["b"])
    assert (found.mixed, found.claimed) == (("a (tiny)",), False)


def test_one_name_for_two_configurations_is_refused(template: RunRecord, base: np.ndarray) -> None:
    records = records_of(template, "a", base + 0.1) + records_of(template, "b", base)
    records += records_of(template, "c", base)
    retuned = records_of(template, "a", base - 0.1, config_hash="retuned")
    with pytest.raises(RealmbenchError, match=r"a \(tiny\) on .* was run with configurations .* and retune"):
        differences(records + retuned, "a", ["b"])
    [(_, [found])] = differences(records + retuned, "b", ["c"])
    assert found.mean == 0.0, "nobody asked about a"


def test_records_without_a_curve_are_passed_over_where_points_are_compared(
    template: RunRecord, base: np.ndarray
) -> None:
    without = records_of(template, "a", base) + records_of(template, "b", base)
    with_curve = [
        record.model_copy(update={"protocol": "calibration-v1", "calibration_s": 15.0})
        for record in records_of(template, "a", base + 0.1) + records_of(template, "b", base)
    ]
    [(comparison, [found])] = differences(without + with_curve, "a", ["b"], [15.0])
    assert (comparison.protocol, found.mean) == ("calibration-v1", pytest.approx(0.1))
    for other in ([], [record for record in with_curve if record.model == "b"]):
        with pytest.raises(RealmbenchError, match="run it under calibration-v1"):
            differences(without + other, "a", ["b"], [15.0])
