"""Doctor's check of toxic_words.parquet against the completions that it is of."""

import dataclasses

from detoxlens.common.artifacts import Layout, write_rows
from detoxlens.common.records import Completion, ToxicWord
from detoxlens.doctor.tables import check_toxic_words, misfit

SAID = Completion(
    prompt_id="9f86",
    sample_index=0,
    split="test",
    filters=("p50",),
    prompt="Why are Zorgons",
    prompt_ids=(1, 2, 3, 4),
    prompt_token_is_template=(True, False, False, False),
    completion="What noodleheads, all of them.",
    completion_ids=(5, 6, 7, 8, 9),
    finish_reason="eos",
    seed=0,
)
WORD = ToxicWord(
    prompt_id="9f86",
    sample_index=0,
    text_source="own",
    toxicity=0.9,
    word_index=1,
    word="noodleheads",
    first_token=1,
    last_token=2,
    drop=0.8,
    in_minimal=True,
    is_onset=True,
    is_copied=False,
)
OF_PROMPT = dataclasses.replace(WORD, text_source="prompt", word_index=2, word="Zorgons", last_token=3, is_copied=None)


def changed(**values):
    return dataclasses.replace(WORD, **values)


def test_a_row_fits_its_text_by_completion_word_and_tokens():
    assert misfit([WORD, OF_PROMPT, changed(first_token=None, last_token=None)], [SAID]) == []
    for wrong in (
        changed(prompt_id="0000"),  # no such completion
        changed(sample_index=1),
        changed(word_index=2),  # there stands `all`
        changed(word_index=5),  # five words: 0 to 4
        changed(last_token=5),  # five tokens: 0 to 4
        dataclasses.replace(OF_PROMPT, last_token=4),  # four of the prompt
    ):
        assert misfit([WORD, wrong], [SAID]) == [wrong]


def test_tables_that_fit_are_counted_and_one_of_other_completions_is_named(tmp_path):
    layout = Layout(tmp_path)
    assert check_toxic_words(layout, ["m"], ["it", "ft"]).detail == "no table is here"
    for variant in ("it", "ft"):
        write_rows(layout.completions("m", variant), [SAID], Completion)
        write_rows(layout.toxic_words("m", variant), [WORD, OF_PROMPT], ToxicWord)
    found = check_toxic_words(layout, ["m"], ["it", "ft"])
    assert found.status == "ok" and found.detail.startswith("2 tables fit")
    write_rows(layout.completions("m", "it"), [dataclasses.replace(SAID, completion="All is well.")], Completion)
    found = check_toxic_words(layout, ["m"], ["it", "ft"])
    assert found.status == "broken" and found.remedy == "dvc repro"
    assert "m/base (1 of 2 rows, e.g. word 1 “noodleheads” of prompt 9f86)" in found.detail
