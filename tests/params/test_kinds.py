"""The table of kinds, and what is derived from it."""

import pytest
from ruamel.yaml import YAML

from detoxlens.params.kinds import KINDS, RUN_LISTS, run_list
from detoxlens.params.reads import READS, TRAINS
from detoxlens.params.run import RunConfig
from detoxlens.reporting.about import role
from tests.params.test_load import params
from tests.root import ROOT


def test_a_kind_has_a_list_per_way_to_train_it():
    assert KINDS["base"].lists("base") == []
    assert KINDS["sft"].lists("sft") == ["sft_variants", "sft_placebo_variants", "rejection_variants"]
    assert KINDS["rl"].lists("rl") == ["rl_variants", "rl_after_ft_variants", "rl_placebo_variants"]


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "base"])
def test_every_variant_belongs_in_a_list_that_section_run_has(kind):
    for placebo, init_from in ((False, None), (False, "it"), (False, "ft"), (True, None)):
        if (KINDS[kind].placebo_of or not placebo) and init_from in (None, "it", KINDS[kind].init_from):
            assert run_list(kind, placebo=placebo, init_from=init_from) in RunConfig.model_fields


def test_a_matrix_of_dvc_walks_over_each_list():
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    walked = {
        of: stage["cmd"].split()[1] for stage in stages.values() for of in [stage.get("matrix", {}).get("variant")]
    }
    stage_of = {f"{stage}_variants": stage for kind in KINDS.values() for stage in kind.stage_of_data.values()}
    lists = {
        f"${{run.{key}}}": stage_of.get(key, kind.stage) for name, kind in KINDS.items() for key in kind.lists(name)
    }
    assert {of: stage for of, stage in walked.items() if of in lists} == lists
    assert set(RUN_LISTS) <= set(YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))["run"])


def test_every_kind_is_made_by_a_stage_and_has_a_phrase_for_the_report():
    assert set(TRAINS.values()) <= set(READS)
    of = params(**{"variants.rl.algorithm": "grpo"})
    assert [role(of.variant(name)).text for name in ("it", "ft", "rl", "ftrl")] == [
        "the model as released (the paper's IT)",
        "fine-tuned on counter-narratives",
        "trained by GRPO, seed 7",
        "trained by PPO, after ft",
    ]
