"""Settings of counter-narrative fine-tuning; params section `sft`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from detoxlens.params.regularizer import RegularizerConfig
from detoxlens.params.section import Autocast, Section


class SftConfig(Section):
    """The authors: lr 3e-4, 3-4 epochs, warm-up 100, every dialogue prefix one example, loss on all tokens."""

    data: Literal["dialogues", "own_least_toxic", "own_random"] = "dialogues"
    """What is learnt from: the written counter-narratives, or answers of the base model to the same turns, as many
    tokens. `own_least_toxic` (rejection sampling): the one of `num_samples` that the reward model finds least toxic;
    `own_random`: one of them, whichever, as the placebo of `ft` does."""
    num_samples: int = Field(default=4, ge=1)
    """Answers to choose from, of `own_least_toxic`."""
    loss_on: Literal["replies", "all"]
    """`replies`: the counter-narrative turns only; `all`: every token, as the authors did."""
    examples: Literal["dialogues", "prefixes"]
    """`dialogues`: each once, all its replies together; `prefixes`: one example per exchange, as the authors did."""
    num_epochs: float = Field(gt=0)
    """Passes over the training dialogues; a fraction is a part of one."""
    learning_rate: float = Field(gt=0)
    """Of AdamW, at its highest; after the warm-up it falls to 0 in a line."""
    weight_decay: float = Field(ge=0)
    """Of AdamW."""
    warmup_steps: int = Field(ge=0)
    """Steps in which the learning rate rises from 0."""
    batch_size: int = Field(ge=1)
    """Sequences per forward pass."""
    gradient_accumulation_steps: int = Field(ge=1)
    """Batches that are summed into one step."""
    max_length: int = Field(ge=8)
    """Longer examples are cut at the end, tokens; how many were is reported."""
    packing: bool
    """Several examples in one row of at most `max_length` tokens, kept apart by their position ids; a model whose
    attention does not respect those is refused."""
    group_by_length: bool
    """Batches of examples of like length: less padding, another order."""
    gradient_checkpointing: bool
    """Compute activations twice, to keep less of them."""
    autocast: Autocast = None
    """Format of the matrix products in training passes where it is not the weights' own (`detoxlens plan` measures
    whether it would be faster here); weights, optimizer, sampling and attribution keep theirs."""
    eval_every: int = Field(ge=1)
    """Optimizer steps between validation losses and checkpoints."""
    eval_max_dialogues: int | None = Field(default=None, ge=1)
    """Validation dialogues that the loss is measured on, a sample that is the same for every seed and variant; None
    takes all. One pass over all of DialoCONAN's 306 costs a model on a CPU as much as ten steps."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many validations without a lower loss; None trains to the end. The best is kept either way."""
    regularizer: RegularizerConfig = RegularizerConfig()
    """Off unless a variant's overrides turn it on."""
