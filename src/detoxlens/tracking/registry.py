"""Adapters in MLflow's model registry: one registered model per base model, one version per adapter; twice is once.

    peft.PeftModel.from_pretrained(base, mlflow.artifacts.download_artifacts("models:/tiny-neox-detox@champion"))

Aliases: `champion`, and `latest-<variant>` for the version that the present report is about.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock

from detoxlens.common.errors import UserError
from detoxlens.tracking.address import Store
from detoxlens.tracking.comparable import ADAPTER
from detoxlens.tracking.failures import explained
from detoxlens.tracking.runs import is_missing
from detoxlens.tracking.store import open_client, read_client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)
CHAMPION = "champion"
RunState = Literal["live", "deleted", "gone"]
"""Of a version's run: there; in MLflow's bin (`mlflow runs restore` brings it back); removed by `mlflow gc`."""


@dataclass(frozen=True, kw_only=True)
class AdapterVersion:
    """One adapter of the report, and how it did.

    AdapterVersion(variant="ft", md5="6d0e....dir", run_id="0f3a...", toxicity=.035, perplexity=2.0,
                   perplexity_ratio=.97, yardstick="9b1f...")
    """

    variant: str
    md5: str
    """DVC's md5 of the adapter folder: what makes two versions the same."""
    run_id: str
    """The (model, variant) run that holds the files."""
    toxicity: float
    """Rate on the report's primary split, 0..1."""
    perplexity: float
    """Of its completions under the base model."""
    perplexity_ratio: float
    """That perplexity over the one of `it`."""
    yardstick: str
    """Equal where two versions were measured alike: same prompts, base model, decoding and grader."""


def registered_name(model: str) -> str:
    """The registered model of a model key."""
    return f"{model}-detox"


def model_of(uri: str) -> str | None:
    """The model key of a registered version: `models:/tiny-neox-detox@champion` -> `tiny-neox`; None: not ours."""
    name = re.split("[@/]", uri.removeprefix("models:/"))[0]
    return name.removesuffix(registered_name("")) if name.endswith(registered_name("")) else None


def download(store: Store, uri: str) -> Path:
    """A registered version's files, on this machine.

    Args:
        store: from `resolve_store`.
        uri: `models:/<name>@<alias>` or `models:/<name>/<version>`, of a version that a report registered.

    Raises:
        UserError: there is no such version, or no store.
    """
    client = read_client(store)
    with explained(store):
        from mlflow.exceptions import MlflowException

        name, at, which = re.fullmatch(r"models:/([^@/]*)([@/]?)(.*)", uri).groups()
        try:
            if at == "@":
                version = client.get_model_version_by_alias(name, which)
            else:
                version = client.get_model_version(name, which)
            return Path(client.download_artifacts(version.run_id, ADAPTER))
        except MlflowException as e:
            names = sorted(model.name for model in client.search_registered_models())
            raise UserError(
                f"{uri} is not in the registry of {store.shown_uri}: {str(e).splitlines()[0].rstrip('.')}. Registered "
                f"models: {', '.join(names) or 'none'}; aliases: {CHAMPION}, latest-<variant>."
            ) from None


def register_adapters(
    store: Store, *, model: str, adapters: Sequence[AdapterVersion], max_perplexity_ratio: float
) -> int | None:
    """Registers the adapters that are not there yet, sets tags and aliases, and returns the champion's version.

    The champion is the least toxic of all versions that were measured like these, keep within the perplexity budget and
    can be downloaded, from whichever experiment; None, and no such alias, when there is none. Versions whose run and
    files `mlflow gc` has removed are taken out and named.

    Args:
        store: from `resolve_store`.
        model: model key; the registered model is `registered_name(model)`.
        adapters: the report's, measured alike; at least one.
        max_perplexity_ratio: the budget.

    Raises:
        UserError: the store cannot be used.
    """
    client, _ = open_client(store)
    name = registered_name(model)
    with FileLock(store.state / "registry.lock"), explained(store):
        _make_registered_model(client, name)
        _take_out_gone(client, name)
        for adapter in adapters:
            version = _version(client, name, adapter)
            client.set_registered_model_alias(name, f"latest-{adapter.variant}", str(version))
        champion = _champion(client, name, adapters[0].yardstick, max_perplexity_ratio)
        if champion is not None:
            client.set_registered_model_alias(name, CHAMPION, str(champion))
        elif CHAMPION in client.get_registered_model(name).aliases:
            client.delete_registered_model_alias(name, CHAMPION)
    return champion


