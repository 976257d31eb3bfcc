"""Stage attribute@model-variant: what each generated token drew on, and whether the answer can be trusted.

    deps: models/<m>/base, adapters/<m>/{<v>,it}, outputs/<m>/{<v>,it}/completions.parquet,
          outputs/<m>/it/drawn_by/<attribution.sample>.json
    outs: outputs/<m>/<v>/attributions.parquet, outputs/<m>/<v>/faithfulness.json

A variant's stage completes its 2x2 of model and text (`evaluation.effects`), on the same prompts for all variants: the
report's test prompts, and but for the last cell the validation prompts that sweeps go by.

    reader, text    it, it         in outputs/<m>/it
                    <v>, <v>       <v>, it        it, <v>       in outputs/<m>/<v>

A sample is attributed by the methods of `attribution.agreement` too. A killed run resumes behind its last finished
batch and gives the same bytes; so do several processes with a share each.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.attribution.api import attribute
from detoxlens.attribution.engine import is_out_of_memory
from detoxlens.attribution.pieces import Pieces
from detoxlens.attribution.precision import precision_summary
from detoxlens.attribution.readings import Read, faithfulness_of, read_texts
from detoxlens.attribution.result import SequenceAttribution
from detoxlens.attribution.sampling import choose, toxic_prompts
from detoxlens.common.artifacts import Layout, read_json, read_model_ref, read_rows, write_json, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Attribution, Completion
from detoxlens.jobs.batches import tell_share_done
from detoxlens.jobs.scratch import replace_output
from detoxlens.jobs.shares import Share, device_of
from detoxlens.jobs.stage_scratch import stage_scratch
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.load import Params
from detoxlens.params.models import ModelConfig

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

SHOWN_ONLY = {"unit", "mask_template"}
"""Settings that the report applies to what is written here."""


def run(root: Path, params: Params, *, model: str, variant: str, share: Share | None = None) -> None:
    """Runs the stage; or a share of its batches, which wait in the scratch folder for a run without `share`."""
    layout, spec, run_config = Layout(root), params.model(model), params.run
    config = params.section("attribution", AttributionConfig, model=model, variant=variant)
    if config.sample != params.section("attribution", AttributionConfig).sample:
        raise UserError(
            f"attribution.sample={config.sample!r} is overridden for {model}/{variant}: dvc.yaml names by the section's"
            " own value the file that prompts are drawn by. Set attribution.sample itself; it is one for all models."
        )
    cells = {"it": ["it"]} if variant == "it" else {variant: [variant, "it"], "it": [variant]}
    paths = {source: layout.completions(model, source) for source in (variant, "it")}
    drawn_by = layout.drawn_by(model, "it", config.sample)
    title, part = f"attribute {model}/{variant}", share.part if share else None
    with stage_scratch(
        root,
        f"attribute@{model}-{variant}",
        module=__name__,
        settings={
            "attribution": config.model_dump(exclude=SHOWN_ONLY),
            "model": spec.model_dump(exclude={"overrides"}),
            "seed": run_config.seed,
            "device": run_config.device,
        },
        inputs=[*paths.values(), drawn_by, *(layout.adapter(model, reader) for reader in cells)],
        seed=run_config.seed,
        num_threads=run_config.num_threads,
        part=part,
    ) as scratch:
        toxic = toxic_prompts(read_json(drawn_by), config)
        texts = {
            source: choose(read_rows(path, Completion), config, seed=run_config.seed, where=path, toxic=toxic)
            for source, path in paths.items()
        }
        reads: list[Read] = []
        for reader, sources in cells.items():
            rows = [(source, row) for source in sources for row in texts[source]]
            if reader != variant:  # sweeps compare models on base's text, the same for every trial
                rows = [(source, row) for source, row in rows if row.split == "test"]
            network = _load(layout, params, model, reader, spec, share)
            reads += read_texts(scratch, network, reader, rows, config, seed=run_config.seed, title=title, share=share)
            if share is None and reader == variant:
                own = [r for r in reads if r.is_headline and r.source == variant and r.row.split == "test"]
                checks = faithfulness_of(network, own, config, seed=run_config.seed).as_json()
            del network  # before the next is loaded
        if share is not None:
            num_left = sum(read.result is None for read in reads)
            tell_share_done(title, share, num_left=num_left, unit="completions")
            return
        precision = _precision(layout, params, model, variant, [read.result for read in own], config, title)
        ref = read_model_ref(layout.adapter(model, variant))
        pieces = Pieces(load_tokenizer(root, ref, trust_remote_code=spec.trust_remote_code))
        table = [
            r.result.record(r.row, reader=r.reader, text_source=r.source, **pieces.of(r.row))
            for r in reads
            if r.result is not None
        ]
        built = scratch.path / "attributions.parquet", scratch.path / "faithfulness.json"
        write_rows(built[0], table, Attribution)
        write_json(built[1], checks | precision)
        replace_output(built[0], layout.attributions(model, variant))
        replace_output(built[1], layout.faithfulness(model, variant))
        scratch.finish()


def _load(
    layout: Layout, params: Params, model: str, reader: str, spec: ModelConfig, share: Share | None = None
) -> nn.Module:
    """The network that `generate` samples from, with the adapter in its weights where that is the same network."""
    ref = read_model_ref(layout.adapter(model, reader))
    return load_model(layout.root, ref, spec, device=device_of(share, params.run.device), merged=True)


def _precision(
    layout: Layout,
    params: Params,
    model: str,
    variant: str,
    own: Sequence[SequenceAttribution],
    config: AttributionConfig,
    title: str,
) -> dict[str, object]:
    """How far the scores in a short number format are from those of the same network in float32; {} in float32."""
    spec = params.model(model)
    whole = spec.model_copy(update={"dtype": "float32", "quantization": None})
    if spec == whole or not config.precision_check:
        return {}
    dtype = spec.quantization or spec.dtype
    sample = [a for a in own if a.scores is not None][: config.precision_check]
    try:
        exact = attribute(
            _load(layout, params, model, variant, whole),
            prompt_ids=[a.prompt_ids for a in sample],
            completion_ids=[a.completion_ids for a in sample],
            method=config.method,
            target=config.target,
            num_path_steps=config.num_path_steps,
        )
    except (MemoryError, RuntimeError) as e:
        if not is_out_of_memory(e):
            raise
        log.warning("%s: does not fit in float32; what %s costs is not measured", title, dtype)
        return {}
    return {"precision": precision_summary(sample, exact, dtype=dtype)}
