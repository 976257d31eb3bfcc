"""Memory and disk that a model takes, from its sizes alone: no torch, no weights, no network.

`plan` and `doctor` reckon with it. Letters: h width, L layers, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

BYTES: Mapping[str, float] = MappingProxyType({"float32": 4, "bfloat16": 2, "float16": 2})
"""Per weight."""
QUANTIZED_BYTES: Mapping[str, float] = MappingProxyType({"8bit": 1.0, "4bit": 0.516})
"""Per weight of a linear layer; 4 bits and .127 bits of doubly quantised scales (arXiv 2305.14314, section 3)."""
TRAINED_BYTES = 16
"""Per trained weight: itself, its gradient and AdamW's two moments, in float32."""
ACTIVATIONS = 34
"""Numbers of the width kept per layer and token for the backward pass (arXiv 2205.05198); one when recomputed."""
CPU_HEAP = 2.0
"""Of what a training pass keeps, with the holes between it, where C's allocator gives the memory: measured on a CPU, 30
layers of 576, 896 and 1,792 tokens. CUDA's allocator of PyTorch leaves few."""
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Weights(num_parameters=6_921_720_704, num_embedding=295_469_056)    # falcon-7b"""

    num_parameters: int
    num_embedding: int
    """Of them in token embeddings and output layer, which quantization leaves as they are."""

    def num_bytes(self, dtype: str, quantization: str | None = None) -> float:
        """In memory, linear layers quantised."""
        linear = self.num_parameters - self.num_embedding
        return self.num_embedding * BYTES[dtype] + linear * QUANTIZED_BYTES.get(quantization, BYTES[dtype])


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Sizes that memory and disk depend on."""

    weights: Weights
    num_adapter_parameters: int
    hidden: int
    num_layers: int
    vocab: int
    dtype: str
    quantization: str | None = None
    heap: float = 1.0
    """Memory taken per byte that a training pass keeps; `CPU_HEAP` on a CPU."""

    @property
    def weight_bytes(self) -> float:
        return self.weights.num_bytes(self.dtype, self.quantization)

    def sampling_bytes(self, *, batch: int, num_tokens: float) -> float:
        """Key-value cache of so many rows and tokens each, and the sampler's copies of their logits."""
        cache = 2 * self.num_layers * self.hidden * num_tokens * BYTES[self.dtype]
        return self.weight_bytes + batch * (cache + 32 * self.vocab)

    def training_bytes(self, *, num_tokens: float, recomputed: bool, num_adapters: int = 1) -> float:
        """A pass forward and back over so many tokens at once, weights of adapters alone trained."""
        trained = TRAINED_BYTES * num_adapters * self.num_adapter_parameters
        return self.weight_bytes + trained + self.heap * self.activation_bytes(num_tokens, recomputed=recomputed)

    def forward_bytes(self, *, num_tokens: float) -> float:
        """A pass forward over so many tokens at once."""
        return self.weight_bytes + self.activation_bytes(num_tokens, recomputed=True)

    def attribution_bytes(self, *, num_tokens: float, dtype: str | None = None) -> float:
        """One text's activations and their gradients; in `dtype`, unquantised, where one is given."""
        weights = self.weight_bytes if dtype is None else self.weights.num_bytes(dtype)
        return weights + 2 * self.activation_bytes(num_tokens, recomputed=False)

    def activation_bytes(self, num_tokens: float, *, recomputed: bool) -> float:
        """Of the layers, and of the logits in float32."""
        kept = 1 if recomputed else ACTIVATIONS
        return num_tokens * (self.num_layers * self.hidden * kept * 2 + 3 * 4 * self.vocab)


def heap_of(device: str) -> float:
    """`Footprint.heap` on a device of `run.device`."""
    return CPU_HEAP if device == "cpu" else 1.0


def weights_of(config: Mapping[str, Any]) -> Weights | None:
    """Weights of a GPT-NeoX or Falcon from its config.json; None for another architecture.

    Per layer: query, key and value; the projection; two MLP matrices; the norms. Then embeddings and the last norm.
    """
    linear = _linear_layers(config)
    if linear is None:
        return None
    h, layers, is_neox = config["hidden_size"], config["num_hidden_layers"], config["model_type"] == "gpt_neox"
    biased = {name: is_neox or config.get("bias", False) for name in linear}
    if is_neox and not config.get("attention_bias", True):
        biased |= {"query_key_value": False, "dense": False}
    layer = sum(num_out * (num_in + biased[name]) for name, (num_in, num_out) in linear.items())
    layer += 2 * h if not is_neox and config.get("parallel_attn", True) else 4 * h
    embedding = (1 if config.get("tie_word_embeddings", not is_neox) else 2) * config["vocab_size"] * h
    return Weights(num_parameters=layers * layer + embedding + 2 * h, num_embedding=embedding)


def num_lora_parameters(
    config: Mapping[str, Any], *, r: int, target_modules: Collection[str] | Literal["all-linear"]
) -> int:
    """Weights of an adapter of rank `r`: r (in + out) per linear layer; 0 for what `weights_of` does not know."""
    linear = _linear_layers(config) or {}
    named = linear if target_modules == "all-linear" else [name for name in target_modules if name in linear]
    return config["num_hidden_layers"] * sum(r * sum(linear[name]) for name in named)


def _linear_layers(config: Mapping[str, Any]) -> dict[str, tuple[int, int]] | None:
    """Name -> (in, out) of one layer's."""
    kind, h = config.get("model_type"), config.get("hidden_size")
    if kind == "gpt_neox":
        qkv, inner = 3 * h, config["intermediate_size"]
    elif kind == "falcon" and not config.get("new_decoder_architecture", False):
        num_heads = config["num_attention_heads"]
        qkv = h + 2 * (h // num_heads) * (1 if config.get("multi_query", True) else num_heads)
        inner = config.get("ffn_hidden_size") or 4 * h
    else:
        return None
    return {"query_key_value": (h, qkv), "dense": (h, h), "dense_h_to_4h": (h, inner), "dense_4h_to_h": (inner, h)}
