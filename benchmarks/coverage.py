"""Do 95 % intervals hold the truth 95 times in 100? Simulated studies of the sizes that are used here.

    python -m benchmarks.coverage [--trials 2000]       prints the table, writes benchmarks/results/coverage.json

Each case draws studies from a law whose truth is known, takes the interval that the report would give, and counts.
`null` cases are comparisons in which nothing differs: the share of "differences" found is what is missing to 100 %.
`plainer` cases are what the intervals replace, at the same sizes. The bootstrap is the report's: 2,000 resamples.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri

from detoxlens.common.coded import Ragged
from detoxlens.evaluation.diversity import Written, distinct_by_prompt, ngrams_by_prompt
from detoxlens.evaluation.effects import EFFECTS, StepTable, step_means
from detoxlens.evaluation.fluency import perplexity_by_prompt
from detoxlens.evaluation.intervals import Estimate
from detoxlens.evaluation.samples import Sample, difference, estimate, method_difference, method_estimate
from detoxlens.params.report import Bootstrap

TARGET, TOLERANCE = 0.95, 0.015
Trial = Callable[[np.random.Generator], bool]
"""One simulated study: does its interval hold the truth?"""


@dataclass(frozen=True, slots=True)
class Case:
    """Case("rate", "400 prompts, 3.5 %", trial)"""

    measure: str
    setting: str
    trial: Trial
    kind: str = "used"
    """`used`, `null`, or `plainer`: not held to the target."""
    share: float = 1.0
    """Of the trials, of a case that takes long."""


def cases() -> Iterator[Case]:
    """The sizes of the embedded study: 400, 160, 100, 60 and 16 prompts, rates of 3 to 62 %, one sample or five."""
    for num_prompts, share in ((400, 0.62), (400, 0.035), (160, 0.06), (100, 0.02), (60, 0.1), (30, 0.1)):
        yield rate(num_prompts, 1, share)
    for num_prompts, share in ((400, 0.035), (100, 0.05), (60, 0.3)):
        yield rate(num_prompts, 5, share)
    for num_prompts, shares in ((400, (0.035, 0.62)), (160, (0.1, 0.6)), (400, (0.05, 0.07)), (60, (0.1, 0.5))):
        yield rate_difference(num_prompts, 1, *shares)
    for num_prompts, shares in ((400, (0.05, 0.07)), (100, (0.1, 0.5))):
        yield rate_difference(num_prompts, 5, *shares)
    yield rate_difference(400, 1, 0.06, 0.06)
    for num_prompts in (30, 60, 200):
        for law in LAWS:
            yield mean(num_prompts, law)
    yield mean_difference(200)
    yield groups(200, 0.1)
    yield effect_difference(150, 100)
    yield perplexity_case(100)
    for n in (1, 2):
        yield variety(200, n)
    for num_prompts, num_steps in ((40, 20), (200, 30)):
        yield band(num_prompts, num_steps)
        yield band(num_prompts, num_steps, pointwise=True)
    for num_seeds in (3, 5):
        for seed_sd in (0.0, 0.05, 0.1, 0.3):
            yield seeds(num_seeds, seed_sd)
        yield seeds(num_seeds, 0.1, nested=True)
    yield seed_rates(3, 0.012)
    yield seed_rates(3, 0.0)


def holds(found: Estimate, truth: float) -> bool:
    lo, hi = found.ci95
    return lo <= truth <= hi


DRAWS = Bootstrap(num_resamples=2000, seed=0)
"""As in params.yaml, section `report`: the same draws of prompts for every study, which differ by their data."""


def toxic(rng: np.random.Generator, shares: tuple[float, ...], num_prompts: int, num_samples: int) -> list[Sample]:
    """Per share the verdicts on `num_samples` completions of each prompt; hard prompts are hard for all of them."""
    hard = 0.7 * rng.normal(size=(num_prompts, 1))
    keys = np.repeat(np.arange(num_prompts), num_samples)
    prob = [ndtr(ndtri(share) * math.sqrt(1 + 0.7**2) + hard) for share in shares]
    return [Sample(keys, (rng.random((num_prompts, num_samples)) < p).ravel().astype(float), True) for p in prob]


def rate(num_prompts: int, num_samples: int, share: float) -> Case:
    def trial(rng: np.random.Generator) -> bool:
        return holds(estimate(*toxic(rng, (share,), num_prompts, num_samples), DRAWS), share)

    return Case("rate", f"{num_prompts} prompts x {num_samples}, {share:.1%}", trial)


def rate_difference(num_prompts: int, num_samples: int, share: float, reference: float) -> Case:
    def trial(rng: np.random.Generator) -> bool:
        pair = toxic(rng, (share, reference), num_prompts, num_samples)
        return holds(difference(*pair, DRAWS), share - reference)

    setting = f"{num_prompts} prompts x {num_samples}, {share:.1%} - {reference:.1%}"
    return Case("difference of rates", setting, trial, "null" if share == reference else "used")


LAWS = {
    "normal": (0.0, lambda rng, n: rng.normal(size=n)),
    "beta(8, 2)": (0.8, lambda rng, n: rng.beta(8, 2, size=n)),
    "gamma(4)": (4.0, lambda rng, n: rng.gamma(4, size=n)),
}
"""Name -> (mean, a sample)."""


def mean(num_prompts: int, law: str) -> Case:
    truth, draw = LAWS[law]

    def trial(rng: np.random.Generator) -> bool:
        return holds(estimate(Sample(range(num_prompts), draw(rng, num_prompts)), DRAWS), truth)

    return Case("mean", f"{num_prompts} prompts, {law}", trial)


def mean_difference(num_prompts: int) -> Case:
    def trial(rng: np.random.Generator) -> bool:
        hard = rng.normal(size=num_prompts)
        ours, theirs = (Sample(range(num_prompts), hard + 0.5 * rng.normal(size=num_prompts)) for _ in range(2))
        return holds(difference(ours, theirs, DRAWS), 0.0)

    return Case("difference of means", f"{num_prompts} prompts", trial, "null")


def groups(num_prompts: int, share: float) -> Case:
    """Toxic against other completions: a small group and a large one."""

    def trial(rng: np.random.Generator) -> bool:
        inside = rng.random(num_prompts) < share
        values = rng.normal(size=num_prompts) * np.where(inside, 2.0, 1.0)
        sides = [np.where(there, values, np.nan)[:, None] for there in (inside, ~inside)]
        means = step_means([StepTable(prompts=range(num_prompts), values=of) for of in sides], 1, DRAWS)
        found = None if means is None else means.contrast((1, -1))
        return found is None or found.ci95 is None or holds(found, 0.0)

    return Case("difference of groups", f"{num_prompts} prompts, {share:.0%} in the group", trial, "null")


def effect_difference(num_hostile: int, num_polite: int) -> Case:
    """The model effect on hostile prompts minus that on polite ones: four tables each, steps that wander together."""
    num_steps = 8
    weights = np.outer((1, -1), EFFECTS["model_effect"]).ravel()

    def tables(rng: np.random.Generator, name: str, num: int, sd: float) -> list[StepTable]:
        hard = sd * rng.normal(size=(num, 1))
        shape = (num, num_steps)
        noise = [0.5 * np.cumsum(rng.normal(size=shape), axis=1) + hard + rng.normal(size=shape) for _ in range(4)]
        return [StepTable(prompts=[f"{name}{i}" for i in range(num)], values=values) for values in noise]

    def trial(rng: np.random.Generator) -> bool:
        both = tables(rng, "hostile", num_hostile, 1.0) + tables(rng, "polite", num_polite, 2.0)
        return holds(step_means(both, num_steps, DRAWS).contrast(weights), 0.0)

    return Case("difference of model effects", f"{num_hostile} and {num_polite} prompts, 8 steps", trial, "null", 0.5)


def perplexity_case(num_prompts: int) -> Case:
    """Completions of 4 to 40 tokens; a completion's tokens share half of their surprise, long ones have less."""

    def texts(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        lengths = rng.integers(4, 41, size=num)
        per_token = rng.gamma(4, 0.2, size=num) + 4 / lengths
        return per_token * lengths, lengths

    nll, lengths = texts(np.random.default_rng(0), 2_000_000)
    truth = math.exp(nll.sum() / lengths.sum())

    def trial(rng: np.random.Generator) -> bool:
        keys, values = perplexity_by_prompt([str(i) for i in range(num_prompts)], *texts(rng, num_prompts))
        return holds(estimate(Sample(keys, values), DRAWS), truth)

    return Case("perplexity", f"{num_prompts} prompts", trial)


def variety(num_prompts: int, n: int) -> Case:
    """Words of Zipf's law, 300 of them; the same law on both sides."""
    law = 1 / np.arange(1, 301)
    law /= law.sum()

    def sample(rng: np.random.Generator) -> Sample:
        ids = rng.choice(300, size=(num_prompts, 20), p=law)
        lengths = rng.integers(4, 21, size=num_prompts)
        texts = [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
        written = Written.of([str(i) for i in range(num_prompts)], Ragged.of(texts))
        counted = ngrams_by_prompt({"one side": written}, n)["one side"]
        return Sample(*distinct_by_prompt(replace(counted, num_possible=3000)))

    return Case(
        f"difference of distinct-{n}",
        f"{num_prompts} prompts",
        lambda rng: holds(difference(sample(rng), sample(rng), DRAWS), 0.0),
        "null",
    )


def band(num_prompts: int, num_steps: int, *, pointwise: bool = False) -> Case:
    """Curves that wander; does the band hold all of the true one, 0 at every step?"""

    def trial(rng: np.random.Generator) -> bool:
        steps = rng.normal(size=(num_prompts, num_steps))
        curves = rng.normal(size=(num_prompts, 1)) + 0.5 * np.cumsum(steps, axis=1) + rng.normal(size=steps.shape)
        table = StepTable(prompts=range(num_prompts), values=curves)
        found = step_means([table], num_steps, DRAWS).curve((1,))
        lo, hi = (found.lo, found.hi) if pointwise else (found.band_lo, found.band_hi)
        return bool(((lo <= 0) & (hi >= 0)).all())

    kind = "plainer" if pointwise else "used"
    what = "pointwise intervals of a curve" if pointwise else "band of a curve"
    return Case(what, f"{num_prompts} prompts, {num_steps} steps", trial, kind, 0.25 if pointwise else 0.5)


def seeds(num_seeds: int, seed_sd: float, *, nested: bool = False) -> Case:
    """Several seeds against the base model on 200 prompts, each of which adds a standard deviation of 1 to a seed."""
    num_prompts = 200

    def trial(rng: np.random.Generator) -> bool:
        hard, base = rng.normal(size=(1, num_prompts)), rng.normal(size=num_prompts)
        ours = seed_sd * rng.normal(size=(num_seeds, 1)) + 0.5 * hard + rng.normal(size=(num_seeds, num_prompts))
        theirs = 0.5 * hard[0] + base
        if nested:
            times = rng.multinomial(num_prompts, np.full(num_prompts, 1 / num_prompts), size=1000) / num_prompts
            drawn = np.take_along_axis(times @ (ours - theirs).T, rng.integers(0, num_seeds, (1000, num_seeds)), axis=1)
            lo, hi = np.quantile(drawn.mean(1), [0.025, 0.975])
            return bool(lo <= 0 <= hi)
        keys = range(num_prompts)
        return holds(method_difference([Sample(keys, y) for y in ours], [Sample(keys, theirs)], DRAWS), 0.0)

    what = "nested bootstrap over seeds" if nested else "difference over seeds"
    sd = f"seeds' SD {seed_sd * math.sqrt(num_prompts):.1f} of a seed's sampling error"
    return Case(what, f"{num_seeds} seeds, {sd}", trial, "plainer" if nested else "null", 0.25 if nested else 1.0)


def seed_rates(num_seeds: int, seed_sd: float) -> Case:
    """Toxicity rates of several seeds; their spread .012 is that of five seeds of PPO."""
    share, num_prompts = 0.06, 400

    def trial(rng: np.random.Generator) -> bool:
        shares = np.clip(share + seed_sd * rng.normal(size=num_seeds), 0.001, 1)
        return holds(method_estimate(toxic(rng, tuple(shares), num_prompts, 1), DRAWS), share)

    return Case("rate over seeds", f"{num_seeds} seeds x {num_prompts} prompts, {share:.0%}, SD {seed_sd}", trial)


def run(num_trials: int) -> dict[str, object]:
    """Per case its coverage, and whether it is within the tolerance; the same numbers on any machine."""
    rows = []
    for number, case in enumerate(cases()):
        rng = np.random.default_rng([0, number])
        trials = math.ceil(case.share * num_trials)
        coverage = sum(case.trial(rng) for _ in range(trials)) / trials
        ok = abs(coverage - TARGET) <= TOLERANCE
        about = {"measure": case.measure, "setting": case.setting, "kind": case.kind, "num_trials": trials}
        rows.append(about | {"coverage": coverage, "ok": ok})
        mark = "" if ok else "!"
        print(f"{case.measure:32} {case.setting:58} {case.kind:8} {100 * coverage:5.1f} % {mark}", flush=True)
    held = [row for row in rows if row["kind"] != "plainer"]
    return {
        "num_trials": num_trials,
        "target": TARGET,
        "tolerance": TOLERANCE,
        "mean_coverage": sum(row["coverage"] for row in held) / len(held),
        "num_within": sum(row["ok"] for row in held),
        "num_cases": len(held),
        "cases": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000, help="simulated studies per case")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/coverage.json"))
    arguments = parser.parse_args()
    found = run(arguments.trials)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"mean {found['mean_coverage']:.1%}; {found['num_within']} of {found['num_cases']} within {TOLERANCE:.1%}")


if __name__ == "__main__":
    main()
