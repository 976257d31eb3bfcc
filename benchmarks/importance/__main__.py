"""`python -m benchmarks.importance`; needs data/prepared and models/tiny-neox of `dvc repro base@tiny-neox`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.hardware import hardware
from benchmarks.importance.arms import PLAIN, Bench, arms_of
from benchmarks.importance.effects import common_kl, outcomes, paired
from benchmarks.script import RESULTS, run, write_figures
from detoxlens.params.load import load_params

NAME = "importance"


def main(
    kinds: Annotated[str, typer.Option(help="Of the penalty, one after another.")] = "attribution_entropy,toxic_share",
    weight: Annotated[float, typer.Option(help="Of the arm `lower`; `raise` has it with the other sign.")] = 1.0,
    num_seeds: int = 8,
    num_steps: int = 24,
    batch_size: int = 8,
    num_examples: Annotated[int, typer.Option(help="Of a batch that the penalty is taken on.")] = 4,
    look_every: int = 3,
) -> None:
    """Trains what is not yet in the results, then compares seed by seed; interrupt and start again as you like."""
    root, kinds = Path(), kinds.split(",")
    setting = {
        "weight": weight,
        "num_steps": num_steps,
        "batch_size": batch_size,
        "num_examples": num_examples,
        "look_every": look_every,
    }
    file = RESULTS / f"{NAME}.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    runs = known.get("runs", []) if known.get("setting") == setting else []
    arms = arms_of(kinds, weight, num_examples)
    bench = Bench(
        root, load_params(root / "params.yaml"), num_steps=num_steps, batch_size=batch_size, look_every=look_every
    )
    for kind in kinds:
        for seed in range(num_seeds):
            for arm in (PLAIN, f"{kind}:lower", f"{kind}:raise", f"{kind}:placebo"):
                if any(r["arm"] == arm and r["seed"] == seed for r in runs):
                    continue
                start, wall = time.process_time(), time.monotonic()
                looks, quantity = bench.run(arms[arm], seed=seed)
                seconds = {"cpu_seconds": time.process_time() - start, "wall_seconds": time.monotonic() - wall}
                runs.append({"arm": arm, "seed": seed, "looks": looks, "quantity": quantity} | seconds)
                write_figures(root, NAME, {"setting": setting, "runs": runs, "hardware": hardware()})
                print(
                    f"{arm} seed {seed}: toxicity {looks[0]['toxicity']:.2f} -> {looks[-1]['toxicity']:.2f}", flush=True
                )
    write_figures(root, NAME, {"setting": setting, "effects": effects(runs), "runs": runs, "hardware": hardware()})
    print(json.dumps(effects(runs), indent=1))


def effects(runs: list[dict]) -> dict:
    """Kind -> its common KL, each arm's means, and the seed-paired differences to plain and to the placebo."""
    found = {}
    for kind in sorted({r["arm"].split(":")[0] for r in runs} - {PLAIN}):
        arms = [PLAIN, *(f"{kind}:{way}" for way in ("lower", "raise", "placebo"))]
        mine = [r for r in runs if r["arm"] in arms]
        kl = common_kl([r["looks"] for r in mine])
        by_arm = {a: {r["seed"]: outcomes(r["looks"], kl) for r in mine if r["arm"] == a} for a in arms}
        names = list(outcomes(mine[0]["looks"], kl))

        def column(arm: str, name: str, table=by_arm) -> dict[int, float | None]:
            return {seed: values[name] for seed, values in table[arm].items()}

        means = {
            arm: {
                n: sum(v) / len(v) if (v := [x for x in column(arm, n).values() if x is not None]) else None
                for n in names
            }
            for arm in arms
        }
        pairs = [(arm, PLAIN) for arm in arms[1:]] + [(arm, arms[3]) for arm in arms[1:3]]
        found[kind] = {
            "common_kl_nats_per_sequence": kl,
            "means": means,
            "never_half": {a: sum(v is None for v in column(a, "steps_to_half").values()) for a in arms},
            "quantity_at_end": {
                a: [round(sum(r["quantity"][-2:]) / 2, 3) for r in mine if r["arm"] == a and r["quantity"]]
                for a in arms
            },
            "differences": {f"{a} - {b}": {n: paired(column(a, n), column(b, n)) for n in names} for a, b in pairs},
        }
    return found


if __name__ == "__main__":
    run(main)
