"""A published toxicity table recomputed from its completions, by both rules for completions without a score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from detoxlens.common.names import shown_name
from detoxlens.common.records import Completion, Score
from detoxlens.evaluation.as_json import toxicity_json
from detoxlens.evaluation.missing_rule import OTHER, rule_effect
from detoxlens.evaluation.toxicity import Missing, summarize
from detoxlens.params.report import Bootstrap
from detoxlens.recorded.completions import Imported

RULES: tuple[Missing, ...] = ("non_toxic", "exclude")
"""Params `toxicity.missing`: as the paper had it, and as it should be."""
RULE_NAMES = {"non_toxic": "unscored count as not toxic", "exclude": "scored only"}
Json = dict[str, Any]


def reference_of(variants: Iterable[str]) -> str:
    """`it`, or the first variant where there is no `it`."""
    names = list(variants)
    return "it" if "it" in names else names[0]


def replay(variants: Mapping[str, Imported], bootstrap: Bootstrap) -> Json:
    """{split: {rule: {variant: numbers}}}, the others compared with `reference_of` them."""
    reference = reference_of(variants)
    splits = dict.fromkeys(name for v in variants.values() for c in v.completions for name in c.filters)
    return {
        split: {
            rule: {
                name: toxicity_json(
                    summarize(
                        _scores(imported, split),
                        None if name == reference else _scores(variants[reference], split),
                        bootstrap,
                        missing=rule,
                    )
                )
                for name, imported in variants.items()
            }
            for rule in RULES
        }
        for split in splits
    }


def markdown(found: Json, *, title: str, missing: Missing, reference: str) -> str:
    """The table, the rule `missing` first, and what the other changes."""
    lines = [f"# {title}", "", "Share of completions with toxicity > .5, 95 % intervals by bootstrap over prompts.", ""]
    lines += [f"By `toxicity.missing: {missing}` ({RULE_NAMES[missing]}), and by the other rule.", ""]
    lines += [
        f"| split | rule | variant | toxic | 95 % | minus {shown_name(reference)} | 95 % | scored | empty | no score |"
    ]
    lines += ["|---|---|---|--:|---|--:|---|--:|--:|--:|"]
    for split, rules in found.items():
        for rule in (missing, OTHER[missing]):
            for name, n in rules[rule].items():
                delta = n["delta_vs_it"]
                cells = [
                    *(split, RULE_NAMES[rule], shown_name(name), _share(n["rate_gt_50"]), _interval(n["ci95"])),
                    *(("", "") if delta is None else (f"{delta['value']:+.3f}", _interval(delta["ci95"], "+.3f"))),
                    *map(str, (n["num_scored"], n["num_empty"], n["num_failed"])),
                ]
                lines.append(f"| {' | '.join(cells)} |")
    lines += [""]
    for split, rules in found.items():
        effect = rule_effect(split, rules[missing], rules[OTHER[missing]], missing=missing, reference=reference)
        lines += [f"- {effect or f'{split}: every completion has a score, so both rules say the same.'}"]
    return "\n".join(lines) + "\n"


def _scores(imported: Imported, split: str) -> list[Score]:
    keys = {_key(c) for c in imported.completions if split in c.filters}
    return [score for score in imported.scores if _key(score) in keys]


def _key(row: Completion | Score) -> tuple[str, int]:
    return row.prompt_id, row.sample_index


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(ends: list[float] | None, form: str = ".3f") -> str:
    return "" if ends is None else f"[{ends[0]:{form}}, {ends[1]:{form}}]"
