"""Stage score: one verdict per completion and scorer, fluency under `it`, and a grader that is not the rewarder."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from detoxlens.common.artifacts import Layout, read_rows, write_model_ref, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion, Fluency, ModelRef, Score, ToxicWord
from detoxlens.models.generation import plan_batches
from detoxlens.models.loading import load_model, load_tokenizer, weights_sha256
from detoxlens.params.models import WeightsConfig
from detoxlens.params.report import Bootstrap
from detoxlens.params.toxic_words import NOT_LOCAL, ToxicWordsConfig
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.pipeline import measures
from detoxlens.pipeline.stages import score
from detoxlens.recorded.calibrate import calibrate_scorer
from detoxlens.scorers import SCORERS
from detoxlens.scorers.hf import HfClassifier
from detoxlens.scorers.profanity_check import ProfanityCheck
from tests.models.checkpoints import save_classifier
from tests.pipeline.stages.study import make_study, params_of

IT = ModelRef(base="models/m/base", revision="", adapter=None)
TEXTS = ["You stupid idiots.", "Zorgons bake good bread.", ""]


@pytest.fixture
def layout(tmp_path) -> Layout:
    layout = make_study(tmp_path)
    tokenizer = load_tokenizer(tmp_path, IT)
    rows = [
        Completion(
            prompt_id=f"{n:016x}",
            sample_index=0,
            split="test",
            filters=("p50",),
            prompt="Tell me about Zorgons.",
            prompt_ids=(5, 9, 7),
            prompt_token_is_template=(True, False, True),
            completion=text,
            completion_ids=tuple(tokenizer(text)["input_ids"]),
            finish_reason="eos",
            seed=n,
        )
        for n, text in enumerate(TEXTS)
    ]
    for variant in ("it", "ft"):
        write_rows(layout.completions("m", variant), rows, Completion)
    return layout


def scored(layout, params=None, variant="it"):
    score.run(layout.root, params or params_of(), model="m", variant=variant)
    return read_rows(layout.scores("m", variant), Score), read_rows(layout.fluency("m", variant), Fluency)


def test_every_completion_is_graded_and_an_empty_one_counted_not_imputed(layout):
    rows, _ = scored(layout)
    assert [r.prompt_id for r in rows] == [f"{n:016x}" for n in range(3)]
    assert [r.status for r in rows] == ["ok", "ok", "empty"]
    assert rows[0].toxicity > 0.9 > 0.5 > rows[1].toxicity
    assert rows[2].toxicity is None
    assert {(r.scorer, r.label, r.activation, r.truncated) for r in rows} == {
        ("profanity_check", "offensive", "sigmoid", False)
    }
    assert all(len(r.scorer_version) == 16 for r in rows)


def test_fluency_is_the_likelihood_under_it_whichever_variant_wrote_the_text(layout):
    _, it = scored(layout)
    _, ft = scored(layout, variant="ft")
    assert it == ft
    model, completion = load_model(layout.root, IT, WeightsConfig(), device="cpu"), it[1]
    ids = load_tokenizer(layout.root, IT)(TEXTS[1])["input_ids"]
    with torch.no_grad():
        log_probs = model(torch.tensor([[5, 9, 7, *ids]])).logits[0, 2:-1].log_softmax(-1)
    expected = -sum(log_probs[t, token].item() for t, token in enumerate(ids))
    assert completion.nll_nats == pytest.approx(expected, abs=1e-3)
    assert completion.num_tokens == len(ids)
    assert [f.mentions_prompt for f in it] == [False, True, False]
    assert (it[2].nll_nats, it[2].num_tokens) == (None, 0)


def located(layout, variant="it") -> list[ToxicWord]:
    return read_rows(layout.toxic_words("m", variant), ToxicWord)


def test_every_word_of_a_toxic_completion_and_of_the_prompts_is_judged_and_tied_to_its_tokens(layout):
    scored(layout)
    own = [w for w in located(layout) if w.text_source == "own"]
    assert [(w.prompt_id, w.word) for w in own] == [(f"{0:016x}", word) for word in ("You", "stupid", "idiots")]
    assert [w.in_minimal for w in own] == [False, True, True] and [w.is_onset for w in own] == [False, True, False]
    assert own[0].toxicity > 0.9 and max(w.drop for w in own) < 0.1  # each of the two suffices
    tokenizer, ids = load_tokenizer(layout.root, IT), read_rows(layout.completions("m", "it"), Completion)[0]
    for w in own:  # the tokens spell the word, with the space before it or the full stop behind it at most
        spelt = tokenizer.decode(ids.completion_ids[w.first_token : w.last_token + 1])
        assert w.word in spelt and len(spelt) <= len(w.word) + 2
    prompts = [w for w in located(layout) if w.text_source == "prompt"]
    assert [w.word for w in prompts[:4]] == ["Tell", "me", "about", "Zorgons"] and len(prompts) == 12
    assert not any(w.in_minimal or w.is_onset for w in prompts) and {w.is_copied for w in prompts} == {None}


def test_the_prompts_words_are_judged_once_in_the_table_of_it(layout):
    scored(layout, variant="ft")
    assert {w.text_source for w in located(layout, "ft")} == {"own"}


@pytest.mark.parametrize(
    "changes, why",
    [({"max_words": 0}, "toxic_words.max_words=0"), ({"scorer": None}, "the grader is recorded:data/recorded/r.csv")],
)
def test_without_a_grader_that_can_be_asked_about_parts_the_table_is_empty_and_the_log_says_why(
    layout, changes, why, caplog
):
    file = layout.root / "data/recorded/r.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("text,toxicity\n" + "".join(f"{json.dumps(text)},0.9\n" for text in TEXTS[:2]))
    headline = "profanity_check" if "max_words" in changes else "recorded:data/recorded/r.csv"
    params = params_of(toxicity={"scorers": [headline], "headline": headline}, toxic_words=changes)
    scored(layout, params)
    assert located(layout) == [] and why in caplog.text


def test_another_local_scorer_than_the_grader_can_be_asked(layout):
    save_classifier(layout.root / "judge", seed=1)
    scored(layout, params_of(toxic_words={"scorer": "hf:judge"}))
    rows, judge = located(layout), HfClassifier("judge", root=layout.root, device="cpu")
    (prompt,) = {w.toxicity for w in rows if w.text_source == "prompt"}
    assert prompt == pytest.approx(judge.score(["Tell me about Zorgons."])[0].toxicity, abs=1e-5)


def test_a_service_is_refused_where_parts_of_texts_are_to_be_graded():
    with pytest.raises(UserError, match=r"toxic_words.scorer='perspective': a service or a file cannot be asked"):
        params_of(toxic_words={"scorer": "perspective"}).section("toxic_words", ToxicWordsConfig)
    for name in ("perspective", "openai_moderation", "recorded"):  # what params call a service or file is one
        assert name in NOT_LOCAL and name in SCORERS
    assert set(SCORERS) - set(NOT_LOCAL) == {"profanity_check", "hf", "onnx"}


def test_several_scorers_grade_one_after_the_other(layout):
    save_classifier(layout.root / "judge", seed=1)
    params = params_of(toxicity={"scorers": ["profanity_check", "hf:judge"]})
    rows, _ = scored(layout, params)
    assert [r.scorer for r in rows] == ["profanity_check"] * 3 + ["hf:judge"] * 3
    assert rows[3].scorer_version == weights_sha256(layout.root / "judge")[:16]
    assert (rows[3].label, rows[3].activation) == ("hate", "softmax")


def test_the_rewarder_may_not_grade_under_another_name_either(layout):
    revision = weights_sha256(layout.reward_model)
    write_model_ref(layout.reward_model, ModelRef(base="models/reward", revision=revision, adapter=None))
    shutil.copytree(layout.reward_model, layout.root / "friend")
    for name in ("hf:models/reward", "hf:friend"):
        params = params_of(toxicity={"scorers": ["profanity_check", name]})
        with pytest.raises(UserError, match=f"{name} has the same weights .* as the reward model"):
            scored(layout, params)
    assert not layout.scores("m", "it").exists()


def test_the_same_input_gives_the_same_bytes(layout):
    save_classifier(layout.root / "judge", seed=1)
    params = params_of(toxicity={"scorers": ["profanity_check", "hf:judge"]})
    tables = []
    for _ in range(2):
        scored(layout, params)
        tables.append([f("m", "it").read_bytes() for f in (layout.scores, layout.fluency, layout.toxic_words)])
    assert tables[0] == tables[1]


def test_completions_that_are_all_empty_are_counted(layout):
    rows = [
        dataclasses.replace(r, completion=" ", completion_ids=())
        for r in read_rows(layout.completions("m", "it"), Completion)
    ]
    write_rows(layout.completions("m", "it"), rows, Completion)
    scores, fluency = scored(layout)
    assert {s.status for s in scores} == {"empty"}
    assert {f.nll_nats for f in fluency} == {None}


def test_no_batch_mixes_splits_and_a_forward_pass_is_never_cut_short():
    rows = [
        SimpleNamespace(split="val" if n % 3 else "test", prompt_ids=(0,) * (n % 7), completion_ids=(0,))
        for n in range(300)
    ]
    lengths = [len(row.prompt_ids) + len(row.completion_ids) for row in rows]
    plan = score.plan_of([row.split for row in rows], lengths, batch_size=64)
    assert sorted(i for batch in plan for i in batch) == list(range(300))
    assert [len(batch) for batch in plan] == [64, 36, 64, 64, 64, 8]
    assert all(len({rows[i].split for i in batch}) == 1 for batch in plan)
    for split in ("test", "val"):  # the forward passes are those of a split that is measured as a whole
        members = [i for i in range(300) if rows[i].split == split]
        whole = plan_batches([len(rows[i].prompt_ids) + 1 for i in members], score.NLL_BATCH_SIZE)
        pieces = [batch for batch in plan if rows[batch[0]].split == split]
        assert [[members[k] for k in batch] for batch in whole] == [
            batch[start : start + score.NLL_BATCH_SIZE]
            for batch in pieces
            for start in range(0, len(batch), score.NLL_BATCH_SIZE)
        ]


def test_no_batch_is_of_two_blocks_which_are_read_one_at_a_time(monkeypatch):
    monkeypatch.setattr(measures, "BLOCK", 100)
    plan = score.plan_of(["test"] * 250, [n % 7 for n in range(250)], batch_size=64)
    assert sorted(i for batch in plan for i in batch) == list(range(250))
    assert [{i // 100 for i in batch} for batch in plan] == [{0}, {0}, {1}, {1}, {2}]


def test_results_stand_in_the_order_of_their_rows(monkeypatch):
    monkeypatch.setattr(measures, "BLOCK", 2)
    rows = [
        {"prompt_id": f"{i}", "sample_index": i, "nll_nats": None, "num_tokens": 1, "mentions_prompt": None}
        for i in range(5)
    ]
    found = measures.gathered(((i, rows[i]) for i in (3, 0, 4, 1, 2)), Fluency)
    assert found.to_pylist() == rows
    assert measures.gathered((), Fluency).num_rows == 0


def test_missing_completions_are_named(layout):
    layout.completions("m", "it").unlink()
    with pytest.raises(UserError, match=r"completions\.parquet does not exist"):
        scored(layout)


def calibrated_params(layout, **changes):
    """params with a calibration of profanity_check on our own texts."""
    texts = [f"Zorgon {i}, you {'stupid idiots' if i % 3 == 0 else 'kind people'}." for i in range(120)]
    lines = [f"{json.dumps(t)},{0.9 if i % 3 == 0 else 0.1}" for i, t in enumerate(texts)]
    (layout.root / "r.csv").write_text("text,toxicity\n" + "\n".join(lines) + "\n")
    _, path = calibrate_scorer(
        layout.root,
        ProfanityCheck,
        [layout.root / "r.csv"],
        text_column="text",
        score_column="toxicity",
        bootstrap=Bootstrap(num_resamples=100, seed=0),
    )
    folder = layout.root / "data/recorded"
    folder.mkdir(parents=True)
    shutil.copy(path, folder / "c.json")
    return params_of(toxicity={"calibration": "data/recorded/c.json", **changes})


def test_a_calibration_adds_rows_under_its_own_name_and_changes_no_other(layout):
    plain, _ = scored(layout)
    rows, _ = scored(layout, calibrated_params(layout))
    assert rows[:3] == plain
    assert [r.scorer for r in rows[3:]] == ["calibrated:profanity_check"] * 3
    assert [r.toxicity for r in rows[3:]] == [1.0, 0.0, None]


def test_a_calibration_of_a_scorer_that_does_not_grade_is_told(layout):
    save_classifier(layout.root / "judge", seed=1)
    params = calibrated_params(layout, scorers=["hf:judge"], headline="hf:judge")
    with pytest.raises(UserError, match="is of profanity_check, which is not among"):
        scored(layout, params)


def test_a_killed_run_goes_on_behind_the_last_batch_and_gives_the_same_bytes(layout, monkeypatch):
    save_classifier(layout.root / "judge", seed=1)
    params = params_of(toxicity={"scorers": ["hf:judge"], "headline": "hf:judge"})
    monkeypatch.setattr(score, "BATCH_SIZE", 1)
    scored(layout, params)
    whole = [f("m", "it").read_bytes() for f in (layout.scores, layout.fluency, layout.toxic_words)]
    measured = []

    def counted(scorer, part):
        measured.append(part[0].prompt_id)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return score_completions(scorer, part)

    score_completions = score.score_completions
    monkeypatch.setattr(score, "score_completions", counted)
    with pytest.raises(KeyboardInterrupt):
        scored(layout, params)
    scored(layout, params)
    assert len(set(measured)) == 3 and measured[2:] == [measured[2]] * 2
    assert [f("m", "it").read_bytes() for f in (layout.scores, layout.fluency, layout.toxic_words)] == whole
    assert not list((layout.state / "scratch").glob("score@*/*"))


@pytest.mark.parametrize(
    "changes", [{"scorers": ["recorded:r.csv"], "headline": "recorded:r.csv"}, {"calibration": "reports/c.json"}]
)
def test_a_file_that_no_stage_depends_on_is_refused(changes):
    with pytest.raises(UserError, match=r"put the file into data/recorded and write data/recorded/[rc]\."):
        params_of(toxicity=changes).section("toxicity", ToxicityConfig)
