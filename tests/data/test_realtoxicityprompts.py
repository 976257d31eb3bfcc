"""Choosing evaluation prompts from RealToxicityPrompts by declared filters."""

from __future__ import annotations

import json

import pytest

from detoxlens.common.errors import UserError
from detoxlens.common.records import prompt_ids_of
from detoxlens.data.realtoxicityprompts import read_prompts
from detoxlens.params.splits import SplitConfig
from tests.data.files import rtp_row, write_jsonl

P50 = SplitConfig(where={"prompt.toxicity": {"gt": 0.5}})
PC50 = SplitConfig(where={"prompt.toxicity": {"gt": 0.5}, "continuation.toxicity": {"gt": 0.5}})
POLITE = SplitConfig(where={"prompt.toxicity": {"le": 0.2}})
ALL = SplitConfig(where={})


def read(path, splits, *, val_fraction=0.3, seed=0):
    return read_prompts(path, splits, val_fraction=val_fraction, seed=seed, source="data.rtp")


def many(num, toxicity=0.9, **kwargs):
    return [rtp_row(f"Accordion player {i} is", toxicity, **kwargs) for i in range(num)]


@pytest.fixture
def mixed(tmp_path):
    """200 rows: toxicity .9 and .1 in turn, every fourth with a toxic continuation."""
    rows = [
        rtp_row(f"Accordion player {i} is", 0.9 if i % 2 == 0 else 0.1, continuation=0.8 if i % 4 == 0 else 0.2)
        for i in range(200)
    ]
    return write_jsonl(tmp_path / "p.jsonl", rows)


def test_a_prompt_is_listed_with_every_filter_it_was_chosen_for(tmp_path):
    rows = [
        rtp_row("Zorgons are", 0.9, continuation=0.8),  # p50 and pc50
        rtp_row("Zorgons eat", 0.9, continuation=0.5),  # p50: .5 is not greater than .5
        rtp_row("Zorgons like", 0.5),  # neither
        rtp_row("Zorgons sing", None),  # a null meets nothing
        rtp_row("Zorgons knit", 0.2),  # polite: .2 is at most .2
    ]
    off = {"max_val": 0}
    splits = {"p50": P50.model_copy(update=off), "pc50": PC50.model_copy(update=off), "polite": POLITE}
    splits["polite"] = POLITE.model_copy(update=off)
    file = read(write_jsonl(tmp_path / "p.jsonl", rows), splits, val_fraction=1e-9)
    assert [(p.text, p.filters, p.toxicity) for p in file.prompts] == [
        ("Zorgons are", ("p50", "pc50"), 0.9),
        ("Zorgons eat", ("p50",), 0.9),
        ("Zorgons knit", ("polite",), 0.2),
    ]
    assert [p.prompt_id for p in file.prompts] == prompt_ids_of(["Zorgons are", "Zorgons eat", "Zorgons knit"])
    assert (file.num_rows, file.num_met_none) == (5, 2)
    assert [(name, c.num_met, c.num_val, c.num_test) for name, c in file.filters.items()] == [
        ("p50", 2, 0, 2),
        ("pc50", 1, 0, 1),
        ("polite", 1, 0, 1),
    ]


def test_challenging_is_compared_as_a_truth_value(tmp_path):
    rows = [rtp_row("Zorgons are", 0.9, challenging=True), rtp_row("Zorgons eat", 0.9)]
    splits = {"challenging": SplitConfig(where={"challenging": {"eq": True}}, max_val=0)}
    file = read(write_jsonl(tmp_path / "p.jsonl", rows), splits, val_fraction=1e-9)
    assert [p.text for p in file.prompts] == ["Zorgons are"]


def test_val_and_test_share_no_text_and_val_has_its_fraction(mixed):
    file = read(mixed, {"all": ALL, "joined": SplitConfig(where={}, text="prompt+continuation")})
    val = {p.text for p in file.prompts if p.split == "val"}
    test = {p.text for p in file.prompts if p.split == "test"}
    assert not val & test
    # The prompt alone and joined to its continuation are on one side: nothing selected on is reported on.
    assert not {t.removesuffix(" and so on.") for t in val} & {t.removesuffix(" and so on.") for t in test}
    assert 0.2 < len(val) / len(file.prompts) < 0.4  # .3 expected of 200 texts, binomial sd .03


def test_maxima_are_kept_for_each_filter(mixed):
    few = {"max_val": 5, "max_test": 20}
    file = read(mixed, {"p50": P50.model_copy(update=few), "polite": POLITE.model_copy(update=few)})
    for name in ("p50", "polite"):
        sides = [p.split for p in file.prompts if name in p.filters]
        assert (sides.count("val"), sides.count("test")) == (5, 20)
        assert (file.filters[name].num_met, file.filters[name].num_val, file.filters[name].num_test) == (100, 5, 20)


def test_another_filter_or_another_row_reshuffles_nothing(tmp_path, mixed):
    few = {"max_val": 5, "max_test": 20}
    alone = read(mixed, {"p50": P50.model_copy(update=few)})
    both = read(mixed, {"polite": POLITE, "pc50": PC50, "p50": P50.model_copy(update=few)})
    expected = [(p.text, p.split) for p in alone.prompts]
    assert [(p.text, p.split) for p in both.prompts if "p50" in p.filters] == expected
    longer = tmp_path / "longer.jsonl"
    longer.write_text(mixed.read_text() + "".join(json.dumps(row) + "\n" for row in many(50, 0.3)))
    assert [(p.text, p.split) for p in read(longer, {"p50": P50.model_copy(update=few)}).prompts] == expected
    assert [(p.text, p.split) for p in read(mixed, {"p50": P50.model_copy(update=few)}, seed=1).prompts] != expected


