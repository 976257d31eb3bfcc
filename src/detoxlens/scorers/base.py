"""Verdicts of a scorer one text at a time: a text that cannot be scored gets a status and stops no other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from detoxlens.common.errors import UserError
from detoxlens.common.scoring import ScoredText
from detoxlens.common.text import as_read, is_blank


def score_each(
    texts: Sequence[str],
    *,
    prob: Callable[[Sequence[str]], Sequence[float]],
    truncates: Callable[[str], bool],
    normalize: bool = True,
) -> list[ScoredText]:
    """Verdicts from a function that gives probabilities; if it fails on all texts together, each is tried alone.

    Args:
        texts: empty ones are not given to `prob`.
        prob: P(toxic), 0..1, of each text.
        truncates: does `prob` read only the beginning of a text?
        normalize: give `prob` the letters that a reader takes each text for (`common.text.as_read`).
    """
    verdicts: dict[int, ScoredText] = {}
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            verdicts[i] = ScoredText(None, "failed", False, f"not a text but {type(text).__name__}: {text!r}")
        elif is_blank(text):
            verdicts[i] = ScoredText(None, "empty", False, "")
    rest = {i: as_read(text) if normalize else text for i, text in enumerate(texts) if i not in verdicts}
    for (i, text), verdict in zip(rest.items(), _probs(list(rest.values()), prob), strict=True):
        truncated = truncates(text)
        if isinstance(verdict, float) and 0 <= verdict <= 1:
            verdicts[i] = ScoredText(verdict, "ok", truncated, "")
        else:
            verdicts[i] = ScoredText(None, "failed", truncated, _complaint(verdict))
    return [verdicts[i] for i in range(len(texts))]


def _probs(texts: Sequence[str], prob: Callable[[Sequence[str]], Sequence[float]]) -> list[float | str]:
    """A probability or an error message per text."""
    if not texts:
        return []
    try:
        return [float(p) for p in prob(texts)]
    except UserError:
        raise
    except Exception as e:  # whatever one text does to a third-party model must not cost the others their scores
        if len(texts) == 1:
            return [f"{type(e).__name__}: {e}"]
        return [_probs([text], prob)[0] for text in texts]


def _complaint(verdict: float | str) -> str:
    if isinstance(verdict, str):
        return verdict
    return "the scorer gave NaN" if math.isnan(verdict) else f"the scorer gave {verdict}, which is no probability"
