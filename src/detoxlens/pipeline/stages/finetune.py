"""Stage finetune@model-variant: counter-narrative fine-tuning of a LoRA adapter.

deps: data/prepared/dialogues.parquet, models/<m>/base      outs: adapters/<m>/<v>
"""

from __future__ import annotations

import logging
from pathlib import Path

from detoxlens.common.artifacts import Layout, read_model_ref, read_rows
from detoxlens.common.records import Dialogue
from detoxlens.jobs.progress import Snapshot, StepCallback, progress
from detoxlens.jobs.scratch import replace_output
from detoxlens.jobs.stage_scratch import stage_scratch
from detoxlens.models.adapters import save_adapter_folder
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.models.lora import add_adapter
from detoxlens.params.load import Params
from detoxlens.params.lora import LoraConfig
from detoxlens.params.sft import SftConfig
from detoxlens.sft.placebo import answers_of_base, placebo_examples
from detoxlens.sft.train import Cut, encode_and_count, encode_examples, fine_tune, num_steps, validation_sample

log = logging.getLogger(__name__)
MOST_CUT = 0.01
"""Share of cut examples above which a warning says so."""


def run(root: Path, params: Params, *, model: str, variant: str, callback: StepCallback | None = None) -> None:
    layout, spec, run_config = Layout(root), params.model(model), params.run
    config = params.section("sft", SftConfig, model=model, variant=variant)
    lora = params.section("lora", LoraConfig, model=model, variant=variant)
    chosen = params.trained_variant(variant, stage="finetune", kind="sft")
    seed = params.training_seed(variant)
    with stage_scratch(
        root,
        f"finetune@{model}-{variant}",
        module=__name__,
        settings={
            "sft": config.model_dump(),
            "lora": lora.model_dump(),
            "model": spec.model_dump(),
            "is_placebo": chosen.placebo_of is not None,
            "seed": seed,
            "device": run_config.device,
        },
        inputs=[layout.dialogues, layout.adapter(model, "it")],
        seed=seed,
        num_threads=run_config.num_threads,
    ) as scratch:
        ref = read_model_ref(layout.adapter(model, "it"))
        base = load_model(root, ref, spec, device=run_config.device)
        tokenizer = load_tokenizer(root, ref, trust_remote_code=spec.trust_remote_code)
        dialogues = read_rows(layout.dialogues, Dialogue)
        split = {name: [d for d in dialogues if d.split == name] for name in ("train", "val")}
        split["val"] = validation_sample(split["val"], config.eval_max_dialogues)
        train, cut = encode_and_count(split["train"], tokenizer, spec.template, config)
        if cut.num_cut > MOST_CUT * cut.num_examples:
            log.warning("%s/%s: %s. Raise sft.max_length, or use fewer turns.", model, variant, cut)
        if chosen.placebo_of is None:
            validation = encode_examples(split["val"], tokenizer, spec.template, config)
        else:
            title = f"answers of the base model, {model}/{variant}"
            train, validation = (
                placebo_examples(
                    part,
                    tokenizer,
                    spec.template,
                    config,
                    answers_of_base(base, tokenizer, scratch, name=f"placebo-{name}", title=title, seed=seed),
                )
                for name, part in split.items()
            )
        policy = add_adapter(base, lora)
        total = num_steps(len(train), config)
        with progress(f"fine-tune {model}/{variant}", total=total, unit="steps") as bar:

            def on_step(num_new: int, num_done: int, row: dict[str, float | int]) -> None:
                bar.advance(num_new)
                if callback is not None:
                    callback(Snapshot(fraction=min(1.0, num_done / total), row=row, model=policy, tokenizer=tokenizer))

            history = fine_tune(
                policy,
                tokenizer,
                train=train,
                validation=validation,
                config=config,
                seed=seed,
                checkpoints=scratch.path / "checkpoints",
                on_step=on_step,
            )
        built = scratch.path / "adapter"
        final = layout.adapter(model, variant)
        save_adapter_folder(
            policy,
            built,
            root=root,
            base_ref=ref,
            history=history,
            card=_card(model, variant, config, lora, cut, is_placebo=chosen.placebo_of is not None),
            final_folder=final,
        )
        replace_output(built, final)
        scratch.finish()


def _card(model: str, variant: str, config: SftConfig, lora: LoraConfig, cut: Cut, *, is_placebo: bool) -> str:
    """What the adapter's README says: how it was made, nothing about how good it is (the report does)."""
    how = (
        "fine-tuning on answers of the base model itself, a placebo" if is_placebo else "counter-narrative fine-tuning"
    )
    return (
        f"# {model} / {variant}\n\n"
        f"LoRA adapter (r {lora.r}, alpha {lora.alpha:g}, on {lora.where}) trained by "
        f"{how}: loss on {config.loss_on}, {config.num_epochs:g} epochs, learning rate "
        f"{config.learning_rate:g}, batch {config.batch_size * config.gradient_accumulation_steps}. The checkpoint "
        "with the lowest validation loss was kept (`history.jsonl`).\n\n"
        f"Of what was written, {cut}.\n"
    )
