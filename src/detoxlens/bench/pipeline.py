"""`detoxlens bench pipeline`: what a newcomer waits for, against the promises.

A clone of the repository in a temporary folder runs `dvc repro` from nothing, with this environment's packages but the
clone's own source; then `dvc repro` again, which must find nothing to do; then `detoxlens --help`. Per stage: seconds
of imports, of work (the process without its imports), and of DVC around it (hashing, cache, lock).
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from detoxlens.bench.hardware import hardware, in_words
from detoxlens.common.artifacts import Layout, write_json
from detoxlens.common.errors import UserError

COLD_TARGET_SECONDS, NOOP_TARGET_SECONDS, HELP_TARGET_SECONDS = 600.0, 8.0, 0.5
RUNNING = "Running stage '"
"""What DVC prints before a stage's command."""
NUM_SHORT_RUNS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """StageTime(stage="base@tiny-neox", import_seconds=3.1, work_seconds=40.2, dvc_seconds=0.6, cpu_seconds=60.2)"""

    stage: str
    import_seconds: float
    work_seconds: float
    """The process's wall time without its imports."""
    dvc_seconds: float
    """From the end of the process before (or DVC's start) to the end of this one, less the two above."""
    cpu_seconds: float
    """Of all threads; less than the wall time where the machine is busy with something else."""


def bench_pipeline(root: Path, *, working_tree: bool) -> None:
    """Measures, prints the tables, writes reports/bench/pipeline.json.

    Args:
        root: repository root.
        working_tree: clone HEAD and lay the files as they are here over it, instead of HEAD alone.

    Raises:
        UserError: `root` is no git repository, or the pipeline fails.
    """
    found = hardware()
    console = Console(highlight=False)
    console.print(in_words(found))
    with checkout(root, working_tree=working_tree) as (clone, commit):
        timings = clone.parent / "timings.jsonl"
        environment = bench_environment(clone, timings)
        run([sys.executable, "-m", "detoxlens", "store"], clone, environment)  # what `make setup` does
        cold_seconds, starts = repro(clone, environment, console)
        lines = [json.loads(line) for line in timings.read_text(encoding="utf-8").splitlines()]
        stages = stage_times(starts, lines, cold_seconds)
        num_processes = len(lines)
        noop_seconds, again = repro(clone, environment, console)
        if again:
            raise UserError(f"The second `dvc repro` ran {', '.join(name for name, _ in again)} again; it should not.")
        help_command = [str(Path(sys.executable).parent / "detoxlens"), "--help"]
        help_seconds = statistics.median(run(help_command, clone, environment) for _ in range(NUM_SHORT_RUNS))
    assert num_processes == len(stages)
    totals = {
        "cold_seconds": (cold_seconds, COLD_TARGET_SECONDS),
        "noop_seconds": (noop_seconds, NOOP_TARGET_SECONDS),
        "help_seconds": (help_seconds, HELP_TARGET_SECONDS),
    }
    console.print(stage_table(stages))
    console.print(total_table(totals))
    path = Layout(root).reports / "bench" / "pipeline.json"
    write_json(
        path,
        {
            "hardware": found,
            "commit": commit,
            **{name: {"measured": seconds, "target": target} for name, (seconds, target) in totals.items()},
            "stages": [asdict(s) for s in stages],
        },
    )
    console.print(f"Wrote {path.relative_to(root)}")


@contextmanager
def checkout(root: Path, *, working_tree: bool) -> Iterator[tuple[Path, str]]:
    """A clone that lives as long as the block, and what it is of: a commit, `+ changes` where files differ from it.

    Raises:
        UserError: `root` is no git repository with a commit.
    """
    git = ["git", "-C", str(root)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        raise UserError(f"bench pipeline clones the repository, but {root} has no commit: {head.stderr.strip()}")
    commit = head.stdout.strip()
    with tempfile.TemporaryDirectory(prefix="detoxlens-bench-") as temporary:
        clone = Path(temporary) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)
        if working_tree:
            listed = [*git, "ls-files", "-z", "--modified", "--others", "--exclude-standard"]
            names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
            for name in filter(None, names):
                target = clone / name
                if (root / name).is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(root / name, target)
                else:
                    target.unlink(missing_ok=True)
            commit += " + changes" if any(names) else ""
        yield clone, commit


