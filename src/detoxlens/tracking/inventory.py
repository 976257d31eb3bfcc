"""What a store holds, for the doctor: the runs with the outputs they are about, the registry's versions."""

from __future__ import annotations

from dataclasses import dataclass

from detoxlens.tracking.comparable import OUTPUT
from detoxlens.tracking.registry import versions_of
from detoxlens.tracking.store import Store, open_client, told


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """A live (model, variant) run.

    StoredRun(name="tiny-neox/ft", outputs={"adapters/tiny-neox/ft": "6d0e....dir"})
    """

    name: str
    outputs: dict[str, str]
    """Path -> DVC's md5; the run's `dvc/` tags."""


@dataclass(frozen=True, kw_only=True)
class StoredVersion:
    """A version in the model registry."""

    name: str
    version: int
    aliases: list[str]
    variant: str
    run_is_live: bool


def stored_runs(store: Store) -> list[StoredRun]:
    """The live (model, variant) runs, oldest first.

    Raises:
        UserError: the store cannot be used.
    """
    client, experiment_id = open_client(store)
    with told(store):
        found = client.search_runs(
            [experiment_id], "tags.`detoxlens.kind` = 'variant'", order_by=["attributes.start_time ASC"]
        )
    return [
        StoredRun(
            name=run.info.run_name,
            outputs={k.removeprefix(OUTPUT): v for k, v in run.data.tags.items() if k.startswith(OUTPUT)},
        )
        for run in found
        if run.info.status == "FINISHED"
    ]


def stored_versions(store: Store) -> list[StoredVersion]:
    """The registered adapters of this project's models.

    Raises:
        UserError: the store cannot be used.
    """
    client, _ = open_client(store)
    with told(store):
        found = []
        for model in client.search_registered_models("name LIKE '%-detox'"):
            aliases = {alias: int(version) for alias, version in model.aliases.items()}
            for version in versions_of(client, model.name):
                number = int(version.version)
                found.append(
                    StoredVersion(
                        name=model.name,
                        version=number,
                        aliases=sorted(alias for alias, of in aliases.items() if of == number),
                        variant=version.tags.get("variant", ""),
                        run_is_live=client.get_run(version.run_id).info.lifecycle_stage == "active",
                    )
                )
    return found
