"""P(toxic) from a classifier's own config, tokenizer and positions."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from detoxlens.common.errors import UserError
from detoxlens.models.classifier import TextClassifier, weights_version
from detoxlens.models.labels import activation_of, toxic_label_index
from detoxlens.models.loading import weights_sha256
from tests.models.checkpoints import TEXTS, save_classifier, save_language_model


@pytest.mark.parametrize(
    ("problem_type", "labels", "activation", "label"),
    [
        ("single_label_classification", ("nothate", "hate"), "softmax", "hate"),
        ("multi_label_classification", ("obscene", "toxic", "threat"), "sigmoid", "toxic"),
        (None, ("hate", "nothate"), "softmax", "hate"),
        ("single_label_classification", ("neither", "hate", "rude"), "softmax", "hate"),
    ],
)
def test_probability_is_the_toxic_labels_in_input_order(tmp_path, problem_type, labels, activation, label):
    model = save_classifier(tmp_path, labels=labels, problem_type=problem_type)
    classifier = TextClassifier.load(str(tmp_path), batch_size=3)
    assert (classifier.label, classifier.activation) == (label, activation)
    texts = [*TEXTS, "Zorgons", "", TEXTS[1]]
    expected = []
    for text in texts:
        logits = model(**classifier.tokenizer(text, return_tensors="pt")).logits[0]
        given = logits.softmax(-1) if activation == "softmax" else logits.sigmoid()
        expected.append(given[labels.index(label)].item())
    assert classifier.prob(texts) == pytest.approx(expected, abs=1e-5)
    odds = [math.log(p / (1 - p)) for p in expected]  # with several labels against all others together
    assert classifier.log_odds(texts) == pytest.approx(odds, abs=1e-4)
    assert len({round(p, 4) for p in expected}) == 6
    assert classifier.prob([]) == []


def test_version_is_the_hash_of_the_weights(tmp_path):
    save_classifier(tmp_path / "a")
    save_classifier(tmp_path / "b", seed=1)
    a, b = (TextClassifier.load(str(tmp_path / name)).version for name in "ab")
    assert a == weights_sha256(tmp_path / "a")[:16] == weights_version(str(tmp_path / "a"))
    assert a != b


def test_what_exceeds_robertas_positions_is_cut_and_said(tmp_path):
    save_classifier(tmp_path, num_positions=20)
    classifier = TextClassifier.load(str(tmp_path))
    assert classifier.max_length == 20  # 22 positions, of which RoBERTa cannot use the first two
    long = " ".join(TEXTS)
    assert classifier.truncates(long)
    assert not classifier.truncates(TEXTS[0])
    exact = "a" * 18  # one token a letter, and two special ones
    assert not classifier.truncates(exact)
    assert classifier.truncates(exact + "a")
    assert classifier.prob([exact + "a"]) == pytest.approx(classifier.prob([exact]), abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "index"),
    [
        (["nothate", "hate"], 1),
        (["non-toxic", "toxic"], 1),
        (["toxic", "severe_toxic", "identity_hate"], 0),
        (["NOT_HATE", "HATE-SPEECH"], 1),
        (["toxicity", "neutral"], 0),
    ],
)
def test_the_toxic_label_is_known_by_its_name(labels, index):
    assert toxic_label_index(dict(enumerate(labels))) == index


@pytest.mark.parametrize("labels", [["LABEL_0", "LABEL_1"], ["hate", "offensive", "normal"]])
def test_an_unclear_toxic_label_is_asked_for(labels):
    with pytest.raises(UserError, match=rf"m has the labels '{labels[0]}'.*`hf:m#<label>`"):
        toxic_label_index(dict(enumerate(labels)), source="m")
    assert toxic_label_index(dict(enumerate(labels)), labels[1]) == 1
    with pytest.raises(UserError, match=r"no label 'hat'.*Its labels: "):
        toxic_label_index(dict(enumerate(labels)), "hat")


def test_activation_follows_the_problem_type():
    many = dict(enumerate(["obscene", "toxic", "threat"]))
    assert activation_of("single_label_classification", many, 1) == "softmax"
    assert activation_of("multi_label_classification", many, 1) == "sigmoid"
    with pytest.raises(UserError, match="regression"):
        activation_of("regression", {0: "toxicity"}, 0)


@pytest.mark.parametrize(("labels", "index"), [(["nothate", "hate"], 1), (["toxic", "neutral"], 0)])
def test_a_label_and_its_negation_exclude_each_other(labels, index):
    assert activation_of(None, dict(enumerate(labels)), index) == "softmax"


@pytest.mark.parametrize(
    "labels",
    [
        ["toxic", "obscene", "insult", "threat"],
        ["toxic", "obscene"],
        ["toxicity"],
        ["LABEL_0", "LABEL_1"],
        ["toxic", "non-toxic", "threat"],
    ],
)
def test_an_activation_that_the_config_leaves_open_is_asked_for(labels):
    """One output may be a regression's; of two, a text can have both; a third label may go with either."""
    with pytest.raises(UserError, match=rf"m has the labels .*reward_model\.activation.*`hf:m#{labels[0]}=sigmoid`"):
        activation_of(None, dict(enumerate(labels)), 0, source="m")


def test_a_folder_without_tokenizer_or_weights_is_refused(tmp_path):
    save_classifier(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no \*\.safetensors"):
        TextClassifier.load(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(weights)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        TextClassifier.load(str(tmp_path))


def test_a_checkpoint_without_classification_head_is_refused(tmp_path):
    save_classifier(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "out_proj" not in k}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"not a trained text classifier: its weights lack classifier\.out_proj"):
        TextClassifier.load(str(tmp_path))


def test_a_language_model_is_refused(tmp_path):
    save_language_model(tmp_path)
    with pytest.raises(UserError, match="not a trained text classifier"):
        TextClassifier.load(str(tmp_path))


def test_a_damaged_config_is_one_paragraph(tmp_path):
    save_classifier(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    with pytest.raises(UserError, match="could not be loaded"):
        TextClassifier.load(str(tmp_path))


def test_a_source_that_is_neither_folder_nor_hub_id_is_said_so():
    with pytest.raises(UserError, match="neither an existing folder nor a hub id"):
        TextClassifier.load("models/no/such/folder")


def test_nan_weights_give_nan_not_a_score(tmp_path):
    save_classifier(tmp_path)
    classifier = TextClassifier.load(str(tmp_path))
    classifier.model.classifier.out_proj.bias.data.fill_(float("nan"))
    assert torch.tensor(classifier.prob(["Zorgons"])).isnan().all()
