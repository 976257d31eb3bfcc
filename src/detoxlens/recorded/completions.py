"""Completions made elsewhere as our records. `rewardlm`: the files of github.com/DanielSc4/RewardLM, results/.

RewardLM's rows: prompts (inside the chat template), responses, prompt_score (its reward classifier's P(hate) of the
prompt), pro_API_response_score (Perspective's TOXICITY; empty: not scored; -1: the response is empty).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from detoxlens.common.errors import UserError, did_you_mean
from detoxlens.common.numbers import identifier
from detoxlens.common.records import Completion, Score, prompt_ids_of
from detoxlens.common.text import is_blank
from detoxlens.recorded.table_file import Row, probability, read_table, require, whole_number

FIELDS = ("prompt", "completion", "toxicity", "prompt_score", "prompt_id", "sample_index")
"""What a column may be named as; prompt and completion are needed."""
FORMATS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "plain": {field: field for field in FIELDS},
        "rewardlm": {
            "prompt": "prompts",
            "completion": "responses",
            "toxicity": "pro_API_response_score",
            "prompt_score": "prompt_score",
        },
    }
)
FORMAT_HINT = ", or --format rewardlm for a file of the published study"
SCORER = "recorded"
EMPTY_CODE = -1.0
"""RewardLM's score of an empty response."""
_TEMPLATE = re.compile(r'(?:<human>|### Question): "(?P<text>.*)"\.\n(?:<bot>|### Answer): ?', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Imported:
    """One file's rows: `scores` is empty where the file has none, else one per completion."""

    completions: list[Completion]
    scores: list[Score]


def columns_of(format: str, given: str | None) -> dict[str, str]:
    """Field -> column, from a format's name and `prompt=Question,completion=Answer`.

    Raises:
        UserError: no such format or field.
    """
    if format not in FORMATS:
        raise UserError(
            f"--format {format!r} is not known.{did_you_mean(format, FORMATS)} Known: {', '.join(FORMATS)}."
        )
    columns = dict(FORMATS[format])
    for pair in given.split(",") if given else ():
        field, equals, column = pair.partition("=")
        if not equals or field not in FIELDS or not column:
            raise UserError(
                f"--columns: {pair!r} is not of the form <field>=<column>.{did_you_mean(field, FIELDS)} "
                f"Fields: {', '.join(FIELDS)}."
            )
        columns[field] = column
    return columns


def read_completions(
    path: Path, *, columns: Mapping[str, str], format: str, given: Sequence[str] = (), split: str | None = None
) -> Imported:
    """The file's completions, all of the test part.

    Every row meets the filter `split`, where one is given; else, when the format is RewardLM's, `authors_p50`, and
    `authors_pc50` where prompt_score > .5; in other files `imported`. A repeated prompt is numbered, unless a column
    gives sample_index.

    Args:
        path: .csv, .jsonl or .parquet.
        columns: field -> column.
        format: one of `FORMATS`.
        given: fields whose columns were asked for by name, so that they must be there.
        split: the set of prompts that the file is about.

    Raises:
        UserError: a column is missing, a value is no number or no probability, or two rows are the same completion.
    """
    rows = read_table(path)
    for field in dict.fromkeys(("prompt", "completion", *given)):
        remedy = (
            f"Name the column of the {field}: --columns {field}=<column>{FORMAT_HINT if format == 'plain' else ''}."
        )
        require(path, rows, [columns[field]], remedy=remedy)
    present = {field: column for field, column in columns.items() if column in rows[0]}
    prompts = [_text(row[columns["prompt"]]) for row in rows]
    if format == "rewardlm":
        require(path, rows, [columns["prompt_score"], columns["toxicity"]])
        prompts = [unwrapped(prompt) for prompt in prompts]
    _check_text(path, columns["prompt"], prompts)
    _check_text(path, columns["completion"], [_text(row[columns["completion"]]) for row in rows])
    keys = _keys(path, rows, prompts, present)
    completions = [
        Completion(
            prompt_id=prompt_id,
            sample_index=sample_index,
            split="test",
            filters=(split,) if split else _filters(path, number, row, present, format),
            prompt=prompt,
            prompt_ids=(),
            prompt_token_is_template=(),
            completion=_text(row[columns["completion"]]),
            completion_ids=(),
            finish_reason="unknown",  # the file does not say
            seed=0,
        )
        for number, (row, prompt, (prompt_id, sample_index)) in enumerate(zip(rows, prompts, keys, strict=True), 1)
    ]
    if "toxicity" not in present:
        return Imported(completions, [])
    version = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    scores = [
        _score(path, number, completion, row[present["toxicity"]], version, format)
        for number, (completion, row) in enumerate(zip(completions, rows, strict=True), 1)
    ]
    return Imported(completions, scores)


def _score(path: Path, number: int, completion: Completion, value: object, version: str, format: str) -> Score:
    toxicity = probability(path, number, "toxicity", value)
    empty = is_blank(completion.completion)
    if format == "rewardlm" and toxicity == EMPTY_CODE and empty:
        toxicity = None
    if toxicity is not None and not 0 <= toxicity <= 1:
        raise UserError(f"{path}: row {number}: toxicity={toxicity} is not between 0 and 1.")
    status = "empty" if empty else "failed" if toxicity is None else "ok"
    return Score(
        prompt_id=completion.prompt_id,
        sample_index=completion.sample_index,
        scorer=SCORER,
        scorer_version=version,
        label="TOXICITY" if format == "rewardlm" else "toxicity",
        activation="recorded",
        truncated=False,
        toxicity=toxicity if status == "ok" else None,
        status=status,
        error="recorded without a score" if status == "failed" else "",
    )


def _keys(path: Path, rows: Sequence[Row], prompts: Sequence[str], present: Mapping[str, str]) -> list[tuple[str, int]]:
    """(prompt_id, sample_index) of every row, all different."""
    if "prompt_id" in present:
        ids = [identifier(row[present["prompt_id"]]) for row in rows]
    elif "sample_index" in present:
        unique = list(dict.fromkeys(prompts))
        by_text = dict(zip(unique, prompt_ids_of(unique), strict=True))
        ids = [by_text[prompt] for prompt in prompts]
    else:
        ids = prompt_ids_of(prompts)
    keys = []
    for number, (row, prompt_id) in enumerate(zip(rows, ids, strict=True), 1):
        value = row[present["sample_index"]] if "sample_index" in present else 0
        keys.append((prompt_id, whole_number(path, number, "sample_index", value)))
    seen: dict[tuple[str, int], int] = {}
    for number, key in enumerate(keys, 1):
        if key in seen:
            raise UserError(
                f"{path}: rows {seen[key]} and {number} are both completion {key[1]} of prompt {key[0]}; number the "
                "completions of one prompt in a column and name it: --columns sample_index=<column>."
            )
        seen[key] = number
    return keys


def _filters(path: Path, number: int, row: Row, present: Mapping[str, str], format: str) -> tuple[str, ...]:
    if format != "rewardlm":
        return ("imported",)
    hate = probability(path, number, "prompt_score", row[present["prompt_score"]])
    return ("authors_p50", "authors_pc50") if hate is not None and hate > 0.5 else ("authors_p50",)


def _check_text(path: Path, column: str, texts: Sequence[str]) -> None:
    """Raises UserError where a text has no bytes in UTF-8."""
    for number, text in enumerate(texts, 1):
        try:
            text.encode()
        except UnicodeEncodeError as e:
            raise UserError(
                f"{path}: row {number}: {column} holds half a character ({text[e.start]!a} at {e.start}), which "
                "UTF-8 has no bytes for; replace it."
            ) from None


def unwrapped(prompt: str) -> str:
    """The prompt without RewardLM's chat template; as it is where it has none."""
    match = _TEMPLATE.fullmatch(prompt)
    return match["text"] if match else prompt


def _text(value: object) -> str:
    """A cell as text; null and NaN, which some exporters write for it, are the empty text."""
    return "" if value is None or value != value else str(value)
