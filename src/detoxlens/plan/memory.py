"""The most memory that each stage holds, from a model's sizes and the lengths of its texts. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from detoxlens.models.footprint import TRAINED_BYTES, Footprint
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import Params
from detoxlens.params.ppo import PpoConfig
from detoxlens.params.preference import PreferenceConfig
from detoxlens.params.sft import SftConfig
from detoxlens.params.tiny import TinyConfig
from detoxlens.plan.counts import Counts

AUTO_BATCH = 64
"""Rows decoded together where `generation.batch_size` is auto, at most."""
NLL_ROWS = 16
"""Completions whose likelihood is measured in one pass."""


def peak(params: Params, model: str, variant: str, counts: Counts, footprint: Footprint) -> tuple[str, float]:
    """The stage of this variant that needs most, and its bytes."""
    return max(stages_bytes(params, model, variant, counts, footprint), key=lambda found: found[1])


def stages_bytes(
    params: Params, model: str, variant: str, counts: Counts, footprint: Footprint
) -> Iterator[tuple[str, float]]:
    """Every stage of this variant and its bytes."""
    of = {"model": model, "variant": variant}
    generation, chosen = params.section("generation", GenerationConfig, **of), params.variant(variant)
    kind = chosen.kind
    if params.model(model).source.startswith("tiny:"):
        yield "base", base_bytes(params.section("tiny", TinyConfig, model=model), counts, footprint)
    if kind == "sft":
        yield "finetune", finetune_bytes(params.section("sft", SftConfig, **of), counts, footprint)
    if kind == "rl":
        is_ppo = chosen.algorithm == "ppo"
        yield "rl", rl_bytes(params.section("ppo", PpoConfig, **of), generation, counts, footprint, is_ppo=is_ppo)
    if kind == "preference":
        preference, is_dpo = params.section("preference", PreferenceConfig, **of), chosen.algorithm == "dpo"
        yield "preference", preference_bytes(preference, generation, counts, footprint, is_dpo=is_dpo)
    yield "generate", generate_bytes(generation, counts, footprint)
    yield "score", score_bytes(counts, footprint)
    yield "attribute", attribute_bytes(params.section("attribution", AttributionConfig, **of), counts, footprint)


def base_bytes(tiny: TinyConfig, counts: Counts, footprint: Footprint) -> float:
    """All weights trained."""
    tokens = tiny.batch_size * counts.base_example_tokens
    return TRAINED_BYTES * footprint.weights.num_parameters + footprint.activation_bytes(tokens, recomputed=False)


def finetune_bytes(sft: SftConfig, counts: Counts, footprint: Footprint) -> float:
    """A batch of examples up to twice as long as the mean."""
    live = sft.batch_size * min(sft.max_length, 2 * counts.example_tokens)
    return footprint.training_bytes(num_tokens=live, recomputed=sft.gradient_checkpointing)


def rl_bytes(
    ppo: PpoConfig, generation: GenerationConfig, counts: Counts, footprint: Footprint, *, is_ppo: bool
) -> float:
    """A micro batch with prompts up to twice as long as the mean; a value function may have an adapter of its own."""
    live = ppo.micro_batch_size * (min(ppo.max_prompt_tokens, 2 * counts.prompt_tokens) + generation.max_new_tokens)
    num_adapters = 2 if is_ppo and ppo.value_function == "lora" else 1
    return footprint.training_bytes(num_tokens=live, recomputed=ppo.gradient_checkpointing, num_adapters=num_adapters)


def preference_bytes(
    config: PreferenceConfig, generation: GenerationConfig, counts: Counts, footprint: Footprint, *, is_dpo: bool
) -> float:
    """A batch of pairs (DPO) or answers (KTO) up to twice as long as the mean."""
    num_rows = config.batch_size * (2 if is_dpo else 1)
    live = num_rows * min(config.max_length, 2 * counts.prompt_tokens + generation.max_new_tokens)
    return footprint.training_bytes(num_tokens=live, recomputed=config.gradient_checkpointing)


def generate_bytes(generation: GenerationConfig, counts: Counts, footprint: Footprint) -> float:
    """A full batch, every completion as long as allowed."""
    batch = AUTO_BATCH if generation.batch_size == "auto" else generation.batch_size
    return footprint.sampling_bytes(batch=batch, num_tokens=counts.prompt_tokens + generation.max_new_tokens)


def score_bytes(counts: Counts, footprint: Footprint) -> float:
    """Likelihoods under the base model."""
    return footprint.forward_bytes(num_tokens=NLL_ROWS * (counts.prompt_tokens + counts.generated_tokens))


def attribute_bytes(config: AttributionConfig, counts: Counts, footprint: Footprint) -> float:
    """One text, and a shuffled copy of the weights where faithfulness is tested; or the twin in float32."""
    num_tokens = counts.prompt_tokens + counts.generated_tokens
    tested = min(config.faithfulness.num_sequences, counts.num_attributed_test)
    needed = footprint.attribution_bytes(num_tokens=num_tokens) + (footprint.weight_bytes if tested else 0)
    is_short = footprint.dtype != "float32" or footprint.quantization
    if is_short and min(config.precision_check, counts.num_attributed_test):
        return max(needed, footprint.attribution_bytes(num_tokens=num_tokens, dtype="float32"))
    return needed
