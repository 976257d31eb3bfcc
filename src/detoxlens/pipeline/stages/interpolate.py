"""Stage interpolate@model-variant: the dose, a variant's LoRA adapter at several strengths.

    deps: models/<m>/base, adapters/<m>/{<v>,it}, outputs/<m>/it/completions.parquet
    outs: outputs/<m>/<v>/dose      doses.parquet, attributions.parquet

At each strength alpha the model (base plus alpha times the adapter's update) answers the same test prompts by the same
seeds; the answers are graded by the headline's scorer, and read by base for their likelihood. Some of them are
attributed, for the 2x2 of model and text at each strength (`evaluation.effects`):

    reader, text    it, it         alpha, alpha      alpha, it        it, alpha

At 0 there is nothing to attribute: reader and text are base's. A killed run resumes behind its last finished batch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detoxlens.attribution.pieces import Pieces
from detoxlens.attribution.resumable import attribute_rows
from detoxlens.attribution.sampling import draw
from detoxlens.common.artifacts import Layout, read_model_ref, read_rows, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Attribution, Completion, Dose, ModelRef
from detoxlens.data.replies import reply_of, stops_of
from detoxlens.data.templates import turn_end_ids
from detoxlens.jobs.batches import Batches
from detoxlens.jobs.progress import progress
from detoxlens.jobs.scratch import Scratch, replace_output
from detoxlens.jobs.stage_scratch import stage_scratch
from detoxlens.models.adapters import scale_adapter
from detoxlens.models.backends import Backend, load_backend
from detoxlens.models.capabilities import examine
from detoxlens.models.generation import plan_batches
from detoxlens.models.likelihood import completion_nll
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.interpolate import InterpolateConfig
from detoxlens.params.load import Params
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.scorers import make_scorer

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

NLL_BATCH_SIZE = 16
SETTINGS = ("method", "target", "num_path_steps", "batch_size", "memory_mib")
"""Of the section `attribution`, those that decide a score."""


def run(root: Path, params: Params, *, model: str, variant: str) -> None:
    layout, spec, run_config = Layout(root), params.model(model), params.run
    of = {"model": model, "variant": variant}
    config = params.section("interpolate", InterpolateConfig, **of)
    decoding = params.section("generation", GenerationConfig, **of)
    toxicity = params.section("toxicity", ToxicityConfig, **of)
    attribution = params.section("attribution", AttributionConfig, **of)
    base, own = (read_model_ref(layout.adapter(model, name)) for name in ("it", variant))
    if own.adapter is None:
        raise UserError(f"run.interpolated_variants names {variant}, which has no adapter to scale; take it out.")
    if toxicity.headline.startswith("recorded:"):
        raise UserError(
            f"toxicity.headline={toxicity.headline!r} holds scores of other texts than those that {variant} writes at "
            "other strengths; name a scorer that can be asked, or set run.interpolated_variants to []."
        )
    path = layout.completions(model, "it")
    with stage_scratch(
        root,
        f"interpolate@{model}-{variant}",
        module=__name__,
        settings={
            "interpolate": config.model_dump(),
            "generation": decoding.model_dump(),
            "scorer": [toxicity.headline, toxicity.normalize],
            "attribution": attribution.model_dump(include=set(SETTINGS)),
            "model": spec.model_dump(exclude={"overrides"}),
            "seed": run_config.seed,
            "device": run_config.device,
        },
        inputs=[path, layout.adapter(model, "it"), layout.adapter(model, variant)],
        seed=run_config.seed,
        num_threads=run_config.num_threads,
    ) as scratch:
        rows = drawn(read_rows(path, Completion), config, seed=run_config.seed, where=path)
        tokenizer = load_tokenizer(root, base, trust_remote_code=spec.trust_remote_code)
        scorer = make_scorer(toxicity.headline, root=root, device=run_config.device, normalize=toxicity.normalize)
        stop = stops_of(decoding, tokenizer, spec.template)
        refs = {alpha: scaled(scratch, root, own, alpha) for alpha in config.alphas}
        answers: dict[float, list[Completion]] = {}
        for alpha, ref in refs.items():

            @functools.cache  # loaded when first needed: where all batches are done, never
            def backend(ref: ModelRef = ref) -> Backend:
                ends = turn_end_ids(tokenizer, spec.template)
                return load_backend(root, ref, spec, tokenizer, decoding, device=run_config.device, turn_ends=ends)

            title = f"interpolate {model}/{variant}: answers at {alpha:g}"
            answers[alpha] = answered(scratch, backend, rows, decoding, tokenizer, stop, title=title, name=f"{alpha:g}")
        read = functools.partial(_read, scratch, attribution, title=f"interpolate {model}/{variant}")
        load = functools.partial(load_model, root, spec=spec, device=run_config.device)
        attributed = rows[: config.num_attributed]
        table: list[Attribution] = []
        pieces = Pieces(tokenizer)
        for alpha in [a for a in config.alphas if a and attributed]:
            texts = {"it": attributed, f"{alpha:g}": answers[alpha][: len(attributed)]}
            table += read(load(refs[alpha], merged=True), f"{alpha:g}", texts, pieces=pieces)
        network = load(base)
        if attributed:
            own_texts = {f"{alpha:g}": answers[alpha][: len(attributed)] for alpha in config.alphas if alpha}
            table += read(network, "it", {"it": attributed} | own_texts, pieces=pieces)
        nll = functools.partial(_nll, network, tokenizer, name=base.base)
        doses = []
        for alpha, said in answers.items():
            judge = functools.partial(_verdicts, scorer, said)
            verdicts = scratch.once(f"verdicts-{alpha:g}", judge)
            nats = scratch.once(f"nll-{alpha:g}", functools.partial(nll, said))
            doses += [_dose(alpha, *row) for row in zip(said, verdicts, nats, strict=True)]
        built = scratch.path / "dose"
        write_rows(built / "doses.parquet", doses, Dose)
        write_rows(built / "attributions.parquet", table, Attribution)
        replace_output(built, layout.dose(model, variant))
        scratch.finish()


def drawn(completions: Sequence[Completion], config: InterpolateConfig, *, seed: int, where: Path) -> list[Completion]:
    """Base's first completions of the drawn prompts, in the order of the draw: the first are attributed.

    Raises:
        UserError: no test prompt meets the filter.
    """
    first = {c.prompt_id: c for c in completions if c.split == "test" and c.sample_index == 0}
    prompts = [prompt for prompt, c in first.items() if config.filter in c.filters]
    if not prompts:
        known = ", ".join(sorted({f for c in first.values() for f in c.filters})) or "none"
        raise UserError(f"interpolate.filter={config.filter!r}: no test prompt in {where} meets it; met: {known}.")
    return [first[prompt] for prompt in draw(prompts, config.num_prompts, seed=seed)]


def scaled(scratch: Scratch, root: Path, own: ModelRef, alpha: float) -> ModelRef:
    """The variant at strength `alpha`; its adapter is written into the scratch folder."""
    folder = scratch.path / "adapters" / f"{alpha:g}"
    scale_adapter(root / own.adapter, folder, alpha)
    return dataclasses.replace(own, adapter=str(folder.resolve()))


def answered(
    scratch: Scratch,
    backend: Any,
    rows: Sequence[Completion],
    config: GenerationConfig,
    tokenizer: PreTrainedTokenizerBase,
    stop: tuple[str, ...],
    *,
    title: str,
    name: str,
) -> list[Completion]:
    """What the model of `backend` answers to the prompts of `rows`, by their seeds; one plan for all strengths."""

    def plan() -> list[list[int]]:
        lengths = [len(row.prompt_ids) for row in rows]
        size = backend().auto_batch_size(max(lengths)) if config.batch_size == "auto" else config.batch_size
        return plan_batches(lengths, size)

    def work(numbers: Sequence[int]) -> list[Any]:
        samples = backend().sample([rows[i].prompt_ids for i in numbers], [rows[i].seed for i in numbers])
        return [[s.token_ids, s.finish_reason] for s in samples]

    batches = Batches(scratch, scratch.once("plan", plan), name=f"answers-{name}")
    with progress(title, total=batches.num_rows, unit="completions", num_done=batches.num_done) as bar:
        found = batches.run(work, bar)
    replies = [reply_of(tokenizer, *found[i], stop=stop) for i in range(len(rows))]
    return [
        dataclasses.replace(
            row, completion=reply.text, completion_ids=reply.token_ids, finish_reason=reply.finish_reason
        )
        for row, reply in zip(rows, replies, strict=True)
    ]


def _read(
    scratch: Scratch,
    config: AttributionConfig,
    network: nn.Module,
    reader: str,
    texts: dict[str, Sequence[Completion]],
    *,
    title: str,
    pieces: Pieces,
) -> list[Attribution]:
    """The attributions of every text by one reader; the plan of batches is its own."""
    rows = [(source, row) for source, of in texts.items() for row in of]
    found = attribute_rows(
        scratch, network, [row for _, row in rows], config, name=f"reads-{reader}", title=f"{title}: {reader} reads"
    )
    return [
        result.record(row, reader=reader, text_source=source, **pieces.of(row))
        for (source, row), result in zip(rows, found, strict=True)
    ]


def _verdicts(scorer: Any, said: Sequence[Completion]) -> list[list[Any]]:
    found = scorer.score([c.completion for c in said], [(c.prompt_id, c.sample_index) for c in said])
    return [[scored.toxicity, scored.status] for scored in found]


def _nll(
    network: nn.Module, tokenizer: PreTrainedTokenizerBase, said: Sequence[Completion], *, name: str
) -> list[float]:
    return completion_nll(
        network,
        [c.prompt_ids for c in said],
        [c.completion_ids for c in said],
        batch_size=NLL_BATCH_SIZE,
        pad_token_id=tokenizer.pad_token_id,
        capabilities=examine(network, pad_token_id=tokenizer.pad_token_id, name=name),
    )


def _dose(alpha: float, said: Completion, verdict: Sequence[Any], nll_nats: float) -> Dose:
    toxicity, status = verdict
    return Dose(
        alpha=alpha,
        prompt_id=said.prompt_id,
        sample_index=said.sample_index,
        completion=said.completion,
        completion_ids=said.completion_ids,
        toxicity=toxicity,
        status=status,
        nll_nats=nll_nats if said.completion_ids else None,
        num_tokens=len(said.completion_ids),
    )
