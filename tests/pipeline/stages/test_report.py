"""Stage report: from params and tables to reports/, earlier files intact when it fails."""

import dataclasses

import pytest

from detoxlens.common.artifacts import Layout, write_model_ref
from detoxlens.common.errors import UserError
from detoxlens.common.records import ModelRef
from detoxlens.pipeline.stages import report
from detoxlens.reporting.report import FILES
from tests.models.checkpoints import save_language_model
from tests.pipeline.stages.study import params_of
from tests.reporting.synthetic import write_study

SECTIONS = {
    "splits": {"p50": {"where": {}}, "polite": {"where": {}}},
    "attribution": {
        "method": "input_x_gradient",
        "target": "probability",
        "filters": ["p50"],
        "sample": "random",
        "sample_toxic_above": 0.66,
        "max_sequences": 10,
        "samples_per_prompt": 1,
        "unit": "token",
        "mask_template": False,
        "num_path_steps": 2,
        "batch_size": "auto",
        "memory_mib": None,
        "precision_check": 0,
        "faithfulness": {"num_sequences": 0, "steps_per_sequence": 1, "fractions": [0.2], "num_random": 1},
        "agreement": {"methods": [], "num_sequences": 0},
    },
    "report": {
        "primary_split": "p50",
        "bootstrap": {"num_resamples": 100, "seed": 0},
        "toxic_group_threshold": 0.66,
        "min_sequences_per_step": 5,
        "cohort_min_tokens": 3,
        "champion_max_perplexity_ratio": 1.2,
        "num_examples": 2,
    },
}


@pytest.fixture
def params():
    params = params_of()
    params.raw.update(SECTIONS)
    return params


@pytest.fixture
def layout(tmp_path) -> Layout:
    layout = write_study(tmp_path, ["m"], ["it", "ft"], num_prompts=12, scorers=("profanity_check",))
    ref = save_language_model(layout.base("m"))
    write_model_ref(layout.adapter("m", "it"), ModelRef(base="models/m/base", revision=ref.revision, adapter=None))
    return layout


def test_writes_the_report_with_heat_maps_and_leaves_nothing_else(layout, params):
    report.run(layout.root, params)
    assert {p.name for p in layout.reports.iterdir()} == set(FILES)
    page = (layout.reports / "index.html").read_text(encoding="utf-8")
    assert page.count('<table class="heatmap">') == 4  # two prompts, two variants
    assert "Provenance" in page and "fine-tuned on counter-narratives" in page
    assert list(layout.state.glob("report-*")) == []


def test_a_failure_leaves_the_earlier_report_as_it_was(layout, params):
    report.run(layout.root, params)
    before = (layout.reports / "metrics.json").read_bytes()
    layout.scores("m", "ft").unlink()
    with pytest.raises(UserError, match=r"scores.parquet does not exist"):
        report.run(layout.root, params)
    assert (layout.reports / "metrics.json").read_bytes() == before
    assert list(layout.state.glob("report-*")) == []


def test_a_split_without_completions_has_no_column_but_a_note(layout, params):
    params.raw["splits"] |= {"conan": {"where": {}}, "more": {"where": {}}}
    report.run(layout.root, params)
    told = (layout.reports / "table1.md").read_text(encoding="utf-8")
    assert "No completion is of conan, more: no column stands for them." in told
    assert "p50 |" in told and "conan |" not in told


def test_selector_as_grader_and_imputed_scores_are_told(layout, params):
    toxicity = params_of(toxicity={"missing": "non_toxic"}).section("toxicity", report.ToxicityConfig)
    config = params.section("report", report.ReportConfig)
    study = report.load_study(
        layout,
        models=["m"],
        groups={"it": "it", "ft": "ft"},
        splits=["p50"],
        grader=toxicity.headline,
        attribution=params.section("attribution", report.AttributionConfig),
        config=config,
    )
    (told,) = report.set_up_notes(toxicity)
    assert told.startswith("`toxicity.missing: non_toxic`")
    selected = dataclasses.replace(study.models["m"]["ft"], history=[{"step": 1, "ppo/val_toxicity": 0.1}])
    assert report.double_roles(study, toxicity) == []
    study = dataclasses.replace(study, models={"m": {**study.models["m"], "rl": selected}})
    assert "selector and grader at once" in report.double_roles(study, toxicity)[0]
    apart = toxicity.model_copy(update={"selector": "profanity_check", "headline": "g", "scorers": ["g"]})
    assert report.double_roles(study, apart) == []
    (second,) = report.double_roles(study, apart.model_copy(update={"scorers": ["g", "profanity_check"]}))
    assert second.startswith("`profanity_check` chose PPO's best checkpoint") and second.endswith(
        "those of `g` are not."
    )
