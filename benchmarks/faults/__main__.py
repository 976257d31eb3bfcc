"""`python -m benchmarks.faults`: the kill and fault matrix; its figures go into benchmarks/results/faults.json."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.faults.cases import CASES
from benchmarks.faults.dvc import kill_dvc
from benchmarks.faults.kills import kill_stages
from benchmarks.faults.pipeline import files_of, make_project, preload, run_all
from benchmarks.hardware import hardware, in_words
from benchmarks.script import RESULTS, run, write_figures
from detoxlens.common.artifacts import read_json
from detoxlens.common.errors import UserError


def faults(
    kills: Annotated[int, typer.Option(min=0, help="How many times a stage gets SIGKILL.")] = 100,
    minutes: Annotated[float, typer.Option(min=0, help="No such kill after so long.")] = 60,
    dvc_kills: Annotated[int, typer.Option(min=0, help="How many times `dvc repro` gets it, with its processes.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the moments.")] = 0,
) -> None:
    """A small pipeline is killed, filled up, locked out, and compared with one that was not.

    Without kills of a sort (0) the figures of the last run that had them stand.
    """
    root, found_on = Path(), hardware()
    before = root / RESULTS / "faults.json"
    earlier, work = read_json(before) if before.exists() else {}, Path(tempfile.mkdtemp(prefix="detoxlens-faults-"))
    print(in_words(found_on))
    preload()
    reference = make_project(root, work / "reference")
    seconds = run_all(reference, work / "reference.log")
    expected = files_of(reference)
    print(f"uninterrupted: {len(seconds)} stages, {sum(seconds.values()):.0f} s, {len(expected)} files", flush=True)
    found = kill_stages(root, work, expected, seconds, num_kills=kills, minutes=minutes, seed=seed)
    cases = []
    for case in CASES:
        cases.append(outcome := case(reference, work, expected))
        print(f"{'ok  ' if outcome.holds else 'FAIL'} {outcome.fault}: {outcome.detail}", flush=True)
    figures = {
        "hardware": found_on,
        "num_stages": len(seconds),
        "num_files": len(expected),
        "seconds": {str(stage): round(value, 2) for stage, value in seconds.items()},
        "kills": asdict(found) if kills else earlier.get("kills"),
        "cases": [asdict(outcome) for outcome in cases],
        "dvc": earlier.get("dvc"),
    }
    write_figures(root, "faults", figures)
    by_dvc = kill_dvc(root, work, num_kills=dvc_kills, seed=seed) if dvc_kills else None
    figures |= {"dvc": asdict(by_dvc)} if by_dvc else {}
    wrong = found.half_written + found.different + found.left_over + [case.fault for case in cases if not case.holds]
    wrong += by_dvc.different + by_dvc.left_over if by_dvc else []
    print(
        f"{found.num_kills} kills of stages in {found.num_pipelines} pipelines: {len(found.different)} of "
        f"{len(expected)} files differ, {len(found.half_written)} half written, {found.lost_records} records lost"
    )
    if by_dvc:
        print(
            f"{by_dvc.num_kills} kills of dvc repro in {by_dvc.num_pipelines} pipelines: {len(by_dvc.different)} of "
            f"{by_dvc.num_files} files differ; {by_dvc.torn_locks} torn locks of DVC"
        )
    print(f"-> {write_figures(root, 'faults', figures)}")
    shutil.rmtree(work)
    if wrong or found.lost_records:
        raise UserError(f"not all is as in an uninterrupted run: {', '.join(wrong) or 'records are lost'}.")


if __name__ == "__main__":
    run(faults)
