"""Params section `tiny`: size and training of the embedded base models."""

from __future__ import annotations

from pydantic import Field

from detoxlens.params.section import Section


class TinyConfig(Section):
    """Size and training of an embedded model; params section `tiny` (base models) and `reward_model.tiny`."""

    vocab_size: int = Field(ge=300, le=65536)
    """Tokens of the byte-level BPE."""
    hidden_size: int = Field(ge=16)
    """Width."""
    num_layers: int = Field(ge=1)
    """Depth."""
    num_heads: int = Field(ge=1)
    """Attention heads; they part the width."""
    context_length: int = Field(ge=64)
    """Most tokens of a text."""
    num_examples: int = Field(ge=100)
    """Conversations (base models) or labelled texts (reward model) drawn from the sample's generator."""
    rude_share: float = Field(ge=0, le=1)
    """Share of hostile turns that the corpus answers rudely."""
    counter_share: float = Field(ge=0, le=1)
    """Share of hostile turns that the corpus answers with a counter-narrative."""
    prompt_loss_weight: float = Field(ge=0, le=1)
    """Weight of the human's tokens in the loss; the bot's weigh 1."""
    batch_size: int = Field(ge=1)
    """Examples per step."""
    num_steps: int = Field(ge=1)
    """Steps of training."""
    learning_rate: float = Field(gt=0)
    """Of AdamW, at its highest."""
    weight_decay: float = Field(ge=0)
    """Of AdamW."""
