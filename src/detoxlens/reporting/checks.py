"""The entry `checks` of metrics.json: do the attributions say what the model uses? Numbers, and what passes.

`passes` is true where the interval lies on the right side of 0, false where it does not, null where nothing was tested;
`reason` then says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detoxlens.attribution.entropy import MEASURES
from detoxlens.attribution.ranks import rank_products
from detoxlens.evaluation.as_json import estimate_json
from detoxlens.evaluation.effects import common_support, step_means
from detoxlens.evaluation.gold import Ranking
from detoxlens.evaluation.intervals import mean_t
from detoxlens.evaluation.stats import mean_ci
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.effects import cells, effects, step_table
from detoxlens.reporting.own_text import mean, table
from detoxlens.reporting.study import Trace, VariantTables
from detoxlens.reporting.traces import ANY_METHOD

Json = dict[str, Any]
RANKINGS = tuple(field.name for field in dataclasses.fields(Ranking))


def checks(
    variants: Mapping[str, VariantTables],
    headline: Mapping[str, Json],
    config: ReportConfig,
    *,
    method: str,
    scope: str,
) -> dict[str, Json]:
    """{variant: checks} of one model.

    Args:
        variants: the model's, `it` among them.
        headline: what `effects` found by the headline's method.
        config: primary split, bootstrap, and how many completions a number needs.
        method: the headline's method of attribution.
        scope: the headline's scope.
    """
    others = list(dict.fromkeys(m for tables in variants.values() for m in tables.other_methods))
    of_method = {m: effects(variants, config, scopes=[scope], method=m, names=["model_effect"]) for m in others}
    read = {m: cells(variants, config, part="test", method=m) for m in (None, *others)}
    own = {m: {v: of.get((v, v), []) for v in variants} for m, of in read.items()}
    return {
        variant: {
            "method_free": method_free(own[None][variant], config),
            "gold": {m or method: gold(of[variant], config) for m, of in own.items()},
            "methods": agreement(
                {m: own[m][variant] for m in others},
                headline[variant][scope],
                {m: of_method[m][variant][scope] for m in others},
                config,
            ),
            **deletion(tables.faithfulness),
        }
        for variant, tables in variants.items()
    }


def method_free(own: Sequence[Trace], config: ReportConfig) -> Json:
    """Spearman's correlation, within steps, of what predictions and what the attribution say about dependence.

    Within steps, since both fall along a completion, whatever the model. The first step is left out: dependence is 1
    there.
    """
    measured = [t for t in own if ANY_METHOD in t.values]
    found: Json = {"correlation": None, "num_steps": 0, "num_sequences": len(measured), "reason": None}
    if len(measured) < config.min_sequences_per_step:
        return found | {"reason": _too_few(len(measured), config, "completions whose prompt has a template around it")}
    kl, share = step_table(measured, ANY_METHOD, "prompt_kl_bits"), step_table(measured, "user", "prompt_dependence")
    table = dataclasses.replace(kl, values=rank_products(kl.values[:, 1:], share.values[:, 1:]))
    support = common_support({"own": table}, config.min_sequences_per_step)
    means = step_means([table], support.num_steps, config.bootstrap)
    if means is None:
        return found | {"reason": f"no second step is reached by {config.min_sequences_per_step} completions"}
    return found | {"correlation": estimate_json(means.contrast([1])), "num_steps": support.num_steps}


def gold(own: Sequence[Trace], config: ReportConfig) -> Json:
    """How high the cues of copied words rank, and their controls: mean over a completion's words, then over those."""
    having = [t for t in own if t.gold]
    prompts = [t.key[0] for t in having]
    found: Json = {}
    for name in RANKINGS:
        cue, control = (
            np.array([np.mean([getattr(pair[which], name) for pair in t.gold]) for t in having]) for which in (0, 1)
        )
        of = {"cue": cue, "control": control, "difference": cue - control}
        found[name] = {which: estimate_json(mean_ci(prompts, values, config.bootstrap)) for which, values in of.items()}
    enough = len(having) >= config.min_sequences_per_step
    return found | {
        "num_words": sum(len(t.gold) for t in having),
        "num_sequences": len(having),
        "num_unmatched": sum(t.num_unmatched for t in own),
        "passes": sign(found["mrr"]["difference"]) > 0 if enough else None,
        "reason": None if enough else _too_few(len(having), config, "completions that repeat a word of their prompt"),
    }


