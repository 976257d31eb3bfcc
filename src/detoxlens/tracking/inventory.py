"""Contents of a store, for the doctor: the runs with the outputs they are about, the registry's versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detoxlens.tracking.address import Store
from detoxlens.tracking.comparable import OUTPUT
from detoxlens.tracking.failures import explained
from detoxlens.tracking.location import local_folder
from detoxlens.tracking.registry import RunState, is_ours, run_state, versions_of
from detoxlens.tracking.runs import search
from detoxlens.tracking.store import EXPERIMENT, check_not_deleted, read_client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

_VARIANT_RUNS = "tags.`detoxlens.kind` = 'variant'"


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """A live (model, variant) run.

    StoredRun(name="tiny-neox/ft", outputs={"adapters/tiny-neox/ft": "6d0e....dir"})
    """

    name: str
    outputs: dict[str, str]
    """Path -> DVC's md5; the run's `dvc/` tags."""
    has_artifacts: bool = True
    """False where the folder of this machine that they should be in is not there."""


@dataclass(frozen=True, kw_only=True)
class StoredVersion:
    """A version in the model registry."""

    name: str
    version: int
    aliases: list[str]
    variant: str
    run: RunState

    @property
    def run_is_live(self) -> bool:
        """Whether what leads to this version leads to files."""
        return self.run == "live"


def stored_runs(store: Store) -> list[StoredRun]:
    """The live (model, variant) runs, oldest first; nothing is changed.

    Raises:
        UserError: the store cannot be used.
    """
    client = read_client(store)
    with explained(store):
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return []
        check_not_deleted(store, experiment)
        found = search(client, experiment.experiment_id, _VARIANT_RUNS)
    return [
        StoredRun(
            name=run.info.run_name,
            outputs={k.removeprefix(OUTPUT): v for k, v in run.data.tags.items() if k.startswith(OUTPUT)},
            has_artifacts=(folder := local_folder(run.info.artifact_uri)) is None or folder.is_dir(),
        )
        for run in found
        if run.info.status == "FINISHED"
    ]


def stored_versions(store: Store) -> list[StoredVersion]:
    """The registered adapters of this project's models; nothing is changed.

    Raises:
        UserError: the store cannot be used.
    """
    client = read_client(store)
    with explained(store):
        return [
            StoredVersion(
                name=model.name,
                version=int(version.version),
                aliases=sorted(alias for alias, number in model.aliases.items() if int(number) == int(version.version)),
                variant=version.tags.get("variant", ""),
                run=run_state(client, version.run_id),
            )
            for model in _registered_models(client)
            for version in versions_of(client, model.name)
            if is_ours(version)
        ]


def _registered_models(client: MlflowClient) -> list[RegisteredModel]:
    found: list[RegisteredModel] = []
    token = None
    while True:
        page = client.search_registered_models("name LIKE '%-detox'", page_token=token)
        found += page
        token = page.token
        if not token:
            return found
