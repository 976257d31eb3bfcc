"""What a search space may name and hold, and where a point is put."""

import copy

import pytest

from detoxlens.common.errors import UserError
from detoxlens.params.load import Params, load_params
from detoxlens.params.ppo import PpoConfig
from detoxlens.params.section import parse
from detoxlens.params.sft import SftConfig
from detoxlens.params.sweep import Choices, FloatRange, IntRange, SweepConfig, as_stored
from detoxlens.sweep.space import choose_variant, committed_point, decode, params_at, space_of
from tests.root import ROOT


def params_with(method="ppo", **space) -> Params:
    """The committed params with another search space; `ppo__kl__coef` stands for ppo.kl.coef."""
    raw = copy.deepcopy(load_params(ROOT / "params.yaml").raw)
    raw["sweep"]["space"] = {method: {name.replace("__", "."): d for name, d in space.items()}}
    return Params(raw)


def checked(params, method="ppo", models=("tiny-neox",), variant="rl"):
    return space_of(params.section("sweep", SweepConfig), params, method, list(models), variant)


KINDS = {"float": FloatRange, "int": IntRange, "categorical": Choices}
NUMBER = {"type": "float", "low": 0.1, "high": 0.2}


@pytest.mark.parametrize("method", ["finetune", "ppo", "preference"])
def test_the_committed_space_is_valid(method):
    raw = load_params(ROOT / "params.yaml").raw
    raw["run"] |= {"variants": [*raw["run"]["variants"], "dpo"], "preference_variants": ["dpo"]}
    raw["variants"]["dpo"] = {"kind": "preference", "algorithm": "dpo"}
    params = Params(raw)
    checked(params, method, params.run.models, choose_variant(params, method, None))


@pytest.mark.parametrize(
    ("distribution", "told"),
    [
        ({"type": "float", "low": 2, "high": 1}, r"low=2 is above high=1; exchange them"),
        ({"type": "int", "low": 9, "high": 3}, r"low=9 is above high=3"),
        ({"type": "float", "low": 1, "high": float("inf")}, r"high=inf"),
        ({"type": "float", "low": 0, "high": 1, "log": True}, r"low=0 has no logarithm"),
        ({"type": "float", "low": 1, "high": 2, "log": True, "step": 0.1}, r"log and step exclude each other"),
        ({"type": "int", "low": 1, "high": 10, "step": 4}, r"high=10 is no whole number of steps=4 above low=1"),
        ({"type": "int", "low": 1.5, "high": 3}, r"low=1\.5"),
        ({"type": "categorical", "choices": []}, r"choices=\[\]"),
        ({"type": "categorical", "choices": [2, 1, True]}, r"1 and True are one choice to the sampler"),
        ({"type": "categorical", "choices": [False, 0]}, r"False and 0 are one choice"),
        ({"type": "categorical", "choices": [4, 4.0]}, r"4 and 4\.0 are one choice"),
        ({"type": "categorical", "choices": ["[1]", [1]]}, r"'\[1\]' and \[1\] are one choice"),
        ({"type": "float", "low": 1, "hihg": 3}, r"Did you mean 'high'"),
        ({"low": 1, "high": 3}, r"type"),
    ],
)
def test_a_bad_distribution_is_told_when_params_load(distribution, told):
    with pytest.raises(UserError, match=r"sweep\.space\.ppo\.ppo\.clip_range.*" + told):
        params_with(ppo__clip_range=distribution).section("sweep", SweepConfig)


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"ppo__learning_rat": NUMBER}, r"ppo\.learning_rat is not a param.*Did you mean 'ppo\.learning_rate'"),
        ({"ppo__kl": NUMBER}, r"ppo\.kl is not a param"),
        ({"sft__learning_rate": NUMBER}, r"varies keys of lora, ppo, generation"),
        ({"ppo__gamma": {"type": "float", "low": 0, "high": 1.5}}, r"includes 1\.5: .*ppo\.gamma=1\.5"),
        ({"lora__dropout": NUMBER}, r"lora\.dropout has no effect on rl, whose algorithm is 'ppo': .* Leave it out"),
        ({"ppo__num_generations": {"type": "int", "low": 2, "high": 4}}, r"It is read by rloo and grpo\. Leave it out"),
        ({"ppo__kl__control": {"type": "categorical", "choices": ["fixed", "adaptiv"]}}, r"includes 'adaptiv'"),
        ({}, r"sweep\.space\.ppo is empty"),
    ],
)
def test_a_space_that_does_not_fit_the_params_is_told_before_any_trial(space, told):
    with pytest.raises(UserError, match=told):
        checked(params_with(**space))


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("value_coef", "there is no value function"),
        ("lam", "the reward is of the whole response"),
        ("kl__horizon", r"TRL keeps ppo\.kl\.coef fixed"),
        ("entropy_coef", "TRL's loss has no entropy bonus"),
    ],
)
def test_a_param_that_the_algorithm_does_not_read_cannot_be_swept(algorithm, key, why):
    params = params_with(**{f"ppo__{key}": NUMBER})
    params.raw["variants"]["group"] = {"kind": "rl", "algorithm": algorithm}
    said = (
        rf"ppo\.{key.replace('__', '.')} has no effect on group, whose algorithm is '{algorithm}': {why}.*read by ppo"
    )
    with pytest.raises(UserError, match=said):
        checked(params, variant="group")


