"""Stage rl, in-process, on random weights of the embedded architectures."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from detoxlens.common.artifacts import Layout, read_history, read_model_ref, write_history, write_model_ref
from detoxlens.common.errors import UserError
from detoxlens.models.classifier import TextClassifier
from detoxlens.params.load import Params, load_params
from detoxlens.params.variants import VariantConfig
from detoxlens.pipeline.stages import finetune, rl
from detoxlens.pipeline.stages.rl import check_processes, hater_contexts, validation_prompts, within
from detoxlens.rl.rewards import NonToxicity
from detoxlens.rl.world import World
from tests.pipeline.stages.project import dialogue, prompt

PPO = {
    "num_steps": 2,
    "rollout_batch_size": 4,
    "minibatch_size": 2,
    "micro_batch_size": 2,
    "num_epochs": 1,
    "learning_rate": 1e-2,
    "checkpoint_every": 1,
    "max_context_turns": 3,
    "validation": {"every": 1, "num_prompts": 2, "filter": "p50", "batch_size": 2},
}


@pytest.fixture
def root(project, tmp_path) -> Path:
    return shutil.copytree(project, tmp_path / "project")


@pytest.fixture
def params() -> Params:
    raw = copy.deepcopy(load_params(Path(__file__).parents[3] / "params.yaml").raw)
    raw["run"] |= {"num_threads": 1, "models": ["tiny-neox"], "variants": ["it", "rl"], "sft_variants": []}
    raw["run"] |= {"rl_variants": ["rl"], "rl_after_ft_variants": []}
    raw["variants"]["again"] = {"kind": "rl", "algorithm": "ppo", "init_from": "ft"}
    raw["ppo"] = PPO
    raw["generation"] |= {"max_new_tokens": 5, "min_new_tokens": 1}
    raw["lora"]["target_modules"] = ["query_key_value"]
    return Params(raw)


def test_writes_an_adapter_that_plain_peft_loads_with_its_curves_and_card(root, params):
    rl.run(root, params, model="tiny-neox", variant="rl")
    folder = Layout(root).adapter("tiny-neox", "rl")
    assert read_model_ref(folder).adapter == "adapters/tiny-neox/rl"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "models/tiny-neox/base"
    history = read_history(folder)
    assert [row["step"] for row in history] == [0, 1, 2]
    assert {"ppo/reward", "ppo/independent_toxicity", "ppo/val_toxicity"} <= set(history[-1])
    card = (folder / "README.md").read_text()
    assert "1 - P(hate), softmax" in card and "on 4 dialogue contexts" in card
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(root / "models/tiny-neox/base"), folder)
    assert not [p for p in (root / ".detoxlens/scratch/rl@tiny-neox-rl").iterdir() if p.is_dir()]


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_trls_algorithms_publish_the_same_kind_of_folder_and_the_same_bytes_again(root, params, tmp_path, algorithm):
    params.raw["variants"]["rl"] |= {"algorithm": algorithm}
    params.raw["ppo"] = PPO | {"num_generations": 2}
    other = shutil.copytree(root, tmp_path / "other")
    for place in (root, other):
        rl.run(place, params, model="tiny-neox", variant="rl")
    folder = Layout(root).adapter("tiny-neox", "rl")
    names = {"adapter_model.safetensors", "adapter_config.json", "history.jsonl", "model_ref.json", "README.md"}
    assert {p.name for p in folder.iterdir()} == names
    assert all((folder / n).read_bytes() == (Layout(other).adapter("tiny-neox", "rl") / n).read_bytes() for n in names)
    history = read_history(folder)
    assert [row["step"] for row in history] == [0, 1, 2]
    assert {"ppo/reward", "ppo/independent_toxicity", "ppo/kl_nats_per_sequence", "ppo/val_toxicity"} <= set(
        history[-1]
    )
    assert f"trained by {algorithm.upper()} (TRL) from a fresh adapter" in (folder / "README.md").read_text()
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(root / "models/tiny-neox/base"), folder)
    assert not [p for p in (root / ".detoxlens/scratch/rl@tiny-neox-rl").iterdir() if p.is_dir()]


LAUNCHERS = {
    "accelerate": ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m", "detoxlens"],
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "detoxlens"],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_launched_processes_publish_one_adapter(root, params, launcher):
    params.raw["models"] = {"tiny-neox": params.raw["models"]["tiny-neox"]}
    (root / "params.yaml").write_text(json.dumps(params.raw))
    rest = ["--root", str(root), "rl", "--model", "tiny-neox", "--variant", "rl"]
    done = subprocess.run(
        [sys.executable, "-m", *LAUNCHERS[launcher], *rest], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("reward = 1 - P(hate)") == 1
    assert [row["step"] for row in read_history(Layout(root).adapter("tiny-neox", "rl"))] == [0, 1, 2]
    assert not [p for p in (root / ".detoxlens/scratch/rl@tiny-neox-rl").iterdir() if p.is_dir()]


def test_several_processes_are_refused_for_trls_algorithms_and_for_a_model_spread_over_all_cards(params):
    spread = params.model("tiny-neox").model_copy(update={"device_map": "auto"})
    ppo, grpo = (VariantConfig(kind="rl", algorithm=algorithm) for algorithm in ("ppo", "grpo"))
    check_processes(grpo, "g", spread, "m", World())
    check_processes(ppo, "rl", params.model("tiny-neox"), "m", World(size=2))
    with pytest.raises(UserError, match=r"variants\.g\.algorithm='grpo' runs in one process and 2 were launched"):
        check_processes(grpo, "g", params.model("tiny-neox"), "m", World(size=2))
    with pytest.raises(UserError, match=r"models\.m\.device_map='auto' spreads one copy .* set device_map: null"):
        check_processes(ppo, "rl", spread, "m", World(size=2))


@pytest.mark.slow
def test_two_launched_processes_are_told_before_a_model_is_loaded_that_it_is_spread(root, params):
    params.raw["models"] = {"tiny-neox": params.raw["models"]["tiny-neox"] | {"device_map": "auto"}}
    (root / "params.yaml").write_text(json.dumps(params.raw))
    rest = ["--root", str(root), "rl", "--model", "tiny-neox", "--variant", "rl"]
    done = subprocess.run([sys.executable, "-m", *LAUNCHERS["torchrun"], *rest], capture_output=True, text=True)
    assert done.returncode != 0 and "device_map='auto' spreads one copy" in done.stderr
    assert not Layout(root).adapter("tiny-neox", "rl").exists()


def test_the_log_says_which_output_is_rewarded_and_swapped_labels_change_it(root, params, caplog):
    """The label's place is read from the config: with the two swapped there, the reward turns with them."""
    caplog.set_level("INFO", logger="detoxlens")
    rl.run(root, params, model="tiny-neox", variant="rl")
    assert "reward = 1 - P(hate), softmax, weights" in caplog.text
    assert "output 1 of {0: nothate, 1: hate}" in caplog.text
    texts = ["Zorgons are fools.", "Banjoists sing well."]
    right = NonToxicity(TextClassifier.load(str(root / "models/reward")))
    config = root / "models/reward/config.json"
    swapped = json.loads(config.read_text()) | {
        "id2label": {0: "hate", 1: "nothate"},
        "label2id": {"hate": 0, "nothate": 1},
    }
    config.write_text(json.dumps(swapped))
    turned = NonToxicity(TextClassifier.load(str(root / "models/reward")))
    assert "output 0 of {0: hate, 1: nothate}" in turned.description()
    assert turned(texts) == pytest.approx([1 - r for r in right(texts)])


