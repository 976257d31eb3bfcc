"""`detoxlens bench scale`: every stage at the published models' shapes, or a tenth of them, with times and memory.

Checkpoints with random weights are written to the state folder and deleted at the end; everything else is what the
pipeline does with the params of redpajama-3b and falcon-7b: template, LoRA, loss, decoding. What the models say is
noise; what the stages take is not. Each stage is a process of its own, as under `dvc repro`. A run that was stopped
goes on behind its last finished stage.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from detoxlens.bench.hardware import hardware, in_words
from detoxlens.bench.scale_sizes import Size, check_fits, cut_down
from detoxlens.bench.scale_stage import CHECKPOINT
from detoxlens.common.artifacts import Layout, read_json, read_rows, write_json
from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion
from detoxlens.jobs.progress import progress
from detoxlens.jobs.scratch import LineLog
from detoxlens.models.footprint import GIB, weights_of
from detoxlens.params.load import Params, load_params

PER_VARIANT = {
    "it": ("generate", "score", "attribute"),
    "ft": ("finetune", "generate", "score", "attribute"),
    "rl": ("rl", "generate", "score", "attribute"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Task(stage="rl", model="falcon-7b", variant="rl")"""

    stage: str
    model: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.stage, "/".join(filter(None, (self.model, self.variant))))))


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """StageCost(stage="rl", model="falcon-7b", variant="rl", seconds=61.2, peak_gib=31.4, tokens_per_second=None)"""

    stage: str
    model: str
    variant: str
    seconds: float
    """Of the whole process, imports and loading among them."""
    peak_gib: float
    """Most memory that the stage held: of the GPU, or of its process on a CPU."""
    tokens_per_second: float | None
    """Generated."""


Launch = Callable[[Path, Task, Size], float]
"""(study folder, what to do, size) -> peak GiB."""


def bench_scale(root: Path, params_path: Path, *, name: str, size: Size, num_prompts: int) -> None:
    """Measures, prints the table, writes the size's entry of reports/bench/scale.json.

    Args:
        root: repository root.
        params_path: params.yaml.
        name: the entry's, with the device: `tenth/cpu`.
        size: what to run; without a GPU, one that needs it is not run, and that is said.
        num_prompts: evaluation prompts.

    Raises:
        UserError: it does not fit here, a stage fails, or another such run is going on.
    """
    console = Console(highlight=False)
    if size.device == "cuda" and not _has_gpu():
        console.print(
            "Not measured: no GPU was found, and the full shapes need one. Nothing is recorded. On a CPU: detoxlens "
            "bench scale --size tenth"
        )
        return
    found = hardware()
    console.print(in_words(found))
    params = cut_down(load_params(params_path), root, size, num_prompts=num_prompts)
    folder = Layout(root).state / "bench-scale" / name
    check_fits(size, params, folder)
    costs = run_at(folder, params, size)
    console.print(table_of(costs, title=f"Every stage at {name} shape"))
    path = Layout(root).reports / "bench" / "scale.json"
    entry = {
        "hardware": found,
        "num_prompts": num_prompts,
        "parameters": {model: weights_of(config).num_parameters for model, config in size.configs.items()},
        "dtype": {model: params.model(model).dtype for model in size.configs},
        "stages": [dataclasses.asdict(cost) for cost in costs],
    }
    entries = read_json(path) if path.exists() else {}
    write_json(path, dict(sorted((entries | {f"{name}/{size.device}": entry}).items())))
    shutil.rmtree(folder)
    console.print(f"Wrote {path.relative_to(root)}")


