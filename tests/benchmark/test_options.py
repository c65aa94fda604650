"""Options from the command line."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict

from realmbench.errors import OptionError
from realmbench.options import added_later, as_recorded, build_options, changed_leaves, parse_settings


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    updates: int = 10
    rate: float = 0.1


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    hidden: int = 4
    stage: Inner = Inner()


class Grown(Outer):
    frozen: int = added_later(0, ge=0)
    published: bool = added_later(False)


def test_options_that_came_later_are_recorded_only_where_they_or_the_preset_say_something() -> None:
    """So that what was recorded before them has the configuration that it had."""
    before = Outer().model_dump()
    assert as_recorded(Grown(), {}) == as_recorded(Outer(), {}) == before
    assert as_recorded(Grown(frozen=2), {}) == {**before, "frozen": 2}
    assert as_recorded(Grown(frozen=0), {"frozen": 2}) == {**before, "frozen": 0}  # turned off again
    assert changed_leaves(as_recorded(Grown(frozen=2), {}), as_recorded(Grown(), {})) == ["frozen"]
    of_preset = as_recorded(Grown(frozen=2), {"frozen": 2})
    assert changed_leaves(as_recorded(Grown(), {"frozen": 2}), of_preset) == ["frozen"]
    assert changed_leaves(of_preset, of_preset) == []
    with pytest.raises(OptionError, match="greater than or equal to 0"):
        build_options(Grown, {"frozen": -1}, "decoder")


def test_values_are_read_as_json_where_they_parse() -> None:
    parsed = parse_settings(["decoder.a=3", "decoder.b=x y", "train.c=[1, 2]", "data.d=true"])
    assert parsed == {"decoder": {"a": 3, "b": "x y"}, "train": {"c": [1, 2]}, "data": {"d": True}}
    assert parse_settings(["decoder.a=True", "decoder.b=None"])["decoder"] == {"a": True, "b": None}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("decoder.a", "PREFIX.NAME=VALUE"),
        ("a=3", "PREFIX.NAME=VALUE"),
        ("decodr.a=3", "Did you mean 'decoder'"),
    ],
)
def test_malformed_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_settings([setting])


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "[1, -1e999]"])
def test_values_that_are_no_numbers_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="give a finite number"):
        parse_settings([f"train.rate={text}"])


def test_stage_and_part_of_it_contradict() -> None:
    with pytest.raises(OptionError, match="contradict"):
        build_options(Outer, {"stage": 3, "stage.updates": 4}, "train")


def test_same_setting_twice_is_refused() -> None:
    with pytest.raises(OptionError, match="given twice"):
        parse_settings(["decoder.a=3", "decoder.a=4"])


def test_defaults_and_dotted_names_merge() -> None:
    defaults = {"stage": {"updates": 20}}
    built = build_options(Outer, {"stage.rate": 0.5, "hidden": 8}, "train", defaults)
    assert built == Outer(hidden=8, stage=Inner(updates=20, rate=0.5))
    assert defaults == {"stage": {"updates": 20}}


def test_a_mapping_leaves_what_it_does_not_name_as_the_defaults_have_it() -> None:
    defaults = {"stage": {"updates": 20, "rate": 0.25}}
    built = build_options(Outer, {"stage": {"updates": 3}}, "train", defaults)
    assert built.stage == Inner(updates=3, rate=0.25)
    assert build_options(Outer, {"stage": {}}, "train", defaults).stage == Inner(updates=20, rate=0.25)
    with pytest.raises(OptionError, match=r"train\.stage\.updates is given twice"):
        build_options(Outer, {"stage": {"updates": 3}, "stage.updates": 4}, "train", defaults)
    with pytest.raises(OptionError, match="Did you mean 'updates'"):
        build_options(Outer, {"stage": {"update": 3}}, "train", defaults)
    with pytest.raises(OptionError, match="Did you mean 'stage'"):
        build_options(Outer, {"stages": {}}, "train", defaults)
    with pytest.raises(OptionError, match=r"train\.hidden=\{\} is not valid"):
        build_options(Outer, {"hidden": {}}, "train", defaults)


def test_a_field_that_holds_a_mapping_or_may_be_none_takes_one_whole() -> None:
    class Others(BaseModel):
        table: dict[str, int] = {"a": 1}
        part: Inner | None = None

    assert build_options(Others, {"table": {"b": 2}}, "decoder").table == {"b": 2}
    assert build_options(Others, {"part": {"updates": 3}}, "decoder").part == Inner(updates=3)


def test_stages_that_share_their_defaults_are_set_apart() -> None:
    class Stages(BaseModel):
        first: Inner = Inner()
        second: Inner = Inner()

    shared = {"updates": 20}
    built = build_options(Stages, {"first.updates": 1}, "train", {"first": shared, "second": shared})
    assert (built.first.updates, built.second.updates) == (1, 20)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hiden": 3}, "Did you mean 'hidden'"),
        ({"stage.update": 3}, "Did you mean 'updates'"),
        ({"hidden.x": 3}, "holds one value"),
        ({"hidden": "many"}, r"train\.hidden='many' is not valid"),
    ],
)
def test_unknown_or_wrong_options_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build_options(Outer, values, "train")
