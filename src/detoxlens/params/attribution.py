"""Params section `attribution`: what is attributed, of which completions, and how the result is put to the test."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from detoxlens.params.section import Name, Section

Method = Literal["input_x_gradient", "saliency", "integrated_gradients", "occlusion", "value_zeroing", "attention"]


class FaithfulnessConfig(Section):
    """The deletion test and the parameter-randomisation check, on a random sample of the attributed sequences."""

    num_sequences: int = Field(ge=0)
    """Sequences tested per variant, drawn by run.seed; 0 switches the tests off."""
    steps_per_sequence: int = Field(ge=1)
    """Generated tokens tested per sequence, evenly spread over the completion."""
    fractions: list[Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=1)
    """Shares of the user's tokens that are deleted (comprehensiveness) or kept (sufficiency), at least one token."""
    num_random: int = Field(ge=1)
    """Random choices of as many tokens, against which the attributed ones are measured."""


class AgreementConfig(Section):
    """Do other methods of attribution say the same, on a sample of the same texts?"""

    methods: list[Method]
    """Beside `attribution.method`; none switches it off. integrated_gradients costs num_path_steps times as much."""
    num_sequences: int = Field(ge=0)
    """Test prompts per method, model and text, drawn by run.seed: the same ones for every variant."""


class AttributionConfig(Section):
    """How the stage `attribute` works. Every variant is attributed on the same prompts."""

    method: Method
    """What a score is made of; docs/method.md has the formulas."""
    target: Literal["probability", "log_probability"]
    """What is differentiated: p(y_t), or log p(y_t). The same scores for the first two methods."""
    filters: list[Name] = Field(min_length=1)
    """Names of `splits` whose test prompts are attributed."""
    sample: Literal["random", "balanced"]
    """Prompts alike, or half of them such as `it` answers toxically; means over both are then weighted back. One value
    for all models, since dvc.yaml names by it the file that prompts are drawn by."""
    sample_toxic_above: float = Field(gt=0, lt=1)
    """Toxicity by toxicity.headline above which `balanced` takes an answer for toxic."""
    max_sequences: int = Field(ge=1)
    """Prompts per filter, drawn by run.seed; the same ones for every variant."""
    samples_per_prompt: int = Field(ge=1)
    """How many of a prompt's completions are attributed, from sample_index 0 on."""
    validation: bool = True
    """Attribute validation prompts too, for the numbers below attribution/val, in which no test prompt has a part.
    Without them it takes two fifths less. Sweeps, which read no test prompts, attribute them whatever it says."""
    unit: Literal["token", "word"]
    """What entropy and dependence are measured over: subword tokens, or words, their tokens merged first (as the
    authors did). Decided in the report: another value attributes nothing anew."""
    mask_template: bool
    """Leave the template's tokens out of the headline's entropy and dependence (the authors kept them); rows over the
    user's text alone are shown beside either."""
    num_path_steps: int = Field(ge=1)
    """Points of the path of integrated gradients."""
    batch_size: int | Literal["auto"]
    """Sequences per pass; `auto` goes by memory_mib."""
    memory_mib: int | None = Field(ge=1)
    """What the live gradients of one pass may take; null is 16 MiB on a CPU, half of the free memory elsewhere."""
    precision_check: int = Field(ge=0)
    """Sequences of a model whose dtype is not float32 that are attributed in float32 too, to report how far the two
    are apart; 0 switches it off."""
    faithfulness: FaithfulnessConfig
    """Deletion of the most attributed tokens: how much of the log-odds is lost."""
    agreement: AgreementConfig
    """Other methods, to compare the ranks of tokens and the sign of each headline with."""
