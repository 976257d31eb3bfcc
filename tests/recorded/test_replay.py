"""Completions made elsewhere: taken in as they are, and a published table recomputed by both rules."""

import json

import pytest
from typer.testing import CliRunner

from detoxlens.cli import app
from detoxlens.common.artifacts import Layout, read_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion, Score, prompt_ids_of
from detoxlens.params.report import Bootstrap
from detoxlens.pipeline.stages import report, score
from detoxlens.recorded.imports import import_completions, replay_files
from tests.pipeline.stages.study import params_of
from tests.pipeline.stages.test_report import SECTIONS
from tests.recorded.rewardlm import FT, IT, QUESTION, write_rewardlm

BOOTSTRAP = Bootstrap(num_resamples=200, seed=0)


def take_in(root, file, *, format="plain", columns=None, force=False, variant="it", split=None):
    told = import_completions(
        root, file, model="m", variant=variant, format=format, columns=columns, force=force, split=split
    )
    layout = Layout(root)
    path = layout.scores("m", variant)
    return (
        told,
        read_rows(layout.completions("m", variant), Completion),
        read_rows(path, Score) if path.exists() else [],
    )


def replayed(root, missing="non_toxic", **files):
    pairs = [f"{variant}={path}" for variant, path in files.items()]
    text = replay_files(root, pairs, name="t", format="rewardlm", columns=None, bootstrap=BOOTSTRAP, missing=missing)
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
    assert (
        "- authors_p50: 3 completions have no score (1 empty, 2 failed) and are counted as not toxic. If they were "
        "left out: base 40.0 % -> 50.0 %; `ft` 20.0 % -> 22.2 %, still not shown to differ from base."
    ) in text
    assert text == (tmp_path / "reports/replay/t.md").read_text()


def test_the_rule_of_the_params_comes_first_and_an_option_wins(tmp_path):
    it, ft = write_rewardlm(tmp_path / "it.csv", IT), write_rewardlm(tmp_path / "ft.csv", FT)
    command = ["--root", str(tmp_path), "replay", f"it={it}", f"ft={ft}", "--format", "rewardlm", "--bootstrap", "100"]

    def first_row(*more):
        done = CliRunner().invoke(app, [*command, *more])
        assert done.exit_code == 0, done.exception
        return next(line for line in done.output.splitlines() if line.startswith("| authors_p50"))

    assert first_row().startswith("| authors_p50 | scored only | base | 0.500 |")  # no params.yaml: our own rule
    (tmp_path / "params.yaml").write_text(
        "toxicity: {scorers: [profanity_check], headline: profanity_check, missing: non_toxic}\n"
    )
    assert first_row().startswith("| authors_p50 | unscored count as not toxic | base | 0.400 |")
    assert first_row("--missing", "exclude").startswith("| authors_p50 | scored only | base | 0.500 |")
    done = CliRunner().invoke(app, [*command, "--missing", "exlude"])
    assert "--missing 'exlude' is not known. Did you mean 'exclude'?" in str(done.exception)


def test_a_changed_conclusion_is_said_and_full_scores_change_none(tmp_path):
    """40 prompts, `ft` .1 everywhere; `it` toxic on four, and 36 never scored: by hand 4/40 against 4/4."""
    it, ft = [0.9] * 4 + [None] * 36, [0.1] * 40
    files = {"it": write_rewardlm(tmp_path / "it.csv", it), "ft": write_rewardlm(tmp_path / "ft.csv", ft)}
    _, text = replayed(tmp_path, missing="exclude", **files)
    assert "36 completions have no score (0 empty, 36 failed) and are left out. If they were counted as not" in text
    assert "base 100.0 % -> 10.0 %; `ft` 0.0 % -> 0.0 %" in text
    _, text = replayed(tmp_path, it=files["ft"], ft=files["ft"])
    assert "- authors_p50: every completion has a score, so both rules say the same." in text


