"""Steering: a vector added to the hidden states behind one decoder layer, at every position.

    direction = mean of h over civil replies - mean of h over hostile replies,    h + strength * direction

Difference of means: Rimsky et al. 2024 (arXiv 2312.06681); added at every position: Zou et al. 2023 (arXiv 2310.01405).
At every position, so that one text has one set of logits however it is cut, cached or padded, and attribution sees the
same network as generation does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detoxlens.common.errors import UserError
from detoxlens.models.forward import decoder_layers, evaluating
from detoxlens.models.interventions.materials import Materials, Reply
from detoxlens.params.steering import SteeringConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS, DIRECTION = "steering.safetensors", "direction"
BATCH_SIZE = 16


def make(config: SteeringConfig, materials: Materials, folder: Path) -> dict[str, Any]:
    """Writes the direction; the settings that `apply` takes.

    Raises:
        UserError: the model has no such layer, or there is nothing to compare.
    """
    from safetensors.torch import save_file

    network = materials.network()
    hidden = _layer(network, config.layer)  # refused before the replies are read
    civil, hostile = materials.replies(config.max_replies)
    means = [mean_hidden_states(network, hidden, replies) for replies in (civil, hostile)]
    direction = mean_difference(*means)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({DIRECTION: direction.float().contiguous()}, folder / WEIGHTS, metadata={"format": "pt"})
    return {
        "layer": config.layer,
        "strength": config.strength,
        "num_civil": len(civil),
        "num_hostile": len(hostile),
        "direction_norm": direction.norm().item(),
    }


def apply(model: PreTrainedModel, folder: Path, settings: Mapping[str, Any]) -> PreTrainedModel:
    """`model`, which from now on adds strength * direction to what its layer gives."""
    from safetensors.torch import load_file

    layer = _layer(model, settings["layer"])
    weight = next(layer.parameters())
    added = (settings["strength"] * load_file(folder / WEIGHTS)[DIRECTION]).to(weight.device, model.dtype)

    def steer(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, Tensor):
            return output + added
        return (output[0] + added, *output[1:])

    layer.register_forward_hook(steer)
    return model


def mean_difference(civil: Float[Tensor, "civil hidden"], hostile: Float[Tensor, "hostile hidden"]) -> Tensor:
    """(hidden,): from the mean hostile to the mean civil row."""
    return civil.mean(0) - hostile.mean(0)


@torch.no_grad()
def mean_hidden_states(
    model: PreTrainedModel, layer: nn.Module, replies: Sequence[Reply]
) -> Float[Tensor, "replies hidden"]:
    """Of each reply, the mean over its tokens of what `layer` gives; in float64, on the CPU.

    Right padded: a causal model does not see the padding.
    """
    order = sorted(range(len(replies)), key=lambda i: (len(replies[i].ids), i))
    means: dict[int, Tensor] = {}
    with evaluating(model), _outputs_of(layer) as seen:
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            width = max(len(replies[i].ids) for i in rows)
            ids = torch.tensor([[*replies[i].ids, *[0] * (width - len(replies[i].ids))] for i in rows])
            model(input_ids=ids.to(model.device), use_cache=False)
            hidden = seen.pop()  # (rows, width, hidden)
            for row, i in zip(hidden, rows, strict=True):
                first = len(replies[i].ids) - replies[i].num_own
                means[i] = row[first : len(replies[i].ids)].double().mean(0).cpu()
    return torch.stack([means[i] for i in range(len(replies))])


@contextmanager
def _outputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, what the layer gives is appended to the list."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen.append(output if isinstance(output, Tensor) else output[0])

    handle = layer.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def _layer(model: PreTrainedModel, number: int) -> nn.Module:
    layers = decoder_layers(model)
    if layers is None:
        raise UserError(
            f"steering: no stack of decoder layers was found in {type(model).__name__}, so that there is no layer to "
            "steer behind. Use a variant of kind dexperts or prompt for this model."
        )
    if number >= len(layers):
        raise UserError(
            f"steering.layer={number}: {type(model).__name__} has {len(layers)} layers, 0 to {len(layers) - 1}. Choose "
            "one of these; layers in the middle usually serve best."
        )
    return layers[number]
