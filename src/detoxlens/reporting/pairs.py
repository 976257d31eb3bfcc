"""Direct comparisons in metrics.json: every two methods (`pairs`), and all seeds of a method together (`method`).

    {model: {ft: {"pairs": {rl: {toxicity: {p50: {rate_gt_50: ft - rl}}, fluency: ..., attribution: ...}}}}}
    {model: {ft: {"method": {variants: [ft, ft-1, ft-2], toxicity: {p50: {rate_gt_50: {value, ci95, sd_between_seeds,
                                                                                   delta_vs_it}}}, ...}}}}

A method with several seeds (variants of one `group`) is compared with all of them, under its first variant. `base` is
the reference everywhere else; here it is a method like the others, but `delta_vs_it` has its differences. Every
difference of a pair has its p, for where several of them answer one question (`evaluation.multiplicity`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from detoxlens.common.errors import UserError, did_you_mean
from detoxlens.evaluation.as_json import difference_json, estimate_json
from detoxlens.evaluation.multiplicity import compared_json
from detoxlens.evaluation.samples import Sample, difference, method_difference, method_estimate
from detoxlens.params.report import Bootstrap, ReportConfig
from detoxlens.reporting.curves import toxic_keys
from detoxlens.reporting.method_attribution import method_attribution, pair_attribution
from detoxlens.reporting.study import Study, VariantTables

Json = dict[str, Any]
Samples = Mapping[str, Mapping[str, Sample]]


def pair_metrics(
    study: Study, variants: Mapping[str, VariantTables], samples: Samples, config: ReportConfig
) -> dict[str, Json]:
    """{variant: {"pairs": ..., "method": ...}} of one model; a variant that has neither is left out.

    Args:
        study: what the report is about; its placebos are compared with what they control.
        variants: the model's, `it` among them.
        samples: every measure of every variant, from `measure_samples`.
        config: which pairs, the bootstrap.

    Raises:
        UserError: `report.pairs` names a method that is not among the model's.
    """
    methods = _methods(variants)
    pairs = _with_placebos(_chosen(config.pairs, list(methods)), study.placebos, methods)
    of_pairs = pair_attribution(study, variants, methods, pairs, config)
    by = toxic_keys(variants["it"].toxicity(study.grader), config)
    of_methods = method_attribution(study, variants, methods, config, by)
    found: dict[str, Json] = {}
    for one, other in pairs:
        first, second = methods[one], methods[other]
        pair = _nested(
            {
                measure: _difference(first, second, measure, samples, config.bootstrap)
                for measure in samples[first[0]]
                if all(measure in samples[variant] for variant in (*first, *second))
            }
        )
        pair["attribution"] = pair.get("attribution", {}) | {"effects": of_pairs[one, other]}
        found.setdefault(first[0], {}).setdefault("pairs", {})[other] = pair
    for method, seeds in methods.items():
        if len(seeds) > 1:
            entry = _method(seeds, samples, config.bootstrap)
            entry["attribution"] = entry.get("attribution", {}) | of_methods[method]
            found.setdefault(seeds[0], {})["method"] = entry
    return found


def _with_placebos(
    pairs: list[tuple[str, str]], placebos: Mapping[str, str], methods: Mapping[str, Sequence[str]]
) -> list[tuple[str, str]]:
    """`pairs`, and each method against its placebo."""
    method_of = {variant: method for method, seeds in methods.items() for variant in seeds}
    controls = [(method_of[of], method_of[v]) for v, of in placebos.items() if v in method_of and of in method_of]
    missing = [(one, other) for one, other in controls if (one, other) not in pairs and (other, one) not in pairs]
    return [*pairs, *dict.fromkeys(missing)]


def _methods(variants: Mapping[str, VariantTables]) -> dict[str, list[str]]:
    """Method -> its variants, one per seed; `it` is no method."""
    found: dict[str, list[str]] = {}
    for variant, tables in variants.items():
        if variant != "it":
            found.setdefault(tables.group, []).append(variant)
    return found


def _chosen(pairs: str | Sequence[Sequence[str]], methods: Sequence[str]) -> list[tuple[str, str]]:
    if pairs == "all":
        return list(combinations(methods, 2))
    if pairs == "none":
        return []
    for name in (name for pair in pairs for name in pair):
        if name not in methods:
            raise UserError(
                f"report.pairs names {name!r}, which is no method of run.variants.{did_you_mean(name, methods)} There "
                f"are {', '.join(methods) or 'none'} (variants of one `group` are one method)."
            )
    return [(one, other) for one, other in pairs]


def _difference(
    first: Sequence[str], second: Sequence[str], measure: str, samples: Samples, bootstrap: Bootstrap
) -> Json | None:
    ours, theirs = ([samples[variant][measure] for variant in seeds] for seeds in (first, second))
    if len(ours) == len(theirs) == 1:
        return compared_json(difference(ours[0], theirs[0], bootstrap))
    return compared_json(method_difference(ours, theirs, bootstrap))


def _method(seeds: Sequence[str], samples: Samples, bootstrap: Bootstrap) -> Json:
    found: dict[str, Json | None] = {}
    for measure in samples[seeds[0]]:
        if not all(measure in samples[seed] for seed in seeds):
            continue
        ours = [samples[seed][measure] for seed in seeds]
        mean = estimate_json(method_estimate(ours, bootstrap))
        base = samples["it"].get(measure)
        found[measure] = mean and mean | {
            "sd_between_seeds": float(np.std([np.nanmean(sample.values) for sample in ours], ddof=1)),
            "delta_vs_it": None if base is None else difference_json(method_difference(ours, [base], bootstrap)),
        }
    return {"variants": list(seeds)} | _nested(found)


def _nested(by_path: Mapping[str, Any]) -> Json:
    """{"a/b": 1, "a/c": 2} -> {"a": {"b": 1, "c": 2}}; a scorer's own name may hold slashes and stays whole."""
    found: Json = {}
    for path, value in by_path.items():
        *parents, key = _parts(path)
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        place[key] = value
    return found


def _parts(path: str) -> list[str]:
    if not path.startswith("scorers/"):
        return path.split("/")
    head, *scorer, split, measure = path.split("/")
    return [head, "/".join(scorer), split, measure]
