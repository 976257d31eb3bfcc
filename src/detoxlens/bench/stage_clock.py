"""`python -m detoxlens.bench.stage_clock FILE ARGS...`: `detoxlens ARGS...`, its seconds appended to FILE.

`detoxlens bench pipeline` puts this in place of the command `detoxlens`, so that stages carry no stopwatch themselves.
One JSON line per process:

    {"arguments": ["base", "--model", "tiny-neox"], "import_seconds": 3.1, "process_seconds": 42.0, "cpu_seconds": 60.2}

Imports are timed where Python finds and runs a module for the first time, in the main thread, lazy ones inside the
stage included, nested ones once.
"""

from __future__ import annotations

import importlib._bootstrap
import json
import runpy
import sys
import threading
import time
from pathlib import Path


class ImportClock:
    """Sums the wall time of first imports in the thread that made it, from `start` on."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._thread = threading.get_ident()

    def start(self) -> None:
        """Hooks into the function that C and Python imports share; a module already loaded never gets there."""
        find_and_load = importlib._bootstrap._find_and_load

        def timed(name, import_):
            if threading.get_ident() != self._thread or self._depth:
                return find_and_load(name, import_)
            self._depth += 1
            started = time.perf_counter()
            try:
                return find_and_load(name, import_)
            finally:
                self._depth -= 1
                self.seconds += time.perf_counter() - started

        importlib._bootstrap._find_and_load = timed


def main() -> None:
    """Runs the command line under the clock."""
    started = time.perf_counter()
    file, *arguments = sys.argv[1:]
    clock = ImportClock()
    clock.start()
    sys.argv = ["detoxlens", *arguments]
    try:
        runpy.run_module("detoxlens", run_name="__main__")
    finally:
        line = {
            "arguments": arguments,
            "import_seconds": clock.seconds,
            "process_seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time(),
        }
        with Path(file).open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
