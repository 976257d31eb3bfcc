"""`detoxlens noise-floor`: another base model, trained alike but for its seed, reads the base model's completions.

What KL, Jensen-Shannon and |dH| are between two models of which neither is detoxified: beside it stand those of the
variants. The attributions lie beside the base model's own, where the report finds them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from detoxlens.attribution.api import attribute
from detoxlens.common.artifacts import Layout, read_model_ref, read_rows, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Attribution
from detoxlens.jobs.progress import progress
from detoxlens.jobs.stage_scratch import stage_scratch
from detoxlens.models.loading import load_tokenizer
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.load import Params
from detoxlens.params.tiny import TinyConfig
from detoxlens.pipeline.embedded_model import TINY, architecture_of, train_embedded


def noise_floor(root: Path, params: Params, model: str, *, seed: int) -> Path:
    """Trains the other base model (minutes, resumable) and attributes; the table outputs/<m>/it/noise_floor.parquet.

    Raises:
        UserError: the model is none that is trained here, the seed is its own, or it has no attributions or those of
            another tokenizer.
    """
    layout, spec, run = Layout(root), params.model(model), params.run
    if not spec.source.startswith(TINY):
        raise UserError(
            f"--model {model}: its source is {spec.source!r}. Only an embedded model ({TINY}...) can be trained once "
            "more with another seed; of a released one there is no second training."
        )
    architecture_of(spec, model)
    if seed == run.seed:
        raise UserError(f"--seed {seed} is run.seed, by which {model} was trained; name another.")
    config = params.section("attribution", AttributionConfig, model=model, variant="it")
    tiny = params.section("tiny", TinyConfig, model=model)
    own = read_rows(layout.attributions(model, "it"), Attribution)
    rows = [a for a in own if a.method == config.method and a.scores is not None]
    with stage_scratch(
        root,
        f"noise-floor@{model}",
        module=__name__,
        settings={"tiny": tiny.model_dump(), "model": spec.model_dump(), "seeds": [run.seed, seed]},
        inputs=[],
        seed=seed,
        num_threads=run.num_threads,
    ) as scratch:
        network, tokenizer, _ = train_embedded(
            spec, tiny, name=model, corpus_seed=run.seed, seed=seed, checkpoint=scratch.path / "checkpoint.pt"
        )
        theirs = load_tokenizer(root, read_model_ref(layout.adapter(model, "it")))
        if tokenizer.get_vocab() != theirs.get_vocab():
            raise UserError(
                f"{layout.base(model)} has another tokenizer than the present params would give it: `dvc repro` first."
            )
        with progress(f"attribute {model}, seed {seed}", total=len(rows), unit="completions") as bar:
            found = attribute(
                network,
                prompt_ids=[a.prompt_ids for a in rows],
                completion_ids=[a.completion_ids for a in rows],
                method=config.method,
                target=config.target,
                batch_size=config.batch_size,
                memory_mib=config.memory_mib,
                num_path_steps=config.num_path_steps,
                on_batch=lambda batch: bar.advance(len(batch)),
            )
        table = [
            dataclasses.replace(
                row,
                reader=f"seed {seed}",
                status=result.status,
                scores=result.scores,
                token_prob=result.token_prob,
                prompt_kl_bits=None,
                prompt_gain_bits=None,
            )
            for row, result in zip(rows, found, strict=True)
        ]
        write_rows(layout.noise_floor(model), table, Attribution)
        scratch.finish()
    return layout.noise_floor(model)
