"""Reads the tables of the models and variants named in `run`, and of no other that happens to lie in outputs/."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from detoxlens.attribution.sampling import basis, stratum_weights, toxic_prompts
from detoxlens.common.artifacts import Layout, open_rows, read_history, read_json, read_rows
from detoxlens.common.columns import Table
from detoxlens.common.errors import UserError
from detoxlens.common.records import (
    Attribution,
    Completion,
    Fluency,
    InferenceCost,
    Prompt,
    ResponseKind,
    Score,
    ToxicWord,
    Utility,
)
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.report import ReportConfig
from detoxlens.params.toxic_words import ToxicWordsConfig
from detoxlens.recorded.calibration import Calibration
from detoxlens.reporting.dose import read_strengths
from detoxlens.reporting.examples import choose
from detoxlens.reporting.keys import Keys, KeySet, Verdicts
from detoxlens.reporting.study import Key, Study, Trace, VariantTables
from detoxlens.reporting.traces import prompt_frequency, trace_of
from detoxlens.reporting.word_use import WordUse, word_use

R = TypeVar("R")


def load_study(
    layout: Layout,
    *,
    models: Sequence[str],
    groups: Mapping[str, str],
    splits: Sequence[str],
    grader: str,
    attribution: AttributionConfig,
    config: ReportConfig,
    calibration: Calibration | None = None,
    drawn_by: str | None = None,
    words: ToxicWordsConfig | None = None,
) -> Study:
    """Reads everything the report needs.

    Args:
        layout: where the tables are.
        models: in the order of the report.
        groups: variant -> method, in the order of the report; `it` among them.
        splits: names of the declared splits.
        grader: the scorer of the tables.
        attribution: how the stage `attribute` worked, and what of it is shown.
        config: decides the primary split and how many attributed examples are kept in memory.
        calibration: what `score` applied, or None.
        drawn_by: the scorer by which a balanced sample was drawn; None is the grader.
        words: the params section `toxic_words`; None leaves out what is measured at toxic words.

    Raises:
        UserError: a table is missing, a scorer is missing in it, or the primary split is not declared.
    """
    if config.primary_split not in splits:
        raise UserError(
            f"report.primary_split={config.primary_split!r} is no declared split; choose one of {', '.join(splits)}."
        )
    prompts = read_rows(layout.prompts, Prompt) if layout.prompts.exists() else []
    summary = read_json(layout.data_summary) if layout.data_summary.exists() else {}
    return Study(
        models={
            model: _load_model(layout, model, groups, grader, drawn_by or grader, attribution, config)
            for model in models
        },
        splits=tuple(splits),
        grader=grader,
        method=attribution.method,
        scope="user" if attribution.mask_template else "prompt",
        unit=attribution.unit,
        calibration=calibration,
        targets={p.prompt_id: (p.target,) for p in prompts if p.target},
        categories={p.prompt_id: p.categories for p in prompts if p.categories},
        reply_graders=summary.get("response_kinds", {}).get("graders", {}),
        words=words,
        words_by=words and words.located_by(grader),
    )


def with_strengths(study: Study, layout: Layout, variants: Sequence[str]) -> Study:
    """`study` with what these variants do at other strengths of their adapters.

    Raises:
        UserError: the stage `interpolate` has not run for one of them.
    """
    models = {
        model: of
        | {
            variant: dataclasses.replace(
                of[variant], strengths=read_strengths(layout, model, variant, scope=study.scope, unit=study.unit)
            )
            for variant in variants
        }
        for model, of in study.models.items()
    }
    return dataclasses.replace(study, models=models)


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
    layout: Layout,
    model: str,
    groups: Mapping[str, str],
    grader: str,
    drawn_by: str,
    attribution: AttributionConfig,
    config: ReportConfig,
) -> dict[str, VariantTables]:
    it = read_rows(layout.attributions(model, "it"), Attribution)
    completions = open_rows(layout.completions(model, "it"), Completion)
    scores = _scores(layout, model, "it", grader)
    toxicity = Verdicts(Keys(scores[grader]), scores[grader].column("toxicity").astype(np.float64))
    shared = Shared(
        attribution=attribution,
        shown=_shown_keys(it, completions, toxicity, config),
        it_rows={_key(a): a for a in it if a.method == attribution.method},
        frequency=prompt_frequency(it),
        weights=_weights(it, completions, scores.get(drawn_by, Table.of((), Score)), drawn_by, attribution, config),
        words=_words(layout, model, "it"),
    )
    return {variant: _load_variant(layout, model, variant, group, grader, shared) for variant, group in groups.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the traces of all variants of a model need of `it`."""

    attribution: AttributionConfig
    shown: set[Key]
    """Whose attributions are drawn."""
    it_rows: Mapping[Key, Attribution]
    """Of `it` reading its own text, by the headline's method."""
    frequency: Mapping[str, int]
    """In how many prompts each content word stands."""
    words: Sequence[ToxicWord] | None
    """Of the completions of `it` and of the prompts; None where nobody looked for them."""
    weights: Mapping[str, float]
    """Prompt -> how many prompts it stands for, where not every one stands for itself."""


