"""Settings of preference tuning (params section `preference`).

DPO: Rafailov et al. 2023 (arXiv 2305.18290). KTO: Ethayarajh et al. 2024 (arXiv 2402.01306). Both through TRL, with the
base model as the reference. Answers are sampled as the section `generation` says.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from detoxlens.params.section import Autocast, Section


class PairsConfig(Section):
    """Which answers are preferred to which; toxicity is that of the reward model, never of the grader."""

    source: Literal["counter_narrative", "best_of_n"]
    """`counter_narrative`: the written reply to base's most toxic answer; `best_of_n`: base's least to its most toxic
    answer, which needs no written replies."""
    num_samples: int = Field(ge=1)
    """Answers that base gives to each hater turn: k of `counter_narrative`, n of `best_of_n`."""
    min_margin: float = Field(ge=0, lt=1)
    """A pair is kept if the rejected answer is more toxic than the chosen one by more than this, P(toxic)."""
    max_context_turns: int = Field(ge=1)
    """Turns that an answer sees, the hater's last one included."""
    max_contexts: int | None = Field(default=None, ge=1)
    """Hater turns answered in each of train and val, a sample that is the same for every seed; None takes all."""


class PreferenceConfig(Section):
    """`algorithm: dpo | kto`; KTO takes each pair as one desirable and one undesirable answer."""

    pairs: PairsConfig
    """What is preferred to what."""
    beta: float = Field(gt=0)
    """Strength of the tie to the base model; both papers take 0.1."""
    num_epochs: float = Field(gt=0)
    """Passes over the training pairs; a fraction is a part of one."""
    learning_rate: float = Field(gt=0)
    """Of AdamW, at its highest; after the warm-up it falls to 0 in a line."""
    weight_decay: float = Field(ge=0)
    """Of AdamW."""
    warmup_steps: int = Field(ge=0)
    """Steps in which the learning rate rises from 0."""
    batch_size: int = Field(ge=2)
    """Pairs (DPO) or answers (KTO) per forward pass; KTO estimates its KL term within it, so it needs two."""
    gradient_accumulation_steps: int = Field(ge=1)
    """Batches that are summed into one step."""
    max_length: int = Field(ge=8)
    """Longer written replies are cut at the end, tokens; hater turns without room for an answer are left out."""
    gradient_checkpointing: bool
    """Compute activations twice, to keep less of them."""
    autocast: Autocast = None
    """Format of the matrix products in training passes where it is not the weights' own (`detoxlens plan` measures
    whether it would be faster here); weights, optimizer, sampling and attribution keep theirs."""
    eval_every: int = Field(ge=1)
    """Optimizer steps between validation losses and checkpoints."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many validations without a lower loss; None trains to the end. The best is kept either way."""
