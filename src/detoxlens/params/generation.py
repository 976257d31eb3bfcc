"""Params section `generation`: how completions are sampled."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from detoxlens.params.section import Section


class GenerationConfig(Section):
    """Decoding. `temperature: 1, top_k: 0, top_p: 1, min_new_tokens: 0` samples from the model itself.

    The authors (arXiv 2309.00751): 70 new tokens, at least 4, no repeated 2-gram; RedPajama top-k 50, top-p .8,
    temperature .7; Falcon top-k 10.
    """

    max_new_tokens: int = Field(ge=1)
    """Tokens; the end-of-sequence token counts."""
    min_new_tokens: int = Field(ge=0)
    """Tokens before the end of sequence is allowed."""
    temperature: float = Field(ge=0)
    """Logits are divided by it; 0 takes the most probable token."""
    top_k: int = Field(ge=0)
    """Number of most probable tokens kept; 0 keeps all."""
    top_p: float = Field(gt=0, le=1)
    """The fewest most probable tokens whose probabilities add up to this are kept (arXiv 1904.09751); 1 keeps all."""
    no_repeat_ngram_size: int = Field(ge=0)
    """No n-gram of this many tokens occurs twice in prompt + completion (arXiv 1705.04304); 0 allows all."""
    num_samples: int = Field(ge=1)
    """Completions per prompt; Gehman et al. 2020 take 25 for the expected maximum toxicity."""
    batch_size: int | Literal["auto"]
    """Completions decoded together; `auto` is a fixed number on CPU and comes from free memory on an accelerator."""
    stop: Literal["next_turn"] | tuple[Annotated[str, Field(min_length=1)], ...] = "next_turn"
    """Texts at which a reply ends. `next_turn`: where the model writes the human's next turn, as its template
    begins one; []: nowhere. The share of replies that were ended so is reported."""
    backend: Literal["torch", "vllm"] = "torch"
    """`vllm` (extra `vllm`) is faster on an accelerator; its samples are not those of `torch` bit for bit."""

    @model_validator(mode="after")
    def _minimum_fits(self) -> GenerationConfig:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(f"min_new_tokens={self.min_new_tokens} exceeds max_new_tokens={self.max_new_tokens}")
        if self.batch_size != "auto" and self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1, or 'auto'")
        return self
