"""Stage finetune@model-variant: counter-narrative fine-tuning of a LoRA adapter.

deps: data/prepared/dialogues.parquet, models/<m>/base      outs: adapters/<m>/<v>
"""

from __future__ import annotations

import logging
from pathlib import Path

from detoxlens.common.artifacts import Layout, read_model_ref, read_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Dialogue
from detoxlens.jobs.progress import StepCallback
from detoxlens.jobs.stage_scratch import stage_scratch
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.params.load import Params
from detoxlens.params.lora import LoraConfig
from detoxlens.params.sft import SftConfig
from detoxlens.regularization.toxic_tokens import judge_of
from detoxlens.scorers import make_scorer
from detoxlens.sft.adapter import model_card, train_adapter
from detoxlens.sft.placebo import answers_of_base, placebo_examples
from detoxlens.sft.regularized import marker
from detoxlens.sft.train import encode_and_count, encode_examples, training_sample, validation_sample

log = logging.getLogger(__name__)
MOST_CUT = 0.01
"""Share of cut examples above which a warning says so."""


def run(root: Path, params: Params, *, model: str, variant: str, callback: StepCallback | None = None) -> None:
    layout, spec, run_config = Layout(root), params.model(model), params.run
    config = params.section("sft", SftConfig, model=model, variant=variant)
    lora = params.section("lora", LoraConfig, model=model, variant=variant)
    chosen = params.trained_variant(variant, stage="finetune", kind="sft")
    if params.stage_of(variant) != "finetune":
        raise UserError(
            f"{params.path}: sft.data='own_least_toxic' of variants.{variant} needs the reward model; run `detoxlens "
            "rejection`, and list it in run.rejection_variants."
        )
    is_own = chosen.placebo_of is not None or config.data == "own_random"
    seed = params.training_seed(variant)
    with stage_scratch(
        root,
        f"finetune@{model}-{variant}",
        module=__name__,
        settings={
            "sft": config.model_dump(),
            "lora": lora.model_dump(),
            "model": spec.model_dump(),
            "is_placebo": is_own,
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
        split["train"], training = training_sample(split["train"], config, seed=seed)
        mark = None
        if (penalty := config.regularizer).is_on:
            judge = None
            if penalty.kind == "toxic_share":
                judge = judge_of(make_scorer(penalty.scorer, root=root, device=run_config.device), section="sft")
            mark = marker(tokenizer, spec.template, judge)
        train, cut = encode_and_count(split["train"], tokenizer, spec.template, config, mark=mark)
        if cut.num_cut > MOST_CUT * cut.num_examples:
            log.warning("%s/%s: %s. Raise sft.max_length, or use fewer turns.", model, variant, cut)
        if not is_own:
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
        how = (
            "fine-tuning on answers of the base model itself, a placebo" if is_own else "counter-narrative fine-tuning"
        )
        train_adapter(
            base,
            tokenizer,
            scratch,
            root=root,
            base_ref=ref,
            folder=layout.adapter(model, variant),
            title=f"{model}/{variant}",
            train=train,
            validation=validation,
            config=training,
            lora=lora,
            seed=seed,
            card=model_card(f"{model} / {variant}", how, config, lora, cut),
            callback=callback,
        )
