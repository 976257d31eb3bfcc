"""One point of the search space, measured: the pipeline's own stages, in a folder of the trial's own.

    <state>/sweeps/<study>/trial-00007/
        models, adapters/<m>/it, data/prepared/dialogues.parquet   links to the project's
        data/prepared/prompts.parquet                              the validation prompts alone
        adapters/<m>/<v>, outputs/<m>/<v>                          made by the stages
        outputs/<m>/it                                             link to the sweep's reference

The same functions, seed and thread count as `dvc repro`, and batches that never mix validation with test prompts: the
same numbers, to the last bit. The test prompts are not there to be touched. Trials are judged by `toxicity.selector`,
as the choice of an adapter is; where that is another scorer than the headline's, `toxicity/val` here is what it says.
"""

from __future__ import annotations

import dataclasses
import importlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from detoxlens.common.artifacts import Layout, link, read_history, read_rows, write_rows
from detoxlens.common.errors import UserError, did_you_mean
from detoxlens.common.records import Prompt
from detoxlens.common.repository import KEPT, STATE
from detoxlens.jobs.progress import StepCallback
from detoxlens.jobs.scratch import scratch_key
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import Params
from detoxlens.params.reads import MEASURE, module_of
from detoxlens.params.report import ReportConfig
from detoxlens.params.splits import SplitsConfig
from detoxlens.params.sweep import Method, SweepConfig
from detoxlens.params.toxicity import RECORDED, ToxicityConfig

if TYPE_CHECKING:
    from detoxlens.reporting.study import VariantTables

AS_IF_TRAINED = "as-if-trained"
"""Name under which `it` stands in for a trained variant, to learn which metrics a trial will report."""


def make_reference(root: Path, sweep_folder: Path, params: Params, models: Sequence[str]) -> Path:
    """The folder with the tables of `it` on the validation prompts, which all trials are measured against.

    Made once for the same inputs, settings and code; workers that come meanwhile wait.

    Raises:
        UserError: the base stages have not run, or there are no validation prompts.
    """
    layout, run = Layout(root), params.run
    settings = {
        model: {
            "model": params.model(model).model_dump(exclude={"overrides"}),
            "generation": params.section("generation", GenerationConfig, model=model, variant="it").model_dump(),
            "attribution": params.section("attribution", AttributionConfig, model=model, variant="it").model_dump(),
            "toxicity": params.section("toxicity", ToxicityConfig, model=model, variant="it").model_dump(),
        }
        for model in models
    }
    key = scratch_key(
        modules=[__name__, *map(module_of, MEASURE)],
        params={"settings": settings, "seed": run.seed, "device": run.device},
        inputs=[
            *(layout.prompts, layout.dialogues, *(layout.adapter(model, "it") for model in models)),
            *([root / RECORDED] if (root / RECORDED).is_dir() else []),
        ],
        num_threads=run.num_threads,
    )
    folder = sweep_folder / f"reference-{key[:12]}"
    sweep_folder.mkdir(parents=True, exist_ok=True)
    with FileLock(sweep_folder / "reference.lock"):
        if not folder.exists():
            partial = sweep_folder / "reference.partial"
            shutil.rmtree(partial, ignore_errors=True)
            link_inputs(layout, partial, models, ["it"])
            for model in models:
                for stage in MEASURE:
                    _stage(stage).run(partial, with_chooser(params), model=model, variant="it")
            partial.rename(folder)
    return folder


