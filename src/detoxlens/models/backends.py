"""Decoders of the stage `generate`: our own loop, or vLLM. Same call, same record.

torch   the same tokens whatever the batch, on the same device and versions (but for 8-bit weights: `quant.py`); a batch
        that does not fit is halved
vllm    faster on an accelerator (extra `vllm`); takes the rows' seeds, but its kernels and its order of sums are its
        own, so that its samples are not ours bit for bit, nor those of another batch
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from detoxlens.common.artifacts import read_json
from detoxlens.common.errors import UserError
from detoxlens.common.records import ModelRef
from detoxlens.models.capabilities import Capabilities, examine
from detoxlens.models.end_tokens import EndTokens, named_end_tokens, set_end_tokens
from detoxlens.models.generation import Sampled, auto_batch_size, sample_batch
from detoxlens.models.loading import load_model, source_of
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.models import ModelConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VLLM_BATCH_SIZE = 1024
"""`batch_size: auto` with vLLM, which makes its own batches: how many rows a kill can cost."""


class Backend(Protocol):
    """A loaded model that samples."""

    context_length: int | None
    """Positions the model has, in tokens; None if its config names no limit."""

    def auto_batch_size(self, longest_prompt: int) -> int:
        """What `batch_size: auto` means here."""

    def sample(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Sampled]:
        """One completion per prompt, in their order."""


def load_backend(
    root: Path,
    ref: ModelRef,
    spec: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    config: GenerationConfig,
    *,
    device: str,
    turn_ends: Sequence[int] = (),
) -> Backend:
    """The backend that `generation.backend` names, with the model of `ref` in it.

    A reply ends at the tokenizer's end token, at those of the checkpoint's generation_config, and at `turn_ends`.

    Raises:
        UserError: the model cannot be loaded, or vLLM is missing or cannot decode like this.
    """
    if config.backend == "vllm":
        return _load_vllm(root, ref, spec, tokenizer, config, turn_ends)
    network = load_model(root, ref, spec, device=device)
    capabilities = examine(network, pad_token_id=tokenizer.pad_token_id, name=ref.base)
    capabilities.warn_of_slow_sampling(ref.base)
    ends = set_end_tokens(network, tokenizer, turn_ends)
    return TorchBackend(network, capabilities, config, ends, tokenizer.pad_token_id)


@dataclass(frozen=True, slots=True)
class TorchBackend:
    """Our own sampling (`models.generation`)."""

    network: PreTrainedModel | PeftModel
    capabilities: Capabilities
    config: GenerationConfig
    eos_token_id: tuple[int, ...]
    pad_token_id: int

    @property
    def context_length(self) -> int | None:
        return self.capabilities.context_length

    def auto_batch_size(self, longest_prompt: int) -> int:
        return auto_batch_size(self.network, longest_prompt=longest_prompt, max_new_tokens=self.config.max_new_tokens)

    def sample(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Sampled]:
        """A batch that does not fit into memory is sampled half by half; a row's tokens do not depend on its company.

        Raises:
            UserError: a single row does not fit.
        """
        import torch

        try:
            return sample_batch(
                self.network,
                prompts,
                config=self.config,
                seeds=seeds,
                eos_token_id=self.eos_token_id,
                pad_token_id=self.pad_token_id,
                capabilities=self.capabilities,
            )
        except torch.OutOfMemoryError:
            if len(prompts) == 1:
                raise UserError(
                    f"A single prompt of {len(prompts[0])} tokens with {self.config.max_new_tokens} new ones does not "
                    "fit into the accelerator's memory. Free it of other processes, lower generation.max_new_tokens, "
                    "or set the model's quantization to 8bit or 4bit."
                ) from None
        torch.cuda.empty_cache()
        half = len(prompts) // 2
        return self.sample(prompts[:half], seeds[:half]) + self.sample(prompts[half:], seeds[half:])


@dataclass(frozen=True, slots=True)
class VllmBackend:
    """A loaded `vllm.LLM`, the adapter as its LoRA request."""

    llm: Any
    lora: Any
    config: GenerationConfig
    eos_token_id: tuple[int, ...]

    @property
    def context_length(self) -> int | None:
        return self.llm.llm_engine.model_config.max_model_len

    def auto_batch_size(self, longest_prompt: int) -> int:
        return VLLM_BATCH_SIZE

    def sample(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Sampled]:
        from vllm import SamplingParams

        config = self.config
        outputs = self.llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            sampling_params=[
                SamplingParams(
                    max_tokens=config.max_new_tokens,
                    min_tokens=config.min_new_tokens,
                    temperature=config.temperature,
                    top_k=config.top_k or -1,
                    top_p=config.top_p,
                    seed=seed % 2**63,
                    stop_token_ids=list(self.eos_token_id),
                    detokenize=False,
                )
                for seed in seeds
            ],
            lora_request=self.lora,
            use_tqdm=False,
        )
        return [self._sampled(output.outputs[0]) for output in outputs]

    def _sampled(self, output: Any) -> Sampled:
        ids = tuple(output.token_ids)
        if output.finish_reason == "length":
            return Sampled(ids, "length")
        return Sampled(ids if ids and ids[-1] in self.eos_token_id else (*ids, self.eos_token_id[0]), "eos")


def _load_vllm(
    root: Path,
    ref: ModelRef,
    spec: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    config: GenerationConfig,
    turn_ends: Sequence[int],
) -> VllmBackend:
    if ref.intervention is not None:
        raise UserError(
            f"generation.backend: 'vllm' runs its own kernels and cannot apply {ref.intervention}, which changes "
            "hidden states or logits. Set overrides.generation.backend of the variant to torch."
        )
    try:
        import vllm
        from vllm.lora.request import LoRARequest
    except ImportError as e:
        raise UserError(
            f"generation.backend: 'vllm' needs the package vllm, which cannot be imported ({e}): pip install -e "
            "'.[vllm]' on a machine with an accelerator, or set generation.backend to torch."
        ) from None
    if config.no_repeat_ngram_size:
        raise UserError(
            f"generation.no_repeat_ngram_size={config.no_repeat_ngram_size}: vLLM cannot forbid repeated n-grams; set "
            "it to 0, or generation.backend to torch."
        )
    source, revision = source_of(root, ref)
    adapter = root / ref.adapter if ref.adapter else None
    rank = read_json(adapter / "adapter_config.json")["r"] if adapter else None
    llm = vllm.LLM(
        model=source,
        revision=revision,
        tokenizer_revision=revision,
        dtype=spec.dtype,
        trust_remote_code=spec.trust_remote_code,
        quantization="bitsandbytes" if spec.quantization else None,
        enable_lora=adapter is not None,
        max_lora_rank=max(16, rank or 0),
    )
    lora = LoRARequest(adapter.name, 1, str(adapter)) if adapter else None
    named = named_end_tokens(tokenizer, _named_by_checkpoint(source, revision, spec))
    return VllmBackend(llm, lora, config, tuple(dict.fromkeys([*named, *turn_ends])))


def _named_by_checkpoint(source: str, revision: str | None, spec: ModelConfig) -> EndTokens | None:
    """The end tokens that transformers would find: of generation_config.json, or of config.json where there is none."""
    import transformers

    with contextlib.suppress(OSError):
        return transformers.GenerationConfig.from_pretrained(source, revision=revision).eos_token_id
    with contextlib.suppress(OSError):
        config = transformers.AutoConfig.from_pretrained(
            source, revision=revision, trust_remote_code=spec.trust_remote_code
        )
        return getattr(config, "eos_token_id", None)
    return None
