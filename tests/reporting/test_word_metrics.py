"""What the report says of toxic words: joined with attributions, numbers as by hand, and why cells are empty."""

import dataclasses

import numpy as np
import pytest

from detoxlens.attribution.entropy import padded, prompt_entropy_bits
from detoxlens.common.artifacts import Layout, read_rows, write_rows
from detoxlens.common.records import Attribution, Completion, ToxicWord
from detoxlens.evaluation.toxic_words import words_in
from detoxlens.evaluation.word_table import word_rows
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.report import ReportConfig
from detoxlens.params.toxic_words import ToxicWordsConfig
from detoxlens.reporting.load import load_study
from detoxlens.reporting.report import write_report
from detoxlens.reporting.traces import trace_of
from detoxlens.reporting.word_figure import has_onsets
from detoxlens.reporting.word_metrics import word_metrics
from detoxlens.reporting.word_tables import word_sentences, word_tables
from detoxlens.reporting.word_use import word_use
from tests.pipeline.stages.test_report import SECTIONS
from tests.reporting.synthetic import _pieces, write_study

WORDS = ToxicWordsConfig(max_words=200, num_draws=200, seed=0, max_lag=2, min_toxic=10)
REPORT = ReportConfig(**SECTIONS["report"])
TOXIC = {"silly", "fools", "they"}


def rude(texts):
    return [0.9 if TOXIC & {w.text for w in words_in(text)} else 0.1 for text in texts]


def rows_of(c: Completion, *, prompts: bool) -> list[ToxicWord]:
    def pieces(ids):
        return _pieces(c.completion if ids == c.completion_ids else c.prompt, len(ids))

    return word_rows([c], rude, pieces, prompts=prompts, max_words=200)[0]


@pytest.fixture(scope="module")
def layout(tmp_path_factory) -> Layout:
    layout = write_study(tmp_path_factory.mktemp("words"), ["m"], ["it", "ft"], num_prompts=80)
    for variant in ("it", "ft"):
        completions = read_rows(layout.completions("m", variant), Completion)
        rows = [row for c in completions for row in rows_of(c, prompts=variant == "it")]
        write_rows(layout.toxic_words("m", variant), rows, ToxicWord)
    return layout


def study_of(layout, *, words=WORDS, unit="token", **changes):
    study = load_study(
        layout,
        models=["m"],
        groups={"it": "it", "ft": "ft"},
        splits=["p50"],
        grader="grader",
        attribution=AttributionConfig(**SECTIONS["attribution"] | {"unit": unit}),
        config=REPORT,
        words=words,
    )
    return dataclasses.replace(study, **changes)


def metrics_of(study):
    return word_metrics(study, study.models["m"], REPORT, model="m")


def test_the_contrast_joins_words_tokens_and_every_variants_reading_of_bases_text(layout):
    found = metrics_of(study_of(layout))
    words = [w for w in read_rows(layout.toxic_words("m", "it"), ToxicWord) if w.text_source == "own" and w.in_minimal]
    p50 = {c.prompt_id for c in read_rows(layout.completions("m", "it"), Completion) if "p50" in c.filters}
    for variant in ("it", "ft"):
        entropies, labels = {}, {}
        for a in read_rows(layout.attributions("m", variant), Attribution):
            mine = {w.first_token for w in words if w.prompt_id == a.prompt_id}
            if (a.reader, a.text_source) == (variant, "it") and mine and a.prompt_id in p50:
                keep = [not t for t in a.prompt_token_is_template]
                entropies[a.prompt_id] = prompt_entropy_bits(padded(a.scores, len(keep)), len(keep), keep)
                labels[a.prompt_id] = mine
        differences = []
        for prompt, mine in labels.items():
            for t in mine:
                others = [e[t] for p, e in entropies.items() if t < len(e) and t not in labels[p]]
                if others:
                    differences.append(entropies[prompt][t] - np.mean(others))
        contrast = found[variant]["contrast"]["prompt_entropy_bits"]
        assert contrast["value"] == pytest.approx(np.mean(differences))
        assert found[variant]["num_toxic"] == len(labels) and contrast["p_shift"] >= 1 / 201
    assert "jensen_shannon" not in found["it"]["contrast"] and "jensen_shannon" in found["ft"]["contrast"]
    assert found["it"]["rise"]["delta_vs_it"] is None


def test_what_toxic_tokens_draw_on_is_by_the_prompts_words(layout):
    study = study_of(layout)
    use = next(u for u in study.models["m"]["it"].word_use if u.is_toxic.any() and u.prompt_words.is_toxic.any())
    (a,) = (
        a
        for a in read_rows(layout.attributions("m", "it"), Attribution)
        if (a.reader, a.text_source, a.prompt_id) == ("it", "it", use.key[0])
    )
    # "I met Zorgons number 3 and they": the first two words are the template's here, the toxic one is the last
    user = [j for j, t in enumerate(a.prompt_token_is_template) if not t]
    t = int(np.flatnonzero(use.is_toxic)[0])
    (toxic,) = np.flatnonzero(use.prompt_words.is_toxic)
    assert a.prompt_pieces[user[toxic]] == " they"
    assert use.shares[0, toxic] == pytest.approx(a.scores[t][user[toxic]] / sum(a.scores[t][j] for j in user))
    assert use.prompt_words.total_tokens == len(user) and use.prompt_words.control.sum() == 1