def _make_registered_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    load = f'peft.PeftModel.from_pretrained(base, mlflow.artifacts.download_artifacts("models:/{name}@{CHAMPION}"))'
    try:
        client.create_registered_model(name, description=f"LoRA adapters. `{load}`")
    except MlflowException as e:
        if e.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version(client: MlflowClient, name: str, adapter: AdapterVersion) -> int:
    """The number of the adapter's version, made unless a live run's files are registered under its md5 already."""
    tags = {
        "variant": adapter.variant,
        "md5": adapter.md5,
        "toxicity": f"{adapter.toxicity:.4g}",
        "perplexity": f"{adapter.perplexity:.4g}",
        "perplexity_ratio": f"{adapter.perplexity_ratio:.4g}",
        "yardstick": adapter.yardstick,
    }
    for known in versions_of(client, name):
        if _identity(known.tags) != _identity(tags):
            continue
        if _can_be_had(client, known):
            for key, value in tags.items():
                if known.tags.get(key) != value:
                    client.set_model_version_tag(name, str(known.version), key, value)
            return int(known.version)
        client.delete_model_version(name, str(known.version))  # its run was replaced: `mlflow gc` will take its files
    source = f"{client.get_run(adapter.run_id).info.artifact_uri}/{ADAPTER}"
    made = client.create_model_version(name, source, run_id=adapter.run_id, tags=tags, await_creation_for=0).version
    same = [v for v in versions_of(client, name) if _identity(v.tags) == _identity(tags)]
    first = min((int(v.version) for v in same), default=int(made))
    if first < int(made):  # a client on another machine was faster
        client.delete_model_version(name, str(made))
    return first


def _identity(tags: Mapping[str, str]) -> tuple[str | None, str | None]:
    """What makes two versions the same adapter."""
    return tags.get("variant"), tags.get("md5")


def _champion(client: MlflowClient, name: str, yardstick: str, max_perplexity_ratio: float) -> int | None:
    """The version with the lowest toxicity; of equal ones that with the lower perplexity, then the older."""
    candidates = sorted(
        (
            v
            for v in versions_of(client, name)
            if v.tags.get("yardstick") == yardstick and float(v.tags["perplexity_ratio"]) <= max_perplexity_ratio
        ),
        key=lambda v: (float(v.tags["toxicity"]), float(v.tags["perplexity"]), int(v.version)),
    )
    return next((int(v.version) for v in candidates if _can_be_had(client, v)), None)


def run_state(client: MlflowClient, run_id: str) -> RunState:
    """Whether the run of a version is still there."""
    from mlflow.exceptions import MlflowException

    try:
        return "live" if client.get_run(run_id).info.lifecycle_stage == "active" else "deleted"
    except MlflowException as e:
        if not is_missing(e):
            raise
        return "gone"


def _can_be_had(client: MlflowClient, version: ModelVersion) -> bool:
    """Whether the version's run is live and holds an adapter: MLflow downloads an empty folder without an error."""
    return run_state(client, version.run_id) == "live" and bool(client.list_artifacts(version.run_id, ADAPTER))


def _take_out_gone(client: MlflowClient, name: str) -> None:
    """Deletes the versions of ours that lead nowhere."""
    for version in versions_of(client, name):
        if is_ours(version) and run_state(client, version.run_id) == "gone":
            client.delete_model_version(name, str(version.version))
            log.warning("%s/%s is taken out: `mlflow gc` has removed its run and files.", name, version.version)


def is_ours(version: ModelVersion) -> bool:
    """Registered here, rather than by a person: with a run and the adapter's md5."""
    return bool(version.run_id) and "md5" in version.tags


def versions_of(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions, however many pages they fill."""
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        found += page
        token = page.token
        if not token:
            return found
