"""All of params.yaml is checked, under every model's and variant's overrides."""

import pytest

from detoxlens.common.errors import UserError
from detoxlens.params.check import check_params
from detoxlens.params.load import Params, load_params
from detoxlens.pipeline.run_stage import stage_params
from tests.root import ROOT


def test_the_papers_models_are_valid_under_their_overrides():
    params = load_params(ROOT / "params.yaml")
    params.raw["run"]["models"] = ["redpajama-3b", "falcon-7b"]
    check_params(Params(params.raw))
    lora = stage_params(params, "finetune", "falcon-7b", "ft")["lora"]
    assert (lora["r"], lora["alpha"], lora["dropout"]) == (64, 32, 0.05)
    ppo = stage_params(params, "rl", "redpajama-3b", "rl")["ppo"]
    assert (ppo["learning_rate"], ppo["rollout_batch_size"], ppo["kl"]["control"]) == (5e-6, 64, "adaptive")


def test_a_misspelt_override_of_a_model_that_does_not_run_is_found():
    params = load_params(ROOT / "params.yaml")
    params.raw["models"]["falcon-7b"]["overrides"]["sft"]["num_epoch"] = 3
    with pytest.raises(UserError, match="Did you mean 'num_epochs'"):
        check_params(Params(params.raw))


@pytest.mark.parametrize(
    ("algorithm", "overrides", "told"),
    [
        (
            "rloo",
            {"ppo": {"value_coef": 0.5}},
            r"overrides\.ppo\.value_coef has no effect on algorithm 'rloo': there is no",
        ),
        ("grpo", {"ppo": {"kl": {"coef": 0.1, "horizon": 9}}}, r"overrides\.ppo\.kl\.horizon .*'grpo'.* Remove it"),
        (
            "ppo",
            {"ppo": {"num_generations": 2}},
            r"overrides\.ppo\.num_generations .*read by rloo and grpo\. Remove it",
        ),
    ],
)
def test_an_override_that_a_variants_algorithm_does_not_read_is_refused(algorithm, overrides, told):
    params = load_params(ROOT / "params.yaml")
    params.raw["variants"]["other"] = {"kind": "rl", "algorithm": algorithm, "overrides": overrides}
    with pytest.raises(UserError, match=r"params\.yaml: variants\.other\." + told):
        check_params(Params(params.raw))
    params.raw["variants"]["other"]["overrides"] = {"ppo": {"kl": {"coef": 0.1}, "num_epochs": 1}}
    check_params(Params(params.raw))
