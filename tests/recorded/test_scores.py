"""`recorded:FILE`: matched by text, hash or prompt; a file that matches nothing or twice is told."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion
from detoxlens.pipeline.stages.score import score_completions
from detoxlens.scorers import make_scorer

TEXTS = ["Zorgons hum.", "Zorgons, they hum.\nAlways.", "Accordion players nap."]


def recorded(folder, name="scores.csv"):
    return make_scorer(f"recorded:{name}", root=folder)


def test_scores_are_found_by_the_text_in_all_three_kinds_of_file(tmp_path):
    (tmp_path / "scores.csv").write_text('text,toxicity\nZorgons hum.,0.25\n"Zorgons, they hum.\nAlways.",0.75\n')
    rows = [{"text": TEXTS[0], "toxicity": 0.25}, {"text": TEXTS[1], "toxicity": 0.75}]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "scores.parquet")
    for name in ("scores.csv", "scores.jsonl", "scores.parquet"):
        scored = recorded(tmp_path, name).score([*TEXTS, " "])
        assert [s.toxicity for s in scored] == [0.25, 0.75, None, None]
        assert [s.status for s in scored] == ["ok", "ok", "failed", "empty"]
        assert scored[2].error == "not in the recorded file"


def test_scores_are_found_by_prompt_and_sample_in_the_stage(tmp_path):
    (tmp_path / "scores.csv").write_text("prompt_id,sample_index,toxicity,label\na,0,0.1,TOXICITY\na,1,0.9,TOXICITY\n")
    first = Completion(
        prompt_id="a",
        sample_index=0,
        split="test",
        filters=(),
        prompt="",
        prompt_ids=(),
        prompt_token_is_template=(),
        completion="the same words",
        completion_ids=(),
        finish_reason="eos",
        seed=0,
    )
    scorer = recorded(tmp_path)
    scores = score_completions(scorer, [first, dataclasses.replace(first, sample_index=1)])
    assert [s.toxicity for s in scores] == [0.1, 0.9]
    assert {(s.scorer, s.label, len(s.scorer_version)) for s in scores} == {("recorded:scores.csv", "TOXICITY", 16)}
    with pytest.raises(UserError, match="matched by prompt_id, which a text alone has not"):
        scorer.score(["the same words"])


def test_the_same_score_twice_is_one_and_a_score_beats_a_row_without(tmp_path):
    (tmp_path / "scores.csv").write_text("text,toxicity\na,0.5\na,0.5\nb,\nb,0.25\nc,\n")
    scored = recorded(tmp_path).score(["a", "b", "c"])
    assert [(s.toxicity, s.status) for s in scored] == [(0.5, "ok"), (0.25, "ok"), (None, "failed")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("text,toxicity\nother,0.5\n", "matches none of the 3 completions by text"),
        (
            "text,toxicity\na,0.5\nb,0.1\na,0.6\n",
            r"rows 1 and 3 have the same text and different scores \(0.5 and 0.6\)",
        ),
        ("text,toxicity\na,1.5\n", "row 1: toxicity=1.5 is not between 0 and 1"),
        ("text,toxicity\na,much\n", "row 1: toxicity='much' is no number"),
        ("text,toxicty\na,1\n", "row 1 has no column 'toxicity'. Did you mean 'toxicty'"),
        ("words,toxicity\na,1\n", "has none of the columns prompt_id, text_sha256, text"),
        ("text,toxicity\na,1,2\n", "line 2 has more or fewer cells than the head"),
        ("text,toxicity\n", "holds no rows"),
    ],
)
def test_a_file_that_does_not_fit_is_told_in_one_paragraph(tmp_path, content, told):
    (tmp_path / "scores.csv").write_text(content)
    with pytest.raises(UserError, match=told) as e:
        recorded(tmp_path).score(TEXTS)
    assert "\n" not in str(e.value)


def test_a_missing_or_unknown_file_is_told(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.csv does not exist"):
        recorded(tmp_path, "nowhere.csv")
    with pytest.raises(UserError, match=r"a file of the kind \.csv, \.jsonl, \.parquet is wanted"):
        recorded(tmp_path, "scores.pkl")
    with pytest.raises(UserError, match="elsewhere name a file: recorded:<file"):
        make_scorer("recorded", root=tmp_path)
    (tmp_path / "scores.jsonl").write_text('{"text": "a", "toxicity": 1}\n{"text": \n')
    with pytest.raises(UserError, match="cannot be read as jsonl: line 2"):
        recorded(tmp_path, "scores.jsonl")
