"""Stage attribute@model-variant: what each generated token drew on, and whether the answer can be trusted.

    deps: models/<m>/base, adapters/<m>/<v>, outputs/<m>/<v>/completions.parquet, outputs/<m>/it/completions.parquet
    outs: outputs/<m>/<v>/attributions.parquet, outputs/<m>/<v>/faithfulness.json

Each variant is attributed on its own completions (`text_source: own`) and on those of `it` (`text_source: it`, forced
decoding), on the same prompts: the report's test prompts, and the validation prompts that sweeps go by. For `it` the
two texts are the same and are written under both names, so that rows of one text_source exist for every variant. A
killed run goes on behind its last finished batch and gives the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detoxlens.artifacts import Layout, read_json, read_model_ref, read_rows, write_json, write_rows
from detoxlens.attribution.api import attribute, plan_batches
from detoxlens.attribution.config import AttributionConfig
from detoxlens.attribution.faithfulness import check_faithfulness
from detoxlens.attribution.result import SequenceAttribution
from detoxlens.config import Params
from detoxlens.errors import UserError
from detoxlens.models.loading import load_model
from detoxlens.progress import progress
from detoxlens.records import Attribution, Completion
from detoxlens.scratch import Scratch, open_scratch, publish, scratch_key
from detoxlens.seeding import derive_seed, fix_global_state

if TYPE_CHECKING:
    from torch import nn


def run(root: Path, params: Params, *, model: str, variant: str) -> None:
    layout, spec, run_config = Layout(root), params.model(model), params.run
    config = params.section("attribution", AttributionConfig, model=model, variant=variant)
    fix_global_state(run_config.seed, run_config.num_threads)
    paths = {"own": layout.completions(model, variant), "it": layout.completions(model, "it")}
    key = scratch_key(
        params={
            "attribution": config.model_dump(),
            "model": spec.model_dump(exclude={"overrides"}),
            "seed": run_config.seed,
            "device": run_config.device,
        },
        inputs=[*paths.values(), layout.adapter(model, variant)],
        num_threads=run_config.num_threads,
    )
    with open_scratch(layout.state, f"attribute@{model}-{variant}", key) as scratch:
        texts = {
            source: choose(read_rows(path, Completion), config, seed=run_config.seed, where=path)
            for source, path in paths.items()
        }
        if variant == "it":
            del texts["it"]  # the same rows; written twice below
        network = load_model(
            root,
            read_model_ref(layout.adapter(model, variant)),
            device=run_config.device,
            dtype=spec.dtype,
            trust_remote_code=spec.trust_remote_code,
            quantization=spec.quantization,
            device_map=spec.device_map,
        )
        if hasattr(network, "merge_and_unload") and spec.quantization is None:  # merging would round to few bits anew
            network = network.merge_and_unload()  # one product per layer instead of three
        rows = [(source, row) for source, chosen in texts.items() for row in chosen]
        found = attribute_rows(scratch, network, [row for _, row in rows], config, title=f"attribute {model}/{variant}")
        table = [
            result.record(
                prompt_id=row.prompt_id,
                sample_index=row.sample_index,
                text_source=source,
                prompt_token_is_template=row.prompt_token_is_template,
            )
            for (source, row), result in zip(rows, found, strict=True)
        ]
        if variant == "it":
            table += [dataclasses.replace(row, text_source="it") for row in table]
        own = [
            result for (source, row), result in zip(rows, found, strict=True) if source == "own" and row.split == "test"
        ]
        built = scratch.path / "attributions.parquet", scratch.path / "faithfulness.json"
        write_rows(built[0], table, Attribution)
        write_json(built[1], _faithfulness(network, own, config, seed=run_config.seed))
        publish(built[0], layout.attributions(model, variant))
        publish(built[1], layout.faithfulness(model, variant))
        scratch.finish()


def choose(completions: Sequence[Completion], config: AttributionConfig, *, seed: int, where: Path) -> list[Completion]:
    """The completions to attribute, in the order of the table: test and validation prompts of each filter, by `seed`.

    Which prompts are drawn depends on their ids alone, so that all variants share them, and on those of their own split
    alone, so that a sweep, which has no test prompts, draws the same ones for validation.

    Raises:
        UserError: there are test prompts, but none meets a filter.
    """
    chosen: set[tuple[str, str]] = set()
    for split in ("val", "test"):
        part = [c for c in completions if c.split == split]
        for name in config.filters:
            prompts = {c.prompt_id for c in part if name in c.filters}
            if part and split == "test" and not prompts:
                known = ", ".join(sorted({f for c in part for f in c.filters})) or "none"
                raise UserError(
                    f"attribution.filters names {name!r}, but no test prompt in {where} meets it; met: {known}."
                )
            drawn = sorted(prompts, key=lambda p: derive_seed(seed, "attribute", p))[: config.max_sequences]
            chosen.update((split, prompt) for prompt in drawn)
    return [c for c in completions if (c.split, c.prompt_id) in chosen and c.sample_index < config.samples_per_prompt]


def attribute_rows(
    scratch: Scratch, network: nn.Module, rows: Sequence[Completion], config: AttributionConfig, *, title: str
) -> list[SequenceAttribution]:
    """An attribution per row; what an earlier, killed run has finished is read from `scratch`, not made again."""
    plan_file = scratch.path / "plan.json"
    if not plan_file.exists():  # an accelerator's free memory, and with it `auto`, may differ on resuming
        plan: list[list[int]] = []
        for split in dict.fromkeys(row.split for row in rows):  # not mixed: a sweep has the validation prompts alone
            members = [i for i, row in enumerate(rows) if row.split == split]
            lengths = [(len(rows[i].prompt_ids), len(rows[i].completion_ids)) for i in members]
            batches = plan_batches(network, lengths, batch_size=config.batch_size, memory_mib=config.memory_mib)
            plan += [[members[k] for k in batch] for batch in batches]
        write_json(plan_file, plan)
    plan = read_json(plan_file)
    log = scratch.log("batches")  # {"batch": number in the plan, "results": [fields of SequenceAttribution, ...]}
    done = {line["batch"]: [_thawed(fields) for fields in line["results"]] for line in log.read()}
    with progress(title, total=len(rows), unit="completions", num_done=sum(map(len, done.values()))) as bar:
        for number, batch in enumerate(plan):
            if number in done:
                continue
            done[number] = attribute(
                network,
                prompt_ids=[rows[i].prompt_ids for i in batch],
                completion_ids=[rows[i].completion_ids for i in batch],
                method=config.method,
                target=config.target,
                batch_size=len(batch),
                num_path_steps=config.num_path_steps,
            )
            log.append([{"batch": number, "results": [dataclasses.asdict(result) for result in done[number]]}])
            bar.advance(len(batch))
    found = {i: result for number, batch in enumerate(plan) for i, result in zip(batch, done[number], strict=True)}
    return [found[i] for i in range(len(rows))]


def _thawed(fields: dict[str, Any]) -> SequenceAttribution:
    """The result again, from what JSON made of it."""
    tuples = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    if fields["scores"] is not None:
        tuples["scores"] = tuple(map(tuple, fields["scores"]))
    return SequenceAttribution(**(fields | tuples))


def _faithfulness(
    network: nn.Module, own: Sequence[SequenceAttribution], config: AttributionConfig, *, seed: int
) -> dict[str, object]:
    test = config.faithfulness
    usable = [a for a in own if a.scores is not None][: test.num_sequences]
    return check_faithfulness(
        network,
        usable,
        fraction=test.fraction,
        steps_per_sequence=test.steps_per_sequence,
        num_random=test.num_random,
        seed=derive_seed(seed, "faithfulness"),
    ).summary()
