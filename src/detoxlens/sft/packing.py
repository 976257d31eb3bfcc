"""Check whether a model keeps packed examples apart, on the model itself: it depends on class and attention kernel.

With transformers 5.23 GPT-NeoX does, and Falcon does not: it builds its mask without the position ids.

ids        a1 a2 a3 b1 b2 b3         two examples in one row
positions   0  1  2  0  1  2         where they begin again, attention must not reach further back
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from detoxlens.common.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel


def check_packing(model: PeftModel) -> None:
    """Raises UserError if what comes second in a row sees what comes first, in spite of its position ids."""
    import torch

    num_tokens = min(8, model.get_input_embeddings().weight.shape[0] // 2)
    first, second = torch.arange(2 * num_tokens, device=model.device).view(2, 1, num_tokens)
    positions = torch.arange(num_tokens, device=model.device).unsqueeze(0)
    model.eval()
    with torch.no_grad():
        alone = model(input_ids=second, position_ids=positions, use_cache=False).logits.float()
        packed = model(
            input_ids=torch.cat([first, second], dim=1),
            position_ids=torch.cat([positions, positions], dim=1),
            use_cache=False,
        ).logits[:, num_tokens:]
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.1
    off = ((packed.float() - alone).abs().max() / alone.abs().max()).item()
    if not off <= tolerance:
        name, kernel = type(model.get_base_model()).__name__, model.config._attn_implementation
        raise UserError(
            f"sft.packing=true: {name} with {kernel} attention lets an example attend to the one packed before it "
            f"(its logits change by {off:.1%}). Set sft.packing: false; sft.group_by_length: true saves padding too."
        )
