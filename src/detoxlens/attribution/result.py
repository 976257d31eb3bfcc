"""The result of `attribute` for one completion. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from detoxlens.common.records import Attribution, Completion

Status = Literal["ok", "empty", "zero_gradient", "non_finite", "too_long"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceAttribution:
    """Attribution of one completion; `record` makes the table row of it."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    method: str
    target: str
    status: Status
    """`ok`, or why the rest is None: an empty completion, a gradient that is zero or not finite, or a sequence longer
    than the model's positions."""
    scores: tuple[tuple[float, ...], ...] | None
    """Row t holds len(prompt_ids) + t numbers >= 0 that sum to 1."""
    token_prob: tuple[float, ...] | None
    """p(y_t | prompt, y_<t) of each generated token."""
    completeness_gap: tuple[float, ...] | None = None
    """Integrated gradients only: |sum of attributions - (f(e) - f(b))| per generated token; 0 for an exact integral."""
    prompt_kl_bits: tuple[float, ...] | None = None
    """See `reliance`; None where it was not asked for, or cannot be had."""
    prompt_gain_bits: tuple[float, ...] | None = None
    """As `prompt_kl_bits`."""

    def record(
        self,
        completion: Completion,
        *,
        reader: str,
        text_source: str,
        prompt_pieces: Sequence[str],
        completion_pieces: Sequence[str],
    ) -> Attribution:
        """The row of attributions.parquet: this, of `completion` by `text_source`, read by the model of `reader`."""
        return Attribution(
            prompt_id=completion.prompt_id,
            sample_index=completion.sample_index,
            reader=reader,
            text_source=text_source,
            method=self.method,
            target=self.target,
            status=self.status,
            prompt_ids=self.prompt_ids,
            completion_ids=self.completion_ids,
            prompt_pieces=tuple(prompt_pieces),
            completion_pieces=tuple(completion_pieces),
            prompt_token_is_template=completion.prompt_token_is_template,
            scores=self.scores,
            token_prob=self.token_prob,
            prompt_kl_bits=self.prompt_kl_bits,
            prompt_gain_bits=self.prompt_gain_bits,
        )
