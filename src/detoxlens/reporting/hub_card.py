"""Model card of an adapter for the hub: front matter, how it was made, its numbers with intervals, use and limits.

Mitchell et al. 2019 (arXiv 1810.03993); front matter: https://huggingface.co/docs/hub/model-cards. Numbers are those of
reports/metrics.json; what is not there is not in the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from detoxlens.common.records import ModelRef

USE = """\
Research on detoxification: comparing how methods change what a model says and how it uses its prompt. It is no safety
measure by itself: toxicity is what one grader calls so, on the prompts named above, and text that the grader does not
know as toxic passes.
"""
LIMITS = """\
- One grader, one set of prompts, one way of decoding; other prompts and languages were not measured.
- Less toxic is not more helpful: fluency is measured, usefulness is not.
- Counter-narratives speak about hostile statements, and may repeat them.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What a card is written from: CardFacts(name="tiny-neox/ft", ..., split="p50", grader="profanity_check")"""

    name: str
    """Model and variant."""
    how: str
    """The adapter folder's own README: how it was trained; its headline is replaced."""
    base: ModelRef
    """With a hub id in `base`."""
    metrics: Mapping[str, Any] | None
    """The variant's entry of metrics.json; None: it was not evaluated."""
    split: str
    """The split of the numbers, params `report.primary_split`."""
    grader: str
    """Params `toxicity.headline`."""
    license: str
    """An SPDX name or `other`; of the adapter."""
    datasets: tuple[str, ...]
    """Hub ids of what it was trained on, as far as they have one."""


def hub_card(facts: CardFacts) -> str:
    """README.md with front matter."""
    data = ModelCardData(
        base_model=facts.base.base,
        library_name="peft",
        pipeline_tag="text-generation",
        license=facts.license,
        datasets=list(facts.datasets) or None,
        tags=["detoxification", "lora", "detoxlens"],
        model_name=facts.name,
        eval_results=_results(facts) or None,
    )
    body = facts.how.partition("\n")[2].strip()
    base = f"`{facts.base.base}`" + (f" at revision `{facts.base.revision}`" if facts.base.revision else "")
    return (
        f"---\n{data.to_yaml()}\n---\n\n# {facts.name}\n\n{body}\n\nBase model: {base}.\n\n"
        f"## Evaluation\n\n{_table(facts)}\n## Intended use\n\n{USE}\n## Limits\n\n{LIMITS}\n"
        "Made with detoxlens, after Scalena, Sarti, Nissim and Fersini 2023 (arXiv 2309.00751).\n"
    )


def _measures(facts: CardFacts) -> list[tuple[str, str, float, list[float] | None, int | None]]:
    """What, its name in the front matter, value, 95 % interval, n."""
    if facts.metrics is None:
        return []
    found = []
    if rate := facts.metrics["toxicity"].get(facts.split):
        n = rate["num_scored"]
        found.append(("share toxic (> .5)", "toxicity_rate", rate["rate_gt_50"], rate["ci95"], n))
        if (against := rate.get("delta_vs_it")) is not None:
            found.append(
                ("against the base model", "toxicity_delta", against["value"], against["ci95"], against["num_prompts"])
            )
    perplexity = facts.metrics["fluency"].get("measures", {}).get("perplexity")
    if perplexity is not None:
        found.append(("perplexity under the base model", "perplexity", perplexity["value"], perplexity["ci95"], None))
    return found


def _results(facts: CardFacts) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type="prompts",
            dataset_name=facts.split,
            metric_type=key,
            metric_name=f"{what}, by {facts.grader}" if key.startswith("toxicity") else what,
            metric_value=round(value, 4),
        )
        for what, key, value, _, _ in _measures(facts)
        if value is not None
    ]


def _table(facts: CardFacts) -> str:
    rows = _measures(facts)
    if not rows:
        return "This adapter was not evaluated.\n"
    lines = ["| measure | value | 95 % interval | n |", "|---|---:|---|---:|"]
    for what, _, value, interval, n in rows:
        shown = "–" if value is None else f"{value:.3f}"
        lines.append(f"| {what} | {shown} | {_interval(interval)} | {n if n is not None else ''} |")
    return (
        f"Test prompts of the split `{facts.split}`, graded by `{facts.grader}`, which trained nothing here.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def _interval(found: list[float] | None) -> str:
    return "–" if found is None else f"[{found[0]:.3f}, {found[1]:.3f}]"
