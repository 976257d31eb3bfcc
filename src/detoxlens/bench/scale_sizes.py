"""The shapes that `detoxlens bench scale` runs, what is cut down around them, and whether they fit. No torch."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from detoxlens.common.errors import UserError
from detoxlens.common.machine import free_memory_gib
from detoxlens.models.footprint import GIB, Shape, num_lora_parameters, weights_of
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import Params
from detoxlens.params.lora import LoraConfig
from detoxlens.params.ppo import PpoConfig
from detoxlens.params.sft import SftConfig

SELECTION = "selection"
"""Split of the validation prompts."""
PROCESS_GIB = 1.0
"""Of a process that has loaded torch, transformers and peft."""
Config = Mapping[str, Any]
"""A model's config.json."""


def neox(hidden: int, num_layers: int, *, vocab: int = 50_432, heads: int = 32) -> Config:
    """RedPajama-INCITE-3B but for width and depth: no parallel residual, all of a head rotated."""
    return {
        "model_type": "gpt_neox",
        "hidden_size": hidden,
        "num_hidden_layers": num_layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "vocab_size": vocab,
        "max_position_embeddings": 2048,
        "rotary_pct": 1.0,
        "use_parallel_residual": False,
        "tie_word_embeddings": False,
    }


def falcon(hidden: int, num_layers: int, *, vocab: int = 65_024, heads: int = 71) -> Config:
    """Falcon-7B but for width and depth: one key and value for all heads, attention beside the MLP, rotary, no bias."""
    return {
        "model_type": "falcon",
        "hidden_size": hidden,
        "num_hidden_layers": num_layers,
        "num_attention_heads": heads,
        "vocab_size": vocab,
        "multi_query": True,
        "parallel_attn": True,
        "new_decoder_architecture": False,
        "alibi": False,
        "bias": False,
        "tie_word_embeddings": True,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What is run, and how much of it."""

    configs: Mapping[str, Config]
    """Model in params.yaml -> its shape."""
    device: str
    num_prompts: int
    """Evaluation prompts, if not said otherwise; an eighth of them for validation."""
    num_ppo_steps: int
    sft_epochs: float
    max_batch: int | None = None
    """Most responses of a rollout and examples of a step; None: as many as the authors had."""
    num_attributed: int | None = None
    """Texts attributed, and those neither tested nor checked against float32: on a CPU shuffling the weights alone
    takes minutes. None: as many as params say."""


SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "full": Size(
            configs={"redpajama-3b": neox(2560, 32), "falcon-7b": falcon(4544, 32)},
            device="cuda",
            num_prompts=64,
            num_ppo_steps=2,
            sft_epochs=0.1,
        ),
        "tenth": Size(  # 280 M and 717 M parameters; heads and vocabulary as they are
            configs={"redpajama-3b": neox(1024, 14), "falcon-7b": falcon(2272, 11)},
            device="cpu",
            num_prompts=4,
            num_ppo_steps=1,
            sft_epochs=1e-3,
            max_batch=4,
            num_attributed=1,
        ),
    }
)


def cut_down(params: Params, root: Path, size: Size, *, num_prompts: int) -> Params:
    """The params with few prompts and few training steps; template, LoRA, loss and decoding as they are."""
    raw: dict[str, Any] = copy.deepcopy(params.raw)
    raw["run"] |= {
        "models": list(size.configs),
        "variants": ["it", "ft", "rl"],
        "sft_variants": ["ft"],
        "rl_variants": ["rl"],
        "rl_after_ft_variants": [],
        "device": size.device,
    }
    raw["variants"] = {"it": {"kind": "base"}, "ft": {"kind": "sft"}, "rl": {"kind": "rl", "algorithm": "ppo"}}
    for key in ("dialoconan", "rtp"):
        if (root / raw["data"][key]).is_file():
            raw["data"][key] = str((root / raw["data"][key]).resolve())
    num_val = max(1, num_prompts // 8)
    split = raw["report"]["primary_split"]
    raw["splits"] = {  # validation prompts apart, so that they are not attributed
        split: raw["splits"][split] | {"max_val": 0, "max_test": num_prompts - num_val},
        SELECTION: raw["splits"][split] | {"max_val": num_val, "max_test": 0},
    }
    raw["attribution"]["filters"] = [split]
    raw["ppo"]["num_steps"] = size.num_ppo_steps
    raw["ppo"]["validation"] |= {"every": size.num_ppo_steps, "num_prompts": num_val, "filter": SELECTION}
    raw["toxicity"] |= {"scorers": ["profanity_check"], "headline": "profanity_check", "calibration": None}
    if size.num_attributed is not None:
        raw["attribution"] |= {"max_sequences": size.num_attributed, "precision_check": 0}
        raw["attribution"]["faithfulness"] |= {"num_sequences": 0}
        raw["data"]["dialogue_val_fraction"] = 0.005  # one dialogue
    for model in size.configs:
        entry = raw["models"][model]
        entry |= {"source": f"checkpoints/{model}", "revision": None, "quantization": None, "device_map": None}
        sft, ppo = entry["overrides"]["sft"], entry["overrides"]["ppo"]
        sft |= {"num_epochs": size.sft_epochs, "eval_every": 100, "warmup_steps": 0}
        if size.max_batch is not None:
            sft |= {"batch_size": min(sft["batch_size"], size.max_batch), "gradient_accumulation_steps": 1}
            ppo |= {"rollout_batch_size": size.max_batch}
            ppo |= {key: min(ppo[key], size.max_batch) for key in ("minibatch_size", "micro_batch_size")}
    return Params(raw, params.path)


def check_fits(size: Size, params: Params, folder: Path) -> None:
    """Raises UserError where a stage needs more memory, or the checkpoints more disk, than is free."""
    free_gib, owner = _free_memory_gib(size.device)
    needs = {
        (model, stage): num_bytes / GIB + (PROCESS_GIB if size.device == "cpu" else 0)
        for model, config in size.configs.items()
        for stage, num_bytes in peak_bytes(config, params, model).items()
    }
    (model, stage), most = max(needs.items(), key=lambda need: need[1])
    if free_gib is not None and most > free_gib:
        raise UserError(
            f"bench scale: {stage} of {model} needs about {most:.1f} GiB of memory, and {free_gib:.1f} GiB of {owner} "
            "are free. End other programs, take a larger machine, or see with `detoxlens plan` what would fit."
        )
    weights = sum(weights_of(c).num_bytes(params.model(m).dtype) for m, c in size.configs.items()) / GIB
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    free_disk = shutil.disk_usage(there).free / GIB
    if 1.2 * weights + 0.5 > free_disk:
        raise UserError(
            f"bench scale: the checkpoints take {weights:.1f} GiB of disk, and {free_disk:.1f} GiB are free in {there}."
            " Make room (`dvc gc -w` drops cached data that no params use)."
        )


def peak_bytes(config: Config, params: Params, model: str) -> dict[str, float]:
    """Stage -> memory, with prompts as long as they may be."""

    def shape(variant: str) -> Shape:
        lora = params.section("lora", LoraConfig, model=model, variant=variant)
        adapter = num_lora_parameters(config, r=lora.r, target_modules=lora.target_modules)
        return Shape(
            weights=weights_of(config),
            num_adapter_parameters=adapter,
            hidden=config["hidden_size"],
            num_layers=config["num_hidden_layers"],
            vocab=config["vocab_size"],
            dtype=params.model(model).dtype,
        )

    sft = params.section("sft", SftConfig, model=model, variant="ft")
    ppo = params.section("ppo", PpoConfig, model=model, variant="rl")
    decoding = params.section("generation", GenerationConfig, model=model)
    text = ppo.max_prompt_tokens + decoding.max_new_tokens
    num_rows = sum(split["max_val"] + split["max_test"] for split in params.raw["splits"].values())
    batch = min(num_rows, 64 if decoding.batch_size == "auto" else decoding.batch_size)
    return {
        "finetune": shape("ft").training_bytes(
            num_tokens=sft.batch_size * sft.max_length, recomputed=sft.gradient_checkpointing
        ),
        "rl": shape("rl").training_bytes(num_tokens=ppo.micro_batch_size * text, recomputed=ppo.gradient_checkpointing),
        "generate": shape("it").sampling_bytes(batch=batch, num_tokens=text),
        "attribute": shape("it").attribution_bytes(num_tokens=text) + shape("it").weight_bytes,  # and a shuffled copy
    }


def _free_memory_gib(device: str) -> tuple[float | None, str]:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info()[0] / GIB, "the GPU"
    return free_memory_gib(), "this machine"
