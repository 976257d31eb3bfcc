"""Stage generate@model-variant: samples completions of the validation and test prompts.

    deps: data/prepared/prompts.parquet, models/<m>/base, adapters/<m>/<v>
    outs: outputs/<m>/<v>/completions.parquet

The batches are planned and stored before the first is sampled; a killed run resumes behind its last finished batch and
gives the same bytes; so do several processes with a share each. Row seeds depend on (run.seed, prompt, sample index)
alone: variants are compared in pairs.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detoxlens.common.artifacts import Layout, read_model_ref, read_rows, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion, Prompt
from detoxlens.common.seeding import derive_seed
from detoxlens.data.replies import reply_of, stops_of
from detoxlens.data.templates import (
    EncodedPrompt,
    Template,
    check_length,
    encode_prompt,
    next_turn_marks,
    turn_end_ids,
    with_system,
)
from detoxlens.jobs.batches import Batches, tell_share_done
from detoxlens.jobs.progress import progress
from detoxlens.jobs.scratch import Scratch, replace_output
from detoxlens.jobs.shares import Share, device_of
from detoxlens.jobs.stage_scratch import stage_scratch
from detoxlens.models.backends import Backend, load_backend
from detoxlens.models.generation import Sampled, plan_batches
from detoxlens.models.loading import load_tokenizer
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import Params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """A completion to be sampled."""

    prompt: Prompt
    encoded: EncodedPrompt
    sample_index: int
    seed: int
    stop: tuple[str, ...] = ()
    """Texts at which its completion ends."""


def run(root: Path, params: Params, *, model: str, variant: str, share: Share | None = None) -> None:
    """Runs the stage; or a share of its batches, which wait in the scratch folder for a run without `share`."""
    layout, spec, run_config = Layout(root), params.model(model), params.run
    config = params.section("generation", GenerationConfig, model=model, variant=variant)
    prompts = [p for p in read_rows(layout.prompts, Prompt) if p.split != "train"]
    if not prompts:
        raise UserError(f"{layout.prompts} holds no validation or test prompts; loosen the filters in params `splits`.")
    title, part = f"generate {model}/{variant}", share.part if share else None
    with stage_scratch(
        root,
        f"generate@{model}-{variant}",
        module=__name__,
        settings={
            "generation": config.model_dump(),
            "model": spec.model_dump(exclude={"overrides"}),
            "seed": run_config.seed,
            "device": run_config.device,
        },
        inputs=[layout.prompts, layout.adapter(model, variant)],
        seed=run_config.seed,
        num_threads=run_config.num_threads,
        part=part,
    ) as scratch:
        ref, remote = read_model_ref(layout.adapter(model, variant)), spec.trust_remote_code
        tokenizer = load_tokenizer(root, ref, trust_remote_code=remote)
        template = with_system(spec.template, ref.system)
        stop = stops_of(config, tokenizer, template)
        rows = encode_rows(
            prompts, tokenizer, template, num_samples=config.num_samples, seed=run_config.seed, stop=stop
        )

        @functools.cache  # loaded when first needed: where all batches are done, never
        def backend() -> Backend:
            device, ends = device_of(share, run_config.device), turn_end_ids(tokenizer, template)
            return load_backend(root, ref, spec, tokenizer, config, device=device, turn_ends=ends)

        samples = sample_rows(scratch, backend, rows, config, title=f"{title} {share}" if share else title, share=share)
        if share is not None:
            tell_share_done(title, share, num_left=samples.count(None), unit="completions")
            return
        built = scratch.path / "completions.parquet"
        write_rows(built, [completion_of(r, s, tokenizer) for r, s in zip(rows, samples, strict=True)], Completion)
        replace_output(built, layout.completions(model, variant))
        scratch.finish()


def encode_rows(
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    *,
    num_samples: int,
    seed: int,
    stop: tuple[str, ...] | None = None,
) -> list[Row]:
    """`num_samples` rows per prompt, those of one prompt together; they end at `stop`, by default the next turn."""
    stop = next_turn_marks(tokenizer, template) if stop is None else stop
    encoded = [encode_prompt(tokenizer, template, [p.text], evaluation=True) for p in prompts]
    return [
        Row(prompt, ids, sample_index, derive_seed(seed, "generate", prompt.prompt_id, sample_index), stop)
        for prompt, ids in zip(prompts, encoded, strict=True)
        for sample_index in range(num_samples)
    ]


def sample_rows(
    scratch: Scratch,
    backend: Callable[[], Backend],
    rows: Sequence[Row],
    config: GenerationConfig,
    *,
    title: str,
    share: Share | None = None,
) -> list[Sampled | None]:
    """A sample per row; what an earlier or another process has finished is read from `scratch`, not sampled again.

    With a share, None where a row is another's and not finished yet.
    """
    batches = Batches(scratch, scratch.once("plan", lambda: _plan(backend(), rows, config)), share=share)
    num_tokens, started = 0, time.monotonic()

    def work(batch: Sequence[int]) -> list[Any]:
        nonlocal num_tokens
        samples = backend().sample([rows[i].encoded.ids for i in batch], [rows[i].seed for i in batch])
        num_tokens += sum(len(s.token_ids) for s in samples)
        return [[s.token_ids, s.finish_reason] for s in samples]

    def speed() -> str:
        return f"{num_tokens / (time.monotonic() - started):.0f} tokens/s"

    with progress(title, total=batches.num_rows, unit="completions", num_done=batches.num_done) as bar:
        found = batches.run(work, bar, note=speed)
    if num_tokens:
        log.info("%s: %d tokens, %s", title, num_tokens, speed())
    return [Sampled(tuple(found[i][0]), found[i][1]) if i in found else None for i in range(len(rows))]


def _plan(backend: Backend, rows: Sequence[Row], config: GenerationConfig) -> list[list[int]]:
    """Batches of row numbers, made once: an accelerator's free memory, and with it `auto`, may differ on resuming.

    No batch mixes validation with test prompts: a sweep answers the former alone, and its numbers are to be those of
    the pipeline to the last bit.

    Raises:
        UserError: a prompt does not fit the model's context.
    """
    if context := backend.context_length:
        named = {f"{row.prompt.prompt_id} ({row.prompt.text[:40]!r}...)": row.encoded for row in rows}
        check_length(named, max_new_tokens=config.max_new_tokens, context_length=context)
    plan: list[list[int]] = []
    for split in dict.fromkeys(row.prompt.split for row in rows):
        members = [i for i, row in enumerate(rows) if row.prompt.split == split]
        lengths = [len(rows[i].encoded.ids) for i in members]
        batch_size = config.batch_size
        if batch_size == "auto":
            batch_size = backend.auto_batch_size(max(lengths))
        plan += [[members[k] for k in batch] for batch in plan_batches(lengths, batch_size)]
    return plan


def completion_of(row: Row, sampled: Sampled, tokenizer: PreTrainedTokenizerBase) -> Completion:
    """The table row of a sample: the reply in it (`reply_of`), its ids without the end token."""
    reply = reply_of(tokenizer, sampled.token_ids, sampled.finish_reason, stop=row.stop)
    return Completion(
        prompt_id=row.prompt.prompt_id,
        sample_index=row.sample_index,
        split=row.prompt.split,
        filters=row.prompt.filters,
        prompt=row.prompt.text,
        prompt_ids=row.encoded.ids,
        prompt_token_is_template=row.encoded.is_template,
        completion=reply.text,
        completion_ids=reply.token_ids,
        finish_reason=reply.finish_reason,
        seed=row.seed,
    )
