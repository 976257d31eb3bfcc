"""The entry `attribution` of metrics.json: what a user sees, what the model does, who is toxic, whether to believe it.

own text    means over the tokens of each variant's own completions              own_text.py
effects     model effect and text effect on the same steps, all scopes           effects.py
contrast    toxic against other, on the same steps                               contrast.py
checks      method-free, gold, deletion, other methods                           checks.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detoxlens.params.report import ReportConfig
from detoxlens.reporting.checks import checks
from detoxlens.reporting.contrast import contrast, groups
from detoxlens.reporting.curves import toxic_keys
from detoxlens.reporting.effects import AVERAGED, MEASURED, ON_BASE_TEXT, cells, effects
from detoxlens.reporting.own_text import divergences, own_text, region_shares
from detoxlens.reporting.study import Study, VariantTables
from detoxlens.reporting.traces import ANY_METHOD

Json = dict[str, Any]


def attribution_metrics(study: Study, variants: Mapping[str, VariantTables], config: ReportConfig) -> dict[str, Json]:
    """{variant: attribution} of one model."""
    scope = study.scope
    others = [of for of in MEASURED if of not in (scope, ANY_METHOD)]
    same_text = {
        variant: headline | beside
        for (variant, headline), beside in zip(
            effects(variants, config, scopes=[scope, ANY_METHOD]).items(),
            effects(variants, config, scopes=others, names=AVERAGED).values(),
            strict=True,
        )
    }
    of_val = effects(variants, config, part="val", scopes=[scope, ANY_METHOD], names=ON_BASE_TEXT)
    tests = checks(variants, same_text, config, method=study.method, scope=scope)
    test, val = (cells(variants, config, part=part) for part in ("test", "val"))
    by = {variant: toxic_keys(tables.toxicity(study.grader), config) for variant, tables in variants.items()}
    found = {}
    for variant, tables in variants.items():
        own, it, forced = (test.get(cell, []) for cell in ((variant, variant), ("it", "it"), (variant, "it")))
        is_it = variant == "it"
        found[variant] = {
            "unit": study.unit,
            "scope": scope,
            **own_text(own, it, None if is_it else forced, config, scope=scope),
            "num_by_status": dict(tables.num_attributions),
            "effects": same_text[variant],
            "contrast": {
                "own": contrast(own, None, by[variant], config, scope=scope),
                "by_it": contrast(forced, None if is_it else it, by["it"], config, scope=scope),
            },
            "groups": groups(own, by[variant], config, scope=scope),
            **({} if is_it else {"groups_by_it": groups(own, by["it"], config, scope=scope)}),
            "val": {
                **own_text(
                    val.get((variant, variant), []),
                    val.get(("it", "it"), []),
                    None if is_it else val.get((variant, "it"), []),
                    config,
                    scope=scope,
                ),
                "effects": of_val[variant],
            },
            "region_share": region_shares(own, config),
            **({} if is_it else {"divergence_from_it_bits": divergences(forced, config)}),
            "checks": tests[variant],
        }
    return found
