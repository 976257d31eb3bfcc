"""Completions made elsewhere: taken in as they are, and a published table recomputed by both rules."""

import json

import pytest
from typer.testing import CliRunner

from detoxlens.artifacts import Layout, read_rows
from detoxlens.cli import app
from detoxlens.errors import UserError
from detoxlens.evaluation.config import Bootstrap
from detoxlens.records import Completion, Score, prompt_ids_of
from detoxlens.replay.commands import import_completions, replay_files
from detoxlens.stages import score
from tests.replay.rewardlm import FT, IT, QUESTION, write_rewardlm
from tests.stages.study import params_of

BOOTSTRAP = Bootstrap(num_resamples=200, seed=0)


def take_in(root, file, *, format="plain", columns=None, force=False, variant="it"):
    told = import_completions(root, file, model="m", variant=variant, format=format, columns=columns, force=force)
    layout = Layout(root)
    path = layout.scores("m", variant)
    return (
        told,
        read_rows(layout.completions("m", variant), Completion),
        read_rows(path, Score) if path.exists() else [],
    )


def replayed(root, **files):
    pairs = [f"{variant}={path}" for variant, path in files.items()]
    text = replay_files(root, pairs, name="t", format="rewardlm", columns=None, bootstrap=BOOTSTRAP)
    return json.loads((root / "reports/replay/t.json").read_text())["splits"], text


def test_both_rules_by_hand(tmp_path):
    found, text = replayed(
        tmp_path, it=write_rewardlm(tmp_path / "it.csv", IT), ft=write_rewardlm(tmp_path / "ft.csv", FT)
    )
    rates = {(s, r, v): n["rate_gt_50"] for s, rules in found.items() for r, by in rules.items() for v, n in by.items()}
    assert rates == pytest.approx(
        {
            ("authors_p50", "non_toxic", "it"): 4 / 10,
            ("authors_p50", "non_toxic", "ft"): 2 / 10,
            ("authors_p50", "exclude", "it"): 4 / 8,
            ("authors_p50", "exclude", "ft"): 2 / 9,
            ("authors_pc50", "non_toxic", "it"): 2 / 4,
            ("authors_pc50", "non_toxic", "ft"): 1 / 4,
            ("authors_pc50", "exclude", "it"): 2 / 3,
            ("authors_pc50", "exclude", "ft"): 1 / 3,
        }
    )
    it, ft = (found["authors_p50"]["exclude"][v] for v in ("it", "ft"))
    assert [it[k] for k in ("num_scored", "num_empty", "num_failed")] == [8, 0, 2]
    assert [ft[k] for k in ("num_scored", "num_empty", "num_failed")] == [9, 1, 0]
    assert it["delta_vs_it"] is None and it["ci95"][0] < 0.5 < it["ci95"][1]
    # on the 7 prompts that both have: 3/7 against 2/7 (the seventh, empty in ft, is out; 3 and 9 are unscored in it)
    assert ft["delta_vs_it"]["value"] == pytest.approx(2 / 7 - 3 / 7)
    assert "`it` 0.400 -> 0.500; `ft` 0.200 -> 0.222" in text
    assert text == (tmp_path / "reports/replay/t.md").read_text()


def test_import_unwraps_the_template_and_keeps_what_was_not_scored(tmp_path):
    told, completions, scores = take_in(tmp_path, write_rewardlm(tmp_path / "x.csv", FT), format="rewardlm")
    assert "10 completions" in told and "9 ok, 1 empty, 0 failed" in told
    assert completions[3].prompt == QUESTION.format(n=3)
    assert completions[3].completion == 'They like it, "3" says.\nReally.'
    first, last = completions[0], completions[9]
    assert [first.prompt_id, last.prompt_id] == prompt_ids_of([first.prompt, last.prompt])  # repeated, so numbered
    assert completions[5].filters == ("authors_p50",) and completions[6].filters == ("authors_p50", "authors_pc50")
    assert (scores[6].status, scores[6].toxicity) == ("empty", None)
    assert {(s.scorer, s.label) for s in scores} == {("recorded", "TOXICITY")}


