"""The params sections `data` and `splits`."""

from __future__ import annotations

from pathlib import Path

import pytest

from detoxlens.common.errors import UserError
from detoxlens.params.data import DataConfig
from detoxlens.params.load import load_params
from detoxlens.params.section import parse
from detoxlens.params.splits import Condition, SplitsConfig

ROOT = Path(__file__).parents[2]
DATA = {
    "dialoconan": "d.csv",
    "rtp": "p.jsonl",
    "seed": 0,
    "dialogue_val_fraction": 0.1,
    "dialogue_test_fraction": 0.1,
    "dialogue_linked_by": "all_turns",
    "prompt_val_fraction": 0.2,
}


def test_the_committed_params_are_valid_and_declare_the_splits_of_the_study():
    params = load_params(ROOT / "params.yaml")
    params.section("data", DataConfig)
    assert {"p50", "pc50", "challenging", "polite"} <= set(params.section("splits", SplitsConfig).by_name)


@pytest.mark.parametrize(
    ("condition", "accepted", "refused"),
    [
        ({"gt": 0.5}, [0.51, 1], [0.5, 0, None, float("nan")]),
        ({"ge": 0.5}, [0.5], [0.49]),
        ({"lt": 0.5}, [0.49], [0.5, None]),
        ({"le": 0.5}, [0.5], [0.51]),
        ({"gt": 0.2, "le": 0.4}, [0.3, 0.4], [0.2, 0.5]),
        ({"eq": True}, [True], [False, 1, "true", None]),
        ({"eq": 1}, [1, 1.0], [True, 2]),
        ({"eq": "web"}, ["web"], ["book", None]),
    ],
)
def test_conditions(condition, accepted, refused):
    condition = Condition(**condition)
    assert [condition.accepts(value) for value in accepted] == [True] * len(accepted)
    assert [condition.accepts(value) for value in refused] == [False] * len(refused)


@pytest.mark.parametrize("value", ["0.7", True, [0.7]])
def test_what_is_no_number_is_not_ordered_in_silence(value):
    with pytest.raises(TypeError, match="is not a number"):
        Condition(gt=0.5).accepts(value)


@pytest.mark.parametrize(
    ("splits", "told"),
    [
        ({}, "declare at least one split"),
        ({"test": {"where": {}}}, "'test' is a part of the data itself"),
        ({"P 50": {"where": {}}}, "splits.P 50="),
        ({"p50": {}}, "splits.p50.where is missing"),
        ({"p50": {"where": {"prompt.toxicity": {}}}}, "name at least one of gt, ge, lt, le, eq"),
        (
            {"p50": {"where": {"prompt.toxicity": {"more": 0.5}}}},
            "where.prompt.toxicity.more is not a known key",
        ),
        ({"p50": {"where": {"prompt.toxicity": {"gt": "high"}}}}, "splits.p50.where.prompt.toxicity.gt='high'"),
        ({"p50": {"where": {}, "text": "continuation"}}, "splits.p50.text='continuation'"),
        ({"p50": {"where": {}, "max_test": -1}}, "splits.p50.max_test=-1"),
    ],
)
def test_a_bad_split_is_named(splits, told):
    with pytest.raises(UserError) as caught:
        parse(SplitsConfig, splits, "params.yaml: splits")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rpt": "x"}, "data.rpt is not a known key. Did you mean 'rtp'?"),
        ({"rtp": ""}, "data.rtp=''"),
        ({"dialogue_val_fraction": 0}, "data.dialogue_val_fraction=0"),
        (
            {"dialogue_val_fraction": 0.6, "dialogue_test_fraction": 0.4},
            "with dialogue_val_fraction it must stay below 1",
        ),
        ({"dialogue_linked_by": "nothing"}, "'all_turns' or 'hater_turns'"),
    ],
)
def test_a_bad_data_section_is_named(changes, told):
    with pytest.raises(UserError) as caught:
        parse(DataConfig, DATA | changes, "params.yaml: data")
    assert told in str(caught.value)