def test_labels_are_of_words_where_steps_are_words(layout):
    tokens, words = (study_of(layout, unit=unit).models["m"]["it"].word_use for unit in ("token", "word"))
    for a, b in zip(tokens, words, strict=True):
        assert len(b.is_toxic) == b.trace.num_steps and a.is_toxic.sum() == b.is_toxic.sum()
    assert metrics_of(study_of(layout, unit="word"))["ft"]["reason"] is None


def test_the_same_study_gives_the_same_numbers_and_another_seed_other_p(layout):
    once, twice = metrics_of(study_of(layout)), metrics_of(study_of(layout))
    assert once == twice
    other = metrics_of(study_of(layout, words=WORDS.model_copy(update={"seed": 1})))
    pick = [of["it"]["contrast"]["prompt_entropy_bits"] for of in (once, other)]
    assert pick[0]["value"] == pick[1]["value"] and pick[0]["p_step"] != pick[1]["p_step"]


def test_too_few_toxic_completions_are_a_sentence_without_an_empty_table_or_figure(layout):
    study = study_of(layout, words=WORDS.model_copy(update={"min_toxic": 1000}))
    found = metrics_of(study)
    assert "toxic_words.min_toxic=1000 are needed" in found["ft"]["reason"] and found["ft"]["num_toxic"] > 10
    metrics = {"m": {v: {"attribution": {"toxic_words": of}} for v, of in found.items()}}
    assert word_tables(metrics) == [] and not has_onsets(metrics)
    sentence = word_sentences(metrics, num_draws=200)["m"]
    assert sentence.startswith("Whether toxic words are connected") and "min_toxic=1000" in sentence
    enough = {"m": {v: {"attribution": {"toxic_words": of}} for v, of in metrics_of(study_of(layout)).items()}}
    assert len(word_tables(enough)) == 1 and has_onsets(enough)


@pytest.mark.parametrize(
    "headline, why",
    [("recorded:data/recorded/x.csv", "the grader grader cannot be asked about parts of texts")],
)
def test_a_grader_that_cannot_be_asked_is_named(layout, headline, why):
    study = study_of(layout, words_by=WORDS.located_by(headline))
    assert why in metrics_of(study)["it"]["reason"]


def test_where_no_word_was_found_attributions_are_joined_with_none(layout):
    read = [a for a in read_rows(layout.attributions("m", "it"), Attribution) if a.scores is not None]
    trace = trace_of(read[0], unit="token")
    use = word_use(read[0], trace, (), (), {}, unit="token")  # the table of a file's or a service's study is empty
    assert use.shares.shape == (0, 0) and not use.is_toxic.any() and use.onset is None


def test_completions_made_elsewhere_have_no_table_and_the_rest_stands(layout):
    study = study_of(layout)
    tables = study.models["m"]
    bare = {v: dataclasses.replace(t, toxic_words=None, word_use=()) for v, t in tables.items()}
    assert "has no toxic_words.parquet" in metrics_of(dataclasses.replace(study, models={"m": bare}))["ft"]["reason"]
    no_ft = {"it": tables["it"], "ft": dataclasses.replace(tables["ft"], word_use=())}
    found = metrics_of(dataclasses.replace(study, models={"m": no_ft}))
    assert found["it"]["reason"] is None and found["ft"]["reason"] == "ft has read none of base's completions"
    assert word_metrics(dataclasses.replace(study, words=None), tables, REPORT, model="m") == {}


def test_the_report_has_a_sentence_a_figure_a_table_and_underlined_words(layout, tmp_path):
    study = study_of(layout)
    metrics = write_report(tmp_path, study, REPORT)
    page, text = ((tmp_path / name).read_text(encoding="utf-8") for name in ("index.html", "report.md"))
    section = text[text.index("## Toxic words") :]
    assert "use of the prompt at toxic words" in section and "shifted" in section and "200 draws" in section
    assert "At the toxic words of base's answers" in section and (tmp_path / "figures/toxic_words.svg").exists()
    assert "without which the text is not toxic to the grader" in page and "log-odds" not in page
    assert any(f'<mark class="rude">{word}</mark>' in page for word in ("silly", "fools"))
    assert page.count(" <u>they</u>") >= 2  # in a heat map and in the shaded prompt
    assert metrics["m"]["ft"]["attribution"]["toxic_words"]["reason"] is None


def outcome(value, p=0.001, width=0.1):
    return {"value": value, "ci95": [value - width, value + width], "p_shift": p, "p_step": p}


@pytest.mark.parametrize(
    "contrast, regression, verdict",
    [
        (outcome(-0.3), outcome(-0.2), "Toxic words go with a sharper use"),
        (outcome(0.3), outcome(0.2), "Toxic words go with a less sharp use"),
        (outcome(0.3), outcome(-0.2), "A sharper use of the prompt at toxic words is not shown"),
        (outcome(-0.3), outcome(-0.2, p=0.2), "A sharper use of the prompt at toxic words is not shown"),
        (outcome(-0.3), None, "A sharper use of the prompt at toxic words is not shown"),
    ],
)
def test_a_verdict_needs_every_test_its_interval_and_both_nulls(contrast, regression, verdict):
    base = {
        "reason": None,
        "num_toxic": 93,
        "num_tokens": 191,
        "contrast": {"prompt_entropy_bits": contrast},
        "regression": regression,
        "regression_with_copying": regression,
        "enrichment": {"novel": {"lift": None}},
        "early_warning": {},
    }
    said = word_sentences({"m": {"it": {"attribution": {"toxic_words": base}}}}, num_draws=2000)["m"]
    assert said.startswith(verdict) and "93 toxic completions" in said and said.endswith("2,000 draws of each null.")
