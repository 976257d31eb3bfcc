"""RealToxicityPrompts: sentence beginnings with toxicity scores, one JSON object per line. Gehman et al. 2020
(arXiv 2009.11462). Each split of params is a filter over its fields; a prompt may be chosen for several.

What a prompt is, val or test, and how early it is chosen depend on the seed and its own text alone: another filter, or
another row, moves no prompt from one side to the other and changes no other filter's choice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from detoxlens.common.errors import UserError
from detoxlens.common.records import Prompt, prompt_ids_of
from detoxlens.common.seeding import derive_seed
from detoxlens.common.text import is_blank
from detoxlens.data.sources import Dropped, read_csv, read_utf8_lines
from detoxlens.data.splits import normalize
from detoxlens.params.splits import Condition, SplitConfig

_ABSENT = object()
CATEGORIES = (
    "severe_toxicity",
    "profanity",
    "sexually_explicit",
    "flirtation",
    "identity_attack",
    "threat",
    "insult",
)
"""RTP's scores beside toxicity: Perspective's attributes."""


@dataclass(slots=True)
class FilterCount:
    """What became of the rows that meet one split's filter; the ones in neither val nor test are over its maximum."""

    num_met: int = 0
    num_duplicates: int = 0
    """Rows whose text an earlier row that meets the filter already has; that one stands."""
    num_trained_on: int = 0
    """Different texts that stand in a training turn, and so are left out."""
    num_val: int = 0
    num_test: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RtpFile:
    """The chosen prompts, and what became of every row: dropped, met no filter, or counted under the filters it met."""

    prompts: tuple[Prompt, ...]
    """In the order of the file; `filters` names the splits that each was chosen for."""
    dropped: tuple[Dropped, ...]
    num_rows: int
    num_met_none: int
    filters: dict[str, FilterCount]


@dataclass(slots=True)
class _Candidate:
    text: str
    """What the model is given."""
    prompt: str
    """The prompt, normalised; the beginning of `text`."""
    split: Literal["val", "test"]
    rank: int
    """Pseudo-random, from seed and text; the lowest ranks are chosen."""
    toxicity: float | None
    target: str | None
    categories: tuple[str, ...]
    reference: str | None
    filters: list[str]


def read_prompts(
    path: Path,
    splits: Mapping[str, SplitConfig],
    *,
    val_fraction: float,
    seed: int,
    source: str | None = None,
    columns: Mapping[str, str] | None = None,
    trained_on: Set[str] = frozenset(),
) -> RtpFile:
    """The evaluation prompts that `splits` declare, chosen from an RTP file that is read once, line by line.

    Args:
        path: JSON lines (or a CSV, with `columns`) with at least `prompt.text` and the fields that the filters name.
        splits: Name to filter.
        val_fraction: Share of the prompts, in [0, 1), that belongs to val.
        seed: Of the partition and the choice.
        source: How the user knows the file, for messages; the path by default.
        columns: Of a CSV: RTP's field, e.g. prompt.text, to the column.
        trained_on: Normalised texts; a prompt, or a text given to the model, that is one of them is left out.

    Raises:
        UserError: the file is empty, not UTF-8 or a line is no JSON object; a field that a filter names is in no row or
            cannot be compared; or a split is left without prompts.
    """
    source = source or str(path)
    counts = {name: FilterCount() for name in splits}
    candidates: dict[str, _Candidate] = {}  # by text, in file order
    dropped: list[Dropped] = []
    seen_fields: set[str] = set()
    num_rows = num_met_none = 0
    for line, row in _read_csv_rows(path, source, columns) if columns else _read_rows(path, source):
        num_rows += 1
        if not _is_text(_lookup(row, "prompt.text")):
            dropped.append(Dropped(f"line {line}", "prompt.text is missing, empty or not Unicode"))
            continue
        where = f"{source}, line {line}"
        met = [name for name, split in splits.items() if _meets(row, split.where, seen_fields, where)]
        num_met_none += not met
        for name in met:
            counts[name].num_met += 1
            text = _text(row, name, splits[name], where)
            if text not in candidates:
                candidates[text] = _candidate(row, text, val_fraction, seed, where)
            if name in candidates[text].filters:
                counts[name].num_duplicates += 1
            else:
                candidates[text].filters.append(name)
    if num_rows == 0:
        raise UserError(f"{source} is empty; it must hold one JSON object per line, with prompt.text and its scores.")

    _check_fields(splits, seen_fields, num_rows - len(dropped), source)
    candidates = _untrained(candidates, trained_on, counts)
    chosen = _choose(candidates, splits, counts)
    for name, split in splits.items():
        _check_not_empty(name, split, counts[name], source, num_rows)
    kept = [(c, tuple(f for f in c.filters if c.text in chosen[f])) for c in candidates.values()]
    kept = [(c, filters) for c, filters in kept if filters]
    ids = prompt_ids_of(c.text for c, _ in kept)
    return RtpFile(
        prompts=tuple(
            Prompt(
                prompt_id=prompt_id,
                split=c.split,
                filters=filters,
                text=c.text,
                toxicity=c.toxicity,
                target=c.target,
                categories=c.categories,
                reference=c.reference,
            )
            for prompt_id, (c, filters) in zip(ids, kept, strict=True)
        ),
        dropped=tuple(dropped),
        num_rows=num_rows,
        num_met_none=num_met_none,
        filters=counts,
    )