def test_any_file_by_its_columns_and_several_samples_per_prompt(tmp_path):
    rows = [{"q": "Hum?", "a": "Yes.", "n": 0}, {"q": "Hum?", "a": "No.", "n": 1}, {"q": "Nap?", "a": None, "n": 0}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told, completions, scores = take_in(tmp_path, tmp_path / "x.jsonl", columns="prompt=q,completion=a,sample_index=n")
    assert "recorded scores: none in the file" in told and scores == []
    assert [(c.prompt_id == completions[0].prompt_id, c.sample_index) for c in completions] == [
        (True, 0), (True, 1), (False, 0),
    ]  # fmt: skip
    assert completions[2].completion == "" and completions[2].filters == ("imported",)


def test_the_score_stage_goes_on_from_imported_completions_without_any_weights(tmp_path):
    _, _, imported = take_in(tmp_path, write_rewardlm(tmp_path / "x.csv", FT), format="rewardlm")
    params = params_of(toxicity={"scorers": ["recorded", "profanity_check"], "headline": "recorded"})
    for _ in range(2):  # the second time too
        score.run(tmp_path, params, model="m", variant="it")
    scores = read_rows(Layout(tmp_path).scores("m", "it"), Score)
    by_scorer = {name: [s for s in scores if s.scorer == name] for name in ("recorded", "profanity_check")}
    assert [(s.prompt_id, s.toxicity, s.status) for s in by_scorer["recorded"]] == [
        (s.prompt_id, s.toxicity, s.status) for s in imported
    ]
    assert [s.status for s in by_scorer["profanity_check"]] == ["empty" if s == -1 else "ok" for s in FT]


def test_completions_that_are_there_are_kept_unless_forced_and_stale_scores_go(tmp_path):
    take_in(tmp_path, write_rewardlm(tmp_path / "x.csv", IT), format="rewardlm")
    (tmp_path / "y.csv").write_text("prompt,completion\nHum?,Yes.\n")
    with pytest.raises(UserError, match=r"completions\.parquet exists; name another --variant"):
        take_in(tmp_path, tmp_path / "y.csv")
    _, completions, scores = take_in(tmp_path, tmp_path / "y.csv", force=True)
    assert len(completions) == 1 and scores == []


@pytest.mark.parametrize(
    ("content", "columns", "told"),
    [
        ("prompt,completion\na,b\n", "prompt=question", "row 1 has no column 'question'"),
        ("prompt,completion\na,b\n", "promt=prompt", "'promt=prompt' is not of the form .* Did you mean 'prompt'"),
        ("prompt,completion,toxicity\na,b,7\n", None, "row 1: toxicity=7.0 is not between 0 and 1"),
        ("prompt,completion,sample_index\na,b,0\na,c,0\n", None, "rows 1 and 2 are both completion 0 of prompt"),
        ("prompt,completion,sample_index\na,b,one\n", None, "row 1: sample_index='one' is no whole number"),
    ],
)
def test_mistakes_are_told_with_file_and_row(tmp_path, content, columns, told):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(UserError, match=told):
        take_in(tmp_path, tmp_path / "x.csv", columns=columns)
    assert not (tmp_path / "outputs").exists()


def test_mistakes_on_the_command_line_are_told(tmp_path):
    (tmp_path / "x.csv").write_text("prompt,completion\na,b\n")
    with pytest.raises(UserError, match=r"--format 'rewardml' is not known\. Did you mean 'rewardlm'"):
        take_in(tmp_path, tmp_path / "x.csv", format="rewardml")
    with pytest.raises(UserError, match=r"--variant: '\.\./it' is no name"):
        take_in(tmp_path, tmp_path / "x.csv", variant="../it")
    for pairs, told in ((["x.csv"], "<variant>=<file>"), ([f"it={tmp_path / 'x.csv'}"], "has no scores; name their")):
        with pytest.raises(UserError, match=told):
            replay_files(tmp_path, pairs, name="t", format="plain", columns=None, bootstrap=BOOTSTRAP)


def test_the_commands(tmp_path):
    it = write_rewardlm(tmp_path / "it.csv", IT)
    run = CliRunner().invoke
    done = run(app, ["--root", str(tmp_path), "replay", f"it={it}", "--format", "rewardlm", "--bootstrap", "100"])
    assert done.exit_code == 0 and "| authors_pc50 | scored only | it | 0.667 |" in done.output
    done = run(app, ["--root", str(tmp_path), "import-completions", str(it), "-m", "m", "-v", "it"])
    assert done.exit_code == 1 and "has no column 'prompt'" in str(done.exception)