def bench_environment(clone: Path, timings: Path) -> dict[str, str]:
    """This environment, in which `detoxlens` is the clone's, under the stage clock, with its own MLflow store."""
    shims = timings.parent / "bin"
    shims.mkdir()
    shim = shims / "detoxlens"
    shim.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m detoxlens.bench.stage_clock "{timings}" "$@"\n', encoding="utf-8"
    )
    shim.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_") and k != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join([str(shims), str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return kept | {"PATH": path, "PYTHONPATH": str(clone / "src"), "OMP_WAIT_POLICY": "PASSIVE"}


def run(command: list[str], folder: Path, environment: Mapping[str, str]) -> float:
    """Wall seconds of a command that must succeed.

    Raises:
        UserError: it failed; its last lines.
    """
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise UserError(f"`{' '.join(command[-2:])}` failed: {' '.join((done.stderr or done.stdout).split()[-60:])}")
    return seconds


def repro(clone: Path, environment: Mapping[str, str], console: Console) -> tuple[float, list[tuple[str, float]]]:
    """Runs `dvc repro`; wall seconds of it all, and of each stage's start, in order.

    Raises:
        UserError: it failed; its last lines.
    """
    started = time.perf_counter()
    starts: list[tuple[str, float]] = []
    said: list[str] = []
    command = [sys.executable, "-m", "dvc", "repro"]
    with subprocess.Popen(
        command, cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if line.startswith(RUNNING):
                starts.append((line.removeprefix(RUNNING).partition("'")[0], time.perf_counter() - started))
                console.print(f"{starts[-1][1]:6.0f} s  {starts[-1][0]}")
    if process.returncode:
        raise UserError(f"`dvc repro` failed in the clone: {' '.join(''.join(said[-15:]).split())}")
    return time.perf_counter() - started, starts


def stage_times(
    starts: list[tuple[str, float]], lines: list[dict[str, float]], total_seconds: float
) -> list[StageTime]:
    """Joins DVC's stage starts with the clock's lines, both in the order in which the stages ran.

    DVC's share of a stage: from its start to the next one's (the first also has what is before it), less the process.
    """
    begins = [0.0, *(at for _, at in starts[1:])]
    ends = [*(at for _, at in starts[1:]), total_seconds]
    return [
        StageTime(
            stage=name,
            import_seconds=line["import_seconds"],
            work_seconds=line["process_seconds"] - line["import_seconds"],
            dvc_seconds=end - begin - line["process_seconds"],
            cpu_seconds=line["cpu_seconds"],
        )
        for (name, _), line, begin, end in zip(starts, lines, begins, ends, strict=True)
    ]


def stage_table(stages: list[StageTime]) -> Table:
    """One row per stage, then the sum."""
    table = Table(title="Cold dvc repro, seconds", title_justify="left")
    table.add_column("stage")
    for head in ("imports", "work", "DVC", "together", "CPU"):
        table.add_column(head, justify="right")
    columns = [(s.import_seconds, s.work_seconds, s.dvc_seconds, s.cpu_seconds) for s in stages]
    rows = [*zip((s.stage for s in stages), columns, strict=True), ("all", tuple(map(sum, zip(*columns, strict=True))))]
    for name, (imports, work, dvc, cpu) in rows:
        together = imports + work + dvc
        table.add_row(name, *(f"{x:.1f}" for x in (imports, work, dvc, together, cpu)), end_section=name == "report")
    return table


def total_table(totals: Mapping[str, tuple[float, float]]) -> Table:
    """Measured against promised."""
    names = {
        "cold_seconds": "dvc repro, from nothing",
        "noop_seconds": "dvc repro, nothing to do",
        "help_seconds": f"detoxlens --help (median of {NUM_SHORT_RUNS})",
    }
    table = Table(title="Against the targets, seconds", title_justify="left")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("at most", justify="right")
    for name, (seconds, target) in totals.items():
        color = "green" if seconds <= target else "red"
        table.add_row(names[name], f"[{color}]{seconds:.2f}[/]", f"{target:g}")
    return table
