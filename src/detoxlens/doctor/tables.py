"""Tables of the workspace against one another: each is of the texts that lie beside it."""

from __future__ import annotations

from collections.abc import Sequence

from detoxlens.common.artifacts import Layout, read_rows
from detoxlens.common.names import shown_name
from detoxlens.common.records import Completion, ToxicWord
from detoxlens.doctor.check import Check, some
from detoxlens.evaluation.toxic_words import words_in


def check_toxic_words(layout: Layout, models: Sequence[str], variants: Sequence[str]) -> Check:
    """Every row of toxic_words.parquet is a word of the completion, or prompt, that it names, and of its tokens."""
    misfits, num_tables = [], 0
    for model in models:
        for variant in variants:
            files = layout.toxic_words(model, variant), layout.completions(model, variant)
            if not all(file.exists() for file in files):
                continue
            num_tables += 1
            rows = read_rows(files[0], ToxicWord)
            if wrong := misfit(rows, read_rows(files[1], Completion)):
                misfits.append(
                    f"{model}/{shown_name(variant)} ({len(wrong)} of {len(rows)} rows, e.g. {_named(wrong[0])})"
                )
    if misfits:
        detail = f"toxic_words.parquet is not of the completions beside it: {some(misfits)}"
        return Check(name="toxic words", status="broken", detail=detail, remedy="dvc repro")
    detail = f"{num_tables} tables fit the completions that they are of" if num_tables else "no table is here"
    return Check(name="toxic words", status="ok", detail=detail)


def misfit(rows: Sequence[ToxicWord], completions: Sequence[Completion]) -> list[ToxicWord]:
    """The rows that are of no completion, of another word than stands there, or of tokens that are not there."""
    by_key = {(c.prompt_id, c.sample_index): c for c in completions}
    return [row for row in rows if not _fits(row, by_key.get((row.prompt_id, row.sample_index)))]


def _fits(row: ToxicWord, completion: Completion | None) -> bool:
    if completion is None:
        return False
    is_own = row.text_source == "own"
    words = words_in(completion.completion if is_own else completion.prompt)
    num_tokens = len(completion.completion_ids if is_own else completion.prompt_ids)
    return (
        row.word_index < len(words)
        and words[row.word_index].text == row.word
        and (row.last_token is None or row.last_token < num_tokens)
    )


def _named(row: ToxicWord) -> str:
    return f"word {row.word_index} “{row.word}” of prompt {row.prompt_id}"
