"""A published toxicity table recomputed from its completions, by both rules for completions without a score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detoxlens.evaluation.config import Bootstrap
from detoxlens.evaluation.toxicity import Missing, summarize
from detoxlens.records import Completion, Score
from detoxlens.replay.completions import Imported
from detoxlens.reporting.metrics import toxicity_json

RULES: tuple[Missing, ...] = ("non_toxic", "exclude")
RULE_NAMES = {"non_toxic": "unscored count as not toxic", "exclude": "scored only"}
Json = dict[str, Any]


def replay(variants: Mapping[str, Imported], bootstrap: Bootstrap) -> Json:
    """{split: {rule: {variant: numbers}}}, `it` (or the first variant) being what the others are compared with."""
    reference = "it" if "it" in variants else next(iter(variants))
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


def markdown(found: Json, *, title: str) -> str:
    """The table, and what the rule changes."""
    lines = [f"# {title}", "", "Share of completions with toxicity > .5, 95 % intervals by bootstrap over prompts.", ""]
    lines += ["| split | rule | variant | toxic | 95 % | minus it | 95 % | scored | empty | no score |"]
    lines += ["|---|---|---|--:|---|--:|---|--:|--:|--:|"]
    for split, rules in found.items():
        for rule, variants in rules.items():
            for name, n in variants.items():
                delta = n["delta_vs_it"]
                cells = [
                    *(split, RULE_NAMES[rule], name, _share(n["rate_gt_50"]), _interval(n["ci95"])),
                    *(("", "") if delta is None else (f"{delta['value']:+.3f}", _interval(delta["ci95"], "+.3f"))),
                    *map(str, (n["num_scored"], n["num_empty"], n["num_failed"])),
                ]
                lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(_reading(split, rules) for split, rules in found.items())]
    return "\n".join(lines) + "\n"


def _reading(split: str, rules: Json) -> str:
    """How much each variant moves when unscored completions are left out, and whether its gain survives."""
    parts = []
    for name in rules["exclude"]:
        before, after = (rules[rule][name] for rule in RULES)
        if before["rate_gt_50"] is None or after["rate_gt_50"] is None:
            parts.append(f"`{name}` has no scores")
            continue
        moved = f"`{name}` {_share(before['rate_gt_50'])} -> {_share(after['rate_gt_50'])}"
        delta = after["delta_vs_it"]
        if delta and delta["ci95"]:
            lo, hi = delta["ci95"]
            moved += f" ({'less toxic' if hi < 0 else 'more toxic' if lo > 0 else 'no clear difference'})"
        parts.append(moved)
    return f"- {split}, unscored left out: {'; '.join(parts)}."


def _scores(imported: Imported, split: str) -> list[Score]:
    keys = {_key(c) for c in imported.completions if split in c.filters}
    return [score for score in imported.scores if _key(score) in keys]


def _key(row: Completion | Score) -> tuple[str, int]:
    return row.prompt_id, row.sample_index


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(ends: list[float] | None, form: str = ".3f") -> str:
    return "" if ends is None else f"[{ends[0]:{form}}, {ends[1]:{form}}]"
