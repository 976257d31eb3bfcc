"""The entry `attribution` of metrics.json: what a user sees, what the model does, who is toxic, whether to believe it.

own text    means over the tokens of each variant's own completions              own_text.py
effects     model effect and text effect on the same steps, all scopes           effects.py
base's text how differently it is weighed, token by token                        on_base_text.py
noise floor the same of another base model, of another seed                      on_base_text.py
rise        of the entropy after the first tokens, within completions            rise.py
prompts     the model effect on the primary split minus that on others           other_prompts.py
contrast    toxic against other, on the same steps                               contrast.py
checks      method-free, gold, deletion, other methods                           checks.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detoxlens.evaluation.effects import Cell
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.checks import checks
from detoxlens.reporting.contrast import contrast, groups
from detoxlens.reporting.curves import toxic_keys
from detoxlens.reporting.effects import AVERAGED, MEASURED, ON_BASE_TEXT, cells, effects
from detoxlens.reporting.on_base_text import on_base_text
from detoxlens.reporting.other_prompts import other_prompts
from detoxlens.reporting.own_text import own_text, region_shares
from detoxlens.reporting.rise import rise
from detoxlens.reporting.study import Study, Trace, VariantTables
from detoxlens.reporting.traces import ANY_METHOD

Json = dict[str, Any]


def attribution_metrics(study: Study, variants: Mapping[str, VariantTables], config: ReportConfig) -> dict[str, Json]:
    """{variant: attribution} of one model."""
    scope = study.scope
    beside = [of for of in MEASURED if of not in (scope, ANY_METHOD)]
    same_text = {
        variant: headline | further
        for (variant, headline), further in zip(
            effects(variants, config, scopes=[scope, ANY_METHOD]).items(),
            effects(variants, config, scopes=beside, names=AVERAGED).values(),
            strict=True,
        )
    }
    of_val = effects(variants, config, part="val", scopes=[scope, ANY_METHOD], names=ON_BASE_TEXT)
    tests = checks(variants, same_text, config, method=study.method, scope=scope)
    elsewhere = other_prompts(study, variants, config)
    test, val = (cells(variants, config, part=part) for part in ("test", "val"))
    by = {variant: toxic_keys(tables.toxicity(study.grader), config) for variant, tables in variants.items()}
    others = [variant for variant in variants if variant != "it"]
    weighed, weighed_val = (on_base_text(others, traces, config, scope=scope) for traces in (test, val))
    floor = _noise_floor(variants, test, config, scope=scope)
    rising = rise(variants, config, scopes=dict.fromkeys((scope, "user")))
    found = {}
    for variant, tables in variants.items():
        is_it = variant == "it"
        own, it, forced = (test.get(cell, []) for cell in ((variant, variant), ("it", "it"), (variant, "it")))
        own_val, it_val = (val.get(cell, []) for cell in ((variant, variant), ("it", "it")))
        found[variant] = {
            "unit": study.unit,
            "scope": scope,
            **own_text(own, None if is_it else it, config, scope=scope),
            "num_by_status": dict(tables.num_attributions),
            "effects": same_text[variant],
            "rise": rising[variant],
            **({"noise_floor": floor} if is_it and floor else {}),
            **({"other_prompts": elsewhere[variant]} if elsewhere.get(variant) else {}),
            "contrast": {
                "own": contrast(own, None, by[variant], config, scope=scope),
                "by_it": contrast(forced, None if is_it else it, by["it"], config, scope=scope),
            },
            "groups": groups(own, by[variant], config, scope=scope),
            **({} if is_it else {"groups_by_it": groups(own, by["it"], config, scope=scope)}),
            "val": {
                **own_text(own_val, None if is_it else it_val, config, scope=scope),
                "effects": of_val[variant],
                **weighed_val.get(variant, {}),
            },
            "region_share": region_shares(own, config),
            **weighed.get(variant, {}),
            "checks": tests[variant],
        }
    return found


def _noise_floor(
    variants: Mapping[str, VariantTables], test: Mapping[Cell, Sequence[Trace]], config: ReportConfig, *, scope: str
) -> Json:
    """{who: what `on_base_text` says} of another base model, named `reader`, and of the variants; {} without one."""
    keys = {trace.key for trace in test.get(("it", "it"), ())}
    traces = [trace for trace in variants["it"].noise_floor if trace.key in keys]
    if not traces:
        return {}
    reader, others = traces[0].reader, [variant for variant in variants if variant != "it"]
    return {"reader": reader} | on_base_text([reader, *others], {**test, (reader, "it"): traces}, config, scope=scope)
