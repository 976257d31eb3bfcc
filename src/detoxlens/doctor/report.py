"""All checks in order. One that fails itself becomes a line like the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from detoxlens.common.artifacts import Layout
from detoxlens.common.errors import UserError
from detoxlens.doctor import locks, machine, models, remote, results, tables, tracking
from detoxlens.doctor.check import Check

MARKS = {"ok": "✓", "warning": "!", "broken": "✗"}


def examine(root: Path, params_path: Path, environ: Mapping[str, str]) -> list[Check]:
    """Every check of the project in `root`; nothing is changed.

    Args:
        root: repository root.
        params_path: params.yaml.
        environ: `os.environ`, for MLFLOW_TRACKING_URI.
    """
    from detoxlens.params.check import check_params
    from detoxlens.params.load import load_params
    from detoxlens.tracking import resolve_store, stored_runs, stored_versions

    found: list[Check] = []

    def add(name: str, look: Callable[[], Check | Sequence[Check]], *, remedy: str = "") -> bool:
        """Adds what `look` says; False when it could not look or found it broken."""
        try:
            said = look()
        except UserError as e:
            said = Check(name=name, status="broken", detail=str(e), remedy=remedy)
        except Exception as e:  # whatever is wrong with a project must not hide the other lines
            said = Check(name=name, status="broken", detail=f"{type(e).__name__}: {e}", remedy=remedy)
        lines = [said] if isinstance(said, Check) else list(said)
        found.extend(lines)
        return all(line.status != "broken" for line in lines)

    def params_are_valid() -> Check:
        if not params_path.exists():  # git has nothing to restore
            detail = f"{params_path} does not exist; run from the project's root, or pass --root PROJECT"
            return Check(name="params", status="broken", detail=detail)
        check_params(load_params(params_path))
        return Check(name="params", status="ok", detail=f"{params_path.name} is valid for every declared model")

    add("versions", lambda: machine.check_versions(root / "constraints.txt"), remedy=machine.INSTALL)
    valid = add("params", params_are_valid, remedy=f"git diff -- {params_path.name}")
    project: list[results.Project] = []

    def outputs_are_here() -> Check:
        if not (root / ".dvc").is_dir():
            detail = f"{root} is no DVC repository; run from the project's root, or pass --root PROJECT"
            return Check(name="outputs", status="broken", detail=detail)
        project.append(results.read_project(root))
        return results.check_outputs(project[0])

    reads = "git diff -- dvc.yaml dvc.lock params.yaml"
    add("outputs", outputs_are_here, remedy=reads)
    asked = remote.ask(project[0]) if project else None
    if project:
        add("cache", lambda: results.check_cache(project[0]), remedy=reads)
    add("locks", lambda: locks.check_locks(root))
    add("scratch", lambda: results.check_scratch(Layout(root).state))
    store = None
    try:
        store = resolve_store(root, environ)
    except UserError as e:
        found.append(Check(name="store", status="broken", detail=str(e), remedy="unset MLFLOW_TRACKING_URI"))
    there = store is not None and add("store", lambda: tracking.check_store(store))
    if there and (store.database is None or store.database.exists()):
        if project:
            add("runs", lambda: tracking.check_runs(project[0], stored_runs(store)))
        add("registry", lambda: tracking.check_registry(stored_versions(store)))
    add("studies", lambda: tracking.check_studies(Layout(root).sweeps_database, environ))
    if project:  # late: a remote that is no folder answers meanwhile
        add("remote", lambda: remote.check_remote(project[0], asked), remedy="dvc remote list")
    add("disk", lambda: machine.check_disk(root))
    if valid:
        params, here = load_params(params_path), machine.this_machine()
        run = params.run
        add("machine", lambda: machine.check_machine(here, device=run.device, num_threads=run.num_threads))
        add("models", lambda: models.check_models(root, params, here))
        add("toxic words", lambda: tables.check_toxic_words(Layout(root), run.models, run.variants), remedy="dvc repro")
    return found


def as_text(checks: Sequence[Check]) -> str:
    """One line per check, the remedy behind an arrow; a last line that counts."""
    width = max(len(c.name) for c in checks)
    lines = [
        f"{MARKS[c.status]} {c.name:<{width}}  {' '.join(c.detail.split())}{f'  -> {c.remedy}' if c.remedy else ''}"
        for c in checks
    ]
    broken, warned = (sum(c.status == status for c in checks) for status in ("broken", "warning"))
    return "\n".join([*lines, f"{broken} broken, {warned} to look at, {len(checks) - broken - warned} in order."])
