"""Agreement of a scorer with a reference (Perspective), and a threshold and map that give its rates.

Letters: score = the scorer's toxicity, reference = the recorded one, toxic = reference > .5. Threshold and map are
fitted on one half of the texts, everything is measured on the other; intervals are 95 % bootstrap over texts. Pure.

The map is P(toxic | score), isotonic (Zadrozny and Elkan 2002): its mean over texts is a Perspective-equivalent rate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from detoxlens.common.errors import UserError
from detoxlens.evaluation.intervals import percentile_interval
from detoxlens.params.report import Bootstrap
from detoxlens.recorded.calibration import Fit, Json, Map

TOXIC = 0.5
NUM_BINS = 10
MIN_TEXTS_PER_HALF = 20
NUM_DRAWN = 50
"""Fits on resampled texts that are kept, so that what is calibrated with them knows its own uncertainty."""
NUM_KEPT_SCORES = 201
"""Scores at which their maps are kept: evenly many texts between two, since a map may rise where scores crowd."""


def calibrate(
    texts: Sequence[str],
    score: np.ndarray,
    reference: np.ndarray,
    bootstrap: Bootstrap,
    *,
    splits: Sequence[str] | None = None,
) -> Json:
    """Everything that calibration.json holds, without names and versions.

    Args:
        texts: decide the half (equal texts share one) and the length group.
        score: (texts,), 0..1, of the scorer.
        reference: (texts,), 0..1, recorded.
        bootstrap: the draws behind the intervals.
        splits: name of the part of the data that each text is from, for a measure per part.

    Raises:
        UserError: too few texts, or one half lacks toxic or other ones.
    """
    fitted_on = np.array([in_first_half(text) for text in texts], dtype=bool)
    for half in (fitted_on, ~fitted_on):
        num_toxic = int((reference[half] > TOXIC).sum())
        if half.sum() < MIN_TEXTS_PER_HALF or num_toxic in (0, half.sum()):
            raise UserError(
                f"--against: one half has {half.sum()} scored texts, {num_toxic} of them > {TOXIC}; at least "
                f"{MIN_TEXTS_PER_HALF} are needed, toxic ones and others. Give a larger file."
            )
    fit = fitted(score[fitted_on], reference[fitted_on])
    held = {"score": score[~fitted_on], "reference": reference[~fitted_on]}

    def measured(chosen: np.ndarray) -> Json:
        return _measures(held["score"][chosen], held["reference"][chosen], fit=fit, bootstrap=bootstrap)

    num_words = np.array([len(text.split()) for text in texts])[~fitted_on]
    ends = np.quantile(num_words, [0, 1 / 3, 2 / 3, 1])
    groups = np.clip(np.searchsorted(ends[1:-1], num_words, side="right"), 0, 2)
    return {
        "num_fitted": int(fitted_on.sum()),
        "num_held_out": int((~fitted_on).sum()),
        "threshold": fit.threshold,
        "isotonic": {"score": list(fit.isotonic.scores), "prob": list(fit.isotonic.probs)},
        "drawn": _drawn(score[fitted_on], reference[fitted_on], seed=bootstrap.seed),
        "held_out": measured(np.full(len(num_words), True)),
        "by_split": {}
        if splits is None
        else {
            name: measured(chosen)
            for name in sorted(set(splits))
            if (chosen := (np.array(splits) == name)[~fitted_on]).any()
        },
        "by_length": [
            {"num_words": [int(num_words[groups == g].min()), int(num_words[groups == g].max())]}
            | measured(groups == g)
            for g in range(3)
            if (groups == g).any()
        ],
        "curve": curve(**held),
    }


def in_first_half(text: str) -> bool:
    """Whether a text is for fitting; decided by the text alone."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[0] % 2 == 0


def fitted(score: np.ndarray, reference: np.ndarray) -> Fit:
    """Threshold and map on these texts."""
    return Fit(rate_threshold(score, float(np.mean(reference > TOXIC))), isotonic_map(score, reference))


