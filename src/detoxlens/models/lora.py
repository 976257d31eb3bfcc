"""LoRA adapters. Hu et al. 2021 (arXiv 2106.09685), through PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from detoxlens.config import Section
from detoxlens.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class LoraConfig(Section):
    """Params section `lora`. The authors: r=64, alpha=32, dropout .05 on the attention projections."""

    r: int = Field(ge=1)
    """Rank of the update."""
    alpha: float = Field(gt=0)
    """The update is scaled by alpha / r."""
    dropout: float = Field(ge=0, lt=1)
    target_modules: list[str] = Field(min_length=1)
    """Names (or dotted suffixes) of the linear layers that get an adapter."""


def add_adapter(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """`model` wrapped with a fresh, trainable LoRA adapter (initialised from the global torch seed).

    Raises:
        UserError: a target module does not exist; the message lists the linear layers there are.
    """
    import torch
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    linear = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)})
    names = [n for n, _ in model.named_modules()]
    for target in config.target_modules:
        if not any(n == target or n.endswith(f".{target}") for n in names):
            raise UserError(
                f"lora.target_modules: {type(model).__name__} has no module {target!r}; its linear layers are "
                f"{', '.join(linear)}."
            )
    return get_peft_model(
        model,
        PeftLoraConfig(
            r=config.r,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=sorted(config.target_modules),
            task_type="CAUSAL_LM",
        ),
    )
