"""The classifier that `distil` trains: a small RoBERTa (Liu et al. 2019, arXiv 1907.11692) with its own tokenizer.

Targets are the recorded scores themselves, 0..1, not their side of .5: -s log p - (1 - s) log(1 - p), per attribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.jobs.progress import progress
from detoxlens.models import tiny

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast, RobertaForSequenceClassification

Scores = tuple[float | None, ...]
"""0..1 per attribute; None where it was not recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """Size and training of the classifier: about 640,000 weights, three minutes on one core for 26,000 texts."""

    vocab_size: int = 8192
    hidden_size: int = 64
    num_layers: int = 2
    num_heads: int = 4
    context_length: int = 128
    """Tokens; what is longer is cut, which the scorer reports as truncated."""
    dropout: float = 0.1
    batch_size: int = 64
    num_epochs: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 0.01


def train_student(
    texts: Sequence[str],
    scores: Sequence[Scores],
    attributes: Sequence[str],
    student: Student,
    *,
    seed: int,
    folder: Path,
    checkpoint: Path,
) -> None:
    """Learns the tokenizer, then the classifier, and saves both; continues where a killed run left `checkpoint`.

    Args:
        texts: what was scored.
        scores: one row per text.
        attributes: names of the outputs.
        student: size and training.
        seed: of the order; weights and dropout draw from torch's global generator.
        folder: where to save.
        checkpoint: file in the scratch folder.
    """
    tokenizer = tiny.train_tokenizer(texts, student.vocab_size)
    tiny.wrap_as_roberta(tokenizer)
    tokenizer.model_max_length = student.context_length
    ids = tokenizer(list(texts), truncation=True)["input_ids"]
    network = build(student, attributes, tokenizer)
    num_steps = student.num_epochs * max(1, len(texts) // student.batch_size)
    plan = list(tiny.batches([len(i) for i in ids], student.batch_size, num_steps, seed))
    with progress(f"distil {folder.name}", total=len(plan), unit="steps") as bar:
        tiny.fit(
            network,
            plan,
            lambda batch: loss(network, [ids[i] for i in batch], [scores[i] for i in batch]),
            learning_rate=student.learning_rate,
            weight_decay=student.weight_decay,
            checkpoint=checkpoint,
            on_step=bar.advance,
        )
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build(
    student: Student, attributes: Sequence[str], tokenizer: PreTrainedTokenizerFast
) -> RobertaForSequenceClassification:
    """A randomly initialised classifier of the student's size, an independent output per attribute."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    return RobertaForSequenceClassification(
        RobertaConfig(
            vocab_size=len(tokenizer),
            hidden_size=student.hidden_size,
            num_hidden_layers=student.num_layers,
            num_attention_heads=student.num_heads,
            intermediate_size=4 * student.hidden_size,
            max_position_embeddings=student.context_length + tokenizer.pad_token_id + 1,
            type_vocab_size=1,
            hidden_dropout_prob=student.dropout,
            attention_probs_dropout_prob=0.0,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
            id2label=dict(enumerate(attributes)),
            label2id={name: i for i, name in enumerate(attributes)},
            problem_type="multi_label_classification",
        )
    )


def loss(network: RobertaForSequenceClassification, ids: Sequence[list[int]], scores: Sequence[Scores]) -> Tensor:
    """Mean cross-entropy of the recorded scores, nats per score; scores that were not recorded count nothing."""
    import torch

    pad = network.config.pad_token_id
    tokens = torch.full((len(ids), max(map(len, ids))), pad)  # (batch, seq)
    for row, sequence in enumerate(ids):
        tokens[row, : len(sequence)] = torch.tensor(sequence)
    wanted = torch.tensor([[float("nan") if s is None else s for s in row] for row in scores])  # (batch, attributes)
    known = ~wanted.isnan()
    logits = network(input_ids=tokens, attention_mask=(tokens != pad).long()).logits
    return torch.nn.functional.binary_cross_entropy_with_logits(logits[known], wanted[known])
