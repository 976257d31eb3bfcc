"""How a model uses its prompt, from one row of attribution scores. Pure functions.

A row holds one score per prompt token and then one per token generated before; scores are >= 0 and sum to 1. `keep`
says per prompt token whether it counts; a token that does not is left out altogether, as if it had not been there:

    prompt scores   .1  .3  .2      generated  .4
    keep             0   1   1
    dependence = (.3 + .2) / (.3 + .2 + .4)       entropy of (.6, .4) = .97 bits, / log2(2) = .97
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def entropy_bits(weights: Sequence[float]) -> float | None:
    """Shannon entropy in bits, 0..log2(n), of weights >= 0 normalised to sum to 1; None when they sum to 0."""
    total = math.fsum(weights)
    if total <= 0.0:
        return None
    return max(0.0, -math.fsum(w / total * math.log2(w / total) for w in weights if w > 0.0))


def prompt_scores(row: Sequence[float], num_prompt: int, keep: Sequence[bool] | None = None) -> list[float]:
    """The scores of the prompt tokens that count."""
    assert keep is None or len(keep) == num_prompt, (len(keep), num_prompt)
    return [score for i, score in enumerate(row[:num_prompt]) if keep is None or keep[i]]


def prompt_entropy_bits(row: Sequence[float], num_prompt: int, keep: Sequence[bool] | None = None) -> float | None:
    """Entropy in bits of the attribution over the prompt tokens, renormalised over them.

    Args:
        row: scores over prompt and generated prefix.
        num_prompt: prompt tokens in the row.
        keep: per prompt token, whether it counts; None counts all.

    Returns:
        0..log2(number of tokens); None where the prompt has no mass at all.
    """
    return entropy_bits(prompt_scores(row, num_prompt, keep))


def normalized_prompt_entropy(
    row: Sequence[float], num_prompt: int, keep: Sequence[bool] | None = None
) -> float | None:
    """`prompt_entropy_bits` / log2(number of prompt tokens), 0..1; None below two tokens. Arguments as there."""
    scores = prompt_scores(row, num_prompt, keep)
    bits = entropy_bits(scores)
    return None if bits is None or len(scores) < 2 else min(1.0, bits / math.log2(len(scores)))


def prompt_dependence(row: Sequence[float], num_prompt: int, keep: Sequence[bool] | None = None) -> float | None:
    """Share of the attribution mass that lies on the prompt, 0..1; None where nothing that counts has mass."""
    prompt, generated = math.fsum(prompt_scores(row, num_prompt, keep)), math.fsum(row[num_prompt:])
    return None if prompt + generated <= 0.0 else prompt / (prompt + generated)


def mean_over_steps(values: Sequence[float | None]) -> float | None:
    """A sequence's value: the mean over the generated tokens where it is defined; None where it never is."""
    defined = [v for v in values if v is not None]
    return math.fsum(defined) / len(defined) if defined else None
