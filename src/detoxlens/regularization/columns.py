"""Which attention rows and which columns a penalty looks at. Pure functions of one sequence.

exchange   0  1  1  0 -1 -1  0  2  0 -2      k: token of human turn k; -k: of the reply to it; 0: of the template
rows                *  *              *      position t predicts token t + 1; it looks at human turn k of its reply -k

Position 0 is never a column: models park attention there that belongs nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedSequence:
    """MarkedSequence(ids=(9, 4, 7, 3, 5, 0), exchange=(0, 1, 1, 0, -1, -1), is_toxic=(0, 0, 1, 0, 0, 0))"""

    ids: Sequence[int]
    exchange: Sequence[int]
    """Per token, as above."""
    is_toxic: Sequence[bool]
    """Per token: does it belong to a toxic word of a human turn? All False where nobody asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows(positions=[3, 4], columns=[[0, 1, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0]], toxic=[[0, 0, 1, ...], ...])"""

    positions: Int[np.ndarray, " rows"]
    columns: Bool[np.ndarray, "rows seq"]
    toxic: Bool[np.ndarray, "rows seq"]
    """A part of the columns."""

    def __getitem__(self, chosen: np.ndarray) -> Rows:
        return Rows(positions=self.positions[chosen], columns=self.columns[chosen], toxic=self.toxic[chosen])

    def __len__(self) -> int:
        return len(self.positions)


def exchanges(is_user: Sequence[bool], is_reply: Sequence[bool]) -> list[int]:
    """The number of the exchange of each token, as above, from whose it is."""
    numbers, current, replied = [], 1, False
    for user, reply in zip(is_user, is_reply, strict=True):
        assert not (user and reply)
        current += user and replied
        replied = reply or (replied and not user)
        numbers.append(current if user else -current if reply else 0)
    return numbers


def rows_of(sequence: MarkedSequence) -> Rows:
    """The rows that predict a reply's token, each with the human turn that is replied to; others are left out."""
    exchange = np.asarray(sequence.exchange)
    positions = np.flatnonzero(exchange[1:] < 0)
    columns = exchange[None, :] == -exchange[positions + 1, None]  # (rows, seq)
    columns[:, :1] = False
    return Rows(positions=positions, columns=columns, toxic=columns & np.asarray(sequence.is_toxic, dtype=bool))


def with_entropy(rows: Rows) -> Rows:
    """Those with two columns or more: one alone has no entropy."""
    return rows[rows.columns.sum(1) >= 2]


def with_toxic_part(rows: Rows) -> Rows:
    """Those with toxic columns and others."""
    num_toxic = rows.toxic.sum(1)
    return rows[(num_toxic > 0) & (num_toxic < rows.columns.sum(1))]


def shuffled_columns(rows: Rows, rng: np.random.Generator) -> Rows:
    """As many columns, drawn from all positions up to the row's own but the first."""
    seq = rows.columns.shape[1]
    seen = (np.arange(seq) <= rows.positions[:, None]) & (np.arange(seq) > 0)
    columns = _drawn(rows.columns.sum(1), seen, rng)
    return Rows(positions=rows.positions, columns=columns, toxic=np.zeros_like(columns))


def shuffled_toxic(rows: Rows, rng: np.random.Generator) -> Rows:
    """As many toxic columns, drawn from the row's columns."""
    toxic = _drawn(rows.toxic.sum(1), rows.columns, rng)
    return Rows(positions=rows.positions, columns=rows.columns, toxic=toxic)


def _drawn(
    num: Int[np.ndarray, " rows"], among: Bool[np.ndarray, "rows seq"], rng: np.random.Generator
) -> Bool[np.ndarray, "rows seq"]:
    """In each row `num` of the places `among`, drawn without replacement."""
    keys = np.where(among, rng.random(among.shape), np.inf)
    ranks = keys.argsort(1).argsort(1)
    return (ranks < num[:, None]) & among
