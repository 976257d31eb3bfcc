"""Error of a short number format: the same attributions in it and in float32, score by score. Pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from detoxlens.attribution.entropy import padded, prompt_entropy_bits
from detoxlens.attribution.result import SequenceAttribution


def precision_summary(
    short: Sequence[SequenceAttribution], exact: Sequence[SequenceAttribution], *, dtype: str
) -> dict[str, object]:
    """The entry `precision` of faithfulness.json: how far `short` is from `exact`.

    Args:
        short: attributions by the model in `dtype`.
        exact: the same sequences by the model in float32, in the same order.
        dtype: the short format's name, e.g. `bfloat16`.

    Returns:
        The largest, the median and (signed) mean difference short - exact, over all scores, over the entropy of the
        prompt at every generated token, and over the tokens' probabilities. A sequence that has no scores in one of
        the two is left out and counted.
    """
    pairs = [(a, b) for a, b in zip(short, exact, strict=True) if a.scores is not None and b.scores is not None]
    scores, bits, probs = [], [], []
    for a, b in pairs:
        assert a.completion_ids == b.completion_ids, "the sequences must be the same"
        for ours, theirs in zip(a.scores, b.scores, strict=True):
            scores += _differences(ours, theirs)
        num_prompt = len(a.prompt_ids)
        entropies = [prompt_entropy_bits(padded(rows, num_prompt), num_prompt) for rows in (a.scores, b.scores)]
        bits += [x - y for x, y in zip(*map(np.ndarray.tolist, entropies), strict=True) if x == x and y == y]
        probs += _differences(a.token_prob, b.token_prob)
    return {
        "dtype": dtype,
        "num_sequences": len(pairs),
        "num_left_out": len(short) - len(pairs),
        "score": _spread(scores),
        "prompt_entropy_bits": _spread(bits),
        "token_prob": _spread(probs),
    }


def _differences(ours: Iterable[float], theirs: Iterable[float]) -> list[float]:
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def _spread(differences: Sequence[float]) -> dict[str, float] | None:
    """Largest and median size, and signed mean; None of nothing."""
    if not differences:
        return None
    sizes = [abs(d) for d in differences]
    return {"max": max(sizes), "median": statistics.median(sizes), "mean": statistics.fmean(differences)}