def agreement(
    own: Mapping[str, Sequence[Trace]],
    headline: Mapping[str, Json],
    others: Mapping[str, Mapping[str, Json]],
    config: ReportConfig,
) -> Json:
    """What further methods say of one variant: rank correlation of the scores, model effects, and whether signs hold.

    Args:
        own: per method the traces of the variant's own texts.
        headline: per measure the effects by the headline's method.
        others: per method and measure the effects by it.
        config: the bootstrap.
    """
    found: Json = {
        "num_sequences": min(map(len, own.values()), default=0),
        "spearman": {
            m: mean(table(of, [None if (r := t.rank_correlation) is None else np.array([r]) for t in of]), config)
            for m, of in own.items()
        },
        "effects": {},
        "sign_holds": {},
        "reason": None if others else "attribution.agreement names no further method",
    }
    for measure in MEASURES:
        if (ours := headline[measure].get("model_effect")) is None:
            continue
        theirs = {m: of[measure]["model_effect"] for m, of in others.items()}
        found["effects"][measure] = theirs
        found["sign_holds"][measure] = {m: same_sign(ours, of) for m, of in theirs.items()}
    missing = {of[measure]["reason"] for of in others.values() for measure in MEASURES} - {None}
    return found | ({"reason": "; ".join(sorted(missing))} if missing else {})


def deletion(faithfulness: Mapping[str, Any] | None) -> Json:
    """The tests of faithfulness.json: means over sequences, with intervals by Student's t."""
    if faithfulness is None:
        return {"deletion": [], "randomization": None}
    correlations = faithfulness["randomized_rank_correlation"]
    return {
        "deletion": [
            {
                "fraction": of["fraction"],
                "num_sequences": faithfulness["num_sequences"],
                "comprehensiveness": _drops(of["comprehensiveness"], better=1),
                "sufficiency": _drops(of["sufficiency"], better=-1),
            }
            for of in faithfulness["deletion"]
            if faithfulness["num_sequences"]
        ],
        "randomization": {"rank_correlation": estimate_json(mean_t(correlations)), "num_sequences": len(correlations)},
        **({"precision": faithfulness["precision"]} if "precision" in faithfulness else {}),
    }


def same_sign(ours: Json | None, theirs: Json | None) -> bool | None:
    """Whether two differences have the same sign; None unless the intervals of both exclude 0."""
    signs = sign(ours), sign(theirs)
    return signs[0] == signs[1] if all(signs) else None


def sign(found: Json | None) -> int:
    """1: the interval lies above 0; -1: below; 0: it holds 0, or there is none."""
    if found is None or found["ci95"] is None:
        return 0
    lo, hi = found["ci95"]
    return (lo > 0) - (hi < 0)


def _drops(found: Mapping[str, Sequence[float]], *, better: int) -> Json:
    """Attributed, random, and attributed - random; it passes when the difference has the sign `better`."""
    pairs = zip(found["attributed"], found["random"], strict=True)
    difference = estimate_json(mean_t([a - r for a, r in pairs]))
    return {
        "attributed": estimate_json(mean_t(found["attributed"])),
        "random": estimate_json(mean_t(found["random"])),
        "difference": difference,
        "passes": None if difference is None or difference["ci95"] is None else sign(difference) == better,
    }


def _too_few(num: int, config: ReportConfig, what: str) -> str:
    return f"{num} {what}, fewer than report.min_sequences_per_step={config.min_sequences_per_step}"