def merged(files: Sequence[RtpFile]) -> RtpFile:
    """Several files as one; a prompt that more than one holds has the filters of all of them."""
    prompts: dict[str, Prompt] = {}
    for prompt in (p for file in files for p in file.prompts):
        first = prompts.setdefault(prompt.text, prompt)
        if first is prompt:
            continue
        if first.split == prompt.split:
            prompts[prompt.text] = replace(
                first,
                filters=(*first.filters, *prompt.filters),
                target=first.target or prompt.target,
                categories=tuple(dict.fromkeys((*first.categories, *prompt.categories))),
                reference=first.reference or prompt.reference,
            )
        else:  # held by an earlier file on the other side
            for count in (file.filters[name] for file in files for name in prompt.filters if name in file.filters):
                count.num_duplicates += 1
                count.num_val -= prompt.split == "val"
                count.num_test -= prompt.split == "test"
    ids = prompt_ids_of(prompts)
    return RtpFile(
        prompts=tuple(replace(p, prompt_id=i) for i, p in zip(ids, prompts.values(), strict=True)),
        dropped=tuple(d for file in files for d in file.dropped),
        num_rows=sum(file.num_rows for file in files),
        num_met_none=sum(file.num_met_none for file in files),
        filters={name: count for file in files for name, count in file.filters.items()},
    )


def _text(row: dict[str, Any], name: str, split: SplitConfig, where: str) -> str:
    """What the model is given of `row` in the split `name`."""
    if split.text == "prompt":
        return row["prompt"]["text"]
    continuation = _lookup(row, "continuation.text")
    if not _is_text(continuation):
        raise UserError(
            f"{where}: continuation.text is missing, empty or not Unicode, but splits.{name}.text joins it to the "
            f"prompt; add a condition on continuation.toxicity, or set splits.{name}.text to prompt."
        )
    return row["prompt"]["text"] + continuation


def _candidate(row: dict[str, Any], text: str, val_fraction: float, seed: int, where: str) -> _Candidate:
    # The prompt alone decides the side, so that a prompt and the same prompt with its continuation share one.
    is_val = derive_seed(seed, "prompt split", normalize(row["prompt"]["text"])) < val_fraction * 2**63
    toxicity = _lookup(row, "prompt.toxicity")
    if toxicity is None or toxicity != toxicity:  # NaN
        toxicity = None
    elif isinstance(toxicity, bool) or not (isinstance(toxicity, int | float) and 0 <= toxicity <= 1):
        raise UserError(f"{where}: prompt.toxicity is {toxicity!r}; it must be a number from 0 to 1, or null.")
    return _Candidate(
        text=text,
        prompt=normalize(row["prompt"]["text"]),
        split="val" if is_val else "test",
        rank=derive_seed(seed, "prompt rank", text),
        toxicity=None if toxicity is None else float(toxicity),
        target=_text_at(row, "target"),
        categories=_categories(row),
        reference=_text_at(row, "reference.text"),
        filters=[],
    )


def _text_at(row: dict[str, Any], field: str) -> str | None:
    """The text of a field that not every source has."""
    value = _lookup(row, field)
    return value.strip() if _is_text(value) else None


def _categories(row: dict[str, Any]) -> tuple[str, ...]:
    """The row's own `category`, else the names of RTP's scores of the prompt, toxicity aside, above .5."""
    if own := _text_at(row, "category"):
        return (own,)
    scores = {name: _lookup(row, f"prompt.{name}") for name in CATEGORIES}
    return tuple(name for name, value in scores.items() if isinstance(value, int | float) and value > 0.5)


def _untrained(
    candidates: dict[str, _Candidate], trained_on: Set[str], counts: dict[str, FilterCount]
) -> dict[str, _Candidate]:
    """Those whose prompt and text are not among `trained_on`; the others are counted."""
    kept = {}
    for text, candidate in candidates.items():
        if {normalize(text), candidate.prompt} & trained_on:
            for name in candidate.filters:
                counts[name].num_trained_on += 1
        else:
            kept[text] = candidate
    return kept


