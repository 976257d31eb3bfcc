"""Stage report: Table 1, Figure 1, metrics and the page, from the tables of the models and variants named in `run`.

deps: outputs, adapters (training curves, model_ref.json), data/prepared/summary.json
outs: reports/metrics.json, headline, table1.md, report.md, entropy_curves.csv, training_curves.csv, examples.jsonl,
      figures, index.html
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from detoxlens.common.artifacts import Layout
from detoxlens.jobs.scratch import replace_output
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import Params
from detoxlens.params.report import ReportConfig
from detoxlens.params.splits import SplitsConfig
from detoxlens.params.toxic_words import ToxicWordsConfig
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.recorded.calibration import Calibration
from detoxlens.reporting.about import About, role, split_phrase
from detoxlens.reporting.load import load_study, with_strengths, without_empty_splits
from detoxlens.reporting.provenance import overlap, provenance, read_summary
from detoxlens.reporting.report import FILES, write_report
from detoxlens.reporting.study import Study


def run(root: Path, params: Params) -> None:
    layout, run_config = Layout(root), params.run
    config = params.section("report", ReportConfig)
    toxicity = params.section("toxicity", ToxicityConfig)
    attribution = params.section("attribution", AttributionConfig)
    words = params.section("toxic_words", ToxicWordsConfig)
    splits = params.section("splits", SplitsConfig).by_name
    study = load_study(
        layout,
        models=run_config.models,
        groups={variant: params.variant(variant).group or variant for variant in run_config.variants},
        splits=list(splits),
        grader=toxicity.headline,
        attribution=attribution,
        config=config,
        calibration=Calibration.read(root / toxicity.calibration) if toxicity.calibration else None,
        words=words,
    )
    controls = {variant: params.variant(variant).placebo_of for variant in run_config.variants}
    study = dataclasses.replace(
        study, notes=tuple(set_up_notes(toxicity)), placebos={v: of for v, of in controls.items() if of}
    )
    study = with_strengths(study, layout, run_config.interpolated_variants)
    study = without_empty_splits(study, primary=config.primary_split)
    about = About(
        variants={variant: role(params.variant(variant), params.data_of(variant)) for variant in run_config.variants},
        splits={name: split_phrase(split) for name, split in splits.items()},
        provenance=provenance(
            layout,
            params,
            study,
            generation={m: params.section("generation", GenerationConfig, model=m) for m in run_config.models},
            attribution=attribution,
            bootstrap=config.bootstrap,
        ),
        overlap=overlap(read_summary(layout)),
        roles=double_roles(study, toxicity),
    )
    layout.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.state, prefix="report-") as folder:
        built = Path(folder)
        write_report(built, study, config, missing=toxicity.missing, about=about)
        for name in FILES:  # all are there before the first one moves
            replace_output(built / name, layout.reports / name)


def set_up_notes(toxicity: ToxicityConfig) -> list[str]:
    """What the run's settings mean for how its numbers are to be read."""
    if toxicity.missing != "non_toxic":
        return []
    return ["`toxicity.missing: non_toxic`: unscored completions count as not toxic, as in the published numbers."]


def double_roles(study: Study, toxicity: ToxicityConfig) -> list[str]:
    """Where a grader of the tables had a say in the training."""
    chooser = toxicity.chooser
    histories = [tables.history for variants in study.models.values() for tables in variants.values()]
    chose = any("ppo/val_toxicity" in row for history in histories for row in history)
    if not chose or chooser not in toxicity.scorers:
        return []
    if chooser != toxicity.headline:
        return [
            f"`{chooser}` chose PPO's best checkpoint on validation prompts: its own tables are of the scorer that "
            f"chose, those of `{toxicity.headline}` are not."
        ]
    return [
        f"`{toxicity.headline}` is selector and grader at once: it chose PPO's best checkpoint on validation prompts "
        "and grades the test prompts. It did not train anything; the reward is another classifier."
    ]