def test_a_filter_with_a_maximum_takes_a_fair_share_of_another_filters_prompts(mixed):
    # pc50 is half of p50. Were prompts chosen for pc50 counted for p50 as well, p50's 20 would become all of pc50's.
    file = read(mixed, {"p50": P50.model_copy(update={"max_test": 20, "max_val": 0}), "pc50": PC50})
    p50 = [p for p in file.prompts if "p50" in p.filters]
    assert len(p50) == 20
    assert 3 < sum("pc50" in p.filters for p in p50) < 17


def test_repeated_texts_are_kept_once_and_counted(tmp_path):
    rows = [rtp_row("Zorgons are", 0.9), rtp_row("Zorgons are", 0.8), rtp_row("Zorgons eat", 0.9)]
    file = read(
        write_jsonl(tmp_path / "p.jsonl", rows), {"p50": P50.model_copy(update={"max_val": 0})}, val_fraction=1e-9
    )
    assert [(p.text, p.toxicity) for p in file.prompts] == [("Zorgons are", 0.9), ("Zorgons eat", 0.9)]
    assert (file.filters["p50"].num_met, file.filters["p50"].num_duplicates) == (3, 1)


def test_the_authors_test_sets_can_be_declared(tmp_path):
    rows = [
        rtp_row("Zorgons are", 0.9, continuation=0.8) | {"reward_hate_prob": 0.7},
        rtp_row("Zorgons eat", 0.9, continuation=0.8) | {"reward_hate_prob": 0.2},
    ]
    joined = PC50.model_copy(update={"text": "prompt+continuation", "max_val": 0})
    scored = SplitConfig(where=PC50.where | {"reward_hate_prob": {"gt": 0.5}}, text="prompt+continuation", max_val=0)
    file = read(
        write_jsonl(tmp_path / "p.jsonl", rows), {"authors_p50": joined, "authors_pc50": scored}, val_fraction=1e-9
    )
    assert [(p.text, p.filters) for p in file.prompts] == [
        ("Zorgons are and so on.", ("authors_p50", "authors_pc50")),
        ("Zorgons eat and so on.", ("authors_p50",)),
    ]


@pytest.mark.parametrize("text", ["", "   ", None, float("nan"), "\ud83d"])
def test_rows_without_text_are_dropped_and_named(tmp_path, text):
    rows = [*many(40), rtp_row(text, 0.9)]
    file = read(write_jsonl(tmp_path / "p.jsonl", rows), {"p50": P50})
    assert [(d.row, d.reason) for d in file.dropped] == [("line 41", "prompt.text is missing, empty or not Unicode")]
    assert (len(file.prompts), file.num_rows) == (40, 41)


def test_missing_and_nan_scores_count_as_null(tmp_path):
    rows = [*many(40), rtp_row("Zorgons sing", float("nan")), {"prompt": {"text": "Zorgons hum"}}]
    file = read(write_jsonl(tmp_path / "p.jsonl", rows), {"p50": P50, "all": ALL})
    assert {p.text: (p.filters, p.toxicity) for p in file.prompts[-2:]} == {
        "Zorgons sing": (("all",), None),
        "Zorgons hum": (("all",), None),
    }


ROW = json.dumps(rtp_row("Zorgons are", 0.9))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "data.rtp is empty"),
        ("\n\n", "data.rtp is empty"),
        (ROW + "\n" + ROW[:50], "data.rtp, line 2, column 51: not valid JSON"),
        ("[\n" + ROW + "]", "line 1, column 2: not valid JSON"),
        ("[1]", "line 1: list instead of a JSON object"),
        ('{"text": "Zorgons are"}', "no row has a prompt.text"),
        (
            '{"prompt": {"text": "Zorgons are"}}',
            "splits.p50.where names the field 'prompt.toxicity', which no row",
        ),
        ('{"prompt": {"text": "Zorgons are", "toxicity": "0.9"}}', "line 1: prompt.toxicity: '0.9' is not a number"),
        (
            '{"prompt": {"text": "Zorgons are", "toxicity": 9}}',
            "line 1: prompt.toxicity is 9; it must be",
        ),
        (json.dumps(rtp_row("a", 0.3)), "none of the 1 rows of data.rtp meets splits.p50 (prompt.toxicity > 0.5)"),
        (ROW, "splits.p50 (prompt.toxicity > 0.5) has no val prompt: only 1 of the 1 rows"),
        (ROW.encode() + b"\n\xff", "data.rtp is not UTF-8: byte 0xff at offset"),
    ],
)
def test_a_bad_file_is_told_in_one_paragraph_that_names_the_place(tmp_path, content, told):
    path = tmp_path / "p.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read(path, {"p50": P50}, val_fraction=1e-9)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_joining_a_missing_continuation_is_told(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": {"text": "Zorgons are", "toxicity": 0.9}}])
    with pytest.raises(UserError, match=r"line 1: continuation.text is missing.*set splits.joined.text to prompt"):
        read(path, {"joined": SplitConfig(where={}, text="prompt+continuation")})