def _choose(
    candidates: dict[str, _Candidate], splits: Mapping[str, SplitConfig], counts: dict[str, FilterCount]
) -> dict[str, set[str]]:
    """Texts chosen for each split: of those that meet its filter the lowest ranks, up to max_val and max_test."""
    by_rank = sorted(candidates.values(), key=lambda c: (c.rank, c.text))
    chosen: dict[str, set[str]] = {}
    for name, split in splits.items():
        val, test = (
            [c.text for c in by_rank if c.split == side and name in c.filters][:most]
            for side, most in (("val", split.max_val), ("test", split.max_test))
        )
        counts[name].num_val, counts[name].num_test = len(val), len(test)
        chosen[name] = {*val, *test}
    return chosen


def _meets(row: dict[str, Any], conditions: Mapping[str, Condition], seen_fields: set[str], where: str) -> bool:
    accepted = True
    for field, condition in conditions.items():
        value = _lookup(row, field, _ABSENT)
        if value is _ABSENT:
            accepted = False
            continue
        seen_fields.add(field)
        try:
            accepted &= condition.accepts(value)
        except TypeError as e:
            raise UserError(f"{where}: {field}: {e}; it must be a number or null (params: splits).") from None
    return accepted


def _lookup(row: Any, field: str, default: Any = None) -> Any:
    """The value at a dotted path, or `default`."""
    for key in field.split("."):
        if not isinstance(row, dict) or key not in row:
            return default
        row = row[key]
    return row


def _is_text(value: Any) -> bool:
    """Is it a string with something to see, and without lone surrogates, which JSON can write and UTF-8 cannot?"""
    return isinstance(value, str) and not is_blank(value) and not any("\ud800" <= c <= "\udfff" for c in value)


def _read_rows(path: Path, source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in read_utf8_lines(path, source):
        if not line.strip():
            continue  # a blank line is no row
        try:
            row = json.loads(line.rstrip("\r\n"))
        except json.JSONDecodeError as e:
            raise UserError(
                f"{source}, line {number}, column {e.colno}: not valid JSON ({e.msg}); the file must hold one complete "
                f"JSON object per line. Was it cut off, or is it one long JSON list?"
            ) from None
        if not isinstance(row, dict):
            raise UserError(
                f'{source}, line {number}: {type(row).__name__} instead of a JSON object such as {{"prompt": ...}}.'
            )
        yield number, row


def _read_csv_rows(path: Path, source: str, columns: Mapping[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a CSV as RTP has them: every column a field, those that `columns` names also at RTP's place."""
    for number, cells in read_csv(path, source, list(columns.values())):
        row: dict[str, Any] = {column: _value(cell) for column, cell in cells.items()}
        for field, column in columns.items():
            *parents, key = field.split(".")
            place = row
            for parent in parents:
                if not isinstance(place.get(parent), dict):  # XSTest's column of texts is called `prompt`
                    place[parent] = {}
                place = place[parent]
            place[key] = cells[column].strip() if key == "text" else _value(cells[column])
        yield number, row


def _value(cell: str) -> float | str | None:
    """A cell as a number where it is one, null where it is empty."""
    try:
        return float(cell)
    except ValueError:
        return cell if cell.strip() else None


def _check_fields(splits: Mapping[str, SplitConfig], seen: set[str], num_usable: int, source: str) -> None:
    if not num_usable:
        raise UserError(f'{source}: no row has a prompt.text; each line must hold {{"prompt": {{"text": ..., ...}}}}.')
    for name, split in splits.items():
        if missing := [field for field in split.where if field not in seen]:
            raise UserError(
                f"params: splits.{name}.where names the field {missing[0]!r}, which no row of {source} has; RTP has "
                f"challenging, and prompt.X and continuation.X with X = text, toxicity, severe_toxicity, profanity, ..."
            )


def _check_not_empty(name: str, split: SplitConfig, count: FilterCount, source: str, num_rows: int) -> None:
    condition = " and ".join(f"{field} {c}" for field, c in split.where.items()) or "everything"
    if count.num_met == 0:
        raise UserError(
            f"params: none of the {num_rows} rows of {source} meets splits.{name} ({condition}); loosen the filter, "
            f"remove the split, or use more data."
        )
    for side, most, num in (("val", split.max_val, count.num_val), ("test", split.max_test, count.num_test)):
        if num == 0 and most != 0:
            trained_on = f", {count.num_trained_on} of them in the training dialogues" if count.num_trained_on else ""
            raise UserError(
                f"params: splits.{name} ({condition}) has no {side} prompt: only {count.num_met} of the {num_rows} "
                f"rows of {source} meet it{trained_on}; loosen the filter, use more data, or set splits.{name}."
                f"max_{side} to 0."
            )
