"""Stage report: Table 1, Figure 1, metrics and the page, from the tables of the models and variants named in `run`.

deps: outputs, adapters (training curves, model_ref.json)
outs: reports/metrics.json, headline, table1.md, report.md, entropy_curves.csv, training_curves.csv, examples.jsonl,
      figures, index.html
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from detoxlens.attribution.heatmap import heatmap_html
from detoxlens.common.artifacts import Layout
from detoxlens.common.names import shown_name
from detoxlens.jobs.scratch import replace_output
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.load import Params
from detoxlens.params.report import ReportConfig
from detoxlens.params.splits import SplitsConfig
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.recorded.calibration import Calibration
from detoxlens.reporting.load import load_study, without_empty_splits
from detoxlens.reporting.report import FILES, write_report
from detoxlens.reporting.study import Study


def run(root: Path, params: Params) -> None:
    layout, run_config = Layout(root), params.run
    config = params.section("report", ReportConfig)
    toxicity = params.section("toxicity", ToxicityConfig)
    study = load_study(
        layout,
        models=run_config.models,
        groups={variant: params.variant(variant).group or variant for variant in run_config.variants},
        splits=list(params.section("splits", SplitsConfig).by_name),
        grader=toxicity.headline,
        attribution=params.section("attribution", AttributionConfig),
        config=config,
        calibration=Calibration.read(root / toxicity.calibration) if toxicity.calibration else None,
    )
    study = dataclasses.replace(study, notes=tuple(set_up_notes(study, toxicity)))
    study = without_empty_splits(study, primary=config.primary_split)
    layout.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.state, prefix="report-") as folder:
        built = Path(folder)
        write_report(built, study, config, missing=toxicity.missing, heatmaps=heatmaps(study))
        for name in FILES:  # all are there before the first one moves
            replace_output(built / name, layout.reports / name)


def set_up_notes(study: Study, toxicity: ToxicityConfig) -> list[str]:
    """What the run's settings mean for how far its numbers can be trusted."""
    notes = []
    histories = [tables.history for variants in study.models.values() for tables in variants.values()]
    if any("ppo/val_toxicity" in row for history in histories for row in history):
        notes.append(
            f"`{toxicity.headline}` is selector and grader at once: it chose PPO's best checkpoint on validation "
            "prompts and grades the test prompts. It did not train anything; the reward is another classifier."
        )
    if toxicity.missing == "non_toxic":
        notes.append(
            "`toxicity.missing: non_toxic`: unscored completions count as not toxic, as in the published numbers."
        )
    return notes


def heatmaps(study: Study) -> list[tuple[str, str]]:
    """(heading, HTML) of the attributions that the study keeps for show."""
    shown = []
    for model, variants in study.models.items():
        for variant, tables in variants.items():
            for a in tables.shown:
                body = heatmap_html(a.scores, a.prompt_pieces, a.completion_pieces, token_prob=a.token_prob)
                heading = f"{model} / {shown_name(variant)}, prompt {a.prompt_id}"
                shown.append((heading, f'<div class="wide">{body}</div>'))
    return shown