def _shown_keys(
    it: Sequence[Attribution], completions: Table[Completion], toxicity: Mapping[Key, float], config: ReportConfig
) -> set[Key]:
    """Whose attributions are drawn: the same prompts for every variant, chosen on `it`."""
    test = KeySet(Keys(completions), completions.column("split").equals("test"))
    attributed = {key for a in it if a.scores is not None and (key := _key(a)) in test}
    return set(choose(toxicity, attributed, config.num_examples, config))


def _weights(
    it: Sequence[Attribution],
    completions: Table[Completion],
    scores: Table[Score],
    grader: str,
    attribution: AttributionConfig,
    config: ReportConfig,
) -> dict[str, float]:
    """Of a balanced sample of each split, the test's and `val`'s each for itself; {} for a random one.

    A prompt of several splits stands for those of the primary, or else of the split that is declared first.
    """
    toxic = None
    if attribution.sample != "random":
        toxic = toxic_prompts(basis(scores, grader)[attribution.sample], attribution)
    parts, filters, prompt_ids = (completions.column(name) for name in ("split", "filters", "prompt_id"))
    found: dict[str, float] = {}
    for name in (*reversed(attribution.filters), config.primary_split) if toxic is not None else ():
        for split in ("test", "val"):
            meets = np.array([name in names for names in filters.names], dtype=bool)[filters.codes]
            prompts = set(prompt_ids[parts.equals(split) & meets].present())
            found |= stratum_weights(prompts, {a.prompt_id for a in it} & prompts, toxic)
    return found


def _scores(layout: Layout, model: str, variant: str, grader: str) -> dict[str, Table[Score]]:
    """Scores by scorer, the grader's among them even when nothing was generated."""
    path = layout.scores(model, variant)
    rows = open_rows(path, Score)
    scorers = rows.column("scorer")
    found = {scorer: rows.where(scorers.equals(scorer)) for scorer in scorers.present()}
    if found and grader not in found:
        raise UserError(f"{path} has no scores by the grader {grader!r}, only by {', '.join(found)}; run `dvc repro`.")
    return {grader: rows.where(np.zeros(len(rows), bool)), **found}


