"""The code that a number depends on: the project modules that a stage's module imports, and a hash of what each does.

Comments, docstrings and formatting do not count; a changed constant three imports away does. DVC reads the result as a
file of lines (`pipeline/code.py`), unfinished work is filed under its hash (`jobs/scratch.py`).

    detoxlens/sft/train.py 5f0c9d2b41aa76e3
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2]
"""The folder that holds the package that is running."""
PACKAGE = "detoxlens"
WITHOUT_EFFECT = frozenset(
    {
        "detoxlens",  # the version
        "detoxlens.common.console",
        "detoxlens.common.errors",
        "detoxlens.common.fingerprint",
        "detoxlens.common.repository",
        "detoxlens.jobs.progress",
        "detoxlens.jobs.save_timer",
        "detoxlens.params.sections",  # which sections there are; a stage imports the classes of those it reads
        "detoxlens.tracking",
    }
)
"""Modules that change what is shown or logged, never a number."""


def fingerprint(module: str, source: Path = SOURCE) -> list[str]:
    """A line per module that importing and running `module` may load: its path below `source`, and 16 hex digits.

    Args:
        module: dotted name, e.g. `detoxlens.pipeline.stages.prepare`.
        source: the folder that holds the package.
    """
    files = {file_of(name, source) for name in closure(module, source)}
    lines = [(file.relative_to(source).as_posix(), _hash(file, _stamp(file))) for file in files]
    return [f"{path} {digest}" for path, digest in sorted(lines) if digest is not None]


def code_sha256(module: str) -> str:
    """64 hex digits that change with any code that the results of `module` depend on."""
    return hashlib.sha256("\n".join(fingerprint(module)).encode()).hexdigest()


def closure(module: str, source: Path = SOURCE) -> set[str]:
    """All project modules that importing and running `module` may load, itself and its packages included."""
    todo, seen = [module], set()
    while todo:
        name = todo.pop()
        if name in seen or name in WITHOUT_EFFECT or name.partition(".")[0] != PACKAGE:
            continue
        seen.add(name)
        todo += [*_imports(file_of(name, source), source), *([name.rpartition(".")[0]] if "." in name else [])]
    return seen


def file_of(module: str, source: Path = SOURCE) -> Path | None:
    """The file of a project module, or None for a name inside one."""
    base = source.joinpath(*module.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.exists()), None)


def _imports(file: Path, source: Path) -> set[str]:
    """Project modules that a file imports, inside functions too; what only annotations need is left out."""
    return {name for name in _named(file, _stamp(file)) if file_of(name, source)}


@functools.cache
def _named(file: Path, stamp: tuple[int, int]) -> frozenset[str]:
    """What a file imports of the project, or may: `detoxlens.params.load.Params` is no module."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(f"{PACKAGE}."):
            found.add(node.value)  # importlib.import_module("detoxlens....")
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(_tree(file, stamp))
    return frozenset(name for name in found if name.startswith(PACKAGE))


@functools.cache
def _hash(file: Path, stamp: tuple[int, int]) -> str | None:
    """16 hex digits of what a file does; None where it does nothing (a package's docstring alone)."""
    statements = list(_statements(_tree(file, stamp).body))
    text = "\n".join(_shape(node) for node in statements)
    return hashlib.sha256(text.encode()).hexdigest()[:16] if statements else None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Without docstrings, those of attributes included: expressions that are a string alone have no effect."""
    for node in body:
        alone = (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        )
        if not alone:
            yield node


def _shape(node: object) -> str:
    """A syntax tree as text, alike in every Python version: fields that are absent or empty are left out."""
    if isinstance(node, list):
        items = list(_statements(node)) if node and isinstance(node[0], ast.stmt) else node
        return f"[{','.join(map(_shape, items))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return f"{type(node).__name__}({','.join(f'{name}={_shape(value)}' for name, value in fields)})"


def _stamp(file: Path) -> tuple[int, int]:
    """What tells that a file was written anew."""
    status = file.stat()
    return status.st_mtime_ns, status.st_size


@functools.cache
def _tree(file: Path, stamp: tuple[int, int]) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
