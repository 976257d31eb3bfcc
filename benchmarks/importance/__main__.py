"""`python -m benchmarks.importance`; needs `dvc repro prepare base@tiny-neox`, and reward_model for PPO."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from benchmarks.importance.arms import arms_of
from benchmarks.importance.bench import Bench, Size
from benchmarks.importance.effects import effects
from benchmarks.importance.ppo import Ppo
from benchmarks.importance.records import is_done, read_runs, write_runs
from benchmarks.importance.sft import Sft
from benchmarks.script import run
from detoxlens.params.load import load_params

METHODS: dict[str, type[Bench]] = {"sft": Sft, "ppo": Ppo}


def main(
    method: Annotated[
        Literal["sft", "ppo"], typer.Option(help="The other options' defaults are those of sft.")
    ] = "sft",
    kinds: Annotated[
        str, typer.Option(help="Of the penalty, one after another.")
    ] = "attribution_entropy,toxic_share,attention_entropy",
    weight: Annotated[float, typer.Option(help="Of the arm `lower`; `raise` has it with the other sign.")] = 1.0,
    num_seeds: int = 8,
    num_steps: int = 24,
    batch_size: Annotated[int, typer.Option(help="Dialogues, or responses, of a step.")] = 8,
    num_examples: Annotated[int, typer.Option(help="Of a batch that the penalty is taken on.")] = 4,
    look_every: int = 3,
    num_threads: int = 1,
) -> None:
    """Trains what is not yet in the results, then compares seed by seed; interrupt and start again as you like."""
    root = Path()
    size = Size(num_steps=num_steps, batch_size=batch_size, look_every=look_every, num_threads=num_threads)
    wanted = kinds.split(",")
    bench = METHODS[method](root, load_params(root / "params.yaml"), size, words="toxic_share" in wanted)
    setting = asdict(size) | {"num_examples": num_examples, "base": bench.ref.revision}
    runs = read_runs(root, method, setting)
    for kind in wanted:
        arms = arms_of(kind, weight, num_examples)
        for seed in range(num_seeds):
            for arm, regularizer in arms.items():
                if is_done(runs, regularizer, seed):
                    continue
                start, wall = time.process_time(), time.monotonic()
                looks, quantity = bench.run(regularizer, seed=seed)
                seconds = {"cpu_seconds": time.process_time() - start, "wall_seconds": time.monotonic() - wall}
                runs.append({"regularizer": regularizer, "seed": seed, "looks": looks, "quantity": quantity} | seconds)
                write_runs(root, method, setting, runs)
                first, last = looks[0]["toxicity"], looks[-1]["toxicity"]
                print(f"{method} {kind} {arm} seed {seed}: toxicity {first:.2f} -> {last:.2f}", flush=True)
    write_runs(root, method, setting, runs)
    print(json.dumps(effects(runs), indent=1))


if __name__ == "__main__":
    run(main)
