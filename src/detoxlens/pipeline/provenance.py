"""Provenance of a result in its MLflow run: commit, experiment, changed keys, and a description to read first."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detoxlens.common.names import mention
from detoxlens.params.load import Params

if TYPE_CHECKING:
    from detoxlens.tracking import Execution

Json = Mapping[str, Any]
MAX_TAG_CHARS = 5000
"""MLflow keeps 8,000 bytes of a tag."""
WHERE_ALL_IS = "Tables and figures: `reports/index.html`, here among the artifacts as `dated.html`."
MAX_SHOWN = 12
"""Changed keys in a description; the tag has all."""


def made_by(root: Path, params: Params, environ: Mapping[str, str]) -> dict[str, str]:
    """Tags: `git.commit`, `git.uncommitted` (changed source), `dvc.exp` and `detoxlens.changed`, those that there are.

    The three that MLflow's pages show as "Source" are among them.

    Args:
        root: repository root.
        params: those that the result was made with.
        environ: `os.environ`; DVC names an experiment and the commit it starts from there.
    """
    tags = {"mlflow.source.name": "detoxlens", "mlflow.source.type": "LOCAL"}
    if name := environ.get("DVC_EXP_NAME"):
        tags["dvc.exp"] = name
    commit = environ.get("DVC_EXP_BASELINE_REV") or _git(root, "rev-parse", "HEAD")
    if commit:
        tags |= {"git.commit": commit, "mlflow.source.git.commit": commit}
        if source := _git(root, "status", "--porcelain", "--", "src"):
            tags["git.uncommitted"] = ", ".join(line[3:] for line in source.splitlines())[:MAX_TAG_CHARS]
        if changed := changed_keys(root, params, commit):
            tags["detoxlens.changed"] = ", ".join(changed)[:MAX_TAG_CHARS]
    return tags


def changed_keys(root: Path, params: Params, commit: str) -> list[str]:
    """`ppo.kl.coef=0.02`, ...: the keys of params.yaml that differ from the commit's; `(removed)` where one is gone."""
    from ruamel.yaml import YAML, YAMLError

    text = _git(root, "show", f"{commit}:./{params.path}")
    try:
        before = dict(_leaves(YAML(typ="safe", pure=True).load(text) or {}))
    except YAMLError:
        return []
    now = dict(_leaves(params.raw))
    changed = [f"{key}={value}" for key, value in now.items() if key not in before or before[key] != value]
    return [*changed, *(f"{key} (removed)" for key in before.keys() - now.keys())] if before else []


def description(model: str, variant: str, metrics: Json, *, split: str, made_by: Mapping[str, str]) -> str:
    """Markdown: how toxic, compared with what, how sure, at what cost; what was changed; where the report is.

    Args:
        model: model key.
        variant: variant key.
        metrics: the model's part of metrics.json.
        split: the primary split.
        made_by: the tags of the run.
    """
    from detoxlens.reporting.lead import not_learned
    from detoxlens.reporting.table import value_at
    from detoxlens.reporting.wording import difference, headline_scope, sign

    own, lines = metrics[variant], []
    if rates := own["toxicity"].get(split):
        lines.append(f"**{_rate(variant, rates, split)}**{_difference(rates)}")
    if (perplexity := own["fluency"]["perplexity"]) is not None:
        lines.append(f"Perplexity of its completions under base: {perplexity:.2f}.")
    if twin := own.get("identical_to"):
        lines.append(not_learned(variant, twin))
    elif effect := value_at(own, "attribution", "effects", headline_scope(own), "prompt_entropy_bits", "model_effect"):
        sure = ": no difference shown" if sign(effect) == 0 else ""
        lines.append(f"Prompt entropy against base on the same text: {difference(effect, 3, ' bits')}{sure}.")
    if changed := made_by.get("detoxlens.changed"):
        keys = changed.split(", ")
        more = f" and {len(keys) - MAX_SHOWN} more" if len(keys) > MAX_SHOWN else ""
        lines.append(f"Changed against the commit: {', '.join(f'`{key}`' for key in keys[:MAX_SHOWN])}{more}.")
    where = [f"experiment `{made_by['dvc.exp']}`"] if "dvc.exp" in made_by else []
    where += [f"commit `{made_by['git.commit'][:10]}`"] if "git.commit" in made_by else []
    lines.append(f"{model}, {', '.join([mention(variant), *where])}. {WHERE_ALL_IS}")
    return "\n\n".join(lines)


def facts_of(executions: Sequence[Execution], made_by: Mapping[str, str]) -> dict[str, str]:
    """Date, commit, experiment, changed settings, hardware and hours, for the report's dated page.

    Args:
        executions: of the stages that led to the report, by start.
        made_by: tags from `made_by`.
    """
    commit, changed = made_by.get("git.commit"), made_by.get("detoxlens.changed", "none")
    facts = {
        "Date": _dates(executions),
        "Commit": commit[:12] if commit else "not in a git repository",
    }
    if uncommitted := made_by.get("git.uncommitted"):
        facts["Changed source"] = uncommitted
    if name := made_by.get("dvc.exp"):
        facts["Experiment"] = name
    if commit:
        facts["Changed settings"] = f"{changed} (params.yaml against that commit)"
    machines = dict.fromkeys(one.machine for one in executions if one.machine is not None)
    facts["Hardware"] = "; ".join(machines) or "not recorded"
    facts["Hours"] = _hours(executions)
    return facts


def _dates(executions: Sequence[Execution]) -> str:
    if not executions:
        return "no stage ran here: restored by DVC"
    ends = executions[0].start_ms, max(one.end_ms for one in executions)
    first, last = (f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}" for ms in ends)
    return f"{first} to {last} UTC"


def _hours(executions: Sequence[Execution]) -> str:
    """`0.21 in 23 stages; the longest: base/tiny-neox 0.07`; of stages that DVC restored nothing is known here."""
    hours = {one.name: (one.end_ms - one.start_ms) / 3_600_000 for one in executions}
    if not hours:
        return "not recorded here"
    longest = max(hours, key=hours.__getitem__)
    return (
        f"{sum(hours.values()):.2f} in {len(hours)} stages that ran here; the longest: {longest} {hours[longest]:.2f}"
    )


def _rate(variant: str, rates: Json, split: str) -> str:
    if rates["rate_gt_50"] is None:
        return f"No completion of {mention(variant)} on {split} has a score"
    from detoxlens.reporting.cells import with_interval

    share = with_interval(rates["rate_gt_50"], rates["ci95"], 1, scale=100)
    return f"{share} % of {rates['num_scored']} completions are toxic (score above .5, split `{split}`)"


def _difference(rates: Json) -> str:
    delta = rates.get("delta_vs_it")
    if not delta or delta["value"] is None:
        return "."
    from detoxlens.reporting.wording import points, sign

    sure = ": no difference shown" if sign(delta) == 0 else ""
    return f", {points(delta)} against base{sure}."


def _leaves(tree: Any, path: Sequence[str] = ()):
    """(dotted key, value) of everything in a nested mapping that is no mapping itself."""
    if not isinstance(tree, Mapping):
        yield ".".join(path), tree
        return
    for key, value in tree.items():
        yield from _leaves(value, (*path, str(key)))


def _git(root: Path, *arguments: str) -> str:
    """What git says in `root`; empty where it says nothing, or there is no git."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip("\n") if done.returncode == 0 else ""
