"""From a checkpoint and a prompt to an `Explanation`: load, sample a completion where none is given, attribute it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from detoxlens.attribution import METHODS, entropy
from detoxlens.common.errors import UserError, did_you_mean
from detoxlens.common.records import ModelRef
from detoxlens.explain.checkpoints import NO_TEMPLATE
from detoxlens.params.models import ChatTemplate, TemplateConfig, WeightsConfig

if TYPE_CHECKING:
    from detoxlens.params.generation import GenerationConfig

TARGETS = ("probability", "log_probability", "contrastive")
DTYPES = ("float32", "bfloat16", "float16")
REFUSALS = {
    "empty": "the completion is empty: give --completion TEXT, or another --seed",
    "too_long": "prompt and completion are longer than the model's context: shorten them, or lower --max-new-tokens",
    "zero_gradient": "a generated token does not depend on the input at all (its gradient is zero)",
    "non_finite": "the gradients are not finite numbers: the weights are damaged, or overflow; try --dtype float32",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """An attributed completion, ready to be shown."""

    checkpoint: str
    """The model's name for the reader."""
    method: str
    """A key of `attribution.METHODS`."""
    target: str
    """One of `TARGETS`."""
    prompt_pieces: tuple[str, ...]
    """The text of each prompt token, template included: what the model saw."""
    completion_pieces: tuple[str, ...]
    """The text of each generated token."""
    is_template: tuple[bool, ...]
    """Per prompt token: does it come from the template?"""
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]
    """Row t over the prompt and the t generated tokens before; sums to 1."""
    token_prob: tuple[float, ...]
    """p(y_t | prompt, y_<t), 0..1."""
    contrast_pieces: tuple[str, ...] | None = None
    """Target `contrastive`: the model's likeliest other token at each step."""
    unit: Literal["token", "word"] = "token"
    """What a piece is; a row over words ends with the word's share on itself (`words.by_words`)."""
    toxic_prompt: frozenset[int] = frozenset()
    """Prompt pieces that are of toxic words (`toxic.Marker`)."""
    toxic_completion: frozenset[int] = frozenset()
    marked_by: str | None = None
    """The scorer that toxic words were found by; None: nobody looked."""

    @property
    def completion(self) -> str:
        """The generated text, without the space that a template puts before it."""
        return "".join(self.completion_pieces).strip()

    @property
    def num_prompt(self) -> int:
        return len(self.prompt_pieces)

    def entropy_bits(self) -> list[float | None]:
        """Per generated token: entropy of the attribution over the prompt tokens, 0..log2(num_prompt)."""
        return _or_none(entropy.prompt_entropy_bits(self._padded, self.num_prompt))

    def dependence(self) -> list[float | None]:
        """Per generated token: share of the attribution that lies on the prompt, 0..1."""
        return _or_none(entropy.prompt_dependence(self._padded, self.num_prompt))

    @property
    def _padded(self) -> np.ndarray:
        return entropy.padded(self.scores, self.num_prompt)

    @property
    def toxic(self) -> frozenset[int]:
        """Pieces of toxic words, the prompt's from 0, the generated ones behind."""
        return self.toxic_prompt | {self.num_prompt + i for i in self.toxic_completion}

    def toxic_summary(self) -> str:
        """What is underlined, in words; empty where nobody looked."""
        if self.marked_by is None:
            return ""
        found = {
            "prompt": _runs(self.prompt_pieces, self.toxic_prompt),
            "completion": _runs(self.completion_pieces, self.toxic_completion),
        }
        said = "; ".join(f"{what}: {', '.join(f'“{run}”' for run in runs) or 'none'}" for what, runs in found.items())
        return f"words without which the text is not toxic to {self.marked_by}. {said}"

    def summary(self) -> str:
        """The means over the generated tokens, as the report defines them."""
        bits, share, dependence = (
            entropy.mean_over_steps(measure(self._padded, self.num_prompt))
            for measure in (entropy.prompt_entropy_bits, entropy.normalized_prompt_entropy, entropy.prompt_dependence)
        )
        parts = [
            f"{self.num_prompt} prompt {self.unit}s, {len(self.scores)} generated",
            "prompt entropy undefined" if bits is None else f"mean prompt entropy {bits:.2f} bits",
            None if share is None else f"{share:.2f} of its maximum",
            None if dependence is None else f"mean dependence on the prompt {dependence:.2f}",
        ]
        return ", ".join(part for part in parts if part)


def check_choices(*, method: str, target: str, dtype: str, device: str, html: Path | None, json: Path | None) -> None:
    """Checks what needs no model, before one is loaded.

    Raises:
        UserError: an unknown method, target or dtype, a device that is not here, or a file that cannot be written.
    """
    for option, value, allowed in (("method", method, METHODS), ("target", target, TARGETS), ("dtype", dtype, DTYPES)):
        if value not in allowed:
            hint = did_you_mean(value, allowed)
            raise UserError(f"--{option} {value} is not known.{hint} Allowed: {', '.join(allowed)}.")
    if METHODS[method] == "inseq" and target == "contrastive":
        raise UserError(
            f"--target contrastive goes with occlusion and the gradient methods, not with --method {method}."
        )
    for option, file, suffix in (("html", html, ".html"), ("json", json, ".json")):
        if file is not None and (file.is_dir() or file.suffix.lower() not in (suffix, suffix[:-1])):
            raise UserError(f"--{option} {file}: give a file name that ends in {suffix}.")
    check_device(device)


