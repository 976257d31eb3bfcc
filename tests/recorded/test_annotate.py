"""A scorer's verdict as a field of each prompt."""

import json

import pytest

from detoxlens.common.errors import UserError
from detoxlens.recorded.annotate import annotate
from detoxlens.scorers.profanity_check import ProfanityCheck


def write(folder, *rows):
    file = folder / "p.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def rtp(prompt, continuation, **fields):
    return {"prompt": {"text": prompt, "toxicity": 0.5}, "continuation": {"text": continuation}} | fields


def add(folder, file, text="prompt+continuation", field="hate"):
    num = annotate(file, folder / "out.jsonl", scorer=ProfanityCheck, field=field, text=text)
    return num, [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def test_every_prompt_gets_the_field_and_keeps_the_others(tmp_path):
    rows = rtp("Zorgons are", " stupid idiots.", id=1), rtp("Zorgons are", " good bakers.", id=2)
    num, found = add(tmp_path, write(tmp_path, *rows))
    assert num == 2 and found[0]["hate"] > 0.5 > found[1]["hate"]
    assert [{k: v for k, v in row.items() if k != "hate"} for row in found] == list(rows)
    _, found = add(tmp_path, write(tmp_path, *rows), text="prompt")
    assert found[0]["hate"] == found[1]["hate"] < 0.5


def test_what_cannot_be_annotated_is_told(tmp_path):
    with pytest.raises(UserError, match=r"row 1 has no prompt\.text and continuation\.text"):
        add(tmp_path, write(tmp_path, {"prompt": {"text": "a"}}))
    with pytest.raises(UserError, match="row 1 has a field 'hate' already"):
        add(tmp_path, write(tmp_path, rtp("a", "b", hate=1)))
    with pytest.raises(UserError, match="--text 'all': one of prompt, prompt"):
        add(tmp_path, write(tmp_path, rtp("a", "b")), text="all")


def test_prompts_without_a_score_are_counted(tmp_path, caplog):
    _, found = add(tmp_path, write(tmp_path, rtp("\u200b", "", id=1), rtp("Zorgons are", " good.", id=2)))
    assert found[0]["hate"] is None and "of 2 prompts 1 have no score (null) and 0 are longer" in caplog.text
