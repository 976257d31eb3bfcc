"""Which rows and columns a penalty looks at, by hand."""

import numpy as np
import pytest

from detoxlens.regularization.columns import (
    MarkedSequence,
    exchanges,
    rows_of,
    shuffled_columns,
    shuffled_toxic,
    with_entropy,
    with_toxic_part,
)

#           <bos> Z  are dumb bot  They mend eos  \n  Why  bot  So eos
EXCHANGE = (0, 1, 1, 1, 0, -1, -1, -1, 0, 2, 0, -2, -2)
IS_TOXIC = (0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
SEQUENCE = MarkedSequence(ids=range(13), exchange=EXCHANGE, is_toxic=IS_TOXIC)


def test_exchanges_are_numbered_in_the_order_of_human_turns():
    assert exchanges([e > 0 for e in EXCHANGE], [e < 0 for e in EXCHANGE]) == list(EXCHANGE)


def test_a_row_predicts_a_reply_token_and_looks_at_the_turn_that_is_replied_to():
    rows = rows_of(SEQUENCE)
    assert rows.positions.tolist() == [4, 5, 6, 10, 11]
    assert [np.flatnonzero(c).tolist() for c in rows.columns] == [[1, 2, 3]] * 3 + [[9]] * 2
    assert [np.flatnonzero(t).tolist() for t in rows.toxic] == [[3]] * 3 + [[]] * 2


def test_position_0_is_no_column():
    rows = rows_of(MarkedSequence(ids=range(4), exchange=(1, 1, 1, -1), is_toxic=(0, 0, 0, 0)))
    assert np.flatnonzero(rows.columns[0]).tolist() == [1, 2]


def test_rows_without_an_entropy_or_without_both_kinds_of_words_are_left_out():
    assert with_entropy(rows_of(SEQUENCE)).positions.tolist() == [4, 5, 6]  # the second turn has one token
    assert with_toxic_part(rows_of(SEQUENCE)).positions.tolist() == [4, 5, 6]
    all_toxic = MarkedSequence(ids=range(4), exchange=(0, 1, 1, -1), is_toxic=(0, 1, 1, 0))
    assert len(with_toxic_part(rows_of(all_toxic))) == 0


def test_shuffled_columns_are_as_many_all_before_the_row_and_uniform():
    rows, rng, counts = with_entropy(rows_of(SEQUENCE)), np.random.default_rng(0), np.zeros(13)
    for _ in range(4000):
        drawn = shuffled_columns(rows, rng)
        assert (drawn.columns.sum(1) == 3).all() and not drawn.columns[:, 0].any()
        assert not any(c[p + 1 :].any() for c, p in zip(drawn.columns, drawn.positions, strict=True))
        counts += drawn.columns[0]
    assert counts[1:5] / 4000 == pytest.approx([0.75] * 4, abs=0.03)  # 3 of the 4 places 1..4


def test_shuffled_toxic_words_lie_on_the_same_turn_and_are_uniform():
    rows, rng = with_toxic_part(rows_of(SEQUENCE)), np.random.default_rng(0)
    drawn = [shuffled_toxic(rows, rng) for _ in range(3000)]
    assert all((d.toxic <= d.columns).all() and (d.toxic.sum(1) == 1).all() for d in drawn)
    assert np.mean([d.toxic[0] for d in drawn], axis=0)[1:4] == pytest.approx([1 / 3] * 3, abs=0.03)
