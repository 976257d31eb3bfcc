"""Where the stage `score` looks for toxic words: with which scorer, and by which tokenizer; each loaded when needed."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from detoxlens.attribution.pieces import pieces_of
from detoxlens.common.artifacts import Layout, read_model_ref
from detoxlens.common.records import Completion
from detoxlens.common.scoring import Scorer
from detoxlens.evaluation.toxic_words import LocalJudge
from detoxlens.evaluation.word_table import word_rows
from detoxlens.jobs.shares import Share, device_of
from detoxlens.models.loading import load_tokenizer
from detoxlens.params.load import Params
from detoxlens.params.toxic_words import ToxicWordsConfig
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.scorers import make_scorer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Words:
    """The rows of `ToxicWord` that a completion has, as JSON keeps them."""

    rows: list[dict[str, Any]]


def words_measure(
    layout: Layout,
    params: Params,
    model: str,
    variant: str,
    share: Share | None,
    scorers: Sequence[Scorer],
    toxicity: ToxicityConfig,
    config: ToxicWordsConfig,
) -> Callable[[list[Completion]], list[Words]]:
    """Where toxic completions, and, in the stage of `it`, prompts are toxic; no rows where no scorer can say."""
    name, spec = config.located_by(toxicity.headline), params.model(model)
    if name is None:
        log.warning(
            "%s/%s: no toxic words are looked for: toxic_words.max_words=%d, and %s. Name a scorer that works here in "
            "toxic_words.scorer, e.g. profanity_check.",
            model,
            variant,
            config.max_words,
            f"the grader is {config.scorer or toxicity.headline}",
        )
        return lambda part: [Words([]) for _ in part]

    @functools.cache
    def judge() -> LocalJudge:
        known = next((scorer for scorer in scorers if scorer.name == name), None)
        return LocalJudge(
            known
            or make_scorer(
                name, root=layout.root, device=device_of(share, params.run.device), normalize=toxicity.normalize
            )
        )

    @functools.cache
    def pieces(ids: tuple[int, ...]) -> tuple[str, ...]:
        return pieces_of(tokenizer(), ids) if ids else ()

    @functools.cache
    def tokenizer() -> PreTrainedTokenizerBase:
        ref = read_model_ref(layout.adapter(model, variant))
        return load_tokenizer(layout.root, ref, trust_remote_code=spec.trust_remote_code)

    def measure(part: list[Completion]) -> list[Words]:
        found = word_rows(part, judge(), pieces, prompts=variant == "it", max_words=config.max_words)
        return [Words([dataclasses.asdict(row) for row in rows]) for rows in found]

    return measure
