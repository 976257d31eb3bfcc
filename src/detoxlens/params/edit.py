"""Edits of params.yaml: values set by key path, comments kept, the result checked before it replaces the file."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detoxlens.common.artifacts import write_text
from detoxlens.common.errors import UserError
from detoxlens.params.check import check_params
from detoxlens.params.load import Params
from detoxlens.params.run import RunConfig

REMOVED = object()
"""A value that takes its key out."""


def variant_lists(params: Params, names: list[str]) -> dict[str, list[str]]:
    """run.variants, the lists by kind that dvc.yaml's matrices need, and of the interpolated those that are left."""
    interpolated = [name for name in params.section("run", RunConfig).interpolated_variants if name in names]
    return {"variants": names, "interpolated_variants": interpolated} | params.variants_by_kind(names)


def change_run_section(path: Path, changes: dict[str, Any]) -> None:
    """Sets keys of params.yaml's section `run`; see `change_params`."""
    change_params(path, {("run", key): value for key, value in changes.items()})


def change_params(path: Path, changes: Mapping[tuple[str, ...], Any]) -> None:
    """Sets values of params.yaml by their key paths, everything else as it was, comments included.

    Mappings on the way that do not exist are made, in the style of their surroundings; what an alias or merge (`*`,
    `<<`) shares between two places is written out in each. The value `REMOVED` takes a key out, if it is there. The
    result is checked before it is kept.

    Raises:
        UserError: a key path leads through a value, or the changed params are not valid; the file is as it was.
    """
    import io

    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    document = yaml.load(path.read_text(encoding="utf-8"))
    write_out_shared(document, set())
    for (*parents, key), value in changes.items():
        node = document
        for depth, parent in enumerate(parents, start=1):
            if node.get(parent) is None:
                node[parent] = CommentedMap()
                if node.fa.flow_style():
                    node[parent].fa.set_flow_style()
            node = node[parent]
            if not isinstance(node, CommentedMap):
                where = ".".join(map(str, parents[:depth]))
                raise UserError(f"{path.name}: {where}={node!r} has no keys, so {key!r} cannot be set in it.")
        if value is REMOVED:
            node.pop(key, None)
            continue
        if isinstance(value, list):
            value = CommentedSeq(value)
            value.fa.set_flow_style()
        node[key] = value
    out = io.StringIO()
    yaml.dump(document, out)
    check_params(Params(YAML(typ="safe").load(out.getvalue()), path.name))
    write_text(path, out.getvalue())


def write_out_shared(node: Any, seen: set[int]) -> None:
    """Gives each place of a loaded document a node of its own, in place, where YAML aliases and merges share one.

    Args:
        node: a mapping, list or value of ruamel's round trip.
        seen: ids of the mappings and lists met so far.
    """
    from ruamel.yaml.comments import CommentedMap, CommentedSeq, merge_attrib

    if not isinstance(node, CommentedMap | CommentedSeq):
        return
    seen.add(id(node))
    node.yaml_set_anchor(None)
    if isinstance(node, CommentedMap):
        for key, value in list(node.items()):
            node[key] = value  # its own, where it came by a merge
        vars(node).pop(merge_attrib, None)
    for key, value in list(node.items() if isinstance(node, CommentedMap) else enumerate(node)):
        if id(value) in seen:
            node[key] = value = copy.deepcopy(value)
        write_out_shared(value, seen)


def diff_of(path: Path, before: str) -> str:
    """The unified diff from `before` to what the file holds now."""
    after = path.read_text(encoding="utf-8")
    return "\n".join(
        difflib.unified_diff(before.splitlines(), after.splitlines(), f"a/{path.name}", f"b/{path.name}", lineterm="")
    )
