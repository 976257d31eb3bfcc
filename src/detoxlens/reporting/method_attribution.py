"""How methods use the prompt: the numbers of `attribution_metrics` over all seeds of a method, and method minus method.

    {first variant: {"method": {"attribution": {effects, rise, other_prompts, contrast: {by_it}, methods,
                                             methods_user_text}},
                     "pairs": {other: {"attribution": {effects: {scope: {measure: {model_effect: ours - theirs}}}}}}}}

Only a method of several seeds has the first; every pair has the second. `over_seeds` has the statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detoxlens.attribution.entropy import MEASURES
from detoxlens.evaluation.effects import EFFECTS, StepTable
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.checks import same_sign
from detoxlens.reporting.contrast import CHANGE, CONTRASTS, Groups, side_tables
from detoxlens.reporting.effects import AVERAGED, Quads, cells, measured, quad_of
from detoxlens.reporting.other_prompts import PARTS, WEIGHTS, compared_prompts
from detoxlens.reporting.over_seeds import Weights, difference_json_of_methods, method_json, together
from detoxlens.reporting.rise import rising, with_steps
from detoxlens.reporting.study import Study, VariantTables
from detoxlens.reporting.traces import ANY_METHOD

Json = dict[str, Any]
Methods = Mapping[str, Sequence[str]]
"""Method -> its variants, one per seed."""
COMPARED = {"model_effect": dict(enumerate(EFFECTS["model_effect"]))}
"""What is compared between methods."""


def method_attribution(
    study: Study, variants: Mapping[str, VariantTables], methods: Methods, config: ReportConfig, by: Groups
) -> dict[str, Json]:
    """{method: attribution} of one model, of its methods that have several seeds.

    Args:
        study: what the report is about.
        variants: the model's, `it` among them.
        methods: all of the model's.
        config: primary split, bootstrap, and how many completions a step needs.
        by: the toxic and the other completions of `it`.
    """
    several = {method: seeds for method, seeds in methods.items() if len(seeds) > 1}
    if not several:
        return {}
    found: dict[str, Json] = {method: {"effects": {}, "rise": {}} for method in several}
    for scope, measure, quads in measured(variants, config):
        weights = _weights(tuple(EFFECTS) if scope in (study.scope, ANY_METHOD) else AVERAGED)
        for method, of in _of_methods(several, quads, weights, config).items():
            found[method]["effects"].setdefault(scope, {})[measure] = of
    for scope, quads in rising(variants, config, scopes=dict.fromkeys((study.scope, "user"))):
        for method, of in _of_methods(several, quads, _weights(AVERAGED), config).items():
            found[method]["rise"][scope] = with_steps(of)
    for split, measure, compared in compared_prompts(study, variants, config):
        for method, seeds in several.items():
            both = together(compared.tables, seeds, compared.num_steps, config, part=lambda key: key[0])
            of = method_json(both, seeds, _by_part(WEIGHTS))
            found[method].setdefault("other_prompts", {}).setdefault(split, {})[measure] = of
    for method, seeds in several.items():
        found[method]["contrast"] = {"by_it": _contrast(variants, seeds, by, config, scope=study.scope)}
    for other in dict.fromkeys(m for tables in variants.values() for m in tables.other_methods):
        scopes = dict.fromkeys((study.scope, "user"))
        for scope, measure, quads in measured(variants, config, scopes=scopes, method=other, names=["model_effect"]):
            where = "methods" if scope == study.scope else "methods_user_text"
            for method, of in _of_methods(several, quads, COMPARED, config).items():
                ours = found[method]["effects"][scope][measure]["model_effect"]
                checked = found[method].setdefault(where, {"effects": {}, "sign_holds": {}})
                checked["effects"].setdefault(measure, {})[other] = of["model_effect"]
                checked["sign_holds"].setdefault(measure, {})[other] = same_sign(ours, of["model_effect"])
    return found


def pair_attribution(
    study: Study,
    variants: Mapping[str, VariantTables],
    methods: Methods,
    pairs: Sequence[tuple[str, str]],
    config: ReportConfig,
) -> dict[tuple[str, str], Json]:
    """{(one, other): effects} of one model: one method's model effect minus the other's, on shared prompts."""
    found: dict[tuple[str, str], Json] = {pair: {} for pair in pairs}
    scopes = dict.fromkeys((study.scope, "user", ANY_METHOD)) if pairs else ()
    for scope, measure, quads in measured(variants, config, scopes=scopes, names=AVERAGED):
        tables = _by_position(quads)
        for one, other in pairs:
            ours, theirs = methods[one], methods[other]
            both = together(tables, [*ours, *theirs], quads.support.num_steps, config)
            of = difference_json_of_methods(both, ours, theirs, COMPARED)
            found[one, other].setdefault(scope, {})[measure] = of
    return found


def _of_methods(
    methods: Methods, quads: Quads, contrasts: Mapping[str, Weights], config: ReportConfig
) -> dict[str, Json]:
    tables = _by_position(quads)
    return {
        method: method_json(together(tables, seeds, quads.support.num_steps, config), seeds, contrasts)
        for method, seeds in methods.items()
    }


def _by_position(quads: Quads) -> dict[str, dict[int, StepTable]]:
    """The tables of each variant by their place in `EFFECTS`: one key for all variants."""
    return {
        variant: {i: of[cell] for i, cell in enumerate(quad_of(variant)) if cell in of}
        for variant, of in quads.tables.items()
    }


def _weights(names: Sequence[str]) -> dict[str, Weights]:
    return {name: dict(enumerate(EFFECTS[name])) for name in names}


def _by_part(weights: Mapping[str, Sequence[int]]) -> dict[str, Weights]:
    """Of the model effect on the primary split's prompts and on others."""
    effect = EFFECTS["model_effect"]
    return {
        name: {
            (part, i): sign * weight for part, sign in zip(PARTS, signs, strict=True) for i, weight in enumerate(effect)
        }
        for name, signs in weights.items()
    }


def _contrast(
    variants: Mapping[str, VariantTables], seeds: Sequence[str], by: Groups, config: ReportConfig, *, scope: str
) -> Json:
    """Toxic against other, all seeds reading the text of `it`."""
    traces = cells(variants, config, part="test")
    found: Json = {}
    for measure in MEASURES:
        read = {seed: (traces.get((seed, "it"), []), traces.get(("it", "it"), [])) for seed in seeds}
        tables = {seed: side_tables(of, by, scope, measure) for seed, of in read.items()}
        num_steps = max(table.values.shape[1] for of in tables.values() for table in of.values())
        both = together(tables, seeds, num_steps, config, part=lambda side: side % 2)
        contrasts = {name: dict(enumerate(weights)) for name, weights in (CONTRASTS | CHANGE).items()}
        num = [0, 0] if isinstance(both, str) else [both.num_shared[side] for side in (0, 1)]
        counts = dict(zip(("num_toxic", "num_other"), num, strict=True))
        found[measure] = method_json(both, seeds, contrasts) | counts
    return found
