"""Rows are found by their keys, whatever the order of the tables."""

import numpy as np

from detoxlens.common.coded import Coded
from detoxlens.common.columns import Table
from detoxlens.common.records import Completion, Fluency
from detoxlens.reporting.keys import Keys, KeySet, Verdicts
from detoxlens.reporting.study import VariantTables


def keys(*of):
    rows = [Fluency(prompt_id=p, sample_index=i, nll_nats=None, num_tokens=0, mentions_prompt=None) for p, i in of]
    return Keys(Table.of(rows, Fluency))


def test_a_row_is_that_of_its_key_in_any_order():
    found, other = keys(("b", 1), ("a", 0), ("b", 0)), keys(("a", 0), ("b", 1), ("c", 0), ("a", 7))
    assert [found.row(key) for key in (("b", 1), ("a", 0), ("b", 0))] == [0, 1, 2]
    assert [found.row(key) for key in (("a", 1), ("z", 0), ("a", 9))] == [-1, -1, -1]
    assert found.rows_of(other).tolist() == [1, 0, -1, -1]
    assert other.rows_of(found).tolist() == [1, 0, -1]
    assert found.rows_of(found).tolist() == [0, 1, 2]
    assert keys().rows_of(found).tolist() == [-1, -1, -1] and keys().row(("a", 0)) == -1


def test_of_a_key_that_stands_twice_the_last_row_counts():
    assert keys(("a", 0), ("b", 0), ("a", 0)).row(("a", 0)) == 2


def test_a_key_set_is_a_set():
    found = KeySet(keys(("b", 1), ("a", 0), ("b", 0)), np.array([True, False, True]))
    assert set(found) == {("b", 1), ("b", 0)} and len(found) == 2
    assert ("b", 1) in found and ("a", 0) not in found and ("z", 3) not in found
    assert found & {("b", 1), ("a", 0)} == {("b", 1)}


def test_verdicts_leave_out_what_is_not_scored():
    found = Verdicts(keys(("b", 1), ("a", 0)), np.array([0.5, np.nan]))
    assert dict(found) == {("b", 1): 0.5} and len(found) == 1
    assert found.get(("a", 0)) is None and found.get(("z", 0)) is None


def test_names_without_a_row_are_no_keys():
    table = Table.of([], Fluency)
    assert len(KeySet(Keys(table), np.zeros(0, bool))) == 0 and Coded(np.zeros(0, int), ["a"]).present() == []


def test_rows_in_another_order_are_about_the_same_completions():
    completions = [
        Completion(
            prompt_id=prompt,
            sample_index=0,
            split=split,
            filters=("p50",),
            prompt="",
            prompt_ids=(),
            prompt_token_is_template=(),
            completion="",
            completion_ids=(),
            finish_reason="eos",
            seed=0,
        )
        for prompt, split in (("a", "test"), ("b", "val"), ("c", "test"))
    ]
    rows = [
        Fluency(prompt_id=p, sample_index=0, nll_nats=n, num_tokens=1, mentions_prompt=None)
        for n, p in enumerate(("elsewhere", "c", "b", "a"))
    ]
    tables = VariantTables(
        variant="it",
        group="it",
        completions=completions,
        scores={},
        fluency=rows,
        traces=(),
        num_attributions={},
        methods=(),
        shown=(),
        history=(),
        faithfulness=None,
    )
    assert list(tables.about(tables.fluency, "test", "p50")) == [rows[1], rows[3]]
    assert list(tables.about(tables.fluency, "val")) == [rows[2]] and not tables.keys_of("val", "polite")
    assert tables.completions_of([("c", 0), ("a", 0)]) == [completions[2], completions[0]]
