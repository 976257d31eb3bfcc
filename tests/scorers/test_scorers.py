"""Scorers: known texts, unscorable texts, refused weights."""

import shutil
import sys

import pytest

from detoxlens.common.errors import UserError
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.scorers import SCORERS, make_scorer, make_scorers
from detoxlens.scorers.base import score_each
from detoxlens.scorers.profanity_check import ProfanityCheck, check_weights, package_folder, toxic_content_words
from tests.models.checkpoints import TEXTS, save_classifier


def reads_all(text):
    return False


@pytest.fixture(scope="module")
def profanity():
    return make_scorer("profanity_check", root=package_folder())


def test_profanity_check_tells_mild_insults_from_praise(profanity):
    rude, polite = profanity.score(["You accordion players are stupid idiots.", "I enjoy your accordion music."])
    assert rude.toxicity > 0.9
    assert polite.toxicity < 0.3
    assert (rude.status, rude.truncated, rude.error) == ("ok", False, "")


def test_profanity_check_names_its_weights_and_meaning(profanity):
    assert len(profanity.version) == 16
    assert profanity.version == check_weights(package_folder() / "data")
    assert (profanity.name, profanity.label, profanity.activation) == ("profanity_check", "offensive", "sigmoid")


def test_a_score_does_not_depend_on_the_other_texts(profanity):
    together = profanity.score(TEXTS)
    assert [profanity.score([text])[0] for text in TEXTS] == together


def test_changed_weights_are_refused_before_anything_is_loaded(tmp_path):
    shutil.copytree(package_folder() / "data", tmp_path, dirs_exist_ok=True)
    assert check_weights(tmp_path)
    with (tmp_path / "vectorizer.joblib").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"vectorizer.joblib is not the file that alt-profanity-check 1\.9\.1 ships"):
        check_weights(tmp_path)
    (tmp_path / "model.joblib").unlink()
    with pytest.raises(UserError, match=r"model\.joblib is not the file .* no such file"):
        check_weights(tmp_path)


def test_a_tampered_package_is_never_imported(tmp_path, monkeypatch):
    package = tmp_path / "profanity_check"
    shutil.copytree(package_folder() / "data", package / "data")
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "data/model.joblib").write_bytes(b"anything")
    monkeypatch.delitem(sys.modules, "profanity_check", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="could run any code, so it is not loaded"):
        make_scorer("profanity_check", root=tmp_path)


def test_empty_texts_are_a_status_not_a_score(profanity):
    scored = profanity.score(["", " \n\t", "Zorgons"])
    assert [(s.status, s.toxicity is None) for s in scored] == [("empty", True), ("empty", True), ("ok", False)]
    assert profanity.score([]) == []


def test_what_is_no_text_or_no_probability_fails_alone():
    values = {"a": 0.25, "b": float("nan"), "c": 1.5}
    scored = score_each(
        ["a", "b", float("nan"), "c", None], prob=lambda ts: [values[t] for t in ts], truncates=reads_all
    )
    assert [s.status for s in scored] == ["ok", "failed", "failed", "failed", "failed"]
    assert [s.toxicity for s in scored] == [0.25, None, None, None, None]
    assert [s.error for s in scored[1:]] == [
        "the scorer gave NaN",
        "not a text but float: nan",
        "the scorer gave 1.5, which is no probability",
        "not a text but NoneType: None",
    ]


def test_one_text_that_raises_does_not_cost_the_others_their_scores():
    def prob(texts):
        if "bad" in texts:
            raise RuntimeError("cannot read this")
        return [0.5] * len(texts)

    scored = score_each(["x", "bad", "y"], prob=prob, truncates=lambda t: t == "y")
    assert [s.toxicity for s in scored] == [0.5, None, 0.5]
    assert scored[1].error == "RuntimeError: cannot read this"
    assert [s.truncated for s in scored] == [False, False, True]


def test_mistakes_of_the_user_are_not_taken_for_failures_of_a_text():
    def prob(texts):
        raise UserError("no key")

    with pytest.raises(UserError, match="no key"):
        score_each(["x"], prob=prob, truncates=reads_all)


def test_hf_classifier_in_a_folder_of_the_repository(tmp_path):
    save_classifier(tmp_path / "models/judge", labels=("LABEL_0", "LABEL_1"), num_positions=8)
    scorer = make_scorer("hf:models/judge#LABEL_1", root=tmp_path)
    assert (scorer.name, scorer.label, scorer.activation) == ("hf:models/judge#LABEL_1", "LABEL_1", "softmax")
    short, long, empty = scorer.score(["hi", " ".join(TEXTS), ""])
    assert (short.status, short.truncated) == ("ok", False)
    assert (long.status, long.truncated) == ("ok", True)
    assert 0 <= short.toxicity <= 1
    assert empty.status == "empty"


