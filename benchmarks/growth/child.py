"""What a measured process does: python -m benchmarks.growth.child <folder> <step> [variant]; see `STEPS`."""

from __future__ import annotations

import sys
from pathlib import Path

STEPS = ("write", "prepare", "completions", "score", "report")


def main(folder: Path, step: str, argument: str | None) -> None:
    """`write` takes the number of prompts, `score` the variant."""
    if step in ("write", "completions"):  # only here: what they import is no part of a stage
        from benchmarks.growth.study import write_completions, write_project

        if step == "write":
            write_project(folder, Path(), int(argument))
        else:
            write_completions(folder)
        return
    from detoxlens.pipeline.run_stage import run_stage

    of = {"model": "made-up", "variant": argument} if step == "score" else {}
    run_stage(folder, folder / "params.yaml", step, track=False, **of)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
