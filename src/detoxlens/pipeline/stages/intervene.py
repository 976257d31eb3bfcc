"""Stage intervene@model-variant: a variant without training, by a system message, steering or DExperts.

    deps: models/<m>/base, adapters/<m>/it; data/prepared/dialogues.parquet (steering); adapters/<m>/<expert> (dexperts)
    outs: adapters/<m>/<v>

Which of them: `models.interventions.METHODS`, by the variant's kind.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detoxlens.common.artifacts import Layout, read_model_ref, read_rows, write_json, write_model_ref, write_text
from detoxlens.common.errors import UserError
from detoxlens.common.records import Dialogue, ModelRef
from detoxlens.data.contrast import contrasts
from detoxlens.data.templates import encode_dialogue, encode_prompt, with_system
from detoxlens.jobs.progress import StepCallback
from detoxlens.jobs.scratch import replace_output
from detoxlens.jobs.stage_scratch import stage_scratch
from detoxlens.models.interventions import FILE, METHODS
from detoxlens.models.interventions.materials import Materials, Reply
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.params.kinds import KINDS
from detoxlens.params.load import Params
from detoxlens.params.sections import CLASSES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def run(root: Path, params: Params, *, model: str, variant: str, callback: StepCallback | None = None) -> None:
    """Runs the stage; `callback` is not called: there are no steps between which to look."""
    layout, spec, run_config = Layout(root), params.model(model), params.run
    kind = params.variant(variant).kind
    if kind not in METHODS:
        raise UserError(
            f"{params.path}: variants.{variant} has kind {kind!r}; stage intervene makes variants of kind "
            f"{', '.join(METHODS)}."
        )
    config = params.section(kind, CLASSES[kind], model=model, variant=variant)
    final = layout.adapter(model, variant)
    with stage_scratch(
        root,
        f"intervene@{model}-{variant}",
        module=__name__,
        settings={
            kind: config.model_dump(),
            "model": spec.model_dump(exclude={"overrides"}),
            "device": run_config.device,
        },
        inputs=[
            layout.dialogues,
            layout.adapter(model, "it"),
            *(layout.adapter(model, v) for v in params.made_of(variant)),
        ],
        seed=run_config.seed,
        num_threads=run_config.num_threads,
    ) as scratch:
        ref = read_model_ref(layout.adapter(model, "it"))
        built = scratch.path / "variant"
        settings = METHODS[kind].make(config, _materials(layout, params, model, variant, ref), built)
        write_json(built / FILE, {"kind": kind, **settings})
        applied = final.relative_to(root).as_posix() if METHODS[kind].apply else None
        write_model_ref(
            built,
            ModelRef(
                base=ref.base,
                revision=ref.revision,
                adapter=None,
                intervention=applied,
                system=settings.get("system"),
            ),
        )
        write_text(built / "README.md", _card(model, variant, kind, settings))
        replace_output(built, final)
        scratch.finish()


def _materials(layout: Layout, params: Params, model: str, variant: str, ref: ModelRef) -> Materials:
    spec = params.model(model)

    @functools.cache
    def tokenizer() -> PreTrainedTokenizerBase:
        return load_tokenizer(layout.root, ref, trust_remote_code=spec.trust_remote_code)

    def network() -> PreTrainedModel:
        return load_model(layout.root, ref, spec, device=params.run.device)

    def replies(at_most: int) -> tuple[Sequence[Reply], Sequence[Reply]]:
        train = [d for d in read_rows(layout.dialogues, Dialogue) if d.split == "train"]
        pairs = contrasts(train, at_most=at_most)

        def reply(turn: str, answer: str) -> Reply:
            ids, is_reply = encode_dialogue(tokenizer(), spec.template, [turn, answer])
            return Reply(ids=tuple(ids), num_own=sum(is_reply))

        return [reply(c.turn, c.civil) for c in pairs], [reply(c.turn, c.hostile) for c in pairs]

    def check_system(message: str) -> None:
        try:
            encode_prompt(tokenizer(), with_system(spec.template, message), ["a"], evaluation=True)
        except UserError as e:
            said = str(e).replace("models.<model>.template.system is set", f"variants.{variant} is of kind prompt")
            raise UserError(said.replace("models.<model>", f"models.{model}")) from None

    return Materials(
        base=ref,
        network=network,
        replies=replies,
        adapter=lambda other: layout.adapter(model, other),
        check_system=check_system,
    )


def _card(model: str, variant: str, kind: str, settings: Mapping[str, Any]) -> str:
    """What the folder's README says: how the variant is made, nothing about how good it is (the report does)."""
    return (
        f"# {model} / {variant}\n\n"
        f"The base model, {KINDS[kind].phrase}: nothing was trained for it. `detoxlens` applies `{FILE}` when it loads "
        f"this folder; `PeftModel.from_pretrained` cannot.\n\n"
        f"    {json.dumps(settings, ensure_ascii=False)}\n"
    )
