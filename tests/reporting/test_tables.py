import pytest

from detoxlens.common.numbers import number
from detoxlens.reporting.table import DASH, Column, Row, Table, table
from detoxlens.reporting.tables import counts_table, seeds_table, toxicity_tables

RATE = {"rate_gt_50": 0.125, "ci95": [0.1, 0.15], "delta_vs_it": None, "num_scored": 8, "num_empty": 1, "num_failed": 2}
NOTHING = {"rate_gt_50": None, "ci95": None, "delta_vs_it": None, "num_scored": 0, "num_empty": 0, "num_failed": 0}


def metrics(**rates):
    return {"m": {v: {"toxicity": {"p50": RATE | {"rate_gt_50": r}, "val": NOTHING}} for v, r in rates.items()}}


def test_rates_are_percent_with_their_interval():
    rates, _ = toxicity_tables(metrics(it=0.125), ["p50"])
    assert rates.rows == (("m", "base", "12.5 [10.0, 15.0]", DASH),)


def test_counts_are_scored_empty_failed():
    by_other_rule, _ = toxicity_tables(metrics(it=0.5), ["p50"], missing="non_toxic")
    assert "unscored ones counted as not toxic" in by_other_rule.caption
    assert "count as not toxic" in counts_table(metrics(it=0.5), ["p50"], missing="non_toxic").caption
    assert counts_table(metrics(it=0.5), ["p50"]).rows == (("m", "base", "8 / 1 / 2", "0 / 0 / 0"),)


def test_seeds_of_one_method_show_their_spread():
    found = seeds_table(metrics(it=0.5, a=0.1, b=0.2, c=0.3), ["p50"], {"it": "it", "a": "ft", "b": "ft", "c": "ft"})
    assert found.rows == (("m", "ft", "3", "20.0 ± 10.0 (10.0 to 30.0)"),)  # sqrt((100 + 0 + 100) / 2) = 10
    assert seeds_table(metrics(it=0.5), ["p50"], {"it": "it"}) is None


@pytest.mark.parametrize(
    ("value", "digits", "signed", "text"),
    [(-0.04, 1, True, "0.0"), (-1.25, 2, False, "−1.25"), (0.5, 1, True, "+0.5"), (0.0, 0, False, "0")],
)
def test_numbers_have_a_real_minus_and_no_negative_zero(value, digits, signed, text):
    assert number(value, digits, signed=signed) == text


def test_markdown_is_padded_and_escapes_bars():
    table = Table(title="T", caption="C.", header=("model", "|x|"), rows=(("tiny", "1"), ("a", "22")))
    assert table.markdown().splitlines()[4:] == [
        "| model | \\|x\\| |",
        "| ----- | ----: |",
        "| tiny  |     1 |",
        "| a     |    22 |",
    ]


def test_a_table_without_rows_says_so():
    assert Table(title="T", caption="C.", header=("model",), rows=()).markdown() == "## T\n\nC.\n\nNo rows.\n"


def test_an_empty_cell_gives_its_reason_under_the_table():
    few, none = {"value": None, "reason": "3 prompts"}, {"effect": None, "reason": "no text"}
    columns = [Column("a", ("a",)), Column("b", ("b", "effect")), Column("c", ("c",), "{:.1f}".format)]
    rows = [Row(model="m", variant="v", found=found) for found in ({"a": few, "b": none}, {"a": 1, "b": none, "c": 2})]
    found = table("T", "C.", columns, rows)
    assert found.rows == (("–¹", "–²", DASH), ("1", "–²", "2.0"))
    assert found.notes == ("3 prompts", "no text")
    assert found.markdown().endswith("\n\n¹ 3 prompts\n\n² no text\n")
