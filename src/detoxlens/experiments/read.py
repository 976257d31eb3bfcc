"""What `dvc exp show --json` says of each revision, in the few numbers of `reports/headline`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detoxlens.common.errors import UserError, did_you_mean

HEADLINE = re.compile(r"reports/headline/([^/]+)/([^/]+)\.json")
Headlines = Mapping[tuple[str, str], Mapping[str, float | None]]
"""(model, variant) -> name -> number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One row of `dvc exp show`.

    Revision(name="low-kl", rev="0f3a...", started_from="main", changed={"ppo.kl.coef": (0.1, 0.02)},
             headlines={("tiny-neox", "rl"): {"toxic": .05, ...}}, moved={("tiny-neox", "rl")}, error="")
    """

    name: str
    rev: str
    """What `dvc` and git call it: a commit, or `workspace`."""
    started_from: str | None
    """Name of the commit that it is an experiment on; None for a commit itself."""
    changed: Mapping[str, tuple[Any, Any]]
    """Param -> (before, now), against `started_from`."""
    headlines: Headlines
    moved: frozenset[tuple[str, str]]
    """Those whose numbers are not the ones of `started_from`; all of a commit's."""
    error: str = ""


def show(root: Path, names: Sequence[str] = ()) -> list[Revision]:
    """The workspace, the present commit and its experiments, or those of `names`.

    Raises:
        UserError: DVC cannot say, or there is no revision of a name.
    """
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[0]
        raise UserError(f"`dvc exp show` failed in {root}: {reason}")
    found = list(parse(json.loads(done.stdout)))
    known = [revision.name for revision in found]
    for name in names:
        if name not in known:
            raise UserError(
                f"There is no experiment {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}. "
                "`dvc exp run -n NAME -S KEY=VALUE` makes one."
            )
    return [revision for revision in found if not names or revision.name in names]


def parse(rows: Iterable[Mapping[str, Any]]) -> Iterator[Revision]:
    """Reads DVC's list: the workspace, then commits, each with its experiments."""
    rows = list(rows)
    commit = next((row for row in rows if row["rev"] != "workspace"), None)
    for row in rows:
        yield _revision(row, commit if row["rev"] == "workspace" else None)
        for experiment in row.get("experiments") or ():
            yield _revision({**experiment["revs"][0], "name": experiment["name"] or experiment["revs"][0]["name"]}, row)


def _revision(row: Mapping[str, Any], start: Mapping[str, Any] | None) -> Revision:
    params, headlines = _params(row), _headlines(row)
    before, former = (_params(start), _headlines(start)) if start else (params, {})
    changed = {
        key: (before.get(key), params.get(key))
        for key in dict.fromkeys([*before, *params])
        if before.get(key) != params.get(key)
    }
    return Revision(
        name=_name(row),
        rev=row["rev"],
        started_from=start and _name(start),
        changed=changed if row.get("data") else {},
        headlines=headlines,
        moved=frozenset(key for key, numbers in headlines.items() if numbers != former.get(key)),
        error=(row.get("error") or {}).get("msg", ""),
    )


def _name(row: Mapping[str, Any]) -> str:
    """A branch's or an experiment's name, `workspace`, or the commit's first seven digits."""
    return row.get("name") or (row["rev"] if row["rev"] == "workspace" else row["rev"][:7])


def _params(row: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value, of params.yaml."""
    files = (row.get("data") or {}).get("params") or {}
    return {key: value for file in files.values() for key, value in _leaves(file.get("data") or {}, "")}


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _headlines(row: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, float | None]]:
    files = (row.get("data") or {}).get("metrics") or {}
    return {
        (match[1], match[2]): file["data"]
        for path, file in files.items()
        if (match := HEADLINE.fullmatch(path)) and file.get("data")
    }
