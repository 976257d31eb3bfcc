"""Adapter folders: deterministic, portable, and loadable by plain PEFT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from ruamel.yaml import YAML
from safetensors.torch import load_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from detoxlens.common.artifacts import read_history, read_model_ref
from detoxlens.common.records import ModelRef
from detoxlens.models.adapters import front_matter, save_adapter_folder

REF = ModelRef(base="models/tiny/base", revision="abc123", adapter=None)


def base_model() -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    size = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**size, intermediate_size=32)).eval()


def adapted(targets=("query_key_value", "dense", "lm_head")) -> PeftModel:
    model = get_peft_model(base_model(), LoraConfig(r=2, target_modules=list(targets), task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data.normal_(generator=generator)
    return model.eval()


def save(model: PeftModel, root: Path, name: str = "rl") -> Path:
    folder = root / "adapters/tiny" / name
    save_adapter_folder(model, folder, root=root, base_ref=REF, history=[{"step": 1, "ppo/reward": 0.5}], card="# rl\n")
    return folder


def test_plain_peft_loads_the_folder_and_gives_the_same_logits(tmp_path):
    model = adapted()
    loaded = PeftModel.from_pretrained(base_model(), str(save(model, tmp_path))).eval()
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        assert loaded(ids).logits.equal(model(ids).logits)
        assert not loaded.get_base_model()(ids).logits.equal(base_model()(ids).logits)


def test_the_same_weights_give_the_same_bytes_whatever_the_order_of_the_targets(tmp_path):
    one = save(adapted(("query_key_value", "dense", "lm_head")), tmp_path / "a")
    two = save(adapted(("lm_head", "dense", "query_key_value")), tmp_path / "b")
    names = sorted(p.name for p in one.iterdir())
    assert names == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "history.jsonl",
        "model_ref.json",
    ]
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_config_names_base_and_revision_and_holds_no_base_weights(tmp_path):
    folder = save(adapted(), tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["target_modules"] == ["dense", "lm_head", "query_key_value"]
    assert (config["base_model_name_or_path"], config["revision"]) == ("models/tiny/base", "abc123")
    assert all("lora_" in key for key in load_file(folder / "adapter_model.safetensors"))


def test_reference_history_and_card_lie_beside_the_weights(tmp_path):
    folder = save(adapted(), tmp_path)
    assert read_model_ref(folder) == ModelRef(base="models/tiny/base", revision="abc123", adapter="adapters/tiny/rl")
    assert read_history(folder) == [{"step": 1, "ppo/reward": 0.5}]
    metadata, _, card = (folder / "README.md").read_text().removeprefix("---\n").partition("---\n")
    assert card == "\n# rl\n"
    assert YAML(typ="safe").load(metadata) == {  # a base of this machine's own is named in model_ref.json alone
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "detoxification"],
    }


def test_a_card_names_a_base_model_that_is_on_a_hub():
    ref = ModelRef(base="owner/name", revision="0f3a" * 10, adapter=None)
    metadata = YAML(typ="safe").load(front_matter(ref, "LORA").replace("---\n", ""))
    assert metadata["base_model"] == "owner/name" and metadata["base_model_relation"] == "adapter"


def test_a_folder_written_in_scratch_names_where_it_is_published(tmp_path):
    built, final = tmp_path / ".detoxlens/scratch/x/adapter", tmp_path / "adapters/tiny/rl"
    arguments = {"root": tmp_path, "base_ref": REF, "history": [], "card": ""}
    save_adapter_folder(adapted(), built, final_folder=final, **arguments)
    assert read_model_ref(built).adapter == "adapters/tiny/rl"
    with pytest.raises(AssertionError, match="is scratch"):
        save_adapter_folder(adapted(), built, **arguments)