def test_several_labels_of_one_classifier_are_read_in_one_pass_and_graded_as_alone(tmp_path, monkeypatch):
    labels = ("obscene", "toxic", "threat")
    save_classifier(tmp_path / "judge", labels=labels, problem_type="multi_label_classification")
    names = [f"hf:judge#{label}" for label in labels]
    alone = [[v.toxicity for v in make_scorer(name, root=tmp_path).score([*TEXTS, ""])] for name in names]
    scorers = make_scorers(names, root=tmp_path)
    network = scorers[0].classifier.model
    assert all(scorer.classifier.model is network for scorer in scorers)
    read = []
    monkeypatch.setattr(network, "forward", lambda f=network.forward, **given: read.append(1) or f(**given))
    assert [[v.toxicity for v in scorer.score([*TEXTS, ""])] for scorer in scorers] == alone
    assert len(read) == 1 and len({*map(tuple, alone)}) == 3
    assert make_scorers(["hf:judge#toxic"], root=tmp_path)[0].classifier.known is None  # nothing to share, nothing kept


def test_unknown_and_malformed_names_are_explained(tmp_path):
    with pytest.raises(UserError, match=r"unknown scorer 'profanity_chek'\. Did you mean 'profanity_check'"):
        make_scorer("profanity_chek", root=tmp_path)
    with pytest.raises(UserError, match="not of the form hf:"):
        make_scorer("hf:", root=tmp_path)
    assert set(SCORERS) == {"profanity_check", "hf", "perspective", "openai_moderation", "onnx", "recorded"}


def test_the_headline_must_be_scored():
    plain = {"scorers": ["profanity_check"], "missing": "exclude"}
    assert ToxicityConfig(**plain, headline="profanity_check").headline == "profanity_check"
    with pytest.raises(ValueError, match="headline='hf:x' must be one of scorers"):
        ToxicityConfig(**plain, headline="hf:x")
    with pytest.raises(ValueError, match="names one twice"):
        ToxicityConfig(**plain | {"scorers": ["profanity_check"] * 2}, headline="profanity_check")


@pytest.mark.parametrize(
    "text", ["\u200b", "\u200b \u2060", "\ufeff", "\u00ad", "\u3164\n", "\ufe0f", "\U000e0041", "\u2800"]
)
def test_a_text_of_characters_that_nobody_sees_is_empty(text):
    (verdict,) = score_each([text], prob=lambda texts: pytest.fail("not asked"), truncates=reads_all)
    assert (verdict.status, verdict.toxicity) == ("empty", None)


@pytest.mark.parametrize(
    "text", ["id\u200biot", "\uff49\uff44\uff49\uff4f\uff54", "\u0456di\u043et", "\u24d8\u24d3\u24d8\u24de\u24e3"]
)
def test_a_slur_in_disguise_is_judged_as_the_slur(text):
    plain, disguised = (v.toxicity for v in ProfanityCheck().score(["idiot", text]))
    as_it_is = ProfanityCheck(normalize=False).score([text])[0].toxicity
    assert disguised == plain > 0.9 > as_it_is


def test_a_text_that_spells_a_special_token_is_read_to_its_end(tmp_path):
    save_classifier(tmp_path / "judge", num_positions=32)
    classifier = make_scorer("hf:judge", root=tmp_path).classifier
    tokenizer = classifier.tokenizer
    (ids,) = [classifier._ids("hi <|pad|> x <|sep|>")]
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
    assert [i for i in ids if i in special] == [tokenizer.cls_token_id, tokenizer.sep_token_id]
    assert tokenizer.decode(ids[1:-1]) == "hi <|pad|> x <|sep|>"
    assert classifier._ids(TEXTS[0]) == tokenizer(TEXTS[0])["input_ids"]
    assert (
        classifier._ids(" ".join(TEXTS), most=9)
        == tokenizer(" ".join(TEXTS), truncation=True, max_length=9)["input_ids"]
    )


def test_insults_are_told_from_subjects_word_by_word():
    found = toxic_content_words(["Zorgons are stupid idiots who", "Yodellers sing in the park"])
    assert found >= {"stupid", "idiot"} and not found & {"zorgon", "yodeller", "park", "sing"}
    assert toxic_content_words([]) == frozenset()
