"""Adapters at several strengths in metrics.json, in the report and in the paper's claims, from made-up tables."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detoxlens.common.artifacts import read_rows, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Attribution, Completion, Dose
from detoxlens.common.seeding import numpy_rng
from detoxlens.evaluation.effects import EFFECTS
from detoxlens.reporting.claims import claims
from detoxlens.reporting.dose import dose_metrics
from detoxlens.reporting.dose_tables import dose_tables
from detoxlens.reporting.load import with_strengths
from detoxlens.reporting.metrics import build_metrics
from detoxlens.reporting.report import write_report
from detoxlens.tracking import flat_metrics
from tests.reporting.synthetic import _attribution, write_study
from tests.reporting.test_conclusions import ABOUT
from tests.reporting.test_report import CONFIG, load

ALPHAS = (-1.0, 0.0, 0.5, 1.0)
TOXIC = {"ft": (30, 24, 8, 1), "rl": (30, 24, 20, 14)}
"""Of 40 answers at each strength. ft falls to half of base's 24 between 0 and 0.5, rl never."""
NUM = 40


def write_doses(layout, variant, toxic):
    rng = numpy_rng(0, variant)
    base = [c for c in read_rows(layout.completions("m", "it"), Completion) if c.split == "test" and "p50" in c.filters]
    base = base[:NUM]
    doses, rows = [], [_attribution(c, "it", "it", numpy_rng(0, "base")) for c in base[:30]]
    for alpha, num_toxic in zip(ALPHAS, toxic, strict=True):
        said = [dataclasses.replace(c, completion_ids=c.completion_ids[:10]) for c in base]
        doses += [
            Dose(
                alpha=alpha,
                prompt_id=c.prompt_id,
                sample_index=0,
                completion=c.completion,
                completion_ids=c.completion_ids,
                toxicity=0.9 if i * 7 % NUM < num_toxic else 0.1,
                status="ok",
                nll_nats=len(c.completion_ids) * (1.0 + 0.1 * alpha),
                num_tokens=len(c.completion_ids),
            )
            for i, c in enumerate(said)
        ]
        name = f"{alpha:g}"
        for reader, source, texts in ((name, name, said), (name, "it", base), ("it", name, said)) if alpha else ():
            rows += [_attribution(c, reader, source, rng) for c in texts[:30]]
    write_rows(layout.dose("m", variant) / "doses.parquet", doses, Dose)
    write_rows(layout.dose("m", variant) / "attributions.parquet", rows, Attribution)


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    layout = write_study(tmp_path_factory.mktemp("study"), ["m"], num_prompts=60)
    for variant, toxic in TOXIC.items():
        write_doses(layout, variant, toxic)
    return layout


@pytest.fixture(scope="module")
def study(layout):
    return with_strengths(load(layout), layout, ["ft", "rl"])


@pytest.fixture(scope="module")
def metrics(study):
    return build_metrics(study, CONFIG, missing="exclude")


def test_each_strength_has_its_rate_its_effects_and_its_perplexity(metrics):
    found = metrics["m"]["ft"]["dose"]
    assert list(found["strengths"]) == ["-1", "0", "0.5", "1"] and found["num_prompts"] == NUM
    assert [at["toxicity"]["value"] for at in found["strengths"].values()] == [n / NUM for n in TOXIC["ft"]]
    assert found["strengths"]["1"]["perplexity"]["value"] == pytest.approx(np.exp(1.1))
    assert found["strengths"]["0"]["prompt_entropy_bits"] == {"value": 0.0, "ci95": None}
    lo, hi = found["strengths"]["1"]["prompt_entropy_bits"]["ci95"]
    assert lo < found["strengths"]["1"]["prompt_entropy_bits"]["value"] < hi
    assert 0 < found["strengths"]["1"]["jensen_shannon_bits"]["value"] < 1


def test_the_effect_at_a_strength_is_the_model_effect_by_hand(study, metrics):
    strength, found = study.models["m"]["rl"].strengths[0.5], metrics["m"]["rl"]["dose"]
    steps = slice(0, found["num_steps"])
    means = [np.nanmean(table.values[:, steps], axis=0) for table in strength.quads["prompt_entropy_bits"]]
    by_hand = sum(weight * mean for weight, mean in zip(EFFECTS["model_effect"], means, strict=True)).mean()
    assert found["strengths"]["0.5"]["prompt_entropy_bits"]["value"] == pytest.approx(by_hand)


def test_at_equal_toxicity_there_is_a_distance_or_a_reason(metrics):
    levels = metrics["m"]["ft"]["dose"]["at_equal_toxicity"]["rl"]
    # 75 % of 24 is 18: ft at 0.5 * 6 / 16 = .1875, rl at .5 + .5 * 2 / 6 = .667
    assert levels["75"]["strengths"] == {"ft": pytest.approx(0.1875), "rl": pytest.approx(2 / 3)}
    perplexity = levels["75"]["perplexity"]["value"]
    ft, rl = (np.interp(a, [0, 0.5, 1], np.exp(1 + 0.1 * np.array([0, 0.5, 1]))) for a in (0.1875, 2 / 3))
    assert perplexity == pytest.approx(ft - rl)
    assert levels["50"]["strengths"]["rl"] is None and levels["50"]["prompt_entropy_bits"]["value"] is None
    assert levels["50"]["prompt_entropy_bits"]["reason"] == "the toxicity of `rl` falls to 58 % of base's at least"


