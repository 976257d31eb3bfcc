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
        UserError: a target module does not exist (the message lists the linear layers there are) or takes no adapter;
            or the weights are quantised in a way that passes no gradients on.
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model
    from transformers.pytorch_utils import Conv1D

    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None and not quantizer.is_trainable:
        raise UserError(
            f"{model.config.name_or_path}: its weights are quantised by {quantizer.quantization_config.quant_method}, "
            "which passes no gradients on, and an adapter is trained by them. Take the checkpoint before it was "
            "quantised as models.<model>.source (with quantization: 4bit or 8bit where it is too large), or a method "
            "without training."
        )
    linear = linear_layers(model)
    targets = linear if config.target_modules == "all-linear" else config.target_modules
    names = [n for n, _ in model.named_modules()]
    for target in targets:
        if not any(n == target or n.endswith(f".{target}") for n in names):
            raise UserError(
                f"lora.target_modules: {type(model).__name__} has no module {target!r}; its linear layers are "
                f"{', '.join(linear)}. `all-linear` takes them all."
            )
    adapter = PeftLoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=sorted(targets),
        fan_in_fan_out=any(isinstance(m, Conv1D) and n.rpartition(".")[2] in targets for n, m in model.named_modules()),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, adapter)
    except (ValueError, TypeError) as e:  # a module that is no layer, or one whose forward is passed by
        raise UserError(f"lora.target_modules={config.target_modules}: {e}") from e


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Last parts of the names of all linear layers but the output layer, sorted."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    output = model.get_output_embeddings()
    found = ((n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not output)
    return sorted({name.rpartition(".")[2] for name, _ in found})
