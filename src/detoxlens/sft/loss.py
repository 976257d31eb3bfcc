"""The loss that fine-tuning learns from: TRL's, where it is that of the model's own logits; else the latter."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from detoxlens.common.errors import UserError
from detoxlens.models.capabilities import Capabilities
from detoxlens.models.forward import logits_at
from detoxlens.models.fused_head import check_head_is_free, fused_loss_is_right

if TYPE_CHECKING:
    from peft import PeftModel
    from trl import SFTTrainer

IGNORED = -100
log = logging.getLogger(__name__)


def trainer_class(model: PeftModel, able: Capabilities, *, packing: bool) -> type[SFTTrainer]:
    """TRL's trainer, or one that takes the loss from the model's own logits (slower, more memory).

    Args:
        model: with the adapter that is to be trained.
        able: what `examine` found of it.
        packing: several examples share a row, which only TRL's own loss knows.

    Raises:
        UserError: an adapter on the output layer, or packing for a model that TRL's loss is not right for.
    """
    from trl import SFTTrainer

    check_head_is_free(model, what="sft", instead="variant of kind rl with algorithm: ppo")
    if fused_loss_is_right(model, filler_id=able.filler_id, padding="right"):
        return SFTTrainer
    name = type(model.get_base_model()).__name__
    if packing:
        raise UserError(
            f"sft.packing=true: TRL's loss leaves out a part of {name}, and without it examples cannot share a row. "
            "Set sft.packing: false; sft.group_by_length: true saves padding too."
        )
    log.warning("%s: TRL's loss leaves out a part of it; the model's own logits are used (slower)", name)

    class OwnLogits(SFTTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            kept = inputs["attention_mask"].bool()
            rows = [row[real].tolist() for row, real in zip(inputs["input_ids"], kept, strict=True)]
            spans = [(0, len(row) - 1) for row in rows]
            logits, _ = logits_at(model, rows, spans, head_selects=able.head_selects)  # (tokens, vocab)
            labels = [row[real][1:] for row, real in zip(inputs["labels"], kept, strict=True)]
            targets = logits.new_tensor([t for row in labels for t in row.tolist()], dtype=inputs["labels"].dtype)
            wanted = targets != IGNORED
            log_probs = logits[wanted].float().log_softmax(-1).gather(1, targets[wanted, None])
            return -log_probs.sum() / (wanted.sum() if num_items_in_batch is None else num_items_in_batch)

    return OwnLogits