def test_what_rloo_and_grpo_read_can_be_swept():
    groups = {"type": "int", "low": 2, "high": 8}
    params = params_with(ppo__kl__coef=NUMBER, ppo__clip_range=NUMBER, ppo__num_generations=groups)
    for algorithm in ("rloo", "grpo"):
        params.raw["variants"]["group"] = {"kind": "rl", "algorithm": algorithm}
        assert len(checked(params, variant="group")) == 3


def test_two_swept_keys_may_be_valid_only_together():
    size = {"type": "categorical", "choices": [8, 64]}
    checked(params_with(ppo__rollout_batch_size=size, ppo__minibatch_size=size))
    with pytest.raises(UserError, match="must divide rollout_batch_size=64"):
        checked(params_with(ppo__minibatch_size={"type": "categorical", "choices": [48]}))


def test_the_shape_of_an_adapter_that_is_only_trained_on_cannot_be_swept():
    params = params_with(lora__r={"type": "int", "low": 4, "high": 8})
    params.raw["variants"]["ftrl"] = {"kind": "rl", "algorithm": "ppo", "init_from": "ft"}
    with pytest.raises(UserError, match=r"lora\.r has no effect: ftrl keeps training the adapter of 'ft'"):
        checked(params, variant="ftrl")


@pytest.mark.parametrize(("method", "variant"), [("finetune", "ft"), ("ppo", "rl")])
def test_the_committed_params_lie_in_the_committed_space_and_are_trial_0(method, variant):
    params = load_params(ROOT / "params.yaml")
    space = params.section("sweep", SweepConfig).space[method]
    assert committed_point(params, space, params.run.models, variant) is not None


def test_the_variant_is_the_first_that_the_method_trains():
    params = load_params(ROOT / "params.yaml")
    assert (choose_variant(params, "ppo", None), choose_variant(params, "finetune", None)) == ("rl", "ft")
    with pytest.raises(UserError, match="--variant ft is of kind 'sft'"):
        choose_variant(params, "ppo", "ft")


def test_a_point_wins_over_the_models_overrides_and_touches_one_variant():
    params = load_params(ROOT / "params.yaml")
    at = params_at(params, "rl", {"ppo.learning_rate": 0.25, "ppo.kl.coef": 0.5})
    found = at.section("ppo", PpoConfig, model="redpajama-3b", variant="rl")
    assert (found.learning_rate, found.kl.coef, found.kl.control) == (0.25, 0.5, "adaptive")
    assert at.section("ppo", PpoConfig, model="redpajama-3b", variant="ft").learning_rate == 5e-6
    assert "overrides" not in params.raw["variants"]["rl"]  # the original is as it was


