"""The records that cross module borders, one class per table row.

Shape legend used in trailing comments and jaxtyping annotations:
    batch   sequences in one tensor           time    positions of the response (generated tokens)
    seq     prompt + response positions       vocab   vocabulary size
    hidden  embedding width                   targets generated tokens differentiated in one pass
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "val", "test"]
FinishReason = Literal["eos", "length", "stop", "unknown"]
"""Why a completion ends: an end token, its greatest length, the human's next turn; or it was made elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """One hater / counter-narrative exchange, turns alternating, hater first.

    Dialogue(dialogue_id="12", target="ZORGONS", source="sample", split="train",
             turns=("Zorgons are lazy fools.", "Zorgons work the night shift so that we need not.", ...))
    """

    dialogue_id: str
    target: str
    """The group spoken of, in DialoCONAN's spelling."""
    source: str
    split: Split
    turns: tuple[str, ...]
    """Even number of turns; index 0, 2, ... is the hater, 1, 3, ... the counter-narrative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One evaluation prompt.

    Prompt(prompt_id="9f86d081884c7d65", split="test", filters=("p50", "pc50"),
           text="Zorgons are stupid and", toxicity=0.91)
    """

    prompt_id: str
    """First 16 hex digits of sha256 of `text`; duplicates are numbered: `<hex>-1`, `<hex>-2`."""
    split: Split
    """`val` for selection and sweeps, `test` for the report."""
    filters: tuple[str, ...]
    """Names of the params `splits` whose filter this prompt meets, e.g. p50, pc50, polite."""
    text: str
    toxicity: float | None
    """The data set's own toxicity of the prompt, 0..1."""
    target: str | None = None
    """The group spoken of: the row's `target`, else the one of the dialogues' targets that the text names; or none."""
    categories: tuple[str, ...] = ()
    """What its source says of it: the row's `category`, or those of RTP's scores, toxicity aside, that are above .5."""
    reference: str | None = None
    """A reply that somebody civil would be content with (`reference.text`), by which utility is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sampled completion of one prompt. Token ids are authoritative: nothing decodes and re-encodes."""

    prompt_id: str
    sample_index: int
    split: Split
    filters: tuple[str, ...]
    prompt: str
    """Raw prompt text, without template."""
    prompt_ids: tuple[int, ...]
    """Token ids of the templated prompt, what the model saw."""
    prompt_token_is_template: tuple[bool, ...]
    """Per prompt token: does it come from the template rather than from the user's text?"""
    completion: str
    completion_ids: tuple[int, ...]
    """Generated token ids without the end-of-sequence token."""
    finish_reason: FinishReason
    seed: int
    """Seed of this row's own random stream, so that batch composition does not change the sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One scorer's verdict on one completion."""

    prompt_id: str
    sample_index: int
    scorer: str
    scorer_version: str
    """Weights hash, or the service's date."""
    label: str
    activation: str
    truncated: bool
    toxicity: float | None
    """0..1, or None unless status is ok."""
    status: Literal["ok", "empty", "failed"]
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fluency:
    """How fluent one completion is under the base model."""

    prompt_id: str
    sample_index: int
    nll_nats: float | None
    """Summed negative log-likelihood of the completion under the base (`it`) model; None when empty."""
    num_tokens: int | None
    """None of a completion made elsewhere, whose tokens are not known."""
    mentions_prompt: bool | None
    """Does the completion repeat a content word of the prompt? None where its words are unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dose:
    """What a variant answers with its adapter at one strength: Dose(alpha=0.5, prompt_id="9f86d081884c7d65", ...)."""

    alpha: float
    """Factor of the adapter's update: 0 is base, 1 the variant."""
    prompt_id: str
    sample_index: int
    completion: str
    completion_ids: tuple[int, ...]
    """Generated token ids without the end-of-sequence token."""
    toxicity: float | None
    """By the headline's scorer, 0..1; None unless status is ok."""
    status: Literal["ok", "empty", "failed"]
    nll_nats: float | None
    """Summed negative log-likelihood under base; None when empty."""
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToxicWord:
    """A word of a toxic completion, or of a prompt, and what it does to the toxicity of its text.

    ToxicWord(prompt_id="...", sample_index=0, text_source="own", toxicity=.93, word_index=2, word="idiots",
              first_token=4, last_token=5, drop=.83, in_minimal=True, is_onset=True, is_copied=False)
    """

    prompt_id: str
    sample_index: int
    """Of a prompt's words 0."""
    text_source: Literal["own", "prompt"]
    """The variant's own completion, or the user's text (in the table of `it` alone: all variants answer the same)."""
    toxicity: float
    """Of the text, 0..1, by the scorer that was asked about its parts (params `toxic_words.scorer`)."""
    word_index: int
    """Among the words of the text, from 0."""
    word: str
    first_token: int | None
    """Index in `completion_ids` or `prompt_ids`; None where no token holds the word, or the tokens are not known."""
    last_token: int | None
    """Included."""
    drop: float | None
    """Toxicity of the text minus its toxicity without the word; None where the latter could not be had."""
    in_minimal: bool
    """In the minimal set of words without which the text is not toxic (`evaluation.toxic_words`)."""
    is_onset: bool
    """The first word with which the text so far is toxic."""
    is_copied: bool | None
    """Of a completion's word: does the prompt contain it?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseKind:
    """What kind of reply one completion is: ResponseKind(prompt_id="9f86", sample_index=0, kind="answer", ...)"""

    prompt_id: str
    sample_index: int
    kind: Literal["refusal", "counter_speech", "answer", "empty"]
    counter_speech_prob: float | None
    """P(counter-speech), 0..1; None of an empty completion."""
    grader_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Utility:
    """How a variant takes the reference reply to a prompt: Utility(prompt_id="9f86", num_tokens=9, nll_bits=11, ...)"""

    prompt_id: str
    num_tokens: int
    """Of the reference reply, > 0."""
    nll_bits: float
    """- log2 P(reference | prompt) under the variant, summed over its tokens."""
    kl_to_base_bits: float
    """KL(variant || base) of the predictions of its tokens, summed; 0 of base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceCost:
    """What a variant costs at inference beside base (`models.inference_cost`)."""

    extra_weights_bytes: int
    flops_per_token: float
    """Of a forward pass over a prompt with its reply, per token of base's prompt with it."""
    base_flops_per_token: float
    extra_prompt_tokens: float
    """Tokens that the variant's prompts have more than base's, on average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Attribution of every generated token over prompt and generated prefix.

    Attribution(prompt_id="...", sample_index=0, reader="ft", text_source="it", method="input_x_gradient",
                target="probability", status="ok", prompt_ids=(5, 9), completion_ids=(7, 8),
                prompt_pieces=("<bot>:", " Hi"), completion_pieces=(" you", "."),
                prompt_token_is_template=(True, False), scores=((.4, .6), (.2, .3, .5)), token_prob=(.9, .7),
                prompt_kl_bits=(2.1, .1), prompt_gain_bits=(1.4, .2))
    """

    prompt_id: str
    sample_index: int
    reader: str
    """The variant whose model reads the text."""
    text_source: str
    """The variant whose completion the text is."""
    method: str
    target: str
    status: str
    """`ok`, or why `scores` is None: empty | zero_gradient | non_finite | too_long."""
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    prompt_pieces: tuple[str, ...]
    """The text of each prompt token."""
    completion_pieces: tuple[str, ...]
    """The text of each generated token."""
    prompt_token_is_template: tuple[bool, ...]
    scores: tuple[tuple[float, ...], ...] | None
    """Row t holds len(prompt_ids) + t numbers >= 0 that sum to 1."""
    token_prob: tuple[float, ...] | None
    """p(y_t | prompt, y_<t) of each generated token."""
    prompt_kl_bits: tuple[float, ...] | None
    """Per generated token, how far the prediction is from the one without the user's text (`attribution.reliance`);
    None for a further method, without scores, or where the prompt has no template token."""
    prompt_gain_bits: tuple[float, ...] | None
    """Per generated token, how much likelier the user's text makes it; None as `prompt_kl_bits`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """Where a variant's weights are, so that no stage branches on the kind of model (`model_ref.json`)."""

    base: str
    """Hub id, or a path relative to the repository root."""
    revision: str
    """Commit sha of a hub model, or sha256 of the local weights."""
    adapter: str | None
    """Path of the PEFT adapter relative to the repository root, or None for the base model itself."""
    intervention: str | None = None
    """Path of the folder, relative to the repository root, that says what is done to the model without training
    (`models.interventions`), or None."""
    system: str | None = None
    """A system message that stands before each chat of this variant, whatever the model's template says; or None."""


def prompt_ids_of(texts: Iterable[str]) -> list[str]:
    """Stable identifiers of raw prompts: 16 hex digits of sha256, the n-th repetition suffixed `-n`."""
    seen: dict[str, int] = {}
    ids = []
    for text in texts:
        digest = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
        n = seen.get(digest, 0)
        seen[digest] = n + 1
        ids.append(digest if n == 0 else f"{digest}-{n}")
    return ids
