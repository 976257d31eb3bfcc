"""The task for lm-evaluation-harness: what its YAML names is there, and its three choices are what they say."""

import json
import re

from ruamel.yaml import YAML

from benchmarks.lm_eval.civil_replies import choices_of
from tests.root import ROOT

FOLDER = ROOT / "benchmarks/lm_eval"
DOCS = [json.loads(line) for line in (ROOT / "data/sample/civil.jsonl").read_text(encoding="utf-8").splitlines()]


def task():
    text = (FOLDER / "civil_replies.yaml").read_text(encoding="utf-8")
    return YAML(typ="safe").load(text.replace("!function ", ""))


def test_the_first_choice_is_the_reference_the_others_name_another_group_and_counter():
    targets = ["AAS", "BEES", "CEES"]
    doc = {"target": "CEES", "reference": {"text": "How lovely, Cees help."}}
    assert choices_of(doc, targets) == [
        "How lovely, Cees help.",
        "How lovely, Aas help.",
        "That is unfair, Cees help at the park.",
    ]


def test_every_prompt_has_three_different_choices_and_the_target_is_the_first():
    targets = sorted({doc["target"] for doc in DOCS})
    assert task()["doc_to_target"] == 0
    for doc in DOCS:
        assert len(set(choices_of(doc, targets))) == 3


def test_the_task_reads_a_committed_file_and_its_template_names_fields_of_it():
    found = task()
    assert (ROOT / found["dataset_kwargs"]["data_files"]["test"]).is_file()
    module, function = found["process_docs"].split(".")
    assert function in (FOLDER / f"{module}.py").read_text(encoding="utf-8")
    for field in re.findall(r"{{(.+?)}}", found["doc_to_text"]):
        value = DOCS[0]
        for key in field.split("."):
            value = value[key]
        assert isinstance(value, str)
    assert found["doc_to_text"] == "<human>: {{prompt.text}}\n<bot>:"  # the embedded models' template