def test_lists_are_choices_too():
    choices = [["query_key_value"], ["dense", "query_key_value"], 3, None, True]
    space = {
        "x": parse(
            SweepConfig, SWEEP | {"space": {"ppo": {"x": {"type": "categorical", "choices": choices}}}}, "sweep"
        ).space["ppo"]["x"]
    }
    assert [decode({"x": as_stored(choice)}, space)["x"] for choice in choices] == choices


SWEEP = load_params(ROOT / "params.yaml").raw["sweep"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"objectives": {}}, "objectives"),
        ({"objectives": {"a": "smaller"}}, r"objectives\.a='smaller'"),
        ({"constraints": {"a": {}}}, "give min, max or both"),
        ({"constraints": {"a": {"min": 2, "max": 1}}}, "min=2 is above max=1"),
        ({"constraints": {"toxicity/val/rate_gt_50": {"max": 1}}}, "objective and constraint at once"),
        ({"sampler": "tpee"}, "'tpe' or 'nsga2'"),
        ({"space": {"pppo": {}}}, "pppo"),
    ],
)
def test_other_mistakes_of_the_section(changes, told):
    with pytest.raises(UserError, match=told):
        parse(SweepConfig, SWEEP | changes, "params.yaml: sweep")


@pytest.mark.parametrize(
    ("name", "distribution", "expected"),
    [
        ("ppo.clip_range", {"type": "float", "low": 0.1, "high": 0.4}, 0.2),
        ("ppo.clip_range", {"type": "float", "low": 0.3, "high": 0.4}, None),
        ("ppo.clip_range", {"type": "float", "low": 0.05, "high": 0.35, "step": 0.05}, 0.2),  # .05 + 3 * .05
        ("ppo.clip_range", {"type": "float", "low": 0.05, "high": 0.35, "step": 0.1}, None),  # .15, .25, ...
        ("ppo.num_steps", {"type": "int", "low": 4, "high": 44, "step": 10}, 24),
        ("lora.target_modules", {"type": "categorical", "choices": [["query_key_value"]]}, None),
        ("ppo.kl.stop_nats_per_sequence", {"type": "float", "low": 1, "high": 9}, None),  # null
    ],
)
def test_the_present_params_are_a_point_where_the_space_has_them(name, distribution, expected):
    params = load_params(ROOT / "params.yaml")
    space = {name: parse(KINDS[distribution["type"]], distribution, name)}
    assert committed_point(params, space, ["tiny-neox", "tiny-falcon"], "rl") == (
        None if expected is None else {name: expected}
    )


def test_models_with_other_values_have_no_point_in_common():
    params = load_params(ROOT / "params.yaml")
    space = {"lora.r": parse(KINDS["int"], {"type": "int", "low": 1, "high": 99}, "lora.r")}
    assert committed_point(params, space, ["redpajama-3b"], "rl") == {"lora.r": 64}
    assert committed_point(params, space, ["redpajama-3b", "tiny-neox"], "rl") is None  # 64 and 16


def test_the_weight_of_a_regularizer_can_be_searched_where_its_kind_is_set():
    weight = {"type": "float", "low": -2.0, "high": 2.0}
    params = params_with("finetune", sft__regularizer__weight=weight)
    with pytest.raises(UserError, match=r"sft\.regularizer.*weight=-2 without a kind has no effect"):
        checked(params, "finetune", variant="ft")
    params.raw["sft"]["regularizer"] = {"kind": "attention_entropy"}
    params = Params(params.raw)
    space = checked(params, "finetune", variant="ft")
    point = params_at(params, "ft", decode({"sft.regularizer.weight": -0.5}, space))
    assert point.section("sft", SftConfig, variant="ft").regularizer.weight == -0.5
