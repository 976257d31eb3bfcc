"""Edits of params.yaml change what is named, nothing else."""

import shutil

import pytest

from detoxlens.common.errors import UserError
from detoxlens.params.check import check_params
from detoxlens.params.edit import change_params, change_run_section, variant_lists
from detoxlens.params.kinds import RUN_LISTS
from detoxlens.params.load import load_params
from tests.root import ROOT


@pytest.fixture
def params_file(tmp_path):
    return shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")


def test_only_the_named_keys_change_and_comments_stay(params_file):
    before = params_file.read_text(encoding="utf-8").splitlines()
    change_run_section(params_file, {"models": ["redpajama-3b"], "seed": 7})
    after = params_file.read_text(encoding="utf-8").splitlines()
    changed = [(a.strip(), b.strip()) for a, b in zip(before, after, strict=True) if a.split() != b.split()]
    assert changed == [("models: [tiny-neox, tiny-falcon]", "models: [redpajama-3b]"), ("seed: 0", "seed: 7")]
    check_params(load_params(params_file))


def test_a_deep_key_is_made_in_the_style_of_its_surroundings(params_file):
    path = ("variants", "rl", "overrides")
    change_params(params_file, {(*path, "lora", "r"): 8, (*path, "ppo", "kl", "coef"): 0.1234567890123456})
    written = params_file.read_text(encoding="utf-8")
    line = "  rl: {kind: rl, algorithm: ppo, overrides: {lora: {r: 8}, ppo: {kl: {coef: 0.1234567890123456}}}}\n"
    assert line in written
    assert load_params(params_file).variant("rl").overrides["ppo"]["kl"]["coef"] == 0.1234567890123456
    with pytest.raises(UserError, match=r"ppo\.kl\.coef=-1"):
        change_params(params_file, {(*path, "ppo", "kl", "coef"): -1})
    assert params_file.read_text(encoding="utf-8") == written


def test_the_lists_by_kind_follow_the_variants(params_file):
    change_params(params_file, {("run", "interpolated_variants"): ["ft", "rl"]})
    expected = {key: [] for key in RUN_LISTS} | {"variants": ["it", "ft"], "sft_variants": ["ft"]}
    expected |= {"interpolated_variants": ["ft"]}  # rl is not run
    assert variant_lists(load_params(params_file), ["it", "ft"]) == expected
