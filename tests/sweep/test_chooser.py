"""Who judges a sweep: `toxicity.selector`, and the headline's scorer where that is null."""

import copy

import pytest

from detoxlens.common.artifacts import read_rows, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion, Prompt
from detoxlens.params.load import Params, load_params
from detoxlens.params.sweep import SweepConfig
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.sweep.probe import Probe
from detoxlens.sweep.trial import AS_IF_TRAINED, check_metrics, val_metrics, with_chooser
from tests.reporting.synthetic import write_study
from tests.root import ROOT


def params(**toxicity):
    raw = copy.deepcopy(load_params(ROOT / "params.yaml").raw)
    raw["toxicity"] |= {"scorers": ["grader"], "headline": "grader"} | toxicity
    raw["report"] |= {"bootstrap": {"num_resamples": 100, "seed": 0}, "min_sequences_per_step": 5}
    return Params(raw)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Tables of `it` scored by two scorers that disagree."""
    layout = write_study(tmp_path_factory.mktemp("r"), ["tiny-neox"], ["it"], scorers=("grader", "other"))
    completions = read_rows(layout.completions("tiny-neox", "it"), Completion)
    prompts = [
        Prompt(prompt_id=c.prompt_id, split="val", text=c.prompt, filters=c.filters, toxicity=None)
        for c in completions
        if c.split == "val"
    ]
    write_rows(layout.prompts, prompts, Prompt)
    return layout


def test_a_trial_is_scored_by_the_selector_too():
    assert with_chooser(params()).raw["toxicity"]["scorers"] == ["grader"]
    found = with_chooser(params(selector="other")).section("toxicity", ToxicityConfig)
    assert (found.scorers, found.headline, found.chooser) == (["grader", "other"], "grader", "other")


def test_the_gate_and_the_objective_are_the_selectors(reference):
    by = {}
    for selector in (None, "other"):
        chosen = params(selector=selector)
        probe = Probe(reference.root, reference.root, chosen, "rl").toxicity_of_it("tiny-neox", 1000)
        of_val = val_metrics(reference.root, chosen, "tiny-neox", AS_IF_TRAINED, stand_in=True)
        assert probe == of_val["toxicity/val/rate_gt_50"]
        by[selector] = of_val
    assert by[None] != by["other"]
    assert by["other"]["scorers/grader/val/rate_gt_50"] == by[None]["toxicity/val/rate_gt_50"]


def test_an_attribution_objective_without_enough_completions_says_what_to_raise():
    config = params().section("sweep", SweepConfig)
    with pytest.raises(UserError, match=r"report\.min_sequences_per_step completions have: lower it, or raise splits"):
        check_metrics(config, {"toxicity/val/rate_gt_50": 0.5}, "params.yaml")
