"""Every kind of model through everything that is done with one: docs/architectures.md says how that goes.

Written anew by `python -m tests.test_architectures`.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from detoxlens.attribution import attribute
from detoxlens.common.errors import UserError
from detoxlens.models.capabilities import examine
from detoxlens.models.generation import sample
from detoxlens.models.likelihood import completion_nll
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.ppo import KlConfig, PpoConfig, ValidationConfig
from detoxlens.params.sft import SftConfig
from detoxlens.rl.likelihoods import measure
from detoxlens.rl.ppo import PPO
from detoxlens.rl.rollout import Response
from detoxlens.sft.train import IGNORED, fine_tune
from tests.architectures import NAMES, greedy_by_hand, log_probs_by_hand, random_model
from tests.attribution.tiny import VOCAB, loop, max_difference, word_tokenizer
from tests.root import ROOT

TABLE = ROOT / "docs/architectures.md"
PAD = VOCAB - 1
PROMPTS = [[21, 4, 37, 55, 8, 13, 60], [18, 2, 44], [7, 7, 9, 12, 30, 31, 32, 33, 34, 35, 36, 5], [90, 1, 2]]
COMPLETIONS = [[5, 6, 7], [9], [44, 3, 19, 51], [8, 8, 8, 8, 8]]
GREEDY = GenerationConfig(
    max_new_tokens=6,
    min_new_tokens=0,
    temperature=0,
    top_k=0,
    top_p=1,
    no_repeat_ngram_size=0,
    num_samples=1,
    batch_size=4,
)
SFT = SftConfig(
    loss_on="replies",
    examples="dialogues",
    num_epochs=1,
    learning_rate=1e-3,
    weight_decay=0.0,
    warmup_steps=0,
    batch_size=4,
    gradient_accumulation_steps=1,
    max_length=64,
    packing=False,
    group_by_length=False,
    gradient_checkpointing=False,
    eval_every=1,
)
PPO_CONFIG = PpoConfig(
    num_steps=1,
    rollout_batch_size=4,
    minibatch_size=4,
    micro_batch_size=4,
    num_epochs=1,
    learning_rate=1e-3,
    checkpoint_every=1,
    kl=KlConfig(coef=0.05, control="fixed"),
    validation=ValidationConfig(every=1, num_prompts=4, batch_size=4),
)
WITHOUT_ADAPTER = {"mamba": ("out_proj",), "falcon_mamba": ("out_proj",), "llama4_text": ("router",)}
"""Mamba's kernels read these weights past an adapter, and PEFT says so; Llama 4's routers give two tensors."""


def attributed(name: str) -> str:
    model = random_model(name, is_decoder=True)
    prompt, completion = (5, 9, 33, 2, 7, 61), (8, 14, 3, 77, 50)
    with warned("detoxlens.attribution.engine") as slower:
        (found,) = attribute(model, prompt_ids=[prompt], completion_ids=[completion])
    assert max_difference(found.scores, loop(model, prompt, completion)) < 1e-6
    return "slower" if slower else "right"


def sampled(name: str) -> str:
    """One completion ends earlier than the others, and its row leaves the batch."""
    model = random_model(name, is_decoder=True).float()
    able = examine(model, pad_token_id=PAD)
    eos = greedy_by_hand(model, PROMPTS[0], 6, -1)[2]
    found = sample(
        model,
        PROMPTS,
        config=GREEDY,
        seeds=[0] * 4,
        eos_token_id=eos,
        pad_token_id=PAD,
        batch_size=4,
        capabilities=able,
    )
    assert [list(s.token_ids) for s in found] == [greedy_by_hand(model, p, 6, eos) for p in PROMPTS]
    return "right" if able.cached and able.rows_leave and able.left_padded else "slower"


def scored(name: str) -> str:
    model = random_model(name, is_decoder=True).float()
    able = examine(model, pad_token_id=PAD)
    found = completion_nll(model, PROMPTS, COMPLETIONS, batch_size=4, pad_token_id=PAD, capabilities=able)
    by_hand = [-sum(log_probs_by_hand(model, p, c)) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert found == pytest.approx(by_hand, rel=1e-3)
    return "right" if able.keeps_logits or able.head_selects else "slower"


def fine_tuned(name: str) -> str:
    """The loss that was minimised is that of plain passes, before and after."""
    policy = adapted(name)
    examples = [
        {"input_ids": [*p, *c], "labels": [IGNORED] * len(p) + c} for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder, warned("detoxlens.sft.loss") as slower:
        history = fine_tune(
            policy,
            word_tokenizer(),
            train=examples,
            validation=examples,
            config=SFT,
            seed=0,
            checkpoints=Path(folder) / "checkpoints",
            on_step=lambda *_: None,
        )
    policy.eval()
    losses = [row["sft/val_loss"] for row in history if "sft/val_loss" in row]
    logs = [log for p, c in zip(PROMPTS, COMPLETIONS, strict=True) for log in log_probs_by_hand(policy, p, c)]
    assert losses[-1] == pytest.approx(-sum(logs) / len(logs), rel=1e-3)
    assert is_trained(policy)
    return "slower" if slower else "right"


def reinforced(name: str) -> str:
    """What PPO measures is that of plain passes, and a step changes the adapter."""
    policy = adapted(name)
    responses = [
        Response(prompt_ids=tuple(p), token_ids=tuple(c), finish_reason="length", text="")
        for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    decoding = GREEDY.model_copy(update={"temperature": 1.0})
    ppo = PPO(
        policy,
        word_tokenizer(),
        lambda texts: [len(t) / 9 for t in texts],
        config=PPO_CONFIG,
        decoding=decoding,
        seed=0,
    )
    measured = measure(policy, None, responses, decoding, eos_token_id=PAD, micro_batch_size=4)
    for row, (p, c) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        assert measured.logprobs[row, : len(c)].tolist() == pytest.approx(log_probs_by_hand(policy, p, c), abs=1e-3)
    ppo.train(PROMPTS)
    assert is_trained(policy)
    able = ppo.capabilities
    return "right" if able.cached and able.rows_leave and able.left_padded else "slower"


WAYS: dict[str, Callable[[str], str]] = {
    "attribute": attributed,
    "sample": sampled,
    "likelihood": scored,
    "finetune": fine_tuned,
    "rl": reinforced,
}


def adapted(name: str) -> PeftModel:
    """A model with a fresh adapter on every linear layer but the output layer."""
    model = random_model(name, is_decoder=True).float()
    head = model.get_output_embeddings()
    refused = WITHOUT_ADAPTER.get(name, ())
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head]
    targets = [n for n in linear if not n.endswith(refused)] or ["c_attn"]  # GPT-2's is none of torch's linear layers
    return get_peft_model(model, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"))


def relative_lengths(texts: list[str]) -> list[float]:
    """A reward."""
    return [len(text) / 9 for text in texts]


def is_trained(policy: PeftModel) -> bool:
    """Of a fresh adapter, lora_B is zero."""
    found = torch.cat([p.detach().flatten() for n, p in policy.named_parameters() if "lora_B" in n])
    return bool(found.isfinite().all() and found.any())


@contextmanager
def warned(logger: str) -> Iterator[list[logging.LogRecord]]:
    """The warnings of one logger."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logging.getLogger(logger).addHandler(handler)
    try:
        yield records
    finally:
        logging.getLogger(logger).removeHandler(handler)


def verdict(way: str, name: str) -> str:
    """`right`, `slower` or `refused`; what is wrong fails."""
    try:
        return WAYS[way](name)
    except UserError:
        return "refused"


def row_of(name: str) -> str:
    """One row of the table."""
    return f"| {name} | {' | '.join(verdict(way, name) for way in WAYS)} |"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of deprecated models
@pytest.mark.parametrize("name", NAMES)
def test_every_use_of_a_model_goes_as_the_table_says(name):
    assert row_of(name) in TABLE.read_text(encoding="utf-8").splitlines()


def test_the_table_has_every_model_once():
    _, _, table = TABLE.read_text(encoding="utf-8").partition("| architecture |")
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == NAMES


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.NOTSET)
    for name in sys.argv[1:] or NAMES:
        print(row_of(name), flush=True)
