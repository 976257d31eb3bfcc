"""What sentences are about: a method, with all of its seeds where it has several, never one seed of them.

Of metrics.json an entry per method, under its first variant, in the shape of a variant's entry: where a number over all
seeds exists it stands in the place of the first seed's, and one that only a single seed has is left out. Checks are
those of all seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detoxlens.common.names import BASE
from detoxlens.reporting.table import value_at

Json = dict[str, Any]
OF_ONE_SEED = ("distinct_per_100_prompts",)
"""Of `fluency`, what no mean over seeds exists of."""


def by_method(metrics: Mapping[str, Any], groups: Mapping[str, str]) -> dict[str, Json]:
    """{model: {first variant: entry}} of metrics.json, base first; `group` names the method in the pairs of others.

    Args:
        metrics: what `build_metrics` returned.
        groups: variant -> method, of which several seeds are several variants.
    """
    return {
        model: {
            seeds[0]: {"group": method}
            | (_of_all([variants[seed] for seed in seeds], seeds) if len(seeds) > 1 else variants[seeds[0]])
            for method, seeds in _methods(variants, groups).items()
        }
        for model, variants in metrics.items()
    }


def num_seeds(found: Mapping[str, Any]) -> int:
    """Trainings behind an entry."""
    return len(value_at(found, "method", "variants") or "1")


def named(variant: str, found: Mapping[str, Any]) -> str:
    """`ft` as code, with the number of seeds where there are several."""
    return f"`{variant}`" if num_seeds(found) == 1 else f"`{variant}` ({num_seeds(found)} seeds)"


def _methods(variants: Mapping[str, Any], groups: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for variant in variants:
        found.setdefault(BASE if variant == BASE else groups.get(variant, variant), []).append(variant)
    return found


def _of_all(entries: Sequence[Json], seeds: Sequence[str]) -> Json:
    """One entry of several seeds; it is a twin of base where each of them is."""
    first, method = entries[0], entries[0].get("method", {})
    if not all("identical_to" in entry for entry in entries):
        first = {name: of for name, of in first.items() if name != "identical_to"}
    found = {
        **first,
        "toxicity": {
            split: of | _rates(value_at(method, "toxicity", split, "rate_gt_50"))
            for split, of in first["toxicity"].items()
        },
        "fluency": _fluency(first["fluency"], method.get("fluency", {})),
        "attribution": first["attribution"]
        | {
            name: value_at(method, "attribution", name)
            for name in ("effects", "rise", "contrast", "other_prompts")
            if name in first["attribution"]
        }
        | {"checks": _checks([entry["attribution"].get("checks", {}) for entry in entries], seeds, method)},
    }
    costs = {name: _filled(found, value_at(method, "costs", name)) for name, found in first.get("costs", {}).items()}
    return found | ({"costs": costs} if costs else {})


def _rates(over_seeds: Json | None) -> Json:
    if over_seeds is None:
        return {}
    return {"rate_gt_50": over_seeds["value"], "ci95": over_seeds["ci95"], "delta_vs_it": over_seeds["delta_vs_it"]}


def _fluency(first: Json, over_seeds: Json) -> Json:
    mentions = over_seeds.get("prompt_mention_rate")
    return (
        first
        | dict.fromkeys(OF_ONE_SEED)
        | {name: of["value"] for name, of in over_seeds.items() if name in first}
        | {f"prompt_mention_{name}": value_at(mentions, name) for name in ("ci95", "delta_vs_it")}
        | {"measures": over_seeds}
    )


def _filled(first: Any, over_seeds: Any) -> Any:
    """The tree of a single seed with the numbers of all where they are."""
    if not isinstance(first, Mapping) or not isinstance(over_seeds, Mapping) or "value" in over_seeds:
        return first if over_seeds is None else over_seeds
    return {key: _filled(of, over_seeds.get(key)) for key, of in first.items()}


def _checks(of_seeds: Sequence[Json], seeds: Sequence[str], method: Json) -> Json:
    """Each seed's tests side by side; the signs by other methods of attribution are those of the mean over seeds."""
    gold = {
        f"{name} of {seed}": of
        for seed, checks in zip(seeds, of_seeds, strict=True)
        for name, of in checks.get("gold", {}).items()
    }
    deletion = [test for checks in of_seeds for test in checks.get("deletion", ())]
    return of_seeds[0] | {"gold": gold, "deletion": deletion, "methods": value_at(method, "attribution", "methods")}
