"""The entry `attribution.toxic_words` of metrics.json: is the prompt used otherwise where base's answers are toxic?

Every variant reads the same completions of base. `reason` says why a number is not there.

contrast, regression    at toxic words against elsewhere            p_shift: labels turned round within the completion
event_study             around the onset, against matched controls   p_step: labels dealt out anew within the step
enrichment              of the prompt's toxic words                  p: which of the prompt's words are toxic, anew
early_warning           AUROC at the first steps                     p: which completions are toxic, anew
rise                    mean of steps 4-8 minus 1-3 (the paper's), of base's toxic completions
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detoxlens.common.seeding import numpy_rng
from detoxlens.evaluation.as_json import difference_json, estimate_json
from detoxlens.evaluation.early_warning import auroc
from detoxlens.evaluation.effects import StepTable
from detoxlens.evaluation.enrichment import Drawing, enrichment
from detoxlens.evaluation.label_nulls import p_value, permuted, shifted
from detoxlens.evaluation.onset import NEVER, event_study
from detoxlens.evaluation.rise import FIRST, LATER, rises
from detoxlens.evaluation.stats import mean_ci, paired_difference
from detoxlens.evaluation.token_contrast import Tokens, contrast, contrast_of_draws, regress
from detoxlens.evaluation.toxicity import TOXIC
from detoxlens.params.report import ReportConfig
from detoxlens.params.toxic_words import ToxicWordsConfig
from detoxlens.reporting.study import Key, Study, VariantTables
from detoxlens.reporting.word_use import WordUse

Json = dict[str, Any]
ENTROPY, DEPENDENCE, JS = "prompt_entropy_bits", "prompt_dependence", "jensen_shannon"
MEASURES = (ENTROPY, DEPENDENCE, JS)
EARLY = FIRST[1]
"""Steps that an early warning goes by: the first three."""
MIN_OTHER = 10
"""Completions that do not turn toxic, to compare with."""


def word_metrics(
    study: Study, variants: Mapping[str, VariantTables], config: ReportConfig, *, model: str
) -> dict[str, Json]:
    """{variant: toxic_words} of one model; {} where params `toxic_words` play no part."""
    words = study.words
    if words is None:
        return {}
    found, reason = _common(study, variants, config)
    if reason is not None:
        return {variant: {"reason": reason} for variant in variants}
    base = variants["it"]
    toxicity = base.toxicity(study.grader)
    toxic = [key for key in found["it"] if toxicity.get(key, 0.0) > TOXIC]
    located = [key for key in toxic if found["it"][key].is_toxic.any()]
    counts = {
        "scorer": study.words_by,
        "num_completions": len(found["it"]),
        "num_toxic": len(located),
        "num_unlocated": len(toxic) - len(located),
    }
    if len(located) < words.min_toxic:
        why = (
            f"{len(located)} toxic completions of base have toxic words that were found and attributions by every "
            f"variant; toxic_words.min_toxic={words.min_toxic} are needed"
        )
        return {variant: counts | {"reason": why} for variant in variants}
    others = [key for key in found["it"] if key in toxicity and key not in set(toxic)]
    shared = _Shared(located, others, found["it"], words, model)
    return {
        variant: counts | _of_variant(shared, of, found["it"] if variant != "it" else None, config, words, toxicity)
        for variant, of in found.items()
    } | {
        variant: counts | {"reason": f"{variant} has read none of base's completions"}
        for variant in variants
        if variant not in found
    }


class _Shared:
    """What is the same for every variant: the completions, the labels, and their draws."""

    def __init__(
        self,
        toxic: Sequence[Key],
        others: Sequence[Key],
        it: Mapping[Key, WordUse],
        words: ToxicWordsConfig,
        model: str,
    ) -> None:
        self.toxic, self.others, self.words, self.model = toxic, others, words, model
        uses = [it[key] for key in toxic]
        width = max(use.trace.num_steps for use in (*uses, *(it[key] for key in others)))
        there = np.array([np.arange(width) < use.trace.num_steps for use in uses])
        labels = np.array([padded(use.is_toxic, width) == 1 for use in uses])
        self.width = width
        self.tokens = Tokens(prompts=[key[0] for key in toxic], there=there, labels=labels)
        self.draws = {
            "p_shift": shifted(labels, there, words.num_draws, self.rng("shift")),
            "p_step": permuted(labels, there, words.num_draws, self.rng("step")),
        }

    def rng(self, name: str) -> np.random.Generator:
        return numpy_rng(self.words.seed, "toxic words", self.model, name)

    def matrix(self, uses: Mapping[Key, WordUse], keys: Sequence[Key], measure: str) -> np.ndarray:
        return np.array([padded(uses[key].values(measure), self.width) for key in keys]).reshape(-1, self.width)


def padded(values: np.ndarray, width: int) -> np.ndarray:
    """(width,), NaN behind the end."""
    return np.concatenate([values.astype(np.float64), np.full(width - len(values), np.nan)])


def _common(
    study: Study, variants: Mapping[str, VariantTables], config: ReportConfig
) -> tuple[dict[str, dict[Key, WordUse]], str | None]:
    """The test completions of base that every variant that read any has read; or why there are none."""
    if study.words_by is None:
        return {}, (
            f"no toxic words were looked for: the grader {study.grader} cannot be asked about parts of texts, or "
            "toxic_words.max_words is 0; toxic_words.scorer names one that can"
        )
    if variants["it"].toxic_words is None:
        return {}, "base has no toxic_words.parquet (completions made elsewhere, or by an older version): run score"
    keys = variants["it"].keys_of("test", config.primary_split)
    found = {v: {use.key: use for use in tables.word_use if use.key in keys} for v, tables in variants.items()}
    found = {variant: of for variant, of in found.items() if of}
    if "it" not in found:
        return {}, "no completion of base has an attribution by base"
    shared = set.intersection(*(set(of) for of in found.values()))
    return {variant: {key: of[key] for key in found["it"] if key in shared} for variant, of in found.items()}, None


def _of_variant(
    shared: _Shared,
    uses: Mapping[Key, WordUse],
    it: Mapping[Key, WordUse] | None,
    config: ReportConfig,
    words: ToxicWordsConfig,
    toxicity: Mapping[Key, float],
) -> Json:
    measures = [m for m in MEASURES if m != JS or it is not None]
    return {
        "num_tokens": int(shared.tokens.labels.sum()),
        "contrast": {m: _contrast(shared, shared.matrix(uses, shared.toxic, m), config) for m in measures},
        "regression": _regression(shared, uses, config),
        "regression_with_copying": _regression(shared, uses, config, with_copying=True),
        "event_study": {m: _event_study(shared, uses, m, config) for m in measures},
        "enrichment": {
            kind: _enrichment(shared, uses, config, copied=kind == "copied") for kind in ("novel", "copied")
        },
        "early_warning": _early_warning(shared, uses, config, toxicity),
        "rise": _rise(shared, uses, it, config),
        "reason": None,
    }


def _contrast(shared: _Shared, values: np.ndarray, config: ReportConfig) -> Json | None:
    found = contrast(shared.tokens, values, config.bootstrap)
    return difference_json(found) and difference_json(found) | {
        name: p_value(found.value, contrast_of_draws(shared.tokens, values, draws))
        for name, draws in shared.draws.items()
    }


def _regression(
    shared: _Shared, uses: Mapping[Key, WordUse], config: ReportConfig, *, with_copying: bool = False
) -> Json | None:
    """Of prompt entropy; `with_copying` holds alike, too, whether the token is of a word that the prompt contains."""
    covariates = [
        np.array([padded(of(uses[key]), shared.width) for key in shared.toxic])
        for of in (
            lambda use: use.log2_prob,
            lambda use: use.begins_word,
            *([lambda use: use.is_copied] if with_copying else []),
        )
    ]
    values = shared.matrix(uses, shared.toxic, ENTROPY)
    found = regress(
        shared.tokens, values, covariates, config.bootstrap, min_per_step=max(2, config.min_sequences_per_step)
    )
    return found and difference_json(found.estimate) | {
        name: p_value(found.estimate.value, found.of_draws(draws)) for name, draws in shared.draws.items()
    }


def _event_study(shared: _Shared, uses: Mapping[Key, WordUse], measure: str, config: ReportConfig) -> list[Json]:
    """One entry per lag."""
    keys = [key for key in shared.toxic if uses[key].onset is not None]
    onset = np.array([*(uses[key].onset for key in keys), *(NEVER for _ in shared.others)])
    every = [*keys, *shared.others]
    found = event_study(
        [key[0] for key in every],
        shared.matrix(uses, every, measure),
        onset,
        config.bootstrap,
        max_lag=shared.words.max_lag,
        min_events=shared.words.min_toxic,
    )
    fields = ("value", "lo", "hi", "band_lo", "band_hi")
    return [
        {"lag": int(lag), **{f: _or_none(getattr(found, f)[i]) for f in fields}, "num_events": int(found.num_events[i])}
        for i, lag in enumerate(found.lags)
    ]


def _enrichment(shared: _Shared, uses: Mapping[Key, WordUse], config: ReportConfig, *, copied: bool) -> Json:
    drawings = [
        Drawing(prompt=key[0], words=use.prompt_words, shares=use.shares[use.copied == copied])
        for key in shared.toxic
        for use in [uses[key]]
    ]
    with_any = [d for d in drawings if len(d.shares) and d.words.is_toxic.any() and not d.words.is_toxic.all()]
    if len(with_any) < shared.words.min_toxic:
        kind = "copied from the prompt" if copied else "not in the prompt"
        why = (
            f"{len(with_any)} toxic completions of base have toxic words {kind} and a prompt with toxic words; "
            f"toxic_words.min_toxic={shared.words.min_toxic} are needed"
        )
        return {"lift": None, "p": None, "against_control": None, "num_completions": len(with_any), "reason": why}
    rng = shared.rng(f"words copied={copied}")
    found = enrichment(with_any, config.bootstrap, num_draws=shared.words.num_draws, rng=rng)
    return {
        "lift": estimate_json(found.lift),
        "p": found.p,
        "against_control": difference_json(found.against_control),
        "num_completions": len(with_any),
        "num_tokens": found.num_tokens,
        "reason": None,
    }


def _early_warning(
    shared: _Shared, uses: Mapping[Key, WordUse], config: ReportConfig, toxicity: Mapping[Key, float]
) -> Json:
    """AUROC of what is known after three steps, among completions that are not toxic by then."""
    turning = [key for key in shared.toxic if uses[key].onset is not None and uses[key].onset >= EARLY]
    keys = [key for key in (*turning, *shared.others) if uses[key].trace.num_steps >= EARLY]
    toxic = np.array([key in set(turning) for key in keys], dtype=bool)
    num_toxic, num_other = int(toxic.sum()), int((~toxic).sum())
    counts = {"num_toxic": num_toxic, "num_other": num_other}
    if num_toxic < shared.words.min_toxic or num_other < MIN_OTHER:
        why = (
            f"{num_toxic} completions of base turn toxic after step {EARLY} and {num_other} do not at all; "
            f"{shared.words.min_toxic} (toxic_words.min_toxic) and {MIN_OTHER} are needed"
        )
        return counts | {"reason": why}
    entropy, dependence = (shared.matrix(uses, keys, m)[:, :EARLY] for m in (ENTROPY, DEPENDENCE))
    features = {
        ENTROPY: entropy.mean(1),
        DEPENDENCE: dependence.mean(1),
        "entropy_rise": entropy[:, -1] - entropy[:, 0],
        "prompt_length": np.array([float(uses[key].prompt_words.total_tokens) for key in keys]),
        "prompt_toxicity": np.array([uses[key].prompt_toxicity for key in keys]),
    }
    found: Json = {}
    for name, values in features.items():
        of = auroc(
            [key[0] for key in keys],
            values,
            toxic,
            config.bootstrap,
            num_draws=shared.words.num_draws,
            rng=shared.rng("completions"),
        )
        found[name] = of and estimate_json(of.auroc) | {"p": of.p}
    return counts | found | {"reason": None}


def _rise(shared: _Shared, uses: Mapping[Key, WordUse], it: Mapping[Key, WordUse] | None, config: ReportConfig) -> Json:
    """Of base's toxic completions with at least eight steps, prompt entropy in bits."""
    keys = [key for key in shared.toxic if uses[key].trace.num_steps >= LATER[1]]
    if len(keys) < shared.words.min_toxic:
        why = (
            f"{len(keys)} toxic completions of base have {LATER[1]} steps; "
            f"toxic_words.min_toxic={shared.words.min_toxic} are needed"
        )
        return {"value": None, "ci95": None, "num_completions": len(keys), "reason": why}
    prompts = [key[0] for key in keys]

    def rise_of(read: Mapping[Key, WordUse]) -> np.ndarray:
        return rises(StepTable(prompts=prompts, values=shared.matrix(read, keys, ENTROPY))).values[:, 0]

    ours = rise_of(uses)
    delta = it and difference_json(paired_difference(prompts, ours, prompts, rise_of(it), config.bootstrap))
    found = estimate_json(mean_ci(prompts, ours, config.bootstrap)) or {"value": None, "ci95": None}
    return found | {"delta_vs_it": delta, "num_completions": len(keys), "reason": None}


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
