"""Stage attribute@model-variant: what each generated token drew on, and whether the answer can be trusted.

    deps: models/<m>/base, adapters/<m>/<v>, outputs/<m>/<v>/completions.parquet, outputs/<m>/it/completions.parquet
    outs: outputs/<m>/<v>/attributions.parquet, outputs/<m>/<v>/faithfulness.json

Each variant is attributed on its own completions (`text_source: own`) and on those of `it` (`text_source: it`, forced
decoding), on the same prompts: the report's test prompts, and the validation prompts that sweeps go by. For `it` the
two texts are the same and are written under both names, so that rows of one text_source exist for every variant. A
killed run resumes behind its last finished batch and gives the same bytes; so do several processes with a share each.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.attribution.api import attribute
from detoxlens.attribution.engine import is_out_of_memory
from detoxlens.attribution.faithfulness import check_faithfulness
from detoxlens.attribution.precision import precision_summary
from detoxlens.attribution.result import SequenceAttribution
from detoxlens.attribution.resumable import attribute_rows
from detoxlens.common.artifacts import Layout, read_model_ref, read_rows, write_json, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Attribution, Completion
from detoxlens.common.seeding import derive_seed, fix_global_state
from detoxlens.jobs.batches import tell_share_done
from detoxlens.jobs.scratch import open_scratch, replace_output, scratch_key
from detoxlens.jobs.shares import Share, device_of
from detoxlens.models.loading import load_model
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.load import Params
from detoxlens.params.models import ModelConfig

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)


def run(root: Path, params: Params, *, model: str, variant: str, share: Share | None = None) -> None:
    """Runs the stage; or a share of its batches, which wait in the scratch folder for a run without `share`."""
    layout, spec, run_config = Layout(root), params.model(model), params.run
    config = params.section("attribution", AttributionConfig, model=model, variant=variant)
    fix_global_state(run_config.seed, run_config.num_threads)
    paths = {"own": layout.completions(model, variant), "it": layout.completions(model, "it")}
    key = scratch_key(
        modules=[__name__],
        params={
            "attribution": config.model_dump(),
            "model": spec.model_dump(exclude={"overrides"}),
            "seed": run_config.seed,
            "device": run_config.device,
        },
        inputs=[*paths.values(), layout.adapter(model, variant)],
        num_threads=run_config.num_threads,
    )
    title, part = f"attribute {model}/{variant}", share.part if share else None
    with open_scratch(layout.state, f"attribute@{model}-{variant}", key, part=part, place=layout.root) as scratch:
        texts = {
            source: choose(read_rows(path, Completion), config, seed=run_config.seed, where=path)
            for source, path in paths.items()
        }
        if variant == "it":
            del texts["it"]  # the same rows; written twice below
        rows = [(source, row) for source, chosen in texts.items() for row in chosen]
        completions = [row for _, row in rows]
        network = _load(layout, params, model, variant, spec, share)
        if share is not None:
            found = attribute_rows(scratch, network, completions, config, title=f"{title} {share}", share=share)
            tell_share_done(title, share, num_left=found.count(None), unit="completions")
            return
        found = attribute_rows(scratch, network, completions, config, title=title)
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
        checks = _faithfulness(network, own, config, seed=run_config.seed)
        short, whole = (
            spec.quantization or spec.dtype,
            spec.model_copy(update={"dtype": "float32", "quantization": None}),
        )
        if spec != whole and config.precision_check:
            del network  # before its float32 twin is loaded
            try:
                exact = _load(layout, params, model, variant, whole)
                checks["precision"] = _precision(exact, own, config, short)
            except (MemoryError, RuntimeError) as e:
                if not is_out_of_memory(e):
                    raise
                log.warning("%s: does not fit in float32; what %s costs is not measured", title, short)
        built = scratch.path / "attributions.parquet", scratch.path / "faithfulness.json"
        write_rows(built[0], table, Attribution)
        write_json(built[1], checks)
        replace_output(built[0], layout.attributions(model, variant))
        replace_output(built[1], layout.faithfulness(model, variant))
        scratch.finish()


def _load(
    layout: Layout, params: Params, model: str, variant: str, spec: ModelConfig, share: Share | None = None
) -> nn.Module:
    """The network that `generate` samples from, with the adapter in its weights where that is the same network."""
    ref = read_model_ref(layout.adapter(model, variant))
    return load_model(layout.root, ref, spec, device=device_of(share, params.run.device), merged=True)


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


def _precision(
    network: nn.Module, own: Sequence[SequenceAttribution], config: AttributionConfig, dtype: str
) -> dict[str, object]:
    """How far the scores in `dtype` are from those of the same network in float32."""
    sample = [a for a in own if a.scores is not None][: config.precision_check]
    exact = attribute(
        network,
        prompt_ids=[a.prompt_ids for a in sample],
        completion_ids=[a.completion_ids for a in sample],
        method=config.method,
        target=config.target,
        num_path_steps=config.num_path_steps,
    )
    return precision_summary(sample, exact, dtype=dtype)
