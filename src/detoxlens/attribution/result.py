"""What `attribute` gives back for one completion. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from detoxlens.common.records import Attribution

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

    def record(
        self,
        *,
        prompt_id: str,
        sample_index: int,
        text_source: Literal["own", "it"],
        prompt_token_is_template: Sequence[bool],
    ) -> Attribution:
        """The row of attributions.parquet."""
        return Attribution(
            prompt_id=prompt_id,
            sample_index=sample_index,
            method=self.method,
            target=self.target,
            text_source=text_source,
            status=self.status,
            prompt_ids=self.prompt_ids,
            completion_ids=self.completion_ids,
            prompt_token_is_template=tuple(prompt_token_is_template),
            scores=self.scores,
            token_prob=self.token_prob,
        )
