"""All stages on a small scale, each in a process of its own that can be killed, and the bytes that they leave."""

from __future__ import annotations

import hashlib
import importlib
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

from detoxlens.common.errors import UserError
from detoxlens.jobs import save_timer
from detoxlens.params.edit import change_params
from detoxlens.params.load import Params, load_params
from detoxlens.params.reads import MEASURE, STAGES, TRAINS, module_of

T = TypeVar("T")
OUTPUTS = ("code", "data/prepared", "models", "adapters", "outputs", "reports")
"""Everything that the stages write."""
TINY = {"vocab_size": 400, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_steps": 24, "batch_size": 8}
SMALL = {
    "run.models": ["tiny-neox"],
    "run.num_threads": 1,
    "tiny.num_examples": 300,
    "reward_model.tiny.num_examples": 200,
    **{f"{section}.{key}": value for section in ("tiny", "reward_model.tiny") for key, value in TINY.items()},
    "lora.r": 2,
    "sft.num_epochs": 0.5,
    "sft.eval_every": 4,
    "sft.batch_size": 8,
    "sft.max_length": 96,
    "ppo.num_steps": 4,
    "ppo.rollout_batch_size": 16,
    "ppo.minibatch_size": 8,
    "ppo.micro_batch_size": 8,
    "ppo.checkpoint_every": 1,
    "ppo.validation.every": 2,
    "ppo.validation.num_prompts": 4,
    "generation.max_new_tokens": 8,
    "generation.batch_size": 8,
    "attribution.max_sequences": 12,
    "attribution.batch_size": 4,
    "report.bootstrap.num_resamples": 100,
    **{
        f"splits.{name}.max_test": 16
        for name in ("p50", "pc50", "challenging", "polite", "unseen", "civil", "lookalike")
    },
    "splits.p50.max_val": 4,
    "splits.polite.max_val": 4,
}
"""Changes of the committed params.yaml: minutes become seconds."""
SAVE_SECONDS = 0.2
"""Checkpoints are written so often here (every minute in earnest), so that a kill of a short training finds one."""


@dataclass(frozen=True)
class Stage:
    """Stage("generate", model="tiny-neox", variant="ft")"""

    name: str
    model: str | None = None
    variant: str | None = None

    def __str__(self) -> str:
        return "@".join([self.name, *filter(None, ["-".join(filter(None, [self.model, self.variant]))])])


def make_project(root: Path, folder: Path) -> Path:
    """A folder with the committed params on a small scale and the sample data; no checkout, no results."""
    folder.mkdir(parents=True)
    shutil.copy(root / "params.yaml", folder)
    change_params(folder / "params.yaml", small_changes())
    (folder / "data").mkdir()
    (folder / "data/sample").symlink_to((root / "data/sample").resolve())
    return folder


def small_changes() -> dict[tuple[str, ...], object]:
    """`SMALL` by key path."""
    return {tuple(key.split(".")): value for key, value in SMALL.items()}


def stages_of(params: Params) -> list[Stage]:
    """Every execution of a stage, in an order that dvc.yaml allows."""
    run, found = params.run, [Stage("prepare"), Stage("reward_model")]
    for model in run.models:
        kinds = [(TRAINS[params.variant(variant).kind], variant) for variant in run.variants]
        found += [Stage(name, model, None if name == "base" else variant) for name, variant in kinds]
        found += [Stage(name, model, variant) for name in MEASURE for variant in run.variants]
    return [*found, Stage("report")]


def preload() -> None:
    """Imports what the stages import, so that each process begins with its work."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in STAGES:
        importlib.import_module(module_of(name))
    for name in ("trl", "peft", "datasets", "accelerate", "pyarrow.parquet", "matplotlib.pyplot"):
        importlib.import_module(name)


def start(project: Path, stage: Stage, log: Path, before: Callable[[], None] = lambda: None) -> BaseProcess:
    """The stage at work in a process of its own, recorded in MLflow as always; `before` is called in it first."""

    def work() -> None:
        with log.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        save_timer.SAVE_SECONDS = SAVE_SECONDS
        before()
        from detoxlens.pipeline.run_stage import run_stage

        try:
            run_stage(project, project / "params.yaml", stage.name, model=stage.model, variant=stage.variant)
        except UserError as error:
            print(f"detoxlens: {error}", flush=True)
            sys.exit(2)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def finish(project: Path, stage: Stage, log: Path) -> float:
    """Runs the stage to its end; the seconds that it took.

    Raises:
        UserError: it failed.
    """
    begun = time.monotonic()
    process = start(project, stage, log)
    process.join()
    if process.exitcode:
        raise UserError(f"{stage} in {project} ended with {process.exitcode}: {log.read_text()[-1500:]}")
    return time.monotonic() - begun


def aside(function: Callable[..., T], *arguments: object) -> T:
    """What the function returns in a process of its own: this one stays as it is, to be copied for stages."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(function, arguments)


def run_all(project: Path, log: Path) -> dict[Stage, float]:
    """Every stage to its end; stage -> seconds."""
    return {stage: finish(project, stage, log) for stage in stages_of(load_params(project / "params.yaml"))}


def files_of(project: Path, names: tuple[str, ...] = OUTPUTS) -> dict[str, str]:
    """Path -> sha256 of every output of every stage."""
    places = [project / name for name in names]
    found = [p for place in places for p in ([place] if place.is_file() else place.rglob("*")) if p.is_file()]
    return {p.relative_to(project).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(found)}


def differing(expected: dict[str, str], made: dict[str, str]) -> list[str]:
    """The files that are not in both, or not the same in both."""
    return sorted(path for path in expected.keys() | made.keys() if expected.get(path) != made.get(path))
