"""Any instruct checkpoint in a folder, with nothing but its source: chat templates of five kinds through the stages."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers as hf
from ruamel.yaml import YAML

from detoxlens.common.artifacts import Layout, read_rows, write_model_ref, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Attribution, Completion, Dialogue, ModelRef, Prompt, prompt_ids_of
from detoxlens.params.load import Params
from detoxlens.pipeline.stages import attribute, base, finetune, generate, rl, score
from tests.data.tokenizers import CHAT_TEMPLATES, byte_bpe
from tests.models.checkpoints import save_classifier
from tests.root import ROOT

TEXTS = [f"Ferries are {word} and late" for word in ("slow", "calm", "loud", "they", "rain", "Zorgons", "human", "bot")]


def llama(vocab_size, eos):
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=160,
        initializer_range=0.2,
        bos_token_id=eos,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    return hf.LlamaForCausalLM(config)


def study(root, kind, **template):
    """Params, data and a checkpoint with a chat template; the model's declaration is its source, and `template`."""
    tokenizer = byte_bpe()
    tokenizer.chat_template = CHAT_TEMPLATES.get(kind)
    llama(len(tokenizer), tokenizer.eos_token_id).save_pretrained(root / "checkpoint")
    tokenizer.save_pretrained(root / "checkpoint")
    raw = copy.deepcopy(YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    raw["run"] |= {
        "models": ["m"],
        "variants": ["it", "ft", "rl"],
        "sft_variants": ["ft"],
        "rl_variants": ["rl"],
        "num_threads": 1,
    }
    raw["models"] = {"m": {"source": "checkpoint"} | template}
    raw["lora"] |= {"r": 2, "target_modules": ["q_proj", "v_proj"]}
    raw["sft"] |= {"num_epochs": 1, "batch_size": 2, "eval_every": 1, "max_length": 120}
    raw["ppo"] |= {"num_steps": 1, "rollout_batch_size": 4, "minibatch_size": 4, "micro_batch_size": 4}
    raw["ppo"]["validation"] |= {"num_prompts": 2, "every": 1}
    raw["generation"] |= {"max_new_tokens": 6}
    raw["attribution"] |= {"max_sequences": 2, "precision_check": 0, "samples_per_prompt": 1}
    layout = Layout(root)
    ids = prompt_ids_of(TEXTS)
    prompts = [
        Prompt(prompt_id=i, split="val" if n < 3 else "test", filters=("p50",), text=text, toxicity=0.7)
        for n, (i, text) in enumerate(zip(ids, TEXTS, strict=True))
    ]
    write_rows(layout.prompts, prompts, Prompt)
    dialogues = [
        Dialogue(
            dialogue_id=str(n), target="F", source="t", split=split, turns=(text, "They are calm", "late", "So is rain")
        )
        for n, (text, split) in enumerate(zip(TEXTS, ["train"] * 6 + ["val", "test"], strict=True))
    ]
    write_rows(layout.dialogues, dialogues, Dialogue)
    save_classifier(layout.reward_model)
    write_model_ref(layout.reward_model, ModelRef(base="models/reward", revision="0" * 64, adapter=None))
    return layout, Params(raw)


@pytest.mark.parametrize("kind", CHAT_TEMPLATES)
def test_a_model_with_nothing_but_its_source_goes_through_every_stage(tmp_path, kind):
    layout, params = study(tmp_path, kind)
    base.run(tmp_path, params, model="m")
    finetune.run(tmp_path, params, model="m", variant="ft")
    rl.run(tmp_path, params, model="m", variant="rl")
    for variant in ("it", "ft"):
        generate.run(tmp_path, params, model="m", variant=variant)
        score.run(tmp_path, params, model="m", variant=variant)
        attribute.run(tmp_path, params, model="m", variant=variant)
    tokenizer = byte_bpe()
    tokenizer.chat_template = CHAT_TEMPLATES[kind]
    for row in read_rows(layout.completions("m", "it"), Completion):
        messages = [{"role": "user", "content": row.prompt}]
        assert list(row.prompt_ids) == tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert not all(row.prompt_token_is_template) and any(row.prompt_token_is_template)
        assert tokenizer.convert_tokens_to_ids("<|over|>") not in row.completion_ids or kind in (
            "begin token in the template",
            "no end token",
        )
    assert read_rows(layout.attributions("m", "ft"), Attribution)


def test_a_system_message_is_given_or_refused_by_the_models_own_key(tmp_path):
    layout, params = study(tmp_path / "allowed", "system allowed", template={"system": "Be calm."})
    base.run(layout.root, params, model="m")
    generate.run(layout.root, params, model="m", variant="it")
    tokenizer = byte_bpe()
    row = read_rows(layout.completions("m", "it"), Completion)[0]
    assert tokenizer.decode(row.prompt_ids).startswith("<|turn|>system\nBe calm.<|over|>\n<|turn|>user\nFerries")
    layout, params = study(tmp_path / "refused", "system refused", template={"system": "Be calm."})
    with pytest.raises(UserError, match=r"models\.m\.template\.system is set.*System role not supported"):
        base.run(layout.root, params, model="m")
    layout, params = study(tmp_path / "none", None)
    with pytest.raises(UserError, match=r"models\.m\.template: chat is asked for .* no chat template"):
        base.run(layout.root, params, model="m")
