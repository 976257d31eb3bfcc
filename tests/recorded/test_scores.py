"""`recorded:FILE`: matched by text, hash or prompt; a file that matches nothing or twice is told."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion
from detoxlens.common.scoring import text_sha256
from detoxlens.pipeline.stages.score import score_completions
from detoxlens.recorded.scores import Tally
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


def test_a_part_that_the_file_does_not_know_is_no_error_where_another_is_known(tmp_path):
    (tmp_path / "scores.csv").write_text("text,toxicity\na,0.5\n")
    scorer, tally = recorded(tmp_path), Tally()
    found = [scorer.verdicts([text], None, tally)[0].toxicity for text in ("b", " ", "a")]
    scorer.check(tally)
    assert found == [None, None, 0.5] and (tally.num_asked, tally.num_exact, tally.num_missing) == (2, 1, 1)
    with pytest.raises(UserError, match="matches none of the 1 completions"):
        scorer.score(["b"])


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


RECORDED = ["Ferry 0\nis late.", "Caf\u00e9 1", "Ferry 2"]


@pytest.mark.parametrize("column", ["text", "text_sha256"])
@pytest.mark.parametrize(
    "asked",
    [
        [" Ferry 0\r\nis late.", "Cafe\u0301 1", "\ufeffFerry 2 "],
        ["Ferry 0\nis late.\n", "Caf\u00e9 1\r\n", "Ferry\u200b 2"],
    ],
)
def test_a_text_is_found_over_white_space_line_ends_and_unicode_forms_and_that_is_said(tmp_path, asked, column, caplog):
    rows = [{"text": text, "text_sha256": text_sha256(text), "toxicity": 0.9} for text in RECORDED]
    rows = [{column: row[column], "toxicity": row["toxicity"]} for row in rows]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scorer = make_scorer("recorded:s.jsonl", root=tmp_path)
    assert [v.toxicity for v in scorer.score([*RECORDED, *asked, "another"])] == [0.9] * 6 + [None]
    assert (
        "3 of 7 texts are in the file but for white space" in caplog.text
        and "3 are in it as they are, 1" in caplog.text
    )
    caplog.clear()
    assert scorer.score(RECORDED)[0].toxicity == 0.9 and not caplog.text


def test_an_exact_text_wins_and_one_between_two_scores_has_none(tmp_path):
    rows = [{"text": "a b", "toxicity": 0.1}, {"text": "a  b", "toxicity": 0.9}, {"text": None, "toxicity": 0.5}]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = make_scorer("recorded:s.jsonl", root=tmp_path).score(["a b", "a  b", "a   b", "None", "\u200b"])
    assert [v.toxicity for v in found] == [0.1, 0.9, None, None, None]
    assert "look like this one" in found[2].error and found[3].error == "not in the recorded file"
    assert found[4].status == "empty"


def test_ids_that_pandas_wrote_as_floats_and_truth_values_that_are_no_scores(tmp_path):
    (tmp_path / "s.jsonl").write_text('{"prompt_id": 7.0, "sample_index": 0.0, "toxicity": 0.4}\n')
    scorer = make_scorer("recorded:s.jsonl", root=tmp_path)
    assert scorer.score(["hi"], keys=[("7", 0)])[0].toxicity == 0.4
    (tmp_path / "s.jsonl").write_text('{"text": "hi", "toxicity": true}\n')
    with pytest.raises(UserError, match="toxicity=True is no number"):
        make_scorer("recorded:s.jsonl", root=tmp_path)