def _load_variant(layout: Layout, model: str, variant: str, group: str, grader: str, shared: Shared) -> VariantTables:
    attributions = read_rows(layout.attributions(model, variant), Attribution)
    completions = open_rows(layout.completions(model, variant), Completion)
    method = shared.attribution.method
    headline = [a for a in attributions if a.method == method]
    own = [a for a in headline if a.reader == variant and a.text_source == variant]
    test = KeySet(Keys(completions), completions.column("split").equals("test"))
    statuses = [a.status for a in own if _key(a) in test]
    faithfulness, kinds = layout.faithfulness(model, variant), layout.response_kinds(model, variant)
    traces = _traces(headline, shared, {})
    return VariantTables(
        variant=variant,
        group=group,
        completions=completions,
        scores=_scores(layout, model, variant, grader),
        fluency=open_rows(layout.fluency(model, variant), Fluency),
        response_kinds=open_rows(kinds, ResponseKind) if kinds.exists() else (),
        utility=_rows_if_there(layout.utility(model, variant), Utility),
        inference_cost=next(iter(_rows_if_there(layout.inference_cost(model, variant), InferenceCost)), None),
        traces=traces,
        toxic_words=_words(layout, model, variant),
        word_use=_word_use([a for a in headline if (a.reader, a.text_source) == (variant, "it")], traces, shared),
        other_methods={
            other: _traces([a for a in attributions if a.method == other], shared, _by_cell(headline))
            for other in dict.fromkeys(a.method for a in attributions)
            if other != method
        },
        noise_floor=_noise_floor(layout, model, shared) if variant == "it" else (),
        num_attributions={status: statuses.count(status) for status in sorted(set(statuses))},
        methods=sorted({f"{a.method} of the {a.target.replace('_', ' ')}" for a in headline}),
        shown=[a for a in own if a.scores is not None and _key(a) in shared.shown],
        history=read_history(layout.adapter(model, variant)),
        faithfulness=read_json(faithfulness) if faithfulness.exists() else None,
    )


def _rows_if_there(path: Path, cls: type[R]) -> list[R]:
    """Of a table that not every study has; the report says that it is absent."""
    return read_rows(path, cls) if path.exists() else []


def _noise_floor(layout: Layout, model: str, shared: Shared) -> list[Trace]:
    """Of another base model, where there is one; rows about former completions or by another method are left out."""
    rows = _rows_if_there(layout.noise_floor(model), Attribution)
    same = [a for a in rows if a.method == shared.attribution.method and _it_scores(a, shared) is not None]
    return _traces(same, shared, {})


def _traces(
    attributions: Sequence[Attribution], shared: Shared, headline: Mapping[tuple[str, str, Key], Attribution]
) -> list[Trace]:
    """The traces of those that have scores."""
    found = []
    for a in attributions:
        if a.scores is None:
            continue
        same = headline.get(_cell(a))
        found.append(
            trace_of(
                a,
                unit=shared.attribution.unit,
                weight=shared.weights.get(a.prompt_id, 1.0),
                it_scores=_it_scores(a, shared) if same is None else None,
                frequency=shared.frequency if a.reader == a.text_source else None,
                headline_scores=None if same is None or a.reader != a.text_source else same.scores,
            )
        )
    return found


def _words(layout: Layout, model: str, variant: str) -> list[ToxicWord] | None:
    path = layout.toxic_words(model, variant)
    return read_rows(path, ToxicWord) if path.exists() else None


def _word_use(read: Sequence[Attribution], traces: Sequence[Trace], shared: Shared) -> list[WordUse]:
    """Of one model reading the completions of `it`."""
    own: dict[Key, list[ToxicWord]] = {}
    prompt: dict[str, list[ToxicWord]] = {}
    for word in shared.words or ():
        if word.text_source == "prompt":
            prompt.setdefault(word.prompt_id, []).append(word)
        else:
            own.setdefault((word.prompt_id, word.sample_index), []).append(word)
    trace = {(t.reader, t.text_source, t.key): t for t in traces}
    return [
        word_use(
            a,
            trace[_cell(a)],
            own.get(_key(a), ()),
            prompt.get(a.prompt_id, ()),
            shared.frequency,
            unit=shared.attribution.unit,
        )
        for a in read
        if a.scores is not None and shared.words is not None
    ]


def _by_cell(attributions: Sequence[Attribution]) -> dict[tuple[str, str, Key], Attribution]:
    return {_cell(a): a for a in attributions}


def _cell(a: Attribution) -> tuple[str, str, Key]:
    """Who reads, whose text, which."""
    return a.reader, a.text_source, _key(a)


def _key(a: Attribution) -> Key:
    return a.prompt_id, a.sample_index


def _it_scores(a: Attribution, shared: Shared) -> Sequence[Sequence[float]] | None:
    """The scores of `it` on the text that `a` is about, where a variant reads the completion of `it`."""
    if a.reader == "it" or a.text_source != "it":
        return None
    theirs = shared.it_rows.get(_key(a))
    return theirs.scores if theirs is not None and theirs.completion_ids == a.completion_ids else None
