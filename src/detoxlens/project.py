"""What drives the whole pipeline from outside: `detoxlens repro` (which `mlflow run` calls) and `detoxlens ui`."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from detoxlens.artifacts import write_text
from detoxlens.config import NAME, Params, load_params, read_yaml
from detoxlens.errors import UserError, did_you_mean
from detoxlens.publish import comparable_key
from detoxlens.run_stage import check_params

UNCHANGED = "unchanged"
EVALUATION = ("generate", "score", "attribute", "report")


def repro(
    root: Path, params_path: Path, *, models: str = UNCHANGED, variants: str = UNCHANGED, seed: str = UNCHANGED,
    evaluate_only: bool = False,
) -> int:  # fmt: skip
    """Writes what was asked into params.yaml, runs `dvc repro`, and tells MLflow what the project run led to.

    Args:
        root: repository root.
        params_path: params.yaml; its comments are kept.
        models: comma-separated keys of `models`, or "unchanged".
        variants: comma-separated keys of `variants`, or "unchanged".
        seed: run.seed, or "unchanged".
        evaluate_only: run the evaluation stages alone, on the adapters that are there.

    Returns:
        DVC's exit status.

    Raises:
        UserError: a model or variant is not declared, or the seed is no number.
    """
    from detoxlens.tracking import finish_project_run, resolve_store

    changes: dict[str, Any] = {}
    if models != UNCHANGED:
        changes["models"] = names_of(models)
    if variants != UNCHANGED:
        changes |= variant_lists(load_params(params_path), names_of(variants))
    if seed != UNCHANGED:
        if not seed.isdecimal():
            raise UserError(f"seed={seed!r} must be a whole number of at least 0.")
        changes["seed"] = int(seed)
    if changes:
        change_run_section(params_path, changes)
    params = load_params(params_path)
    check_params(params)
    command = [sys.executable, "-m", "dvc", "repro"]
    if evaluate_only:
        command += ["--single-item", *EVALUATION]
    status = subprocess.run(command, cwd=root, env=stage_environment(), check=False).returncode
    run = params.run
    keys = [comparable_key(root, params, model, variant) for model in run.models for variant in run.variants]
    finish_project_run(resolve_store(root, os.environ), keys)
    return status


def variant_lists(params: Params, names: list[str]) -> dict[str, list[str]]:
    """run.variants and the lists by kind that dvc.yaml's matrices need."""
    return {"variants": names} | params.variants_by_kind(names)


def change_run_section(path: Path, changes: dict[str, Any]) -> None:
    """Sets keys of params.yaml's section `run`; see `change_params`."""
    change_params(path, {("run", key): value for key, value in changes.items()})


def change_params(path: Path, changes: Mapping[tuple[str, ...], Any]) -> None:
    """Sets values of params.yaml by their key paths, everything else as it was, comments included.

    Mappings on the way that do not exist are made, in the style of their surroundings. The result is checked before it
    is kept.

    Raises:
        UserError: the changed params are not valid; the file is as it was.
    """
    import io

    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    document = yaml.load(path.read_text(encoding="utf-8"))
    for (*parents, key), value in changes.items():
        node = document
        for parent in parents:
            if parent not in node:
                node[parent] = CommentedMap()
                if node.fa.flow_style():
                    node[parent].fa.set_flow_style()
            node = node[parent]
        if isinstance(value, list):
            value = CommentedSeq(value)
            value.fa.set_flow_style()
        node[key] = value
    out = io.StringIO()
    yaml.dump(document, out)
    check_params(Params(YAML(typ="safe").load(out.getvalue()), path.name))
    write_text(path, out.getvalue())


def apply_preset(root: Path, params_path: Path, name: str) -> str:
    """Writes presets/<name>.yaml into params.yaml, key by key; what it does not name stays, comments included.

    Returns:
        The unified diff; empty where nothing was to change.

    Raises:
        UserError: there is no such preset, or the result would not be valid; the file is as it was.
    """
    file = root / "presets" / f"{name}.yaml"
    if not re.fullmatch(NAME, name) or not file.is_file():
        known = sorted(path.stem for path in (root / "presets").glob("*.yaml"))
        raise UserError(
            f"There is no preset {name!r}.{did_you_mean(name, known)} In {root / 'presets'} are: "
            f"{', '.join(known) or 'none'}. A preset is a YAML file there with keys of params.yaml."
        )
    load_params(params_path)
    before = params_path.read_text(encoding="utf-8")
    wanted = read_yaml(file)
    if not isinstance(wanted, Mapping):
        raise UserError(f"{file} holds {type(wanted).__name__}, not sections of params.yaml such as run: and models:.")
    change_params(params_path, dict(_leaves(wanted)))
    return diff_of(params_path, before)


def _leaves(node: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Key path and value of everything in a nested mapping that is no mapping itself (or an empty one)."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def diff_of(path: Path, before: str) -> str:
    """The unified diff from `before` to what the file holds now."""
    after = path.read_text(encoding="utf-8")
    return "\n".join(
        difflib.unified_diff(before.splitlines(), after.splitlines(), f"a/{path.name}", f"b/{path.name}", lineterm="")
    )


def ui(root: Path, *, host: str, port: int) -> int:
    """Serves MLflow's pages on the project's store until Ctrl-C; names those of a server.

    Raises:
        UserError: the port is taken.
    """
    from detoxlens.tracking import charts_url, resolve_store, send_pending, ui_command, ui_environment

    store = resolve_store(root, os.environ)
    if store.is_server:
        print(f"{store.shown_uri} is a server and shows its pages itself: {charts_url(store)}")
        return 0
    _check_port(host, port)
    send_pending(store)
    print(f"Starting; in a moment: {charts_url(store, host=host, port=port)}   (Ctrl-C stops)", flush=True)
    try:
        done = subprocess.run(
            ui_command(store, host=host, port=port), env=os.environ | ui_environment(store), check=False
        )
    except KeyboardInterrupt:
        return 0
    if done.returncode > 0:
        _check_port(host, port)  # another server may have taken it while this one was starting
    return done.returncode


def _check_port(host: str, port: int) -> None:
    """Raises a UserError if a server listens there already, or the address is not this machine's."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as e:
            other = port + 1 if port < 65535 else port - 1
            raise UserError(f"--port {port} on {host} cannot be used ({e.strerror}); try --port {other}.") from None


def stage_environment() -> dict[str, str]:
    """The environment with this interpreter's folder first on the path, so that DVC's stages find `detoxlens`."""
    return os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


def names_of(text: str) -> list[str]:
    """The names of a comma-separated list; "unchanged" holds none."""
    return [] if text == UNCHANGED else [name.strip() for name in text.split(",") if name.strip()]
