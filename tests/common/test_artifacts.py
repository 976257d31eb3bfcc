"""Reading and writing artefacts: round trips, equal bytes, and a failure that leaves the earlier file as it was."""

from __future__ import annotations

import math

import pytest

from detoxlens.common import artifacts
from detoxlens.common.errors import UserError
from detoxlens.common.records import Attribution, Completion, Dialogue, Fluency, ModelRef, Prompt, Score

KEY = {"prompt_id": "9f86d081884c7d65", "sample_index": 0}
ROWS = [
    Dialogue(dialogue_id="12", target="ZORGONS", source="sample", split="train", turns=("Zorgons hum.", "Bees too.")),
    Prompt(prompt_id="9f86d081884c7d65", split="test", filters=("p50", "pc50"), text="ünïcode 🪗\n", toxicity=0.91),
    Prompt(prompt_id="9f86d081884c7d65-1", split="val", filters=(), text="no score", toxicity=None),
    Completion(
        **KEY,
        split="test",
        filters=("p50",),
        prompt="Zorgons",
        prompt_ids=(1, 2),
        prompt_token_is_template=(True, False),
        completion="",
        completion_ids=(),
        finish_reason="eos",
        seed=2**63 - 1,
    ),
    Score(
        **KEY,
        scorer="s",
        scorer_version="v",
        label="toxic",
        activation="sigmoid",
        truncated=False,
        toxicity=None,
        status="empty",
        error="",
    ),
    Fluency(**KEY, nll_nats=None, num_tokens=0, mentions_prompt=False),
    Attribution(
        **KEY,
        reader="ft",
        text_source="it",
        method="saliency",
        target="probability",
        status="ok",
        prompt_ids=(5, 9),
        completion_ids=(7, 8),
        prompt_pieces=("<bot>:", " ☃"),
        completion_pieces=(" a", "\n"),
        prompt_token_is_template=(True, False),
        scores=((0.4, 0.6), (0.2, 0.3, 0.5)),
        token_prob=(0.9, 0.7),
        prompt_kl_bits=(1.5, 0.0),
        prompt_gain_bits=(-1.5, 0.25),
    ),
    Attribution(
        **KEY,
        reader="it",
        text_source="it",
        method="saliency",
        target="probability",
        status="zero_gradient",
        prompt_ids=(5,),
        completion_ids=(7,),
        prompt_pieces=("a",),
        completion_pieces=("b",),
        prompt_token_is_template=(True,),
        scores=None,
        token_prob=None,
        prompt_kl_bits=None,
        prompt_gain_bits=None,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_rows_come_back_as_they_went(tmp_path, row):
    path = tmp_path / "new/folder/rows.parquet"
    artifacts.write_rows(path, [row, row], type(row))
    assert artifacts.read_rows(path, type(row)) == [row, row]


def test_a_table_without_rows_comes_back_empty(tmp_path):
    artifacts.write_rows(tmp_path / "rows.parquet", [], Prompt)
    assert artifacts.read_rows(tmp_path / "rows.parquet", Prompt) == []


def test_the_same_rows_give_the_same_bytes(tmp_path):
    prompts = [row for row in ROWS if isinstance(row, Prompt)]
    for name in ("a", "b"):
        artifacts.write_rows(tmp_path / name, iter(prompts), Prompt)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_missing_table_and_a_missing_column_are_told(tmp_path):
    with pytest.raises(UserError, match=r"prompts\.parquet does not exist; `dvc repro` makes it"):
        artifacts.read_rows(tmp_path / "prompts.parquet", Prompt)
    artifacts.write_rows(tmp_path / "rows.parquet", [ROWS[5]], Fluency)
    with pytest.raises(UserError, match=r"lacks the column\(s\) split, filters, text, toxicity"):
        artifacts.read_rows(tmp_path / "rows.parquet", Prompt)


def test_a_failed_write_leaves_the_earlier_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "value.json"
    artifacts.write_json(path, {"kept": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        artifacts.write_json(path, {"broken": math.nan})

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(UserError, match=r"The disk is full: .*value\.json"):
        artifacts.write_json(path, {"broken": 2})
    monkeypatch.undo()
    assert artifacts.read_json(path) == {"kept": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_the_earlier_table(tmp_path):
    path = tmp_path / "rows.parquet"
    prompt = ROWS[1]
    artifacts.write_rows(path, [prompt], Prompt)

    def rows():
        yield prompt
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artifacts.write_rows(path, rows(), Prompt)
    assert artifacts.read_rows(path, Prompt) == [prompt]
    assert list(tmp_path.iterdir()) == [path]


def test_json_keeps_order_and_letters(tmp_path):
    path = tmp_path / "value.json"
    artifacts.write_json(path, {"z": "ü", "a": [1, None, True]})
    assert list(artifacts.read_json(path)) == ["z", "a"]
    assert "ü" in path.read_text(encoding="utf-8")
    assert path.read_bytes().endswith(b"}\n")


def test_bad_json_is_told(tmp_path):
    with pytest.raises(UserError, match=r"absent\.json does not exist"):
        artifacts.read_json(tmp_path / "absent.json")
    for content in (b"{", b"\xff"):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.json is not valid JSON"):
            artifacts.read_json(tmp_path / "bad.json")


def test_history_and_model_reference_come_back(tmp_path):
    rows = [{"step": 0, "loss": 1.5}, {"step": 1, "loss": 0.25}]
    assert artifacts.read_history(tmp_path) == []
    artifacts.write_history(tmp_path, rows)
    assert artifacts.read_history(tmp_path) == rows
    ref = ModelRef(base="models/tiny-neox/base", revision="abc", adapter=None)
    artifacts.write_model_ref(tmp_path, ref)
    assert artifacts.read_model_ref(tmp_path) == ref