def run_at(folder: Path, params: Params, size: Size, *, launch: Launch | None = None) -> list[StageCost]:
    """Every stage of a study of its own under `folder`; those that an earlier run has finished are not repeated.

    Args:
        folder: begun anew unless it holds the same study; left to the caller to delete.
        params: see `cut_down`.
        size: what to run.
        launch: what runs a stage; None is a process of its own.

    Raises:
        UserError: a stage fails (what is finished is kept), or another process is at work in the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{folder}.lock", timeout=0):
            return _run_at(folder, params, size, launch or in_a_process)
    except Timeout:
        raise UserError(f"Another `bench scale` is at work in {folder}; wait for it, or end it.") from None


def _run_at(folder: Path, params: Params, size: Size, launch: Launch) -> list[StageCost]:
    study = json.loads(json.dumps({"params": params.raw, "configs": dict(size.configs)}))
    if not (folder / "study.json").exists() or read_json(folder / "study.json") != study:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "params.yaml").write_text(json.dumps(params.raw), encoding="utf-8")  # JSON is YAML
        write_json(folder / "study.json", study)
    done = LineLog(folder / "done.jsonl")
    costs = [StageCost(**row) for row in done.read()]
    tasks = list(tasks_of(list(size.configs)))
    with progress("bench scale", total=len(tasks), unit="stages", num_done=len(costs)) as bar:
        for task in tasks[len(costs) :]:
            bar.advance(0, note=str(task))
            shutil.rmtree(Layout(folder).state, ignore_errors=True)  # half a stage would be timed as half
            started = time.perf_counter()
            peak_gib = launch(folder, task, size)
            seconds = time.perf_counter() - started
            speed = None
            if task.stage == "generate":
                rows = read_rows(Layout(folder).completions(task.model, task.variant), Completion)
                speed = sum(len(row.completion_ids) for row in rows) / seconds
            costs.append(
                StageCost(**dataclasses.asdict(task), seconds=seconds, peak_gib=peak_gib, tokens_per_second=speed)
            )
            done.append([dataclasses.asdict(costs[-1])])
            bar.advance(note=f"{task}: {seconds:.0f} s, {peak_gib:.1f} GiB")
    return costs


def tasks_of(models: Sequence[str]) -> Iterator[Task]:
    """All of the pipeline, in its order; a model's checkpoint before its first stage."""
    yield from (Task(stage="prepare"), Task(stage="reward_model"))
    for model in models:
        yield from (Task(stage=CHECKPOINT, model=model), Task(stage="base", model=model))
        for variant, stages in PER_VARIANT.items():
            yield from (Task(stage=stage, model=model, variant=variant) for stage in stages)
    yield Task(stage="report")


def in_a_process(folder: Path, task: Task, size: Size) -> float:
    """Runs one task as `python -m detoxlens.bench.scale_stage`; its peak GiB. Ctrl-C ends it too.

    Raises:
        UserError: it failed; what it said last.
    """
    said, result = folder / "stage.log", folder / "result.json"
    result.unlink(missing_ok=True)
    order = {"folder": str(folder), "device": size.device, "config": size.configs.get(task.model)}
    command = [sys.executable, "-m", "detoxlens.bench.scale_stage", json.dumps(order | dataclasses.asdict(task))]
    with said.open("wb") as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _, status, usage = os.wait4(child.pid, 0)  # this child's own peak, not the largest of all so far
    except BaseException:
        child.kill()
        child.wait()
        raise
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        last = (said.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"])[-1]
        raise UserError(
            f"bench scale: {task} ended with exit code {child.returncode} and said: {last}. All of it is in {said}; "
            "the same command goes on from this stage."
        )
    gpu_bytes = read_json(result)["gpu_bytes"]
    return (1024 * usage.ru_maxrss if gpu_bytes is None else gpu_bytes) / GIB


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def table_of(costs: Sequence[StageCost], *, title: str) -> Table:
    """One row per stage."""
    table = Table(title=title, title_justify="left")
    for head in ("model", "variant", "stage"):
        table.add_column(head, no_wrap=True)
    for head in ("seconds", "peak GiB", "tokens/s"):
        table.add_column(head, justify="right", no_wrap=True)
    for c in costs:
        speed = "" if c.tokens_per_second is None else f"{c.tokens_per_second:.1f}"
        table.add_row(c.model, c.variant, c.stage, f"{c.seconds:.1f}", f"{c.peak_gib:.1f}", speed)
    return table
