"""Where the numbers come from: settings, data and versions, with nothing in them that two equal runs differ in.

Dates, hours, hardware and commits differ between runs of the same content: `dated` puts them on a page of their own.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from detoxlens.common.artifacts import Layout, read_json, read_model_ref
from detoxlens.common.names import BASE
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import Params
from detoxlens.params.report import Bootstrap
from detoxlens.reporting.dated import UNDATED, WHERE
from detoxlens.reporting.study import Study
from detoxlens.reporting.table import value_at

PACKAGES = ("detoxlens", "torch", "transformers", "peft", "numpy", "matplotlib")


def provenance(
    layout: Layout,
    params: Params,
    study: Study,
    *,
    generation: Mapping[str, GenerationConfig],
    attribution: AttributionConfig,
    bootstrap: Bootstrap,
) -> dict[str, str]:
    """Setting -> value, for the reader; what is not there is left out.

    Args:
        layout: where adapters and the summary of the data lie.
        params: of the run.
        study: what the report is about.
        generation: how each model was sampled from.
        attribution: how it was attributed.
        bootstrap: behind the intervals.
    """
    found = {f"Model {model}": _model(layout, params, model) for model in study.models}
    summary = read_summary(layout)
    for name in ("dialogues", "prompts"):
        if source := value_at(summary, name, "source"):
            found[name.capitalize()] = f"{source}, sha256 {summary[name]['sha256'][:16]}"
    found["Sampling"] = "; ".join(sorted({_sampling(config) for config in generation.values()}))
    found["Grader"] = ", ".join(_grader(study))
    found["Attribution"] = (
        f"{attribution.method} of the {attribution.target.replace('_', ' ')}, at most {attribution.max_sequences} "
        f"prompts of split {', '.join(attribution.filters)}, template "
        f"{'left out' if attribution.mask_template else 'included'}"
    )
    found["Intervals"] = f"95 %; bootstrap over prompts, {bootstrap.num_resamples} draws, seed {bootstrap.seed}"
    found["Seed"] = f"{params.run.seed} (run.seed), {params.run.num_threads} threads, device {params.run.device}"
    found["Versions, of this report"] = ", ".join(
        [f"Python {platform.python_version()}", *(f"{package} {version(package)}" for package in PACKAGES)]
    )
    return found | {UNDATED: WHERE}


def read_summary(layout: Layout) -> Mapping[str, Any] | None:
    """What `prepare` counted; None where completions were imported without data."""
    return read_json(layout.data_summary) if layout.data_summary.exists() else None


def overlap(summary: Mapping[str, Any] | None) -> tuple[bool, str] | None:
    """(is there any, a sentence) about test prompts that training or validation has seen; None without a summary."""
    counts = value_at(summary, "prompts", "overlap")
    if not isinstance(counts, Mapping):
        return None
    listed = ", ".join(f"{name.replace('_', ' ')} {num}" for name, num in counts.items())
    text = f"Prompts that stand elsewhere too, word for word or as near copies (half of their word 5-grams): {listed}."
    filters = value_at(summary, "prompts", "filters") or {}
    if left_out := {name: num for name, of in filters.items() if (num := of.get("num_trained_on"))}:
        named = ", ".join(f"{num} of {name}" for name, num in left_out.items())
        text += f" Left out because they stand in the training dialogues: {named}."
    return any(counts.values()), text


def _model(layout: Layout, params: Params, model: str) -> str:
    """`tiny:gpt_neox, revision 7b2615cbd313`."""
    folder = layout.adapter(model, BASE)
    revision = f", revision {read_model_ref(folder).revision[:12]}" if folder.exists() else ", completions imported"
    return f"{params.model(model).source}{revision}"


def _sampling(config: GenerationConfig) -> str:
    return (
        f"{config.num_samples} completion{'' if config.num_samples == 1 else 's'} per prompt, at most "
        f"{config.max_new_tokens} tokens, temperature {config.temperature:g}, top-k {config.top_k}, "
        f"top-p {config.top_p:g}"
    )


def _grader(study: Study) -> list[str]:
    """Name and versions of the scorer of the tables."""
    versions = {
        version
        for variants in study.models.values()
        for tables in variants.values()
        if study.grader in tables.scores
        for version in tables.scores[study.grader].column("scorer_version").present()
    }
    return [f"{study.grader} {v}" for v in sorted(versions)] or [study.grader]
