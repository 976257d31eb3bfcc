"""Fine-tuning under a penalty on how the model uses its prompt (`detoxlens.regularization`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from detoxlens.attribution.pieces import pieces_of
from detoxlens.common.errors import UserError
from detoxlens.data.templates import Template, encode_whole
from detoxlens.evaluation.toxic_words import Judge
from detoxlens.regularization.columns import MarkedSequence, exchanges
from detoxlens.regularization.regularizer import Regularizer
from detoxlens.regularization.toxic_tokens import toxic_tokens

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase
    from trl import SFTTrainer

MARKS = ("exchange", "is_toxic")
"""Lists of an example beside `input_ids` and `labels`: those of `MarkedSequence`."""
Marker = Callable[[Sequence[str]], dict[str, list[int]]]
"""A chat -> its `MARKS`, uncut."""


def marker(tokenizer: PreTrainedTokenizerBase, template: Template, judge: Judge | None) -> Marker:
    """What marks the tokens of a chat that a penalty looks at; without a judge no word is toxic."""

    def mark(chat: Sequence[str]) -> dict[str, list[int]]:
        encoded = encode_whole(tokenizer, template, chat)
        exchange = exchanges(encoded.is_user, encoded.is_reply)
        is_toxic = [False] * len(exchange)
        if judge is not None:
            turns = dict(enumerate(chat[::2], start=1))
            is_toxic = toxic_tokens(turns, exchange, pieces_of(tokenizer, tuple(encoded.ids)), judge)
        return {"exchange": exchange, "is_toxic": [int(t) for t in is_toxic]}

    return mark


def check_examples(regularizer: Regularizer, examples: Sequence[dict[str, list[int]]]) -> None:
    """Raises UserError if no example has anything that the penalty could look at, or they are the base model's own."""
    if "exchange" not in examples[0]:
        raise UserError(
            f"sft.regularizer.kind={regularizer.config.kind!r} looks at human turns and the written replies to them, "
            "and these examples are answers of the base model (a variant with placebo_of, or another sft.data). Add "
            "overrides: {sft: {regularizer: {kind: none, weight: 0}}} to the variant; the placebo of a regularizer is "
            "columns: shuffled."
        )
    if not any(len(regularizer.rows(_marked(example, example["input_ids"]))) for example in examples):
        config = regularizer.config
        missing = (
            f"a human turn with words that are toxic to {config.scorer!r} and others"
            if config.kind == "toxic_share"
            else "a human turn of two tokens or more"
        )
        raise UserError(
            f"sft.regularizer.kind={config.kind!r}: none of the {len(examples)} training examples has {missing} before "
            "a reply, so there is nothing to penalise. Set kind: none, or check data.dialoconan."
        )


def regularized(trainer: type[SFTTrainer], regularizer: Regularizer) -> type[SFTTrainer]:
    """`trainer` with the penalty added to its loss in training; the validation loss stays the method's own."""
    import torch

    class Regularized(trainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.data_collator = _with_marks(self.data_collator)

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            marks = [inputs.pop(name, None) for name in MARKS]
            kept = inputs["attention_mask"].bool()
            ids = inputs["input_ids"]
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            if marks[0] is None or not model.training:
                return loss
            sequences = [_unpadded(*row) for row in zip(ids, kept, *marks, strict=True)]
            step = self.state.global_step
            drawn = [(s, rows) for i, s in enumerate(sequences) if len(rows := regularizer.rows(s, step, i))]
            if not drawn:
                return loss
            drawn = [drawn[i] for i in regularizer.drawn(len(drawn), step)]
            with torch.autocast(ids.device.type, enabled=False):  # it is differentiated twice
                quantity = regularizer.values(self.accelerator.unwrap_model(model), *zip(*drawn, strict=True)).mean()
            self._metrics["train"][regularizer.config.kind].append(quantity.item())
            if not regularizer.is_felt:
                return loss
            # With the number of tokens of all accumulated batches given, Trainer leaves the division to the loss.
            steps = 1 if num_items_in_batch is None else self.current_gradient_accumulation_steps
            penalty = regularizer.config.weight * quantity / steps
            return (loss[0] + penalty, loss[1]) if return_outputs else loss + penalty

    return Regularized


def _with_marks(collate: Callable[[list[dict[str, Any]]], dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    """A collator that pads the marks too, with 0 on the right."""
    import torch

    def collated(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        plain = [{k: v for k, v in example.items() if k not in MARKS} for example in examples]
        batch = collate(plain)
        width = batch["input_ids"].shape[1]
        for name in MARKS:
            if name in examples[0]:
                batch[name] = torch.tensor([[*e[name], *[0] * (width - len(e[name]))] for e in examples])
        return batch

    return collated


def _marked(example: dict[str, list[int]], ids: Sequence[int]) -> MarkedSequence:
    return MarkedSequence(ids=ids, exchange=example["exchange"], is_toxic=[bool(t) for t in example["is_toxic"]])


def _unpadded(ids: Tensor, kept: Tensor, exchange: Tensor, is_toxic: Tensor) -> MarkedSequence:
    return MarkedSequence(
        ids=ids[kept].tolist(), exchange=exchange[kept].tolist(), is_toxic=is_toxic[kept].bool().tolist()
    )
