"""Check that the loss of TRL's trainers is the model's own.

They run the backbone and multiply what it gives by the weights of the output layer. What a model does between the two
(a transform, in BERT's kin) or behind (a bias or a scale that TRL does not know) is left out, without a word; and rows
are hidden by the attention mask alone, left padded in RLOO and GRPO, without position ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from detoxlens.common.errors import UserError
from detoxlens.models.capabilities import Trial
from detoxlens.models.forward import evaluating

if TYPE_CHECKING:
    from peft import PeftModel


@torch.no_grad()
def fused_loss_is_right(model: PeftModel, *, filler_id: int, padding: Literal["left", "right"]) -> bool:
    """Are the log-probabilities that TRL learns from those of a plain pass over each row alone?

    Args:
        model: with the adapter that is to be trained.
        filler_id: fills what the attention mask hides.
        padding: on which side; `right` in supervised fine-tuning, `left` in RLOO and GRPO.
    """
    with evaluating(model):
        trial = Trial(model, filler_id, type(model.get_base_model()).__name__)
        rows, num_padding = (trial.long, trial.short), len(trial.long) - len(trial.short)

        def fused() -> Iterator[tuple[Tensor, Tensor]]:
            filler, hidden = [trial.filler] * num_padding, [0] * num_padding
            ones = [1] * len(trial.short)
            left = padding == "left"
            ids = torch.tensor([rows[0], filler + rows[1] if left else rows[1] + filler], device=model.device)
            mask = torch.tensor([[1] * len(rows[0]), hidden + ones if left else ones + hidden], device=model.device)
            first = num_padding if left else 0
            labels = torch.full_like(ids, -100)
            labels[1, first : first + len(trial.short)] = ids[1, first : first + len(trial.short)]
            with _fused_head(model.get_base_model()):
                outputs = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
            found = outputs.log_probs[1, first : first + len(trial.short) - 1]
            targets = torch.tensor(trial.short[1:], device=model.device)
            yield found, trial.of_short[:-1].log_softmax(-1).gather(1, targets[:, None]).squeeze(1)

        return trial.works(fused, trial.tolerance.padded)


def check_head_is_free(model: PeftModel, *, what: str, instead: str) -> None:
    """Raises UserError if the adapter is on the output layer: TRL reads the base weights past it.

    Args:
        model: with the adapter that is to be trained.
        what: what would train it, for the message.
        instead: what can.
    """
    if hasattr(model.get_output_embeddings(), "lora_A"):
        raise UserError(
            f"{what}: lora.target_modules has the output layer, and TRL reads its base weights past the adapter, so "
            f"that it would never be trained. Leave it out, or use a {instead}."
        )


@contextmanager
def _fused_head(model: nn.Module) -> Iterator[None]:
    """TRL's patch of the forward inside; the earlier one afterwards."""
    from trl.trainer.utils import add_fused_lm_head

    earlier = model.__dict__.get("forward")
    add_fused_lm_head(model)
    try:
        yield
    finally:
        del model.forward
        if earlier is not None:
            model.forward = earlier
