"""Measures of prompt use per generated token, from one completion's scores. Pure functions.

Row t of the scores holds one score per prompt token and then one per token generated before; scores are >= 0 and sum to
1. `keep` says per prompt token whether it counts; one that does not is left out, as if it had not been there:

    prompt scores   .1  .3  .2      generated  .4
    keep             0   1   1
    entropy of (.6, .4) = .97 bits, / log2(2) = .97
    dependence = (.3 + .2) / (.3 + .2 + .4) = .56; 2 of 3 tokens are the prompt's: excess = log2(.56 / .67) = -.26 bits

Every function takes `scores` from `padded` and returns (steps,) numbers, NaN where the measure is not defined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def padded(rows: Sequence[Sequence[float]], num_prompt: int) -> np.ndarray:
    """The rows as one matrix (steps, num_prompt + steps), 0 behind each row's end.

    Row t keeps what lies before generated token t; a row of words ends with the word's share on itself (`to_words`),
    which is no use of anything before it.
    """
    scores = np.zeros((len(rows), num_prompt + len(rows)))
    for t, row in enumerate(rows):
        scores[t, : num_prompt + t] = row[: num_prompt + t]
    return scores


def prompt_entropy_bits(scores: np.ndarray, num_prompt: int, keep: Sequence[bool] | None = None) -> np.ndarray:
    """Shannon entropy in bits of the attribution over the prompt tokens, renormalised over them.

    Args:
        scores: (steps, num_prompt + steps), from `padded`.
        num_prompt: prompt tokens.
        keep: per prompt token, whether it counts; None counts all.

    Returns:
        0..log2(number of tokens); NaN where the prompt has no mass at all.
    """
    prompt = _kept(scores, num_prompt, keep)
    share = _ratio(prompt, prompt.sum(1, keepdims=True))
    bits = -np.sum(share * np.log2(np.where(share > 0, share, 1.0)), axis=1)
    return np.maximum(bits, 0.0)


def normalized_prompt_entropy(scores: np.ndarray, num_prompt: int, keep: Sequence[bool] | None = None) -> np.ndarray:
    """`prompt_entropy_bits` / log2(number of prompt tokens), 0..1; NaN below two tokens. Arguments as there."""
    count = num_prompt if keep is None else sum(keep)
    if count < 2:
        return np.full(len(scores), np.nan)
    return np.minimum(prompt_entropy_bits(scores, num_prompt, keep) / np.log2(count), 1.0)


def prompt_dependence(scores: np.ndarray, num_prompt: int, keep: Sequence[bool] | None = None) -> np.ndarray:
    """Share of the attribution mass that lies on the prompt, 0..1; NaN where nothing that counts has mass."""
    prompt, generated = _kept(scores, num_prompt, keep).sum(1), scores[:, num_prompt:].sum(1)
    return _ratio(prompt, prompt + generated)


def dependence_excess_bits(scores: np.ndarray, num_prompt: int, keep: Sequence[bool] | None = None) -> np.ndarray:
    """log2 of `prompt_dependence` over the prompt's share of the tokens, N / (N + t - 1) at step t = 1, 2, ...

    0 is no preference: a model that weighs all tokens alike. Dependence itself is 1 at the first step and falls with
    every token generated, whatever the model. NaN where the prompt has no mass (the logarithm has no value there).
    """
    dependence = prompt_dependence(scores, num_prompt, keep)
    count = num_prompt if keep is None else sum(keep)
    uniform = count / (count + np.arange(len(scores))) if count else np.ones(len(scores))
    return np.log2(np.where(dependence > 0, dependence, np.nan) / uniform)


MEASURES = {
    "prompt_entropy_bits": prompt_entropy_bits,
    "prompt_entropy_normalized": normalized_prompt_entropy,
    "prompt_dependence": prompt_dependence,
    "prompt_dependence_excess_bits": dependence_excess_bits,
}
"""Name in metrics.json -> what computes it."""


def mean_over_steps(values: np.ndarray) -> float | None:
    """A sequence's value: the mean over the generated tokens where it is defined; None where it never is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def _kept(scores: np.ndarray, num_prompt: int, keep: Sequence[bool] | None) -> np.ndarray:
    """The scores of the prompt tokens that count, (steps, tokens)."""
    assert keep is None or len(keep) == num_prompt, (len(keep), num_prompt)
    return scores[:, :num_prompt] if keep is None else scores[:, :num_prompt][:, np.asarray(keep, dtype=bool)]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)