@pytest.mark.parametrize(("missing", "it", "ft"), [("non_toxic", 4 / 10, 2 / 10), ("exclude", 4 / 8, 2 / 9)])
def test_import_score_and_report_give_the_table_by_the_rule_of_the_params(tmp_path, missing, it, ft):
    for variant, scores in (("it", IT), ("ft", FT)):
        take_in(tmp_path, write_rewardlm(tmp_path / f"{variant}.csv", scores), format="rewardlm", variant=variant)
    params = params_of(toxicity={"scorers": ["recorded"], "headline": "recorded", "missing": missing})
    params.raw.update(SECTIONS | {"splits": {"authors_p50": {"where": {}}, "authors_pc50": {"where": {}}}})
    params.raw["report"] = params.raw["report"] | {"primary_split": "authors_p50"}
    for variant in ("it", "ft"):
        score.run(tmp_path, params, model="m", variant=variant)
    report.run(tmp_path, params)
    reports = Layout(tmp_path).reports
    found = json.loads((reports / "metrics.json").read_text())["m"]
    rates = [found[v]["toxicity"]["authors_p50"]["rate_gt_50"] for v in ("it", "ft")]
    assert rates == pytest.approx([it, ft])
    assert f"{100 * it:.1f} [" in (reports / "table1.md").read_text()
    text = (reports / "report.md").read_text()
    assert "authors_p50: 3 completions have no score (1 empty, 2 failed) and are" in text
    assert "base 40.0 % -> 50.0 %" in text if missing == "non_toxic" else "base 50.0 % -> 40.0 %" in text
    said = "counted as not toxic" if missing == "non_toxic" else "in no rate"
    assert f"m/base: 2 completions of authors_p50 could not be scored: {said}." in text


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
        (True, 0),
        (True, 1),
        (False, 0),
    ]
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
        ("prompt,completion,sample_index\na,b,1.7\n", None, "row 1: sample_index='1.7' is no whole number"),
        ("prompt,completion,sample_index\na,b,1e400\n", None, "row 1: sample_index='1e400' is no whole number"),
        ("prompt,completion,prompt\na,b,c\n", None, "the column 'prompt' is there twice"),
    ],
)
def test_mistakes_are_told_with_file_and_row(tmp_path, content, columns, told):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(UserError, match=told):
        take_in(tmp_path, tmp_path / "x.csv", columns=columns)
    assert not (tmp_path / "outputs").exists()


def test_half_a_character_is_told(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"prompt": "a", "completion": "b \\ud83d"}\n')
    with pytest.raises(UserError, match=r"row 1: completion holds half a character \('\\ud83d' at 2\)"):
        take_in(tmp_path, tmp_path / "x.jsonl")


def test_a_file_about_another_set_of_prompts_goes_by_its_name(tmp_path):
    _, completions, _ = take_in(tmp_path, write_rewardlm(tmp_path / "x.csv", IT), format="rewardlm", split="conan")
    assert {c.filters for c in completions} == {("conan",)}


def test_mistakes_on_the_command_line_are_told(tmp_path):
    (tmp_path / "x.csv").write_text("prompt,completion\na,b\n")
    with pytest.raises(UserError, match=r"--format 'rewardml' is not known\. Did you mean 'rewardlm'"):
        take_in(tmp_path, tmp_path / "x.csv", format="rewardml")
    with pytest.raises(UserError, match=r"--variant: '\.\./it' is no name"):
        take_in(tmp_path, tmp_path / "x.csv", variant="../it")
    for pairs, told in ((["x.csv"], "<variant>=<file>"), ([f"it={tmp_path / 'x.csv'}"], "has no scores; name their")):
        with pytest.raises(UserError, match=told):
            replay_files(
                tmp_path, pairs, name="t", format="plain", columns=None, bootstrap=BOOTSTRAP, missing="exclude"
            )


def test_the_commands(tmp_path):
    it = write_rewardlm(tmp_path / "it.csv", IT)
    run = CliRunner().invoke
    done = run(app, ["--root", str(tmp_path), "replay", f"it={it}", "--format", "rewardlm", "--bootstrap", "100"])
    assert done.exit_code == 0 and "| authors_pc50 | scored only | base | 0.667 |" in done.output
    done = run(app, ["--root", str(tmp_path), "import-completions", str(it), "-m", "m", "-v", "it"])
    assert done.exit_code == 1 and "has no column 'prompt'" in str(done.exception)
