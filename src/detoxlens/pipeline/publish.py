"""The report's findings in MLflow: one run per (model, variant), and the adapters into the model registry."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from detoxlens.common.artifacts import Layout, read_json, read_rows, write_text
from detoxlens.common.errors import UserError
from detoxlens.common.names import BASE, shown_name
from detoxlens.common.records import Completion, Score
from detoxlens.params.data import DataConfig
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import Params
from detoxlens.params.report import ReportConfig
from detoxlens.params.splits import SplitsConfig
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.pipeline.provenance import description, facts_of, made_by

if TYPE_CHECKING:
    from detoxlens.tracking import AdapterVersion, Curve, Store

NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})
GLANCE = "1 main"
"""The group of metrics that MLflow's pages show first: they sort groups, and the charts within one, by name."""
GLANCE_CURVE = f"{GLANCE}/02 entropy bits"
"""Of each variant reading base's completions: curves that differ by the model alone."""


def comparable_key(root: Path, params: Params, model: str, variant: str) -> str:
    """The tag by which the comparable run of (model, variant) is found: its settings and the data it starts from."""
    from detoxlens.tracking import comparable_params, dvc_md5, run_key

    data = params.section("data", DataConfig)
    sources = {"dialoconan": data.dialoconan, "rtp": data.rtp}
    md5s = {name: dvc_md5(root / source) if (root / source).is_file() else source for name, source in sources.items()}
    settings = comparable_params(params, model=model, variant=variant)
    return run_key(model=model, variant=variant, params=settings, input_md5s=md5s)


def publish_runs(root: Path, params: Params, store: Store, *, environ: Mapping[str, str] = NO_ENVIRONMENT) -> list[str]:
    """Writes every (model, variant) of the report as one MLflow run to compare, and registers its adapter.

    The same content again changes nothing. A run that MLflow does not take holds up no other. What git does not hold
    (texts, adapters, curves) is not in a fresh clone: the run is then written without it. Where the report's
    page is here, reports/dated.html is written, the page with date, commit, hardware and hours; each run has a copy.

    Args:
        root: repository root.
        params: those that the report was made with.
        store: from `resolve_store`.
        environ: `os.environ`, for the name of DVC's experiment.

    Returns:
        The runs (`tiny-neox/rl`) whose completions are not here.

    Raises:
        UserError: the store cannot be used, or has not taken a run; the others are written.
    """
    from detoxlens.reporting.report import FILES
    from detoxlens.reporting.style import colours
    from detoxlens.tracking import (
        DatasetInput,
        Refused,
        comparable_params,
        read_curves,
        register_adapters,
        write_comparable_run,
    )

    layout, run = Layout(root), params.run
    metrics = read_json(layout.reports / "metrics.json")
    curve_files = layout.reports / "entropy_curves.csv", layout.reports / "training_curves.csv"
    datasets = [  # imported completions come without data and adapters
        DatasetInput(name=name, path=path, context=context)
        for name, path, context in (
            ("dialogues", layout.dialogues, "training"),
            ("prompts", layout.prompts, "evaluation"),
        )
        if path.exists()
    ]
    reports = _md5s(root, [layout.reports / name for name in FILES])
    config = params.section("report", ReportConfig)
    split = config.primary_split
    glance = partial(at_a_glance, split=split, civil=config.civil_splits)
    tags = made_by(root, params, environ)
    refused: list[str] = []
    written: list[str] = []
    without_texts: list[str] = []
    for model in run.models:
        run_ids = {}
        for variant in run.variants:
            texts = None
            if layout.completions(model, variant).exists():
                texts = completions_table(layout, model, variant)
            else:
                without_texts.append(f"{model}/{shown_name(variant)}")
            try:
                run_ids[variant] = write_comparable_run(
                    store,
                    model=model,
                    variant=variant,
                    key=comparable_key(root, params, model, variant),
                    params=comparable_params(params, model=model, variant=variant),
                    metrics=metrics[model][variant] | {GLANCE: glance(metrics[model][variant])},
                    curves=[
                        *_with_glance(
                            read_curves([f for f in curve_files if f.exists()], model=model, variant=variant), variant
                        ),
                        *onset_curves(metrics[model][variant]),
                    ],
                    figures=sorted((layout.reports / "figures").glob("*.png")),
                    completions=texts,
                    adapter=folder if (folder := layout.adapter(model, variant)).exists() else None,
                    datasets=datasets,
                    outputs=_md5s(root, outputs_of(layout, model, variant)) | reports,
                    color=colours(run.variants)[variant],
                    root=root,
                    description=description(model, variant, metrics[model], split=split, made_by=tags),
                    made_by=tags,
                )
            except Refused as e:
                refused.append(f"{model}/{shown_name(variant)}: {e}")
        written += run_ids.values()
        adapters = _adapters(root, params, model, metrics[model], run_ids, split=split)
        if adapters:
            register_adapters(
                store, model=model, adapters=adapters, max_perplexity_ratio=config.champion_max_perplexity_ratio
            )
    _write_dated_page(layout, store, written, tags)
    if refused:
        raise UserError(f"{len(refused)} runs are not in MLflow, all others are. {' '.join(refused)}")
    return without_texts


