"""A small study on disk: a random-weight model as `it`, an adapter of it as `ft`, a reward model, and prompts."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from detoxlens.common.artifacts import Layout, write_model_ref, write_rows
from detoxlens.common.records import ModelRef, Prompt, prompt_ids_of
from detoxlens.models.loading import load_model
from detoxlens.params.load import Params
from detoxlens.params.models import WeightsConfig
from tests.models.checkpoints import TEMPLATE, save_classifier, save_language_model

PROMPT_TEXTS = [
    "Zorgons are lazy.",
    "Accordion players are noisy and",
    "I like bread",
    "Zorgons",
    "Tell me about accordion music, please.",
    "Are the neighbours noisy today?",
    "Lazy bread",
]


def params_of(**changes) -> Params:
    """params.yaml of the small study; `generation={"top_k": 5}` changes keys of a section."""
    raw = {
        "run": {
            "models": ["m"],
            "variants": ["it", "ft"],
            "sft_variants": ["ft"],
            "rl_variants": [],
            "rl_after_ft_variants": [],
            "seed": 0,
            "num_threads": 1,
            "device": "cpu",
        },
        "variants": {"it": {"kind": "base"}, "ft": {"kind": "sft"}},
        "models": {"m": {"source": "models/m/base", "template": TEMPLATE}},
        "generation": {
            "max_new_tokens": 10,
            "min_new_tokens": 1,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 0.9,
            "no_repeat_ngram_size": 0,
            "num_samples": 2,
            "batch_size": 4,
        },
        "toxicity": {
            "scorers": ["profanity_check"],
            "headline": "profanity_check",
            "missing": "exclude",
        },
        "toxic_words": {"max_words": 200, "num_draws": 100, "seed": 0, "max_lag": 4, "min_toxic": 30},
    }
    for section, keys in changes.items():
        raw[section] |= keys
    return Params(raw)


def make_study(root: Path) -> Layout:
    """Everything that `generate` and `score` depend on."""
    layout = Layout(root)
    ref = save_language_model(layout.base("m"))
    it = ModelRef(base="models/m/base", revision=ref.revision, adapter=None)
    write_model_ref(layout.adapter("m", "it"), it)
    save_adapter(layout, it)
    save_classifier(layout.reward_model)
    write_model_ref(layout.reward_model, ModelRef(base="models/reward", revision="0" * 64, adapter=None))
    ids = prompt_ids_of(PROMPT_TEXTS)
    write_rows(
        layout.prompts,
        [
            Prompt(prompt_id=i, split="val" if n < 3 else "test", filters=("p50",), text=text, toxicity=0.7)
            for n, (i, text) in enumerate(zip(ids, PROMPT_TEXTS, strict=True))
        ],
        Prompt,
    )
    return layout


def save_adapter(layout: Layout, it: ModelRef) -> None:
    """A LoRA adapter with random weights as the variant `ft`."""
    torch.manual_seed(3)
    model = load_model(layout.root, it, WeightsConfig(), device="cpu")
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["query_key_value"], init_lora_weights=False))
    adapted.save_pretrained(layout.adapter("m", "ft"))
    write_model_ref(layout.adapter("m", "ft"), ModelRef(base=it.base, revision=it.revision, adapter="adapters/m/ft"))