def _drawn(score: np.ndarray, reference: np.ndarray, *, seed: int) -> Json:
    """Threshold, and map at `NUM_KEPT_SCORES` scores, of `NUM_DRAWN` fits on resampled texts."""
    grid = np.unique(np.concatenate([[0.0, 1.0], np.quantile(score, np.linspace(0, 1, NUM_KEPT_SCORES))]))
    rng = np.random.default_rng([seed, 1])
    rows = [rng.integers(0, len(score), len(score)) for _ in range(NUM_DRAWN)]
    fits = [fitted(score[r], reference[r]) for r in rows]
    return {
        "threshold": [fit.threshold for fit in fits],
        "score": grid.tolist(),
        "prob": [np.round(fit.isotonic(grid), 6).tolist() for fit in fits],
    }


def rate_threshold(score: np.ndarray, rate: float) -> float:
    """The t for which the share of `score` > t is `rate`, or, where ties allow no such t, the share nearest to it."""
    values = np.unique(score)
    between = (values[1:] + values[:-1]) / 2
    candidates = np.concatenate([[0.0], between, [1.0]])
    shares = 1 - np.searchsorted(np.sort(score), candidates, side="right") / len(score)
    return float(candidates[np.argmin(np.abs(shares - rate))])


def isotonic_map(score: np.ndarray, reference: np.ndarray) -> Map:
    """P(reference > .5 | score), rising, fitted by least squares."""
    from sklearn.isotonic import IsotonicRegression

    found = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, reference > TOXIC)
    return Map(tuple(found.X_thresholds_.tolist()), tuple(found.y_thresholds_.tolist()))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of ranks, ties sharing their mean rank; NaN when one side is constant."""
    x, y = (_ranks(v) - (len(v) + 1) / 2 for v in (a, b))
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm else float("nan")


def curve(score: np.ndarray, reference: np.ndarray) -> Json:
    """Per tenth of the texts by score: mean score, share toxic by the reference, number of texts."""
    parts = [part for part in np.array_split(np.argsort(score, kind="stable"), NUM_BINS) if len(part)]
    return {
        "mean_score": [float(score[p].mean()) for p in parts],
        "share_toxic": [float((reference[p] > TOXIC).mean()) for p in parts],
        "num_texts": [len(p) for p in parts],
    }


def _measures(score: np.ndarray, reference: np.ndarray, *, fit: Fit, bootstrap: Bootstrap) -> Json:
    """Each measure with its interval; null where it is not defined, e.g. AUROC without a toxic text."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    def both(function: Callable[..., float]) -> Callable[[np.ndarray, np.ndarray], float]:
        return lambda s, r: float(function(r > TOXIC, s)) if 0 < (r > TOXIC).sum() < len(r) else float("nan")

    measures: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "auroc": both(roc_auc_score),
        "average_precision": both(average_precision_score),
        "spearman": spearman,
        "reference_rate": lambda s, r: float((r > TOXIC).mean()),
        "rate_gt_50": lambda s, r: float((s > TOXIC).mean()),
        "rate_gt_threshold": lambda s, r: float(fit.toxic("threshold", s).mean()),
        "rate_isotonic": lambda s, r: float(fit.toxic("isotonic", s).mean()),
    }
    rng = np.random.default_rng(bootstrap.seed)
    drawn: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(bootstrap.num_resamples):
        rows = rng.integers(0, len(score), len(score))
        for name, measure in measures.items():
            drawn[name].append(measure(score[rows], reference[rows]))
    found = {
        name: _with_interval(measure(score, reference), drawn[name], len(score)) for name, measure in measures.items()
    }
    return {"num_texts": len(score)} | found


def _with_interval(value: float, drawn: Sequence[float], num_texts: int) -> Json | None:
    if np.isnan(value):
        return None
    defined = np.array([d for d in drawn if not np.isnan(d)])
    return {"value": value, "ci95": list(percentile_interval(defined, num_texts))}


def _ranks(values: np.ndarray) -> np.ndarray:
    """1-based; [3, 5, 5] -> [1, 2.5, 2.5]."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[where]
