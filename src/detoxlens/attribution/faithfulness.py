"""Tests of faithfulness: two on a random sample of attributed sequences.

Deletion (DeYoung et al. 2020, arXiv 1911.03429, section 4.2). With x the prompt, r the top-attributed share of the
user's tokens in it, and f the log-odds of the generated token; template and generated prefix are left as they are:

    comprehensiveness = f(x) - f(x without r)                          high: what was pointed at was needed
    sufficiency       = f(x) - f(x without the user's other tokens)    low: what was pointed at was enough

each beside the same for as many of the user's tokens chosen at random. Log-odds, since a drop in probability is bounded
by the probability. Tokens are deleted, not replaced: no model here knows a mask.

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
from detoxlens.attribution.ranks import rank_correlation
from detoxlens.attribution.result import SequenceAttribution
from detoxlens.attribution.targets import log_odds
from detoxlens.common.seeding import python_rng, torch_generator

ROWS_PER_PASS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A sequence to test: its attribution, and which of its prompt tokens are the user's."""

    attribution: SequenceAttribution
    user_tokens: tuple[int, ...]
    """Positions in the prompt, ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drops:
    """Drops in log-odds, in nats, each the mean over a sequence's tested tokens; one number per sequence."""

    attributed: tuple[float, ...]
    """By the top-attributed tokens."""
    random: tuple[float, ...]
    """By as many random ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """Both directions at one share of the user's tokens."""

    fraction: float
    comprehensiveness: Drops
    sufficiency: Drops


@dataclass(frozen=True, slots=True, kw_only=True)
class Faithfulness:
    """Both tests, of one variant; `asdict` is the content of faithfulness.json."""

    num_sequences: int
    num_tokens: int
    """Generated tokens tested."""
    num_left_out: int
    """Sequences of the sample with fewer than two user's tokens: there is nothing to choose among."""
    deletion: tuple[Deletion, ...]
    randomized_rank_correlation: tuple[float, ...]
    """Per sequence: Spearman's correlation, -1..1, of prompt scores before and after shuffling all weights."""

    def as_json(self) -> dict[str, object]:
        """The content of faithfulness.json."""
        return asdict(self)


def top_tokens(scores: Sequence[float], count: int) -> list[int]:
    """Indices of the `count` largest scores, ascending; the earlier of equals."""
    return sorted(sorted(range(len(scores)), key=lambda j: (-scores[j], j))[:count])


def check_faithfulness(
    model: nn.Module,
    sample: Sequence[Subject],
    *,
    fractions: Sequence[float],
    steps_per_sequence: int,
    num_random: int,
    seed: int,
) -> Faithfulness:
    """Runs both tests.

    Args:
        model: the model that was attributed.
        sample: what to test; every one has scores.
        fractions: shares of the user's tokens deleted or kept, at least one token and never all.
        steps_per_sequence: generated tokens tested per sequence, evenly spread.
        num_random: random choices per tested token and share.
        seed: of the random choices and of the shuffled weights.
    """
    tested = [s for s in sample if len(s.user_tokens) > 1]
    steps = [_spread_steps(len(s.attribution.completion_ids), steps_per_sequence) for s in tested]
    contexts: list[tuple[int, ...]] = []
    tokens: list[int] = []
    for number, s in enumerate(tested):
        for t in steps[number]:
            for without in _deleted(s, t, fractions, num_random, seed, number):
                prompt = [token for j, token in enumerate(s.attribution.prompt_ids) if j not in without]
                contexts.append((*prompt, *s.attribution.completion_ids[:t]))
                tokens.append(s.attribution.completion_ids[t])
    values = iter(_next_token_log_odds(model, contexts, tokens))
    sums = [[[[0.0, 0.0], [0.0, 0.0]] for _ in fractions] for _ in tested]  # sequence, share, direction, top | random
    for number in range(len(tested)):
        for _ in steps[number]:
            whole = next(values)
            for of_share in sums[number]:
                for choice in range(1 + num_random):
                    for direction in range(2):
                        drop = whole - next(values)
                        of_share[direction][choice > 0] += drop / (num_random if choice else 1) / len(steps[number])
    return Faithfulness(
        num_sequences=len(tested),
        num_tokens=sum(map(len, steps)),
        num_left_out=len(sample) - len(tested),
        deletion=tuple(
            Deletion(
                fraction=fraction,
                comprehensiveness=_drops(sums, share, direction=0),
                sufficiency=_drops(sums, share, direction=1),
            )
            for share, fraction in enumerate(fractions)
        ),
        randomized_rank_correlation=_randomized(model, [s.attribution for s in tested], steps, seed),
    )


def shuffled(model: nn.Module, *, seed: int) -> nn.Module:
    """A copy of `model` with the entries of every weight tensor in random order: same statistics, nothing learnt."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            order = torch.randperm(parameter.numel(), generator=torch_generator(seed, "shuffle", name))
            parameter.copy_(parameter.flatten()[order.to(parameter.device)].view_as(parameter))
    return copied


def _deleted(
    s: Subject, t: int, fractions: Sequence[float], num_random: int, seed: int, number: int
) -> list[frozenset[int]]:
    """The prompt positions to delete: none, then for each share and choice the chosen, and all others of the user's."""
    rng = python_rng(seed, "faithfulness", number, t)
    user = s.user_tokens
    found = [frozenset()]
    for fraction in fractions:
        count = min(max(1, round(fraction * len(user))), len(user) - 1)
        choices = [top_tokens([s.attribution.scores[t][j] for j in user], count)]
        choices += [sorted(rng.sample(range(len(user)), count)) for _ in range(num_random)]
        for chosen in choices:
            found.append(frozenset(user[k] for k in chosen))
            found.append(frozenset(user) - found[-1])
    return found


def _drops(sums: Sequence[Sequence], share: int, *, direction: int) -> Drops:
    return Drops(
        attributed=tuple(of[share][direction][0] for of in sums),
        random=tuple(of[share][direction][1] for of in sums),
    )


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


def _next_token_log_odds(model: nn.Module, contexts: Sequence[tuple[int, ...]], tokens: Sequence[int]) -> list[float]:
    """log p / (1 - p) of each token behind its context, in order; contexts of similar length share a pass."""
    device = next(model.parameters()).device
    order = sorted(range(len(contexts)), key=lambda i: len(contexts[i]))
    values = [0.0] * len(contexts)
    with torch.no_grad():
        for at in range(0, len(order), ROWS_PER_PASS):
            rows = order[at : at + ROWS_PER_PASS]
            ids = torch.zeros(len(rows), len(contexts[rows[-1]]), dtype=torch.long)
            for r, i in enumerate(rows):
                ids[r, : len(contexts[i])] = torch.tensor(contexts[i])  # padded on the right: unseen
            logits = model(input_ids=ids.to(device), use_cache=False).logits
            last = torch.tensor([len(contexts[i]) - 1 for i in rows], device=device)
            chosen = torch.tensor([tokens[i] for i in rows], device=device)
            found = log_odds(logits[torch.arange(len(rows), device=device), last].float(), chosen)
            for i, value in zip(rows, found.tolist(), strict=True):
                values[i] = value
    return values
