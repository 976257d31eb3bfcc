"""What both sides train: a GPT-NeoX with random weights, its prompts, a reward that can be learnt, one set of settings.

Written into a folder, so that each run is a fresh process that reads it: ours, or TRL's in its own environment.

A token is a word (`w17`), so text and token ids say the same: ours rewards the text, TRL the token ids. The reward is
the share of the response's words whose number is divisible by `reward_every`; by chance 1 / `reward_every`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from detoxlens.common.seeding import numpy_rng

EOS, PAD, BOT = 0, 1, 2
"""End of sequence, padding, and the last token of every prompt; the other tokens are words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run of either side; what a name says is said in `rl.config.PpoConfig`."""

    hidden: int = 256
    num_layers: int = 4
    num_heads: int = 4
    intermediate: int = 1024
    vocab: int = 2048
    num_prompts: int = 256
    shortest_prompt: int = 8
    longest_prompt: int = 24
    reward_every: int = 4
    num_steps: int = 20
    rollout_batch_size: int = 32
    minibatch_size: int = 8
    num_epochs: int = 4
    response_length: int = 32
    temperature: float = 1.0
    learning_rate: float = 1e-3
    kl_coef: float = 0.01
    """At .05 a larger share of the rewarded words is not worth its KL, and neither side has anything to learn."""
    gamma: float = 1.0
    lam: float = 0.95
    clip_range: float = 0.2
    value_clip_range: float = 0.2
    value_coef: float = 0.1
    lora_r: int = 16
    lora_alpha: float = 32
    lora_targets: tuple[str, ...] = ("query_key_value",)
    """The authors' for a GPT-NeoX."""


TOY = Settings(
    hidden=16,
    num_layers=1,
    num_heads=2,
    intermediate=32,
    vocab=32,
    num_prompts=8,
    shortest_prompt=2,
    longest_prompt=4,
    num_steps=1,
    rollout_batch_size=4,
    minibatch_size=4,
    num_epochs=1,
    response_length=4,
    lora_r=2,
)
"""Trained once before memory is measured: lazy imports and thread pools are not training's memory."""


def write_case(folder: Path, settings: Settings) -> None:
    """The case in `folder`: `model/` (weights and tokenizer) and `case.json` (settings and prompts)."""
    build_model(settings).save_pretrained(folder / "model")
    build_tokenizer(settings.vocab).save_pretrained(folder / "model")
    case = {"settings": dataclasses.asdict(settings), "prompts": prompts_of(settings)}
    (folder / "case.json").write_text(json.dumps(case), encoding="utf-8")


def read_case(folder: Path) -> tuple[Settings, list[list[int]]]:
    """Settings and prompts of a case."""
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    fields = case["settings"] | {"lora_targets": tuple(case["settings"]["lora_targets"])}
    return Settings(**fields), case["prompts"]


def prompts_of(settings: Settings) -> list[list[int]]:
    """Random words, the token BOT behind them."""
    rng = numpy_rng(0, "bench ppo prompts")
    lengths = rng.integers(settings.shortest_prompt, settings.longest_prompt + 1, settings.num_prompts)
    return [[*rng.integers(BOT + 1, settings.vocab, length - 1).tolist(), BOT] for length in lengths.tolist()]


def build_tokenizer(vocab: int):
    """One token per word; pads on the left, as TRL wants prompts."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<eos>": EOS, "<pad>": PAD, "<bot>": BOT} | {f"w{i}": i for i in range(BOT + 1, vocab)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<bot>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", padding_side="left"
    )


def build_model(settings: Settings):
    """Random weights, with a head wide enough (std .1) that some words are likelier than others, as in a trained model.

    The rewarded words have something in common, as words of one kind do in a trained model: a direction that their rows
    of the head share. Without it there is nothing to learn but single words.

    Padding is never sampled, as a trained model never does: TRL would take it for the end of the response. Its logit is
    -20 whatever the hidden state: the last layer norm is made to give 1 in the first place, where the head has -20.
    """
    import torch
    import transformers as hf

    torch.manual_seed(0)
    config = hf.GPTNeoXConfig(
        vocab_size=settings.vocab,
        hidden_size=settings.hidden,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        intermediate_size=settings.intermediate,
        bos_token_id=EOS,
        max_position_embeddings=settings.longest_prompt + settings.response_length,
        eos_token_id=EOS,
        pad_token_id=PAD,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        tie_word_embeddings=False,
    )
    model = hf.GPTNeoXForCausalLM(config)
    with torch.no_grad():
        norm, head = model.gpt_neox.final_layer_norm, model.get_output_embeddings()
        head.weight.normal_(0, 0.1)
        head.weight[:: settings.reward_every] += 0.05 * torch.randn(settings.hidden).sign()
        norm.weight[0], norm.bias[0] = 0.0, 1.0
        head.weight[PAD] = 0.0
        head.weight[PAD, 0] = -20.0
    return model


def reward_of_text(text: str, reward_every: int) -> float:
    """Share of the words `w<number>` whose number is divisible by `reward_every`; 0 without words.

    "w8 w9 w16 w3", every 8 -> .5
    """
    numbers = [int(word[1:]) for word in text.split() if word.startswith("w")]
    return sum(n % reward_every == 0 for n in numbers) / len(numbers) if numbers else 0.0
