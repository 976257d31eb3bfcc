"""Columns say what records say, whole or in part, from a file or from memory."""

import numpy as np
import pytest

from detoxlens.common.arrow import arrow_table
from detoxlens.common.artifacts import open_rows, read_rows, write_json, write_rows, write_table
from detoxlens.common.coded import BATCH, Coded, Ragged
from detoxlens.common.columns import Table, column, where
from detoxlens.common.records import Completion, Fluency, Score


def completions(num: int) -> list[Completion]:
    return [
        Completion(
            prompt_id=f"p{i // 2 % 7}",
            sample_index=i % 2,
            split="val" if i % 3 else "test",
            filters=("p50", "pc50") if i % 2 else ("p50",),
            prompt="Zorgons",
            prompt_ids=(1, 2),
            prompt_token_is_template=(True, False),
            completion=f"text {i}",
            completion_ids=tuple(range(i % 5)),
            finish_reason="eos",
            seed=i,
        )
        for i in range(num)
    ]


@pytest.mark.parametrize("num", [0, 10, BATCH + 3])
def test_a_table_is_its_records(tmp_path, num):
    rows = completions(num)
    write_rows(tmp_path / "c.parquet", rows, Completion)
    for table in (open_rows(tmp_path / "c.parquet", Completion), Table.of(rows, Completion)):
        assert len(table) == num and list(table) == rows == read_rows(tmp_path / "c.parquet", Completion)
        assert list(table.column("prompt_id")) == [r.prompt_id for r in rows]
        assert list(table.column("filters")) == [r.filters for r in rows]
        assert table.column("sample_index").tolist() == [r.sample_index for r in rows]
        ids = table.lists("completion_ids")
        assert len(ids) == num and ids.values.tolist() == [t for r in rows for t in r.completion_ids]


def test_some_rows_of_a_table_are_those_records(tmp_path):
    rows = completions(BATCH + 30)
    write_rows(tmp_path / "c.parquet", rows, Completion)
    table = open_rows(tmp_path / "c.parquet", Completion)
    part = table.where(table.column("split").equals("test")).where  # a part of a part
    kept = [r for r in rows if r.split == "test"]
    some = part(np.array([r.sample_index == 1 for r in kept]))
    kept = [r for r in kept if r.sample_index == 1]
    assert list(some) == kept and some[-1] == kept[-1] and some[3:5] == kept[3:5]
    assert some.column("seed").tolist() == [r.seed for r in kept]
    assert [text for text, _ in some.values("completion", "seed")] == [r.completion for r in kept]
    assert table.at([BATCH + 2, 5]) == [rows[BATCH + 2], rows[5]]
    with pytest.raises(IndexError):
        table.at([len(rows)])


def test_a_missing_number_is_nan_and_a_missing_answer_too():
    rows = [
        Fluency(prompt_id="a", sample_index=0, nll_nats=1.5, num_tokens=3, mentions_prompt=True),
        Fluency(prompt_id="b", sample_index=0, nll_nats=None, num_tokens=None, mentions_prompt=None),
    ]
    for of in (rows, Table.of(rows, Fluency)):
        assert np.array_equal(column(of, "nll_nats"), [1.5, np.nan], equal_nan=True)
        assert np.array_equal(column(of, "mentions_prompt").astype(float), [1, np.nan], equal_nan=True)
        assert list(where(of, np.array([False, True]))) == rows[1:]


def test_an_empty_column_of_texts_is_one():
    assert list(Table.of((), Score).column("scorer").equals("x")) == []


def test_coded_values_in_the_order_of_their_first_rows():
    found = Coded(np.array([2, 0, 2]), ["a", "b", "c"])
    assert list(found) == ["c", "a", "c"] and found.present() == ["c", "a"]
    again = found.renumbered()
    assert list(again) == ["c", "a", "c"] and again.names == ["c", "a"] and again.codes.tolist() == [0, 1, 0]
    assert Coded.of(["c", "a", "c"]) == found and Coded.of(found) is found


def test_ragged_rows():
    found = Ragged.of([[1, 2], [], [3]])
    assert found.values.tolist() == [1, 2, 3] and found.lengths.tolist() == [2, 0, 1] and len(found) == 3


def test_the_bytes_do_not_depend_on_how_a_table_was_put_together(tmp_path):
    import pyarrow as pa

    rows = completions(500)
    write_rows(tmp_path / "whole.parquet", rows, Completion)
    parts = [arrow_table(rows[start : start + 7], Completion) for start in range(0, 500, 7)]
    write_table(tmp_path / "parts.parquet", pa.concat_tables(parts))
    assert (tmp_path / "parts.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.parametrize("value", [[], [["a", 0, 0.5], ["ü", 1, None]]])
def test_an_iterator_is_written_as_its_list(tmp_path, value):
    write_json(tmp_path / "list.json", value)
    write_json(tmp_path / "iterator.json", iter(value))
    assert (tmp_path / "iterator.json").read_bytes() == (tmp_path / "list.json").read_bytes()
