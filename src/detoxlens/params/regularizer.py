"""Key `regularizer` of the params sections `sft` and `ppo`: a penalty on how the model uses its prompt."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from detoxlens.params.section import Section

Kind = Literal["none", "attention_entropy", "attribution_entropy", "toxic_share"]


class RegularizerConfig(Section):
    """loss = loss of the method + weight * quantity. The quantities: `src/detoxlens/regularization/__init__.py`."""

    kind: Kind = "none"
    """Entropy of attention, entropy of attribution, or attribution on toxic words; all on the human turn's tokens, at
    the positions that predict its reply."""
    weight: float = Field(default=0.0, allow_inf_nan=False)
    """In nats per unit of the quantity, which lies in 0..1. Above 0 lowers it, below 0 raises it; at 0 it is logged and
    changes nothing. Attanasio et al. 2022 raise attention entropy: a weight below 0."""
    columns: Literal["own", "shuffled"] = "own"
    """`shuffled` is the placebo: as many tokens, drawn at random at every step; in place of the user's from all before
    the response position, in place of the toxic ones from the user's."""
    num_examples: int | None = Field(default=None, ge=1)
    """Examples of each forward pass that the penalty is taken on, drawn at random; None: all. Cost is proportional."""
    num_positions: int = Field(default=1, ge=1)
    """Random response positions per example at which attribution is differentiated, each a backward pass of its own;
    `attention_entropy` takes all positions."""
    scorer: str = "profanity_check"
    """Of `toxic_share`: a local scorer, as in toxicity.scorers. A turn's toxic words are the fewest without which it is
    not toxic to it (`evaluation.toxic_words`)."""

    @property
    def is_on(self) -> bool:
        """Is anything measured?"""
        return self.kind != "none"

    @model_validator(mode="after")
    def _weight_needs_a_kind(self) -> RegularizerConfig:
        if self.kind == "none" and self.weight:
            raise ValueError(
                f"weight={self.weight:g} without a kind has no effect; set kind to attention_entropy, "
                "attribution_entropy or toxic_share, or weight to 0"
            )
        return self