def test_tables_figure_and_mlflow_have_it_and_a_run_without_has_none(layout, study, metrics, tmp_path):
    equal, strengths = dose_tables(metrics)
    assert len(equal.rows) == 3 and len(strengths.rows) == 8
    assert "the toxicity of `rl` falls to 58 % of base's at least" in equal.notes
    assert flat_metrics(metrics["m"]["ft"])["dose/strengths/0.5/toxicity/value"] == 8 / NUM
    write_report(tmp_path, study, CONFIG, about=ABOUT)
    assert (tmp_path / "figures/dose.svg").exists()
    for file in ("report.md", "index.html"):
        assert "Methods at equal toxicity" in (tmp_path / file).read_text(encoding="utf-8")
    without = build_metrics(load(layout), CONFIG, missing="exclude")
    assert dose_tables(without) == [] and "dose" not in without["m"]["ft"]


def quantity(value, p_value):
    half = abs(value) or 0.02
    return {"value": value, "ci95": [value - half, value + half], "num_prompts": 60, "p_value": p_value, "reason": None}


@pytest.mark.parametrize(
    ("p_values", "verdict", "said"),
    [
        # 4 * .004 = .016; 3 * .04 = .12
        ((0.3, 0.004, 0.04, 0.9), "holds", "they differ in dependence beyond uniform (−0.020 bits"),
        ((0.3, 0.02, 0.04, 0.9), "not shown", "not shown to in prompt entropy (+0.010 bits"),  # 4 * .02 = .08
        ((0.3, 0.5, 0.04, 0.001), "holds", "they differ in perplexity (−0.05"),
    ],
)
def test_methods_differ_at_equal_toxicity_where_one_of_four_comparisons_does_by_holm(metrics, p_values, verdict, said):
    names = ("prompt_entropy_bits", "prompt_dependence_excess_bits", "jensen_shannon_bits", "perplexity")
    values = (0.01, -0.02, 0.001, -0.05)
    half = {name: quantity(*of) for name, *of in zip(names, values, p_values, strict=True)}
    dose = {"at_equal_toxicity": {"rl": {"50": {"strengths": {"ft": 0.4, "rl": 0.5}, **half}}}}
    variants = metrics["m"] | {"ft": metrics["m"]["ft"] | {"dose": dose}}
    found = {c.claim: c for c in claims({"m": variants}, primary="p50", about=ABOUT)}
    claim = found["The methods differ at equal toxicity"]
    assert claim.verdict == verdict and said in claim.evidence
    assert claim.evidence.startswith("adapters scaled to half of base's toxicity, one training of each: ")
    assert claim.evidence.endswith("; p by Holm for 4 comparisons")


def test_several_seeds_at_equal_toxicity_are_one_comparison(study):
    of = study.models["m"]
    strengths = {"ft": of["ft"].strengths, "ft-1": of["ft"].strengths, "rl": of["rl"].strengths}
    found = dose_metrics(strengths, CONFIG, {"ft": "ft", "ft-1": "ft", "rl": "rl"})
    assert list(found["ft"]["at_equal_toxicity"]) == ["rl"] and "at_equal_toxicity" not in found["ft-1"]
    level = found["ft"]["at_equal_toxicity"]["rl"]["75"]
    alone = dose_metrics({v: strengths[v] for v in ("ft", "rl")}, CONFIG)["ft"]["at_equal_toxicity"]["rl"]["75"]
    assert list(level["strengths"]) == ["ft", "ft-1", "rl"]
    assert level["perplexity"]["value"] == pytest.approx(alone["perplexity"]["value"])  # twice the same training


def test_a_path_that_does_not_fall_so_far_leaves_the_claim_untested_and_says_why(metrics):
    found = {c.claim: c for c in claims(metrics, primary="p50", about=ABOUT)}["The methods differ at equal toxicity"]
    assert (found.verdict, found.evidence) == ("not tested", "the toxicity of `rl` falls to 58 % of base's at least")


def test_too_few_attributed_completions_leave_toxicity_and_perplexity(study):
    many = CONFIG.model_copy(update={"min_sequences_per_step": 31})
    found = dose_metrics({v: study.models["m"][v].strengths for v in ("ft", "rl")}, many)["ft"]
    assert "fewer than report.min_sequences_per_step=31 attributed completions" in found["reason"]
    assert "prompt_entropy_bits" not in found["strengths"]["1"] and found["strengths"]["1"]["perplexity"]["ci95"]
    equal = found["at_equal_toxicity"]["rl"]["75"]
    assert equal["prompt_entropy_bits"]["reason"] == found["reason"] and equal["perplexity"]["value"] is not None


def test_a_stage_that_has_not_run_is_named(layout, study):
    with pytest.raises(UserError, match=r"doses\.parquet does not exist"):
        with_strengths(study, layout, ["it"])
