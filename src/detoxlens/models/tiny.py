"""The embedded models: small GPT-NeoX, Falcon and RoBERTa with a byte-level BPE of their own, trained on the spot.

They are real models of the paper's architectures (arXiv 2204.06745, 2311.16867, 1907.11692), about 1 M parameters each;
whatever loads or trains a 3 B checkpoint does the same to these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from detoxlens.common.errors import UserError
from detoxlens.common.seeding import numpy_rng
from detoxlens.jobs.save_timer import SaveTimer
from detoxlens.params.tiny import TinyConfig

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

EOS, PAD, CLS, SEP, UNK = "<|endoftext|>", "<|pad|>", "<|cls|>", "<|sep|>", "<|unk|>"
Architecture = Literal["gpt_neox", "falcon", "roberta"]
History = list[dict[str, float]]


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer learnt from `texts`; adds no special tokens by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[EOS, PAD, CLS, SEP, UNK],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=EOS, bos_token=EOS, pad_token=PAD, cls_token=CLS, sep_token=SEP, unk_token=UNK
    )


def build(architecture: Architecture, config: TinyConfig, *, vocab_size: int) -> PreTrainedModel:
    """A randomly initialised model (global torch seed) of one of the paper's architectures.

    `roberta` is a sequence classifier with the labels nothate / hate, as facebook/roberta-hate-speech-dynabench has.
    """
    import transformers as hf

    common = {"vocab_size": vocab_size, "hidden_size": config.hidden_size, "num_hidden_layers": config.num_layers}
    common |= {"num_attention_heads": config.num_heads, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    common["tie_word_embeddings"] = False  # so that an adapter on lm_head leaves the embeddings alone
    if architecture == "gpt_neox":
        return hf.GPTNeoXForCausalLM(
            hf.GPTNeoXConfig(
                **common,
                intermediate_size=4 * config.hidden_size,
                max_position_embeddings=config.context_length,
                attention_dropout=0.0,
                hidden_dropout=0.0,
            )
        )
    if architecture == "falcon":
        return hf.FalconForCausalLM(
            hf.FalconConfig(
                **common,
                ffn_hidden_size=4 * config.hidden_size,
                max_position_embeddings=config.context_length,
                multi_query=True,
                parallel_attn=True,
                new_decoder_architecture=False,
                bias=False,
                alibi=False,
            )
        )
    return hf.RobertaForSequenceClassification(
        hf.RobertaConfig(
            **common,
            intermediate_size=4 * config.hidden_size,
            max_position_embeddings=config.context_length + 2,
            type_vocab_size=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=2,
            id2label={0: "nothate", 1: "hate"},
            label2id={"nothate": 0, "hate": 1},
            problem_type="single_label_classification",
        )
    )


def batches(lengths: Sequence[int], batch_size: int, num_steps: int, seed: int) -> Iterator[list[int]]:
    """`num_steps` batches of indices of similar length: shuffled, sorted within windows of 16 batches, shuffled."""
    rng = numpy_rng(seed, "batches")
    step = 0
    while True:
        order = rng.permutation(len(lengths)).tolist()
        window = 16 * batch_size
        chunks = []
        for start in range(0, len(order) - batch_size + 1, window):
            near = sorted(order[start : start + window], key=lambda i: lengths[i])
            chunks += [near[i : i + batch_size] for i in range(0, len(near) - batch_size + 1, batch_size)]
        for index in rng.permutation(len(chunks)):
            if step == num_steps:
                return
            yield chunks[index]
            step += 1


def cosine_lr(step: int, num_steps: int, peak: float, *, warmup: float = 0.05) -> float:
    """Learning rate at `step`: linear warm-up over the share `warmup`, then a cosine down to a tenth of `peak`."""
    num_warmup = max(1, round(warmup * num_steps))
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    done = (step - num_warmup) / max(1, num_steps - num_warmup)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def fit(
    model: PreTrainedModel,
    plan: Sequence[list[int]],
    loss_of: Callable[[list[int]], Tensor],
    *,
    learning_rate: float,
    weight_decay: float,
    checkpoint: Path,
    checkpoint_every: int = 100,
    on_step: Callable[[int], None],
) -> History:
    """Trains `model` in place with AdamW and a cosine schedule; continues exactly where a killed run left `checkpoint`.

    Args:
        model: all its weights are trained.
        plan: one batch of example indices per step (`batches`).
        loss_of: indices -> scalar loss, nats per token.
        learning_rate: of the schedule's peak.
        weight_decay: of AdamW.
        checkpoint: file in the scratch folder.
        checkpoint_every: steps between checkpoints, which are also written by time (`jobs/save_timer.py`).
        on_step: called with the number of steps newly done (first with those of the checkpoint).

    Returns:
        One row `{step, base/loss}` every ten steps.

    Raises:
        UserError: the loss is not finite.
    """
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay)
    start, history = 0, []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start, history = state["step"], state["history"]
        torch.set_rng_state(state["rng"])  # of dropout
    on_step(start)
    timer = SaveTimer()
    model.train()
    for step in range(start, len(plan)):
        for group in optimizer.param_groups:
            group["lr"] = cosine_lr(step, len(plan), learning_rate)
        loss = loss_of(plan[step])
        if not torch.isfinite(loss):
            raise UserError(f"tiny: the loss is {loss.item()} at step {step}; lower learning_rate={learning_rate}.")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 10 == 0 or step == len(plan) - 1:
            history.append({"step": step, "base/loss": loss.item()})
        if (step + 1) % checkpoint_every == 0 or timer.is_due():
            state = {"step": step + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            partial = checkpoint.with_suffix(".partial")
            torch.save(state | {"history": history, "rng": torch.get_rng_state()}, partial)
            partial.replace(checkpoint)
            timer.restart()
        on_step(1)
    model.eval()
    return history


def wrap_as_roberta(tokenizer: PreTrainedTokenizerFast) -> None:
    """Makes the tokenizer write `<cls> text <sep>` by itself."""
    from tokenizers.processors import TemplateProcessing

    cls, sep = tokenizer.cls_token, tokenizer.sep_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{cls} $A {sep}", special_tokens=[(cls, tokenizer.cls_token_id), (sep, tokenizer.sep_token_id)]
    )


def causal_lm_loss(
    model: PreTrainedModel, ids: Sequence[list[int]], weights: Sequence[list[float]], *, pad_token_id: int
) -> Tensor:
    """Weighted mean next-token cross-entropy, nats per unit of weight, over right-padded sequences.

    Args:
        model: a causal language model.
        ids: token ids, one list a sequence.
        weights: weight of each token as a target; the first token's is not used.
        pad_token_id: any id; padding has weight zero and is not attended to.
    """
    import torch

    length = max(map(len, ids))
    tokens = torch.full((len(ids), length), pad_token_id)  # (batch, seq)
    weight = torch.zeros(len(ids), length)
    attended = torch.zeros(len(ids), length, dtype=torch.long)
    for row, (sequence, wanted) in enumerate(zip(ids, weights, strict=True)):
        tokens[row, : len(sequence)] = torch.tensor(sequence)
        weight[row, : len(sequence)] = torch.tensor(wanted)
        attended[row, : len(sequence)] = 1
    logits = model(input_ids=tokens, attention_mask=attended, use_cache=False).logits[:, :-1]
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    return (nll * weight[:, 1:]).sum() / weight[:, 1:].sum()


def classifier_loss(
    model: PreTrainedModel, ids: Sequence[list[int]], labels: Sequence[int], *, pad_token_id: int
) -> Tensor:
    """Mean cross-entropy of a sequence classifier, nats per text, over right-padded sequences."""
    import torch

    length = max(map(len, ids))
    tokens = torch.full((len(ids), length), pad_token_id)  # (batch, seq)
    for row, sequence in enumerate(ids):
        tokens[row, : len(sequence)] = torch.tensor(sequence)
    return model(input_ids=tokens, attention_mask=(tokens != pad_token_id).long(), labels=torch.tensor(labels)).loss
