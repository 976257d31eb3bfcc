"""Can the attributions be trusted? Two tests on a sample of attributed sequences.

Deletion (DeYoung et al. 2020, arXiv 1911.03429, section 4.2). With x the prompt, r its top-attributed tokens and p the
probability of the generated token, the tokens generated before it left as they are:

    comprehensiveness = p(x) - p(x without r)      high: what was pointed at was needed
    sufficiency       = p(x) - p(r alone)          low: what was pointed at was enough

each beside the same for as many tokens chosen at random. Tokens are deleted, not replaced: no model here knows a mask.

Randomisation (Adebayo et al. 2018, arXiv 1810.03292). Attributions that stay the same when all weights are shuffled say
nothing about the model: the rank correlation of prompt scores between the two should be near 0.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from detoxlens.attribution.api import attribute
from detoxlens.attribution.result import SequenceAttribution
from detoxlens.attribution.targets import log_prob
from detoxlens.common.seeding import python_rng, torch_generator

ROWS_PER_PASS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """Drops in probability, each the mean over a sequence's tested tokens, one number per sequence."""

    attributed: tuple[float, ...]
    """By the top-attributed tokens."""
    random: tuple[float, ...]
    """By as many random ones."""

    def summary(self) -> dict[str, object]:
        """Means, the difference attributed - random with its 95 % interval (normal, over sequences), and the values."""
        differences = [a - r for a, r in zip(self.attributed, self.random, strict=True)]
        return {
            "attributed": _mean(self.attributed),
            "random": _mean(self.random),
            "difference": _mean(differences),
            "ci95": _interval(differences),
            "per_sequence": asdict(self),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Faithfulness:
    """Both tests, of one variant."""

    fraction: float
    num_tokens: int
    """Generated tokens tested."""
    comprehensiveness: Deletion
    sufficiency: Deletion
    randomized_rank_correlation: tuple[float, ...]
    """Per sequence: Spearman's correlation, -1..1, of prompt scores before and after shuffling all weights."""

    def summary(self) -> dict[str, object]:
        """The content of faithfulness.json."""
        return {
            "num_sequences": len(self.comprehensiveness.attributed),
            "num_tokens": self.num_tokens,
            "fraction": self.fraction,
            "comprehensiveness": self.comprehensiveness.summary(),
            "sufficiency": self.sufficiency.summary(),
            "randomization": {
                "rank_correlation": _mean(self.randomized_rank_correlation),
                "ci95": _interval(self.randomized_rank_correlation),
                "num_sequences": len(self.randomized_rank_correlation),
            },
        }


def top_tokens(scores: Sequence[float], count: int) -> list[int]:
    """Indices of the `count` largest scores, ascending; the earlier of equals."""
    return sorted(sorted(range(len(scores)), key=lambda j: (-scores[j], j))[:count])


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation, -1..1, equals sharing their mean rank; None where one of them is constant."""
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    middle = (len(a) + 1) / 2
    covariance = math.fsum((x - middle) * (y - middle) for x, y in zip(ranks_a, ranks_b, strict=True))
    spread = [math.fsum((x - middle) ** 2 for x in ranks) for ranks in (ranks_a, ranks_b)]
    return None if min(spread) == 0.0 else covariance / math.sqrt(spread[0] * spread[1])


def check_faithfulness(
    model: nn.Module,
    attributions: Sequence[SequenceAttribution],
    *,
    fraction: float,
    steps_per_sequence: int,
    num_random: int,
    seed: int,
) -> Faithfulness:
    """Runs both tests on the attributions that have scores.

    Args:
        model: the model that was attributed.
        attributions: what to test; those without scores, or with one prompt token, are left out.
        fraction: share of prompt tokens deleted or kept, at least one token.
        steps_per_sequence: generated tokens tested per sequence, evenly spread.
        num_random: random choices per tested token.
        seed: of the random choices and of the shuffled weights.
    """
    tested = [a for a in attributions if a.scores is not None and len(a.prompt_ids) > 1]
    contexts: list[tuple[int, ...]] = []
    tokens: list[int] = []
    steps = [_spread_steps(len(a.completion_ids), steps_per_sequence) for a in tested]
    for number, a in enumerate(tested):
        count = max(1, round(fraction * len(a.prompt_ids)))
        for t in steps[number]:
            rng = python_rng(seed, "faithfulness", number, t)
            choices = [top_tokens(a.scores[t][: len(a.prompt_ids)], count)]
            choices += [sorted(rng.sample(range(len(a.prompt_ids)), count)) for _ in range(num_random)]
            for chosen in choices:
                without = [token for j, token in enumerate(a.prompt_ids) if j not in chosen]
                alone = [a.prompt_ids[j] for j in chosen]
                contexts += [(*without, *a.completion_ids[:t]), (*alone, *a.completion_ids[:t])]
                tokens += [a.completion_ids[t]] * 2
    probs = iter(_next_token_probs(model, contexts, tokens))
    drops: dict[str, list[float]] = {"without": [], "alone": [], "random without": [], "random alone": []}
    for number, a in enumerate(tested):
        sums = dict.fromkeys(drops, 0.0)
        for t in steps[number]:
            for choice in range(1 + num_random):
                prefix, weight = ("", 1.0) if choice == 0 else ("random ", 1.0 / num_random)
                for kind in ("without", "alone"):
                    sums[prefix + kind] += weight * (a.token_prob[t] - next(probs))
        for kind, total in sums.items():
            drops[kind].append(total / len(steps[number]))
    return Faithfulness(
        fraction=fraction,
        num_tokens=sum(map(len, steps)),
        comprehensiveness=Deletion(attributed=tuple(drops["without"]), random=tuple(drops["random without"])),
        sufficiency=Deletion(attributed=tuple(drops["alone"]), random=tuple(drops["random alone"])),
        randomized_rank_correlation=_randomized(model, tested, steps, seed),
    )


def shuffled(model: nn.Module, *, seed: int) -> nn.Module:
    """A copy of `model` with the entries of every weight tensor in random order: same statistics, nothing learnt."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            order = torch.randperm(parameter.numel(), generator=torch_generator(seed, "shuffle", name))
            parameter.copy_(parameter.flatten()[order.to(parameter.device)].view_as(parameter))
    return copied


def _randomized(
    model: nn.Module, tested: Sequence[SequenceAttribution], steps: Sequence[Sequence[int]], seed: int
) -> tuple[float, ...]:
    if not tested:
        return ()
    again = attribute(
        shuffled(model, seed=seed),
        prompt_ids=[a.prompt_ids for a in tested],
        completion_ids=[a.completion_ids for a in tested],
        method=tested[0].method,
        target=tested[0].target,
    )
    means = []
    for before, after, at in zip(tested, again, steps, strict=True):
        if after.scores is None:
            continue
        num_prompt = len(before.prompt_ids)
        found = [rank_correlation(before.scores[t][:num_prompt], after.scores[t][:num_prompt]) for t in at]
        if defined := [c for c in found if c is not None]:
            means.append(math.fsum(defined) / len(defined))
    return tuple(means)


def _spread_steps(length: int, count: int) -> list[int]:
    """Up to `count` steps of 0 .. length - 1, evenly spread, the first among them."""
    count = min(count, length)
    return [i * length // count for i in range(count)]


def _next_token_probs(model: nn.Module, contexts: Sequence[tuple[int, ...]], tokens: Sequence[int]) -> list[float]:
    """p(token | context) for each pair, in order; contexts of similar length share a pass."""
    device = next(model.parameters()).device
    order = sorted(range(len(contexts)), key=lambda i: len(contexts[i]))
    probs = [0.0] * len(contexts)
    with torch.no_grad():
        for at in range(0, len(order), ROWS_PER_PASS):
            rows = order[at : at + ROWS_PER_PASS]
            ids = torch.zeros(len(rows), len(contexts[rows[-1]]), dtype=torch.long)
            for r, i in enumerate(rows):
                ids[r, : len(contexts[i])] = torch.tensor(contexts[i])  # padded on the right: unseen
            logits = model(input_ids=ids.to(device), use_cache=False).logits
            last = torch.tensor([len(contexts[i]) - 1 for i in rows], device=device)
            chosen = torch.tensor([tokens[i] for i in rows], device=device)
            found = log_prob(logits[torch.arange(len(rows), device=device), last].float(), chosen).exp()
            for i, p in zip(rows, found.tolist(), strict=True):
                probs[i] = p
    return probs


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda i: values[i])
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for i in order[start:end]:
            ranks[i] = (start + 1 + end) / 2
        start = end
    return ranks


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _interval(values: Sequence[float]) -> list[float] | None:
    """Mean +- 1.96 standard errors; None below two values."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    error = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    return [mean - 1.96 * error, mean + 1.96 * error]
