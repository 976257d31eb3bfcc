"""Stage attribute@model-variant: what each generated token drew on, and whether the answer can be trusted.

    deps: models/<m>/base, adapters/<m>/{<v>,it}, outputs/<m>/{<v>,it}/completions.parquet
    outs: outputs/<m>/<v>/attributions.parquet, outputs/<m>/<v>/faithfulness.json

A variant's stage completes its 2x2 of model and text (`evaluation.effects`), on the same prompts for all variants: the
report's test prompts, and the validation prompts that sweeps go by.

    reader, text    it, it         in outputs/<m>/it
                    <v>, <v>       <v>, it        it, <v>       in outputs/<m>/<v>

A sample is attributed by the methods of `attribution.agreement` too. A killed run resumes behind its last finished
batch and gives the same bytes; so do several processes with a share each.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.attribution.api import attribute
from detoxlens.attribution.engine import is_out_of_memory
from detoxlens.attribution.faithfulness import Subject, check_faithfulness
from detoxlens.attribution.pieces import pieces_of
from detoxlens.attribution.precision import precision_summary
from detoxlens.attribution.result import SequenceAttribution
from detoxlens.attribution.resumable import attribute_rows
from detoxlens.attribution.sampling import choose, draw
from detoxlens.common.artifacts import Layout, read_model_ref, read_rows, write_json, write_rows
from detoxlens.common.records import Attribution, Completion
from detoxlens.common.seeding import derive_seed
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
    cells = {"it": ["it"]} if variant == "it" else {variant: [variant, "it"], "it": [variant]}
    paths = {source: layout.completions(model, source) for source in (variant, "it")}
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
        inputs=[
            *paths.values(),
            *(layout.adapter(model, reader) for reader in cells),
        ],
        seed=run_config.seed,
        num_threads=run_config.num_threads,
        part=part,
    ) as scratch:
        texts = {
            source: choose(read_rows(path, Completion), config, seed=run_config.seed, where=path)
            for source, path in paths.items()
        }
        table, own, num_left = [], [], 0
        checks: dict[str, object] = {}
        pieces = _Pieces(layout, params, model, variant)
        for reader, sources in cells.items():
            rows = [(source, row) for source in sources for row in texts[source]]
            network = _load(layout, params, model, reader, spec, share)
            for settings, chosen in _by_method(config, rows, seed=run_config.seed):
                found = attribute_rows(
                    scratch, network, [row for _, row in chosen], settings, name=f"{reader}-{settings.method}",
                    title=_title(title, reader, variant, settings.method, config.method, share),
                    reliance=settings is config, share=share,
                )  # fmt: skip
                if share is not None:
                    num_left += found.count(None)
                    continue
                for (source, row), result in zip(chosen, found, strict=True):
                    table.append(result.record(row, reader=reader, text_source=source, **pieces.of(row)))
                    if settings is config and source == variant == reader and row.split == "test":
                        own.append((row, result))
            if share is None and reader == variant:
                checks = _faithfulness(network, own, config, seed=run_config.seed)
            del network  # before the next is loaded
        if share is not None:
            tell_share_done(title, share, num_left=num_left, unit="completions")
            return
        precision = _precision(layout, params, model, variant, [result for _, result in own], config, title)
        built = scratch.path / "attributions.parquet", scratch.path / "faithfulness.json"
        write_rows(built[0], table, Attribution)
        write_json(built[1], checks | precision)
        replace_output(built[0], layout.attributions(model, variant))
        replace_output(built[1], layout.faithfulness(model, variant))
        scratch.finish()


def _by_method(
    config: AttributionConfig, rows: Sequence[tuple[str, Completion]], *, seed: int
) -> Iterator[tuple[AttributionConfig, Sequence[tuple[str, Completion]]]]:
    """The headline's settings with all rows, then each further method with the sample of test prompts."""
    yield config, rows
    prompts = {row.prompt_id for _, row in rows if row.split == "test"}
    sample = set(draw(prompts, config.agreement.num_sequences, seed=derive_seed(seed, "agreement")))
    for method in config.agreement.methods:
        if sample and method != config.method:
            yield config.model_copy(update={"method": method}), [r for r in rows if r[1].prompt_id in sample]


def _title(title: str, reader: str, variant: str, method: str, headline: str, share: Share | None) -> str:
    """`attribute tiny-neox/ft: it reads, saliency 0/4`."""
    parts = [f"{reader} reads"] if reader != variant else []
    parts += [method] if method != headline else []
    return f"{title}{': ' if parts else ''}{', '.join(parts)}{f' {share}' if share else ''}"


class _Pieces:
    """The text of each token of a completion and its prompt, each decoded once."""

    def __init__(self, layout: Layout, params: Params, model: str, variant: str) -> None:
        self._tokenizer = load_tokenizer(
            layout.root,
            read_model_ref(layout.adapter(model, variant)),
            trust_remote_code=params.model(model).trust_remote_code,
        )
        self._known: dict[tuple[int, ...], tuple[str, ...]] = {}

    def of(self, row: Completion) -> dict[str, tuple[str, ...]]:
        """The record's two columns."""
        return {"prompt_pieces": self._text(row.prompt_ids), "completion_pieces": self._text(row.completion_ids)}

    def _text(self, ids: tuple[int, ...]) -> tuple[str, ...]:
        if ids not in self._known:
            self._known[ids] = pieces_of(self._tokenizer, ids)
        return self._known[ids]


def _load(
    layout: Layout, params: Params, model: str, reader: str, spec: ModelConfig, share: Share | None = None
) -> nn.Module:
    """The network that `generate` samples from, with the adapter in its weights where that is the same network."""
    ref = read_model_ref(layout.adapter(model, reader))
    return load_model(layout.root, ref, spec, device=device_of(share, params.run.device), merged=True)


def _faithfulness(
    network: nn.Module, own: Sequence[tuple[Completion, SequenceAttribution]], config: AttributionConfig, *, seed: int
) -> dict[str, object]:
    """The deletion and randomisation tests on a random sample."""
    test = config.faithfulness
    usable = [(row, result) for row, result in own if result.scores is not None]
    usable.sort(key=lambda pair: derive_seed(seed, "faithfulness", pair[0].prompt_id, pair[0].sample_index))
    return check_faithfulness(
        network,
        [
            Subject(
                attribution=result,
                user_tokens=tuple(j for j, of_template in enumerate(row.prompt_token_is_template) if not of_template),
            )
            for row, result in usable[: test.num_sequences]
        ],
        fractions=test.fractions,
        steps_per_sequence=test.steps_per_sequence,
        num_random=test.num_random,
        seed=derive_seed(seed, "faithfulness"),
    ).as_json()


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