def test_labels_without_names_are_refused_rather_than_guessed(root, params):
    config = root / "models/reward/config.json"
    unnamed = {"id2label": {0: "LABEL_0", 1: "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    config.write_text(json.dumps(json.loads(config.read_text()) | unnamed))
    with pytest.raises(UserError, match="none of which is known to mean toxic"):
        rl.run(root, params, model="tiny-neox", variant="rl")
    assert not Layout(root).adapter("tiny-neox", "rl").exists()


def test_same_seed_same_bytes(root, params, project, tmp_path):
    other = shutil.copytree(project, tmp_path / "other")
    for place in (root, other):
        rl.run(place, params, model="tiny-neox", variant="rl")
    for name in ("adapter_model.safetensors", "adapter_config.json", "history.jsonl", "README.md"):
        one, two = (Layout(place).adapter("tiny-neox", "rl") / name for place in (root, other))
        assert one.read_bytes() == two.read_bytes(), name


def test_the_value_functions_adapter_is_not_published(root, params):
    params.raw["ppo"] = PPO | {"value_function": "lora"}
    rl.run(root, params, model="tiny-neox", variant="rl")
    folder = Layout(root).adapter("tiny-neox", "rl")
    assert not any("value_function" in name for name in load_file(folder / "adapter_model.safetensors"))
    assert not [p for p in folder.iterdir() if p.is_dir()]


def test_init_from_starts_from_that_variants_adapter(root, params):
    params.raw["ppo"] = PPO | {"learning_rate": 1e-12, "validation": PPO["validation"] | {"every": 2}}
    rl.run(root, params, model="tiny-neox", variant="rl")
    layout = Layout(root)
    fine_tuned = shutil.copytree(layout.adapter("tiny-neox", "rl"), layout.adapter("tiny-neox", "ft"))
    write_model_ref(fine_tuned, dataclasses.replace(read_model_ref(fine_tuned), adapter="adapters/tiny-neox/ft"))
    source = fine_tuned / "adapter_model.safetensors"
    trained = {k: v + 0.1 for k, v in load_file(source).items()}
    save_file(trained, source, metadata={"format": "pt"})
    rl.run(root, params, model="tiny-neox", variant="again")
    copied = load_file(layout.adapter("tiny-neox", "again") / "adapter_model.safetensors")
    for name, tensor in trained.items():
        torch.testing.assert_close(copied[name], tensor, rtol=0, atol=1e-6)


def test_reward_and_grader_with_the_same_weights_are_refused(root, params):
    params.raw["toxicity"] |= {"scorers": ["hf:models/reward"], "headline": "hf:models/reward"}
    with pytest.raises(UserError, match="headline='hf:models/reward' have the same weights"):
        rl.run(root, params, model="tiny-neox", variant="rl")
    assert not Layout(root).adapter("tiny-neox", "rl").exists()


def test_a_variant_of_another_kind_is_refused(root, params):
    with pytest.raises(UserError, match=r"variants\.ft has kind 'sft'; stage rl trains .* kind 'rl': rl, again"):
        rl.run(root, params, model="tiny-neox", variant="ft")
    with pytest.raises(UserError, match=r"variants\.rl has kind 'rl'; stage finetune trains .* kind 'sft': ft"):
        finetune.run(root, params, model="tiny-neox", variant="rl")


def test_an_error_in_mid_run_leaves_the_earlier_adapter_alone(root, params):
    earlier = Layout(root).adapter("tiny-neox", "rl")
    earlier.mkdir(parents=True)
    (earlier / "README.md").write_text("earlier")
    params.raw["ppo"] = PPO | {"rollout_batch_size": 64, "minibatch_size": 64}
    with pytest.raises(UserError, match="4 prompts, fewer than one batch"):
        rl.run(root, params, model="tiny-neox", variant="rl")
    assert (earlier / "README.md").read_text() == "earlier"


def test_contexts_end_with_the_hater_and_repeat_nothing():
    dialogues = [dialogue(0, ("a", "b", "c", "d", "e", "f")), dialogue(1, ("a", "x", "y", "z"))]
    assert hater_contexts(dialogues, 3) == [("a",), ("a", "b", "c"), ("c", "d", "e"), ("a", "x", "y")]
    assert hater_contexts(dialogues, 1) == [("a",), ("c",), ("e",), ("y",)]


def test_validation_prompts_are_those_of_the_named_split_and_never_the_tests():
    prompts = [prompt(0, "a"), prompt(1, "b", split="test")]
    assert [p.text for p in validation_prompts(prompts, "p50")] == ["a"]
    with pytest.raises(UserError, match=r"filter='p05': no validation prompt.*Did you mean 'p50'"):
        validation_prompts(prompts, "p05")


def test_long_prompts_are_left_out_and_counted(caplog):
    assert within([(1,), (1, 2, 3)], 2, what="dialogue prefixes") == [(1,)]
    assert "1 of 2 dialogue prefixes have more than 2 tokens" in caplog.text
    with pytest.raises(UserError, match="all 1 dialogue prefixes have more than 2 tokens"):
        within([(1, 2, 3)], 2, what="dialogue prefixes")


def test_a_placebo_goes_as_far_as_the_adapter_that_was_kept_and_says_what_it_is(root, params):
    params.raw["variants"]["placebo"] = {"kind": "rl", "algorithm": "ppo", "placebo_of": "rl"}
    placebo = Params(params.raw)
    with pytest.raises(UserError, match="no validation is recorded, so there is no KL for its placebo to reach"):
        rl.run(root, placebo, model="tiny-neox", variant="placebo")
    folder = Layout(root).adapter("tiny-neox", "rl")
    verdict = {"ppo/val_base_perplexity": 2.0, "ppo/val_empty_share": 0.0}
    rows = [
        {"step": step, "ppo/val_toxicity": toxicity, "ppo/val_kl_nats_per_sequence": kl, **verdict}
        for step, toxicity, kl in ((0, 0.5, 0.0), (1, 0.1, 1e-9), (2, 0.3, 2.0))
    ]
    write_history(folder, rows[:1])
    with pytest.raises(UserError, match="the adapter before the first step was kept"):
        rl.run(root, placebo, model="tiny-neox", variant="placebo")
    write_history(folder, rows)
    rl.run(root, placebo, model="tiny-neox", variant="placebo")
    made = Layout(root).adapter("tiny-neox", "placebo")
    assert [row["step"] for row in read_history(made)] == [0, 1]  # a step is further than 1e-9 nats
    card = (made / "README.md").read_text()
    assert "permuted within each batch: this is a placebo" in card and "nearest to that of `rl`" in card


def test_another_scorer_than_the_grader_may_choose_the_adapter(root, params, monkeypatch):
    made = []
    real = rl.make_scorer

    def make(name, **more):
        made.append(name)
        return real("profanity_check", **more)

    monkeypatch.setattr(rl, "make_scorer", make)
    rl.run(root, params, model="tiny-neox", variant="rl")
    params.raw["toxicity"]["selector"] = "hf:another/judge"
    shutil.rmtree(Layout(root).adapter("tiny-neox", "rl"))
    rl.run(root, Params(params.raw), model="tiny-neox", variant="rl")
    assert made == ["profanity_check", "profanity_check", "hf:another/judge"]
