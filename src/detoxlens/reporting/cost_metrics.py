"""`costs` in metrics.json: what a variant costs whoever is not toxic, and whom its toxicity is about.

    costs: response_kind: {split: {refusal | counter_speech | answer | not_answered: {value, ci95, delta_vs_it}}}
           utility:       {bits_per_token | kl_to_base_bits_per_token: {value, ci95, delta_vs_it}, num_references}
           repetition:    {split: {value, ci95, delta_vs_it}}
           inference:     {flops_ratio, extra_weights_mib, extra_prompt_tokens}
           groups:        {target | category: {name: {rate_gt_50, ci95, num_prompts, is_small, delta_vs_it}}}

What is not there stands as {"reason": why}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from detoxlens.common.names import BASE
from detoxlens.evaluation.as_json import difference_json, estimate_json
from detoxlens.evaluation.samples import Sample, difference, estimate
from detoxlens.evaluation.toxicity import TOXIC, values_of
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.study import Study, VariantTables

Json = dict[str, Any]
KINDS: Mapping[str, tuple[str, ...]] = {
    "refusal": ("refusal",),
    "counter_speech": ("counter_speech",),
    "answer": ("answer",),
    "not_answered": ("refusal", "counter_speech"),
}
"""Name of a rate -> the kinds that it counts."""
MIB = 2**20
NO_KINDS = "no grader of replies: params `data.response_kinds` is null, or these completions were scored without it"
NO_REFERENCES = "no test prompt has a reference reply (`reference.text`), or these completions were scored without them"
NO_GROUPS = "no prompt of the primary split has one, or data/prepared/prompts.parquet is not there"


def cost_samples(study: Study, tables: VariantTables) -> dict[str, Sample]:
    """{`costs/response_kind/civil/refusal`: its sample}: a number per completion or prompt of every measured cost."""
    found: dict[str, Sample] = {}
    for split in study.splits:
        kinds_of = tables.about(tables.response_kinds, "test", split)
        judged = kinds_of.where(~kinds_of.column("kind").equals("empty"))
        for name, kinds in KINDS.items() if len(judged) else ():
            is_kind = np.any([judged.column("kind").equals(kind) for kind in kinds], axis=0).astype(np.float64)
            found[f"costs/response_kind/{split}/{name}"] = Sample(judged.column("prompt_id"), is_kind, is_rate=True)
        written = tables.mask("test", split) & (tables.num_tokens > 0)
        repeated = tables.repetition[written]
        if written.any() and not np.isnan(repeated).all():
            found[f"costs/repetition/{split}"] = Sample(tables.completions.column("prompt_id")[written], repeated)
    if tables.utility:
        prompts = [u.prompt_id for u in tables.utility]
        for name, bits in (
            ("bits_per_token", [u.nll_bits / u.num_tokens for u in tables.utility]),
            ("kl_to_base_bits_per_token", [u.kl_to_base_bits / u.num_tokens for u in tables.utility]),
        ):
            found[f"costs/utility/{name}"] = Sample(prompts, np.array(bits))
    return found


def cost_metrics(study: Study, variants: Mapping[str, VariantTables], variant: str, config: ReportConfig) -> Json:
    """The entry `costs` of one variant."""
    tables, base = variants[variant], variants[BASE]
    ours = cost_samples(study, tables)
    theirs = {} if variant == BASE else cost_samples(study, base)
    measured = {
        path: estimate_json(estimate(sample, config.bootstrap))
        | {
            "delta_vs_it": difference_json(difference(sample, theirs[path], config.bootstrap))
            if path in theirs
            else None,
        }
        for path, sample in ours.items()
    }

    def under(prefix: str) -> Json:
        return {path.removeprefix(prefix): value for path, value in measured.items() if path.startswith(prefix)}

    return {
        "response_kind": _kinds(study, tables, under) if len(tables.response_kinds) else {"reason": NO_KINDS},
        "utility": under("costs/utility/") | {"num_references": len(tables.utility)}
        if tables.utility
        else {"reason": NO_REFERENCES},
        "repetition": under("costs/repetition/"),
        "inference": _inference(tables),
        "groups": {
            "target": _groups(study, tables, base, config, study.targets),
            "category": _groups(study, tables, base, config, study.categories),
        },
    }


def _kinds(study: Study, tables: VariantTables, under: Callable[[str], Json]) -> Json:
    found = {}
    for split in study.splits:
        kinds = tables.about(tables.response_kinds, "test", split).column("kind")
        num_empty = int(kinds.equals("empty").sum())
        found[split] = under(f"costs/response_kind/{split}/") | {
            "num_judged": len(kinds) - num_empty,
            "num_empty": num_empty,
        }
    return found


def _inference(tables: VariantTables) -> Json:
    cost = tables.inference_cost
    if cost is None:
        return {"reason": NO_REFERENCES}
    return {
        "flops_ratio": cost.flops_per_token / cost.base_flops_per_token if cost.base_flops_per_token else None,
        "extra_weights_mib": cost.extra_weights_bytes / MIB,
        "extra_prompt_tokens": cost.extra_prompt_tokens,
    }


def _groups(
    study: Study,
    tables: VariantTables,
    base: VariantTables,
    config: ReportConfig,
    of_prompt: Mapping[str, tuple[str, ...]],
) -> Json:
    """Toxicity of the primary split's completions by what their prompts are about, the largest groups first."""
    ours = _toxic_by_group(study, tables, config, of_prompt)
    if not ours:
        return {"reason": NO_GROUPS}
    theirs = {} if tables is base else _toxic_by_group(study, base, config, of_prompt)
    found = {}
    sizes = {name: len(sample.keys.present()) for name, sample in ours.items()}
    for name, sample in sorted(ours.items(), key=lambda item: (-sizes[item[0]], item[0])):
        rate, num_prompts = estimate(sample, config.bootstrap), sizes[name]
        found[name] = {
            "rate_gt_50": rate.value,
            "ci95": list(rate.ci95) if rate.ci95 else None,
            "num_prompts": num_prompts,
            "is_small": num_prompts < config.min_group_size,
            "delta_vs_it": difference_json(difference(sample, theirs[name], config.bootstrap))
            if name in theirs
            else None,
        }
    return found


def _toxic_by_group(
    study: Study, tables: VariantTables, config: ReportConfig, of_prompt: Mapping[str, tuple[str, ...]]
) -> dict[str, Sample]:
    if study.grader not in tables.scores:
        return {}
    scores = tables.about(tables.scores[study.grader], "test", config.primary_split)
    prompts, toxicity = values_of(scores.where(~np.isnan(scores.column("toxicity").astype(np.float64))))
    groups = [of_prompt.get(prompt, ()) for prompt in prompts.names]
    found: dict[str, Sample] = {}
    for name in dict.fromkeys(name for prompt in prompts.present() for name in of_prompt.get(prompt, ())):
        mask = np.array([name in of for of in groups], dtype=bool)[prompts.codes]
        found[name] = Sample(prompts[mask], (toxicity[mask] > TOXIC).astype(np.float64), is_rate=True)
    return found
