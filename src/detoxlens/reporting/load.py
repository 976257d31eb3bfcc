"""Reads the tables of the models and variants named in `run`, and of no other that happens to lie in outputs/."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from detoxlens.common.artifacts import Layout, read_history, read_json, read_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Attribution, Completion, Fluency, Score
from detoxlens.params.report import ReportConfig
from detoxlens.recorded.calibration import Calibration
from detoxlens.reporting.examples import choose
from detoxlens.reporting.study import Key, Study, VariantTables, trace_of


def load_study(
    layout: Layout,
    *,
    models: Sequence[str],
    groups: Mapping[str, str],
    splits: Sequence[str],
    grader: str,
    mask_template: bool,
    config: ReportConfig,
    calibration: Calibration | None = None,
) -> Study:
    """Reads everything the report needs.

    Args:
        layout: where the tables are.
        models: in the order of the report.
        groups: variant -> method, in the order of the report; `it` among them.
        splits: names of the declared splits.
        grader: the scorer of the tables.
        mask_template: leave the template's tokens out of entropy and dependence.
        config: decides the primary split and how many heat maps are kept in memory.
        calibration: what `score` applied, or None.

    Raises:
        UserError: a table is missing, a scorer is missing in it, or the primary split is not declared.
    """
    if config.primary_split not in splits:
        raise UserError(
            f"report.primary_split={config.primary_split!r} is no declared split; choose one of {', '.join(splits)}."
        )
    return Study(
        models={model: _load_model(layout, model, groups, grader, mask_template, config) for model in models},
        splits=tuple(splits),
        grader=grader,
        calibration=calibration,
    )


def without_empty_splits(study: Study, *, primary: str) -> Study:
    """`study` without the splits, but for `primary`, in which no variant has a completion; a note names them."""
    tables = [t for variants in study.models.values() for t in variants.values()]
    empty = [s for s in study.splits if s != primary and not any(t.keys_of("test", s) for t in tables)]
    if not empty:
        return study
    note = f"No completion is of {', '.join(empty)}: no column stands for {'it' if len(empty) == 1 else 'them'}."
    splits = tuple(split for split in study.splits if split not in empty)
    return dataclasses.replace(study, splits=splits, notes=(*study.notes, note))


def _load_model(
    layout: Layout, model: str, groups: Mapping[str, str], grader: str, mask_template: bool, config: ReportConfig
) -> dict[str, VariantTables]:
    shown = _shown_keys(layout, model, grader, config)
    it = {(a.prompt_id, a.sample_index): a for a in read_rows(layout.attributions(model, "it"), Attribution)}
    return {
        variant: _load_variant(layout, model, variant, group, grader, mask_template, shown, it)
        for variant, group in groups.items()
    }


def _shown_keys(layout: Layout, model: str, grader: str, config: ReportConfig) -> set[Key]:
    """Whose attributions are drawn: the same prompts for every variant, chosen on `it`."""
    rows = read_rows(layout.attributions(model, "it"), Attribution)
    attributed = {(a.prompt_id, a.sample_index) for a in rows if a.scores is not None and a.text_source == "own"}
    completions = read_rows(layout.completions(model, "it"), Completion)
    attributed &= {(c.prompt_id, c.sample_index) for c in completions if c.split == "test"}
    scores = _scores(layout, model, "it", grader)[grader]
    toxicity = {(s.prompt_id, s.sample_index): s.toxicity for s in scores if s.toxicity is not None}
    return set(choose(toxicity, attributed, config.num_heatmaps, config))


def _scores(layout: Layout, model: str, variant: str, grader: str) -> dict[str, list[Score]]:
    """Scores by scorer, the grader's among them even when nothing was generated."""
    path = layout.scores(model, variant)
    found: dict[str, list[Score]] = {}
    for row in read_rows(path, Score):
        found.setdefault(row.scorer, []).append(row)
    if found and grader not in found:
        raise UserError(f"{path} has no scores by the grader {grader!r}, only by {', '.join(found)}; run `dvc repro`.")
    return {grader: [], **found}


def _load_variant(
    layout: Layout,
    model: str,
    variant: str,
    group: str,
    grader: str,
    mask_template: bool,
    shown: set[Key],
    it: Mapping[Key, Attribution],
) -> VariantTables:
    attributions = read_rows(layout.attributions(model, variant), Attribution)
    traces = [
        trace_of(a, mask_template=mask_template, it_scores=_it_scores(a, it) if variant != "it" else None)
        for a in attributions
    ]
    completions = read_rows(layout.completions(model, variant), Completion)
    test = {(c.prompt_id, c.sample_index) for c in completions if c.split == "test"}
    statuses = [a.status for a in attributions if a.text_source == "own" and (a.prompt_id, a.sample_index) in test]
    faithfulness = layout.faithfulness(model, variant)
    return VariantTables(
        variant=variant,
        group=group,
        completions=completions,
        scores=_scores(layout, model, variant, grader),
        fluency=read_rows(layout.fluency(model, variant), Fluency),
        traces=[trace for trace in traces if trace is not None],
        num_attributions={status: statuses.count(status) for status in sorted(set(statuses))},
        methods=sorted({f"{a.method} of the {a.target.replace('_', ' ')}" for a in attributions}),
        shown=[
            a
            for a in attributions
            if a.text_source == "own" and a.scores is not None and (a.prompt_id, a.sample_index) in shown
        ],
        history=read_history(layout.adapter(model, variant)),
        faithfulness=read_json(faithfulness) if faithfulness.exists() else None,
    )


def _it_scores(a: Attribution, it: Mapping[Key, Attribution]) -> Sequence[Sequence[float]] | None:
    """The scores of `it` on the text that `a` is about, where that is the completion of `it`."""
    theirs = it.get((a.prompt_id, a.sample_index)) if a.text_source == "it" else None
    return theirs.scores if theirs is not None and theirs.completion_ids == a.completion_ids else None
