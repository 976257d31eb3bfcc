"""LoRA adapters. Hu et al. 2021 (arXiv 2106.09685), through PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detoxlens.common.errors import UserError
from detoxlens.params.lora import LoraConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def add_adapter(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """`model` wrapped with a fresh, trainable LoRA adapter (initialised from the global torch seed).

    Raises:
        UserError: a target module does not exist (the message lists the linear layers there are) or takes no adapter.
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
    adapter = PeftLoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=sorted(config.target_modules),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, adapter)
    except (ValueError, TypeError) as e:  # a module that is no layer, or one whose forward is passed by
        raise UserError(f"lora.target_modules={config.target_modules}: {e}") from e