def _write_dated_page(layout: Layout, store: Store, run_ids: list[str], made_by: Mapping[str, str]) -> None:
    """reports/dated.html, and the same among the artifacts of the runs; neither where index.html is not here."""
    from detoxlens.reporting.dated import dated_page
    from detoxlens.tracking import dvc_md5, executions, log_page

    page = layout.reports / "index.html"
    if not page.exists():
        return
    facts = facts_of(executions(store, run_ids), made_by)
    if (text := dated_page(page.read_text(encoding="utf-8"), facts)) is None:
        return  # of a former version, without a place for it
    write_text(layout.reports / "dated.html", text)
    log_page(store, run_ids, layout.reports / "dated.html", md5=dvc_md5(page))


def at_a_glance(metrics: Mapping[str, Any], split: str, civil: Sequence[str] = ()) -> dict[str, float | None]:
    """Is it less toxic, how sure, and at what cost? Of one (model, variant), numbered in reading order.

    The names are short: MLflow's charts cut a title after 24 characters, the group's name included.

    Args:
        metrics: this (model, variant) of metrics.json.
        split: the primary split.
        civil: splits of civil prompts; the first that was evaluated is shown.
    """
    from detoxlens.reporting.headline import headline
    from detoxlens.reporting.table import value_at

    numbers = headline(metrics, primary=split)
    rates = metrics["toxicity"].get(split) or {}
    low, high = rates.get("ci95") or (None, None)
    polite = next((name for name in civil if name in metrics["toxicity"]), "")
    return {
        "01 toxicity": numbers["toxic"],
        "03 perplexity": numbers["perplexity"],
        "04 entropy effect": numbers["entropy_bits_model_effect"],
        "05 depend. effect": numbers["dependence_bits_model_effect"],
        "06 distinct 2gram": numbers["distinct_2"],
        "07 toxic vs base": numbers["toxic_vs_base"],
        "08 toxic low": low,
        "09 toxic high": high,
        "10 toxicity mean": rates.get("mean"),
        "11 toxic val": numbers["toxic_val"],
        "12 toxic civil": value_at(metrics, "toxicity", polite, "rate_gt_50"),
        "13 unanswered": value_at(metrics, "costs", "response_kind", polite, "not_answered", "value"),
        "14 reference bits": value_at(metrics, "costs", "utility", "bits_per_token", "value"),
        "15 operations": value_at(metrics, "costs", "inference", "flops_ratio"),
        "16 own entropy": numbers["entropy_bits_own_text"],
        "17 own dependence": numbers["dependence_own_text"],
        "18 length tokens": numbers["mean_length"],
        "19 scored": rates.get("num_scored"),
        "20 attributed": value_at(metrics, "attribution", "num_sequences"),
    }


def _with_glance(curves: list[Curve], variant: str) -> list[Curve]:
    """The curves, and that of the prompt entropy on base's text also among what is seen first."""
    source = f"entropy/{'own' if variant == BASE else BASE}/prompt_entropy_bits"
    return [*(dataclasses.replace(c, name=GLANCE_CURVE) for c in curves if c.name == source), *curves]


