"""Which project files a stage's numbers depend on, read from the source: every import, also those inside functions.

`python tests/import_graph.py` prints the deps that dvc.yaml must list for each stage.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
NO_NUMBERS = {f"detoxlens.{name}" for name in ("tracking", "cli", "run_stage", "publish", "progress", "errors")}
"""Modules that change what is logged or said, never a number."""


def file_of(module: str) -> Path | None:
    """The file of a project module, or None for a name inside one."""
    base = SOURCE.joinpath(*module.split("."))
    return next((f for f in (base.with_suffix(".py"), base / "__init__.py") if f.exists()), None)


def imports(module: str) -> set[str]:
    """Project modules that `module` imports directly, type-checking blocks left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("detoxlens."):
            found.add(node.value)  # importlib.import_module("detoxlens....")
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file_of(module).read_text(encoding="utf-8")))
    return {name for name in found if name.startswith("detoxlens") and file_of(name)}


def closure(module: str) -> set[str]:
    """All project modules that importing and running `module` may load, itself and its packages included."""
    todo, seen = [module], set()
    while todo:
        name = todo.pop()
        if name in seen or name in NO_NUMBERS or name.partition(".")[0] != "detoxlens":
            continue
        seen.add(name)
        parents = [name.rpartition(".")[0]] if "." in name else []
        todo += [*imports(name), *parents]
    return seen


def stage_files(stage: str) -> list[str]:
    """Repository paths of the stage's files, sorted; the empty top package left out."""
    files = {file_of(m) for m in closure(f"detoxlens.stages.{stage}")}
    skip = {SOURCE / "detoxlens/__init__.py", SOURCE / "detoxlens/stages/__init__.py"}
    return sorted(f.relative_to(ROOT).as_posix() for f in files - skip if f.read_text(encoding="utf-8").strip())


if __name__ == "__main__":
    for stage in ("prepare", "reward_model", "base", "finetune", "rl", "generate", "score", "attribute", "report"):
        if file_of(f"detoxlens.stages.{stage}"):
            print(stage, *stage_files(stage), sep="\n      - ")
