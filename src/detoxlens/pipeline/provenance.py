"""Provenance of a result in its MLflow run: commit, experiment, changed keys, and a description to read first."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detoxlens.common.names import mention
from detoxlens.params.load import Params

Json = Mapping[str, Any]
MAX_TAG_CHARS = 5000
"""MLflow keeps 8,000 bytes of a tag."""
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
    lines.append(f"{model}, {', '.join([mention(variant), *where])}. Tables and figures: `reports/index.html`.")
    return "\n\n".join(lines)


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