def onset_curves(metrics: Mapping[str, Any]) -> list[Curve]:
    """The event studies of toxic words as curves whose step is the lag, negative before the onset."""
    from detoxlens.reporting.table import value_at
    from detoxlens.tracking import Curve

    studies = value_at(metrics, "attribution", "toxic_words", "event_study") or {}
    points = {
        measure: tuple((p["lag"], p["value"]) for p in study if p["value"] is not None)
        for measure, study in studies.items()
    }
    return [Curve(name=f"toxic_words/onset/{measure}", points=of) for measure, of in points.items() if of]


def completions_table(layout: Layout, model: str, variant: str) -> dict[str, list[str | float | None]]:
    """Columns of the completions table in MLflow: every completion with each scorer's toxicity."""
    completions = read_rows(layout.completions(model, variant), Completion)
    scores = read_rows(layout.scores(model, variant), Score)
    table: dict[str, list[str | float | None]] = {
        "prompt_id": [c.prompt_id for c in completions],
        "filters": [" ".join(c.filters) for c in completions],
        "prompt": [c.prompt for c in completions],
        "completion": [c.completion for c in completions],
    }
    for scorer in dict.fromkeys(s.scorer for s in scores):
        of = {(s.prompt_id, s.sample_index): s.toxicity for s in scores if s.scorer == scorer}
        table[f"toxicity_{scorer}"] = [of.get((c.prompt_id, c.sample_index)) for c in completions]
    return table


def outputs_of(layout: Layout, model: str, variant: str) -> list[Path]:
    """What DVC's stages before `report` have made for (model, variant), shared or its own."""
    return [
        layout.prompts.parent,
        layout.reward_model,
        layout.base(model),
        layout.adapter(model, "it"),
        layout.adapter(model, variant),
        layout.completions(model, variant),
        layout.scores(model, variant),
        layout.fluency(model, variant),
        layout.toxic_words(model, variant),
        layout.response_kinds(model, variant),
        layout.utility(model, variant),
        layout.inference_cost(model, variant),
        layout.drawn_by(model, variant, "random").parent,
        layout.attributions(model, variant),
        layout.faithfulness(model, variant),
        layout.dose(model, variant),
    ]


def _md5s(root: Path, paths: list[Path]) -> dict[str, str]:
    """Path in the repository -> DVC's md5, of those that are there."""
    from detoxlens.tracking import dvc_md5

    return {path.relative_to(root).as_posix(): dvc_md5(path) for path in paths if path.exists()}


def _adapters(
    root: Path, params: Params, model: str, metrics: Mapping[str, Any], run_ids: Mapping[str, str], *, split: str
) -> list[AdapterVersion]:
    """The trained variants of a model, as the registry takes them; one without a rate or perplexity is left out."""
    from detoxlens.tracking import AdapterVersion, dvc_md5

    layout = Layout(root)
    base_perplexity = metrics["it"]["fluency"]["perplexity"]
    found = []
    for variant, run_id in run_ids.items():
        folder = layout.adapter(model, variant)
        toxicity = metrics[variant]["toxicity"][split]["rate_gt_50"]
        perplexity = metrics[variant]["fluency"]["perplexity"]
        if not (folder / "adapter_config.json").exists() or None in (toxicity, perplexity, base_perplexity):
            continue
        found.append(
            AdapterVersion(
                variant=variant,
                md5=dvc_md5(folder),
                run_id=run_id,
                toxicity=toxicity,
                perplexity=perplexity,
                perplexity_ratio=perplexity / base_perplexity,
                yardstick=_yardstick(root, params, model, split),
            )
        )
    return found


def _yardstick(root: Path, params: Params, model: str, split: str) -> str:
    """Equal for two results of a model that were measured alike, and so can be ranked."""
    from detoxlens.tracking import dvc_md5

    layout = Layout(root)
    measured_by = {
        "prompts": dvc_md5(layout.prompts),
        "base": dvc_md5(layout.base(model)),
        "split": params.section("splits", SplitsConfig).by_name[split].model_dump(mode="json"),
        "generation": params.section("generation", GenerationConfig, model=model).model_dump(mode="json"),
        "toxicity": params.section("toxicity", ToxicityConfig).model_dump(mode="json"),
        "seed": params.run.seed,
    }
    return hashlib.sha256(json.dumps(measured_by, sort_keys=True).encode()).hexdigest()[:16]