def check_device(device: str) -> None:
    """Raises UserError unless torch can compute on `device`."""
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise UserError(f"--device {device} cannot be used: {str(e).splitlines()[0]} Try --device cpu.") from None


def explain(
    root: Path,
    *,
    checkpoint: str,
    ref: ModelRef,
    template: TemplateConfig | ChatTemplate | None,
    prompt: str,
    completion: str | None,
    method: str,
    target: str,
    generation: GenerationConfig,
    seed: int,
    device: str,
    dtype: str,
    trust_remote_code: bool = False,
    like: Explanation | None = None,
) -> Explanation:
    """Attributes `completion`, or one sampled from the model, to the prompt.

    Args:
        root: project root, against which the paths of `ref` are read.
        checkpoint: the model's name for the reader.
        ref: what to load.
        template: put around prompt and completion; None takes the tokenizer's own, if it has one.
        prompt: the user's text.
        completion: the model's answer, or None to sample one.
        method: a key of `attribution.METHODS`.
        target: `probability`, `log_probability`, or `contrastive` (against the model's likeliest other token).
        generation: how to sample.
        seed: of the sample.
        device: e.g. "cpu" or "cuda:0".
        dtype: "float32", "bfloat16" or "float16".
        trust_remote_code: run the model's own code from the hub.
        like: another model's, whose completion is attributed instead: its very tokens, where this tokenizer reads them
            as the same text, else its text.

    Raises:
        UserError: the model cannot be loaded, the text does not fit, or there is nothing to attribute.
    """
    from detoxlens.attribution.api import attribute, runner_up_ids
    from detoxlens.attribution.pieces import pieces_of
    from detoxlens.data.replies import reply_of, stops_of
    from detoxlens.data.templates import encode_prompt, encode_reply, turn_end_ids, with_system
    from detoxlens.models.end_tokens import set_end_tokens
    from detoxlens.models.generation import sample
    from detoxlens.models.loading import load_model, load_tokenizer

    tokenizer = load_tokenizer(root, ref, trust_remote_code=trust_remote_code)
    template = template or (ChatTemplate() if tokenizer.chat_template else NO_TEMPLATE)
    template = with_system(template, ref.system)
    encoded = encode_prompt(tokenizer, template, [prompt], evaluation=True)
    if not encoded.ids:
        raise UserError("--prompt is empty; the first generated token would follow nothing.")
    weights = WeightsConfig(dtype=dtype, trust_remote_code=trust_remote_code)
    model = load_model(root, ref, weights, device=device)
    if like is not None:
        ids = completion_like(tokenizer, like) or encode_reply(tokenizer, template, prompt, like.completion)
    elif completion is None:
        (sampled,) = sample(
            model,
            [encoded.ids],
            config=generation,
            seeds=[seed],
            eos_token_id=set_end_tokens(model, tokenizer, turn_end_ids(tokenizer, template)),
            pad_token_id=tokenizer.pad_token_id,
            batch_size=1,
        )
        stop = stops_of(generation, tokenizer, template)
        ids = reply_of(tokenizer, sampled.token_ids, sampled.finish_reason, stop=stop).token_ids
    else:
        ids = encode_reply(tokenizer, template, prompt, completion)
    contrast = runner_up_ids(model, prompt_ids=[encoded.ids], completion_ids=[ids]) if target == "contrastive" else None
    (found,) = attribute(
        model, prompt_ids=[encoded.ids], completion_ids=[ids], method=method, target=target, contrast_ids=contrast
    )
    if found.scores is None or found.token_prob is None:
        raise UserError(f"Nothing to show: {REFUSALS[found.status]}.")
    return Explanation(
        checkpoint=checkpoint,
        method=method,
        target=target,
        prompt_pieces=pieces_of(tokenizer, encoded.ids),
        completion_pieces=pieces_of(tokenizer, ids),
        is_template=encoded.is_template,
        prompt_ids=encoded.ids,
        completion_ids=ids,
        scores=found.scores,
        token_prob=found.token_prob,
        contrast_pieces=None if contrast is None else pieces_of(tokenizer, contrast[0]),
    )


def completion_like(tokenizer: Any, other: Explanation) -> tuple[int, ...] | None:
    """The token ids of another model's completion where they mean the same to this tokenizer, else None."""
    from detoxlens.attribution.pieces import pieces_of

    ids = other.completion_ids
    known = max(ids) < len(tokenizer) and pieces_of(tokenizer, ids) == other.completion_pieces
    return ids if known else None


def _runs(pieces: Sequence[str], toxic: frozenset[int]) -> list[str]:
    """The text of each run of toxic pieces: [`idiots`] of ` are` ` id` `iots`, {1, 2}."""
    runs: list[str] = []
    for i in sorted(toxic):
        joins = i - 1 in toxic and not pieces[i][:1].isspace()
        runs = [*runs[:-1], runs[-1] + pieces[i]] if joins else [*runs, pieces[i]]
    return [run.strip() for run in runs]


def _or_none(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]
