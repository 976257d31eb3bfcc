"""Pairs of runs, ours and TRL 1.12.0's, in one go; the table; benchmarks/results/ppo.json.

Each run is a process of its own, the pairs' order alternates. Memory above the model is the peak of resident memory in
training, less what was resident before (everything imported, a toy trained) and one copy of the policy's weights.
"""

from __future__ import annotations

import dataclasses
import json
import operator
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.hardware import hardware, in_words
from benchmarks.ppo import formulas
from benchmarks.ppo.case import TOY, Settings, write_case
from benchmarks.ppo.environment import TRL, environment_with_trl
from benchmarks.ppo.scale import measure_scale, scale_table
from benchmarks.script import write_figures
from detoxlens.common.artifacts import Layout
from detoxlens.common.errors import UserError
from detoxlens.jobs.progress import progress

SPEEDUP_TARGET, MEMORY_TARGET = 2.0, 0.6
NUM_LAST_STEPS = 5
"""The reward reached is the mean of so many last steps."""
Side = Literal["ours", "TRL"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run showed."""

    side: Side
    seed: int
    episodes_per_second: float
    """Without the first step, which also builds the optimizer's state."""
    cpu_seconds_per_step: float
    """Of all threads, likewise; unlike the wall time little moved by what else the machine does."""
    memory_above_model_mib: float
    rewards: list[float]
    """Mean reward of each PPO step's responses."""
    reward_reached: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A figure against its target."""

    figure: str
    ours: float
    trl: float
    value: float
    """Median of the pairs' ratios ours / TRL's; for the reward the mean over seeds of ours - TRL's."""
    range: tuple[float, float]
    """Of the pairs, or seeds."""
    target: float
    met: bool


def bench_ppo(root: Path, *, num_repetitions: int, num_seeds: int, num_steps: int, num_threads: int) -> None:
    """Measures, prints the tables, writes benchmarks/results/ppo.json.

    Args:
        root: repository root.
        num_repetitions: pairs of runs per seed.
        num_seeds: seeds of either side, from 0.
        num_steps: PPO steps of a run.
        num_threads: torch's threads, for both.

    Raises:
        UserError: TRL 1.12.0 cannot be installed, or a run fails; nothing is written.
    """
    environment = environment_with_trl(Layout(root).state / "benchmarks" / f"trl-{TRL}")
    found = hardware() | {"num_threads": num_threads}
    found["packages"] = {**found["packages"], "trl": TRL, "peft": version("peft"), "accelerate": version("accelerate")}
    console = Console(highlight=False)
    console.print(f"{in_words(found)}; {num_threads} threads; TRL {TRL}")
    settings = Settings(num_steps=num_steps)
    with tempfile.TemporaryDirectory(prefix="detoxlens-bench-") as temporary:
        folder = Path(temporary)
        given = formulas.random_tensors()
        differences = formulas.max_abs_differences(
            formulas.ours(given), formulas.trls(given, folder, environment), given["mask"].bool()
        )
        for name, one in (("case", settings), ("toy", TOY)):
            (folder / name).mkdir()
            write_case(folder / name, one)
        weights = (folder / "case" / "model" / "model.safetensors").stat().st_size

        def run_one(side: Side, seed: int) -> Run:
            result = child(side, folder, seed, num_threads, environment)
            return run_of(side, seed, result, weights, settings.rollout_batch_size)

        pairs = run_pairs(run_one, num_repetitions=num_repetitions, num_seeds=num_seeds)
    verdicts = judge(pairs)
    console.print(table_of(verdicts, pairs))
    worst = max(differences, key=lambda name: differences[name])
    equal = differences[worst] <= formulas.TOLERANCE
    console.print(
        f"Formulas: max |ours - TRL| {differences[worst]:.1e} ({worst}) of {len(differences)}; "
        f"{'within' if equal else '[red]not within[/]'} {formulas.TOLERANCE:g}"
    )
    scale = []
    if torch.cuda.is_available():
        scale = measure_scale()
        console.print(scale_table(scale))
    else:
        console.print(
            "RedPajama-3B and Falcon-7B shapes: not measured, no GPU was found; nothing is recorded for them."
        )
    figures = {
        "hardware": found,
        "settings": dataclasses.asdict(settings),
        "verdicts": [dataclasses.asdict(v) for v in verdicts],
        "formulas": {"tolerance": formulas.TOLERANCE, "met": equal, "max_abs_difference": differences},
        "runs": [dataclasses.asdict(run) for pair in pairs for run in pair],
        "scale": [dataclasses.asdict(s) for s in scale],
    }
    console.print(f"Wrote {write_figures(root, 'ppo', figures)}")


def run_pairs(run_one: Callable[[Side, int], Run], *, num_repetitions: int, num_seeds: int) -> list[tuple[Run, Run]]:
    """(ours, TRL's) for each seed, `num_repetitions` times; who begins alternates."""
    pairs = []
    with progress("benchmark ppo", total=2 * num_repetitions * num_seeds, unit="runs") as bar:
        for number in range(num_repetitions * num_seeds):
            order: tuple[Side, ...] = ("ours", "TRL") if number % 2 == 0 else ("TRL", "ours")
            done: dict[Side, Run] = {}
            for side in order:
                done[side] = run_one(side, number % num_seeds)
                bar.advance()
            pairs.append((done["ours"], done["TRL"]))
    return pairs


def child(side: Side, folder: Path, seed: int, num_threads: int, trl_environment: Mapping[str, str]) -> dict:
    """What one run's process wrote.

    Raises:
        UserError: it failed; its last words.
    """
    here = Path(__file__).parent
    what = [str(here / "trl_child.py"), "train"] if side == "TRL" else ["-m", "benchmarks.ppo.ours"]
    result = folder / "result.json"
    # Torch reads the first when it loads; both sides get the same.
    environment = {**(trl_environment if side == "TRL" else os.environ), "OMP_NUM_THREADS": str(num_threads)}
    done = subprocess.run(
        [sys.executable, *what, str(folder / "case"), str(folder / "toy"), str(result), str(seed), str(num_threads)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"The run of {side} with seed {seed} failed: {' '.join(done.stderr.split()[-40:])}")
    return json.loads(result.read_text(encoding="utf-8"))


def run_of(side: Side, seed: int, result: Mapping, weights: int, batch_size: int) -> Run:
    """The record of a run: 3 steps that ended at 1, 3 and 5 s, of 32 episodes -> 2 * 32 / 4 = 16 episodes/s."""
    ended, cpu, rewards = result["step_ended"], result["cpu_seconds"], result["rewards"]
    return Run(
        side=side,
        seed=seed,
        episodes_per_second=batch_size * (len(ended) - 1) / (ended[-1] - ended[0]),
        cpu_seconds_per_step=(cpu[-1] - cpu[0]) / (len(cpu) - 1),
        memory_above_model_mib=(result["peak"] - result["resident_before"] - weights) / 2**20,
        rewards=rewards,
        reward_reached=statistics.fmean(rewards[-NUM_LAST_STEPS:]),
    )


def judge(pairs: Sequence[tuple[Run, Run]]) -> list[Verdict]:
    """Speed and memory by the pairs' ratios, the reward by the seeds' differences: equal seeds, equal rewards."""
    of_seed = list({ours.seed: (ours, trl) for ours, trl in pairs}.values())
    verdicts = []
    for figure, compared, versus, mean, target, sign in (
        ("episodes_per_second", pairs, operator.truediv, statistics.median, SPEEDUP_TARGET, 1),
        ("memory_above_model_mib", pairs, operator.truediv, statistics.median, MEMORY_TARGET, -1),
        ("reward_reached", of_seed, operator.sub, statistics.fmean, 0.0, 1),
    ):
        ours, trl = ([getattr(run, figure) for run in side] for side in zip(*compared, strict=True))
        values = list(map(versus, ours, trl))
        verdicts.append(
            Verdict(
                figure=figure,
                ours=mean(ours),
                trl=mean(trl),
                value=mean(values),
                range=(min(values), max(values)),
                target=target,
                met=sign * mean(values) >= sign * target,
            )
        )
    return verdicts


def table_of(verdicts: Sequence[Verdict], pairs: Sequence[tuple[Run, Run]]) -> Table:
    """One row per figure."""
    num_seeds = len({ours.seed for ours, _ in pairs})
    title = (
        f"PPO, ours beside TRL {TRL}: {len(pairs)} pairs of runs, {num_seeds} seeds, {len(pairs[0][0].rewards)} steps"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("figure", no_wrap=True)
    for head in ("ours", "TRL", "compared", "range", "target"):
        table.add_column(head, justify="right", no_wrap=True)
    names = {
        "episodes_per_second": ("episodes/s", ".1f", ".2f", "at least"),
        "memory_above_model_mib": ("memory, MiB", ".0f", ".2f", "at most"),
        "reward_reached": ("reward", ".3f", "+.3f", "at least"),
    }
    for v in verdicts:
        name, number, ratio, limit = names[v.figure]
        color = "green" if v.met else "red"
        table.add_row(
            name,
            format(v.ours, number),
            format(v.trl, number),
            f"[{color}]{v.value:{ratio}}[/]",
            f"{v.range[0]:{ratio}} to {v.range[1]:{ratio}}",
            f"{limit} {v.target:g}",
        )
    table.caption = f"Memory: peak above the policy's weights. Reward: mean of the last {NUM_LAST_STEPS} steps."
    table.caption_justify = "left"
    return table