def run_trial(
    root: Path,
    folder: Path,
    reference: Path,
    params: Params,
    *,
    method: Method,
    models: Sequence[str],
    variant: str,
    callback_of: Callable[[int, str], StepCallback | None],
) -> dict[str, dict[str, float]]:
    """Trains and evaluates `variant` in `folder`; returns model -> metric -> value.

    Args:
        root: the project, which is only read.
        folder: of this trial; what an earlier attempt left there is replaced.
        reference: from `make_reference`.
        params: with the trial's point in place (`space.params_at`).
        method: what trains the variant.
        models: each is trained and evaluated.
        variant: key of `variants`.
        callback_of: number and key of a model -> what watches its training, and may end the trial by raising.

    Raises:
        UserError: the point cannot be trained, e.g. the KL explodes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    link_inputs(Layout(root), folder, models, ["it", *params.made_of(variant)])
    found = {}
    try:
        for number, model in enumerate(models):
            outputs = folder / "outputs" / model
            link(reference / "outputs" / model / "it", outputs / "it")
            callback = callback_of(number, model)
            _stage(params.stage_of(variant)).run(folder, params, model=model, variant=variant, callback=callback)
            for stage in MEASURE:
                _stage(stage).run(folder, with_chooser(params), model=model, variant=variant)
            found[model] = val_metrics(folder, params, model, variant)
    except BaseException:
        shutil.rmtree(folder)
        raise
    for own in (STATE, KEPT):  # the trial's scratch, and its link to the project's answers
        shutil.rmtree(folder / own, ignore_errors=True)
    return found


def with_chooser(params: Params) -> Params:
    """`params` with the selector among the scorers; the headline stays, by whose toxicity prompts are drawn."""
    toxicity = params.section("toxicity", ToxicityConfig)
    if toxicity.chooser in toxicity.scorers:
        return params
    scorers = {"scorers": [*toxicity.scorers, toxicity.chooser]}
    return Params(params.raw | {"toxicity": params.raw["toxicity"] | scorers}, params.path)


def link_inputs(layout: Layout, folder: Path, models: Sequence[str], variants: Sequence[str]) -> None:
    """Everything a trial reads, as links, and the validation prompts as a table of their own."""
    inside = Layout(folder)
    prompts = [p for p in read_rows(layout.prompts, Prompt) if p.split == "val"]
    if not prompts:
        raise UserError(f"{layout.prompts} holds no validation prompts, which sweeps go by; set splits.<name>.max_val.")
    write_rows(inside.prompts, prompts, Prompt)
    link(layout.dialogues, inside.dialogues)
    link(layout.root / "models", folder / "models")
    if (recorded := layout.root / RECORDED).is_dir():
        link(recorded, folder / RECORDED)
    link(layout.score_cache, inside.score_cache)  # what a service has been asked is not asked again
    for model in models:
        for variant in variants:
            if not (layout.adapter(model, variant) / "model_ref.json").exists():
                raise UserError(f"{layout.adapter(model, variant)} is not there yet; run `dvc repro` first.")
            link(layout.adapter(model, variant), inside.adapter(model, variant))


def val_metrics(folder: Path, params: Params, model: str, variant: str, *, stand_in: bool = False) -> dict[str, float]:
    """The trial's numbers on validation prompts, by the report's own functions, under the names that MLflow shows.

    Args:
        folder: a trial's, or the reference.
        params: params.
        model: model key.
        variant: its tables are in `folder`, like those of `it`.
        stand_in: measure `it` against itself instead; what a trial reports, with every difference at 0.
    """
    from detoxlens.reporting.load import load_study
    from detoxlens.reporting.metrics import build_metrics
    from detoxlens.tracking import flat_metrics

    config, toxicity = params.section("report", ReportConfig), params.section("toxicity", ToxicityConfig)
    layout = Layout(folder)
    study = load_study(
        layout,
        models=[model],
        groups={"it": "it"} if stand_in else {"it": "it", variant: variant},
        splits=list(params.section("splits", SplitsConfig).by_name),
        grader=toxicity.chooser,
        drawn_by=toxicity.headline,
        attribution=params.section("attribution", AttributionConfig),
        config=config,
    )
    if stand_in:
        it = study.models[model]["it"]
        study = dataclasses.replace(study, models={model: {"it": it, AS_IF_TRAINED: as_if_trained(it)}})
    metrics = build_metrics(study, config, missing=toxicity.missing)[model][AS_IF_TRAINED if stand_in else variant]
    found = {name: value for name, value in flat_metrics(metrics).items() if "/val/" in name}
    for row in read_history(layout.adapter(model, variant)):  # the last value of each curve stays
        found |= {f"training/{name}": value for name, value in row.items() if name != "step" and value is not None}
    return found


def as_if_trained(it: VariantTables) -> VariantTables:
    """The tables of `it` as those of a variant: who reads its own text, that of `it`, and whose text `it` reads."""
    cells = ((AS_IF_TRAINED, AS_IF_TRAINED), (AS_IF_TRAINED, "it"), ("it", AS_IF_TRAINED))
    traces = [
        dataclasses.replace(trace, reader=reader, text_source=text) for reader, text in cells for trace in it.traces
    ]
    return dataclasses.replace(it, variant=AS_IF_TRAINED, traces=traces)


def check_metrics(config: SweepConfig, known: Mapping[str, float], where: str) -> None:
    """Raises UserError if an objective or constraint is no metric of a trial; training curves are seen only later."""
    for part, names in (("objectives", config.objectives), ("constraints", config.constraints)):
        for name in names:
            if name not in known and not name.startswith("training/"):
                few = (
                    " Attribution is averaged over the steps that report.min_sequences_per_step completions have: "
                    "lower it, or raise splits.<name>.max_val, where there are fewer."
                    if name.startswith("attribution/")
                    else ""
                )
                raise UserError(
                    f"{where}: sweep.{part} names {name!r}, which no trial reports on the validation prompts."
                    f"{did_you_mean(name, known)}{few} Allowed: {', '.join(sorted(known))}; and training/<curve>."
                )


def _stage(name: str):
    return importlib.import_module(module_of(name))
