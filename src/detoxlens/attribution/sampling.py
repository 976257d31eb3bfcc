"""Choice of the completions to attribute: the same prompts for all variants, drawn by seed and prompt id. Pure.

`random` draws prompts alike. `balanced` draws as many that `base` answered toxically as others: where it is toxic in a
tenth of its answers, a random 200 hold but 20 toxic ones. What is pooled over both is then weighted back
(`stratum_weights`): the sampling changes the precision of a mean, not what it estimates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from detoxlens.common.coded import Coded
from detoxlens.common.columns import column
from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion, Score
from detoxlens.common.seeding import derive_seed
from detoxlens.params.attribution import AttributionConfig

Sample = Literal["random", "balanced"]
Toxicities = Iterable[tuple[str, int, float]] | None
"""(prompt_id, sample_index, toxicity) of scored completions."""


def choose(
    completions: Sequence[Completion],
    config: AttributionConfig,
    *,
    seed: int,
    where: object,
    toxic: Collection[str] | None = None,
) -> list[Completion]:
    """The completions to attribute, in the order of the table: test and validation prompts of each filter, by `seed`.

    Without `config.validation` the test prompts alone, where there are any.

    Which prompts are drawn depends on their ids alone, so that all variants share them, and on those of their own split
    alone, so that a sweep, which has no test prompts, draws the same ones for validation.

    Args:
        completions: of one variant.
        config: filters, parts, sample size, samples per prompt.
        seed: of the draw.
        where: the table's name for messages.
        toxic: prompts that `base` answers toxically; None draws at random.

    Raises:
        UserError: there are test prompts, but none meets a filter.
    """
    chosen: set[tuple[str, str]] = set()
    parts = {split: [c for c in completions if c.split == split] for split in ("val", "test")}
    if parts["test"] and not config.validation:
        del parts["val"]
    for split, part in parts.items():
        for name in config.filters:
            prompts = {c.prompt_id for c in part if name in c.filters}
            if part and split == "test" and not prompts:
                known = ", ".join(sorted({f for c in part for f in c.filters})) or "none"
                raise UserError(
                    f"attribution.filters names {name!r}, but no test prompt in {where} meets it; met: {known}."
                )
            drawn = draw(prompts, config.max_sequences, seed=seed, toxic=toxic)
            chosen.update((split, prompt) for prompt in drawn)
    return [c for c in completions if (c.split, c.prompt_id) in chosen and c.sample_index < config.samples_per_prompt]


def draw(prompts: Collection[str], num: int, *, seed: int, toxic: Collection[str] | None = None) -> list[str]:
    """`num` prompts; with `toxic` half of them from there, where one half is short more of the other."""
    ordered = sorted(prompts, key=lambda prompt: derive_seed(seed, "attribute", prompt))
    if toxic is None:
        return ordered[:num]
    halves = [p for p in ordered if p in toxic], [p for p in ordered if p not in toxic]
    num_toxic = min(len(halves[0]), max(num - num // 2, num - len(halves[1])))
    return halves[0][:num_toxic] + halves[1][: num - num_toxic]


def basis(scores: Sequence[Score], grader: str) -> dict[Sample, Toxicities]:
    """What prompts are drawn by, per value of `attribution.sample`: nothing, or the grader's toxicities.

    A file each, so that a random sample does not depend on any score: DVC attributes nothing anew for another grader.
    """
    toxicity = column(scores, "toxicity").astype(float)
    graded = Coded.of(column(scores, "scorer")).equals(grader) & (toxicity == toxicity)
    of = Coded.of(column(scores, "prompt_id"))[graded], column(scores, "sample_index")[graded], toxicity[graded]
    rows = zip(of[0], of[1].tolist(), of[2].tolist(), strict=True)
    return {"random": None, "balanced": map(list, rows)}


def toxic_prompts(toxicities: Toxicities, config: AttributionConfig) -> set[str] | None:
    """The prompts with a completion above `sample_toxic_above` among those that are attributed; None: draw at random.

    Args:
        toxicities: what `basis` found of `base`, for `config.sample`; an unscored completion is not in it.
        config: threshold and samples per prompt.
    """
    if toxicities is None:
        return None
    attributed = (row for row in toxicities if row[1] < config.samples_per_prompt)
    return {prompt for prompt, _, toxicity in attributed if toxicity > config.sample_toxic_above}


def stratum_weights(population: Collection[str], drawn: Collection[str], toxic: Collection[str]) -> dict[str, float]:
    """How many prompts of the population each drawn one stands for, so that the mean weight is 1.

    (share of its stratum in the population) / (share of its stratum among the drawn), strata toxic and not:

        population 10 toxic, 90 others; drawn 10 and 10    ->    toxic .1 / .5 = .2, others .9 / .5 = 1.8
    """
    weights = {}
    for members in (set(toxic), set(population) - set(toxic)):
        there = [p for p in drawn if p in members]
        share = len(members.intersection(population)) / len(population) if population else 0.0
        weights |= {p: share * len(drawn) / len(there) for p in there}
    return weights
