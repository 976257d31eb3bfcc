"""Presets write their keys into params.yaml."""

import shutil

import pytest

from detoxlens.common.errors import UserError
from detoxlens.params.check import check_params
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import load_params
from detoxlens.params.lora import LoraConfig
from detoxlens.params.ppo import PpoConfig
from detoxlens.params.presets import apply_preset
from detoxlens.params.sft import SftConfig
from detoxlens.params.splits import SplitsConfig
from tests.root import ROOT


def test_the_authors_preset_is_valid_keeps_comments_and_changes_nothing_twice(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    diff = apply_preset(tmp_path, tmp_path / "params.yaml", "authors")
    assert "+  models: [redpajama-3b, falcon-7b]" in diff and "+  missing: non_toxic" in diff
    params = load_params(tmp_path / "params.yaml")
    assert params.section("splits", SplitsConfig).by_name["authors_pc50"].text == "prompt+continuation"
    for line in (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("  unseen:"):  # which it takes out
            assert line.partition("#")[2] in (tmp_path / "params.yaml").read_text(encoding="utf-8")
    assert apply_preset(tmp_path, tmp_path / "params.yaml", "authors") == ""
    with pytest.raises(UserError, match=r"no preset 'author'\. Did you mean 'authors'"):
        apply_preset(tmp_path, tmp_path / "params.yaml", "author")


def test_the_authors_preset_decodes_and_trains_as_they_did():
    """Design, section 1: their hyperparameters, templates and loss, which are the models' own overrides."""
    params = load_params(ROOT / "params.yaml")
    redpajama, falcon = (params.model(m) for m in ("redpajama-3b", "falcon-7b"))
    assert redpajama.template.eval_user == '<human>: "{text}".\n' and redpajama.template.bot == "<bot>: "
    assert falcon.template.user == "### Question: {text}.\n"
    for model, top_k in (("redpajama-3b", 50), ("falcon-7b", 10)):
        decoding = params.section("generation", GenerationConfig, model=model)
        assert (decoding.max_new_tokens, decoding.min_new_tokens, decoding.top_k) == (70, 4, top_k)
        assert decoding.no_repeat_ngram_size == 2
        sft = params.section("sft", SftConfig, model=model)
        assert (sft.loss_on, sft.examples, sft.learning_rate, sft.warmup_steps) == ("all", "prefixes", 3e-4, 100)
        ppo = params.section("ppo", PpoConfig, model=model)
        assert (ppo.learning_rate, ppo.rollout_batch_size) == (5e-6, 64)
        lora = params.section("lora", LoraConfig, model=model)
        assert (lora.r, lora.alpha, lora.dropout) == (64, 32, 0.05)


def test_the_methods_preset_has_three_seeds_of_each_method_beside_ft_and_rl(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    apply_preset(tmp_path, tmp_path / "params.yaml", "methods")
    params = load_params(tmp_path / "params.yaml")
    methods: dict[str, list[int]] = {}
    for name in params.run.variants:
        methods.setdefault(params.variant(name).group or name, []).append(params.training_seed(name))
    assert all(methods[name] == [0] for name in ("it", "ft", "rl"))
    assert all(methods[name] == [0, 1, 2] for name in ("dpo", "kto", "best"))


def test_the_controls_preset_has_three_seeds_of_each_method_and_of_each_placebo(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    apply_preset(tmp_path, tmp_path / "params.yaml", "controls")
    params = load_params(tmp_path / "params.yaml")
    methods: dict[str, list[int]] = {}
    for name in params.run.variants:
        methods.setdefault(params.variant(name).group or name, []).append(params.training_seed(name))
    assert methods == {"it": [0]} | {method: [0, 1, 2] for method in ("ft", "rl", "placebo_ft", "placebo_rl")}


def test_the_importance_preset_has_eight_seeds_of_each_arm_that_differ_in_the_regularizer_alone(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    apply_preset(tmp_path, tmp_path / "params.yaml", "importance")
    params = load_params(tmp_path / "params.yaml")
    check_params(params)
    arms: dict[str, list[int]] = {}
    for name in params.run.sft_variants:
        arms.setdefault(params.variant(name).group, []).append(params.training_seed(name))
        assert params.variant(name).overrides.keys() == {"sft"}
        assert params.variant(name).overrides["sft"].keys() == {"regularizer"}
    assert arms == {arm: [*range(8)] for arm in ("ft", "lower", "raise", "shuffled")}
    weights = {
        arm: params.section("sft", SftConfig, model="tiny-neox", variant=f"{arm}-3").regularizer.weight for arm in arms
    }
    assert weights == {"ft": 0.0, "lower": 1.0, "raise": -1.0, "shuffled": 1.0}


def test_keys_that_a_preset_is_without_are_taken_out_and_others_stay(tmp_path):
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "presets").mkdir()
    preset = tmp_path / "presets/fewer.yaml"
    preset.write_text("without: [splits.challenging, splits.nowhere]\nrun: {seed: 3}\n")
    before = load_params(tmp_path / "params.yaml").raw
    apply_preset(tmp_path, tmp_path / "params.yaml", "fewer")
    after = load_params(tmp_path / "params.yaml").raw
    assert after["splits"] == {k: v for k, v in before["splits"].items() if k != "challenging"}
    assert after["run"] == before["run"] | {"seed": 3}
    preset.write_text("without: splits.polite\n")
    with pytest.raises(UserError, match=r"fewer\.yaml: without='splits\.polite' must be a list of key paths"):
        apply_preset(tmp_path, tmp_path / "params.yaml", "fewer")
