"""V(s_t), the return that PPO expects at each token, from the policy's own weights: no second model is in memory.

head   a linear layer on what the policy's backbone computes anyway; the value loss also trains the policy's adapter
       (or, with `value_gradient_to_backbone: false`, has to do with what the policy leaves it)
lora   the same layer on the backbone with a second adapter: policy and value do not pull at each other, for one
       more pass through the backbone per token and an adapter's memory
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detoxlens.models.value_head import ValueHead
from detoxlens.params.section import Autocast
from detoxlens.rl.likelihoods import Measured, length_sorted, response_logits
from detoxlens.rl.rollout import Response

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER = "value_function"
"""Name of the second adapter in the PeftModel while training lasts."""


class ValueFunction:
    """The value head and, of kind `lora`, its adapter."""

    def __init__(self, model: PeftModel, kind: Literal["head", "lora"], *, autocast: Autocast = None):
        self.model, self.has_adapter, self.autocast = model, kind == "lora", autocast
        self.head = ValueHead(model.get_output_embeddings().in_features).to(model.device)
        self.adapter_parameters: list[nn.Parameter] = []
        if self.has_adapter:
            policy = model.active_adapter
            model.add_adapter(ADAPTER, _like(model.peft_config[policy]))
            model.set_adapter(policy)
            model.eval()
            self._names = [name for name, _ in model.named_parameters() if f".{ADAPTER}." in name]
            self.adapter_parameters = [model.get_parameter(name) for name in self._names]

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*self.head.parameters(), *self.adapter_parameters]

    def of_batch(self, responses: Sequence[Response]) -> Float[Tensor, " tokens"]:
        """Values at the positions that predict the responses' tokens, response by response; kind `lora` only."""
        _, values = response_logits(self.model, responses, self.head, autocast=self.autocast)
        return values

    @torch.no_grad()
    def measured(self, measured: Measured, responses: Sequence[Response], *, micro_batch_size: int) -> Measured:
        """`measured` with this function's values; the head alone has put them there already."""
        if not self.has_adapter:
            return measured
        values = measured.values
        with self.adapter_on():
            for rows in length_sorted(responses, range(len(responses)), micro_batch_size):
                found = self.of_batch([responses[i] for i in rows])
                values[rows] = values[rows].masked_scatter(measured.mask[rows], found)
        return measured

    @contextmanager
    def adapter_on(self) -> Iterator[None]:
        """Inside, the value function's adapter is the active and trainable one; afterwards the policy's again."""
        policy = self.model.active_adapter
        self.model.set_adapter(ADAPTER)
        try:
            yield
        finally:
            self.model.set_adapter(policy)

    def state(self) -> dict[str, Tensor]:
        """A copy of all its weights, on CPU, by name."""
        head = {f"head.{name}": p for name, p in self.head.named_parameters()}
        adapter = dict(zip(self._names, self.adapter_parameters, strict=True)) if self.has_adapter else {}
        return {name: p.detach().to("cpu", copy=True) for name, p in (head | adapter).items()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Puts weights from `state` back."""
        for name, tensor in state.items():
            of_head = name.startswith("head.")
            (self.head.get_parameter(name[5:]) if of_head else self.model.get_parameter(name)).copy_(tensor)

    def remove_adapter(self) -> None:
        """Leaves the model with the policy's adapter alone."""
        if self.has_adapter:
            self.model.delete_adapter(ADAPTER)


def _like(config):
    """A fresh trainable adapter of the same shape, whatever the policy's own one was loaded from."""
    config = copy.deepcopy(config)
    config.inference_mode = False
    return config
