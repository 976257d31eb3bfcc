"""Stage rejection@model-variant: LoRA on base's own least toxic answers (sft.data: own_least_toxic).

deps: data/prepared/dialogues.parquet, models/reward, models/<m>/base      outs: adapters/<m>/<v>
"""

from __future__ import annotations

from pathlib import Path

from detoxlens.common.artifacts import Layout, read_model_ref, read_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Dialogue
from detoxlens.jobs.progress import StepCallback
from detoxlens.jobs.stage_scratch import stage_scratch
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.params.load import Params
from detoxlens.params.lora import LoraConfig
from detoxlens.params.reward_model import RewardModelConfig
from detoxlens.params.sft import SftConfig
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.scorers import make_scorer
from detoxlens.scorers.reward import check_independent, reward_classifier, toxicity_by
from detoxlens.sft.adapter import model_card, train_adapter
from detoxlens.sft.placebo import answers_of_base, placebo_examples
from detoxlens.sft.rejection import least_toxic
from detoxlens.sft.train import encode_and_count, training_sample, validation_sample


def run(root: Path, params: Params, *, model: str, variant: str, callback: StepCallback | None = None) -> None:
    layout, spec, run_config = Layout(root), params.model(model), params.run
    config = params.section("sft", SftConfig, model=model, variant=variant)
    lora = params.section("lora", LoraConfig, model=model, variant=variant)
    rewarding = params.section("reward_model", RewardModelConfig)
    toxicity = params.section("toxicity", ToxicityConfig)
    params.trained_variant(variant, stage="rejection", kind="sft")
    if config.data != "own_least_toxic":
        raise UserError(
            f"{params.path}: sft.data={config.data!r} of variants.{variant}; stage rejection trains on "
            "'own_least_toxic'. Set variants.<v>.overrides.sft.data, or run `detoxlens finetune`."
        )
    seed, device = params.training_seed(variant), run_config.device
    with stage_scratch(
        root,
        f"rejection@{model}-{variant}",
        module=__name__,
        settings={
            "sections": [c.model_dump(mode="json") for c in (config, lora, spec)],
            "reward": [rewarding.label, rewarding.activation, rewarding.trust_remote_code],
            "variant": [seed, toxicity.headline, toxicity.normalize],
            "device": device,
        },
        inputs=[layout.dialogues, layout.reward_model, layout.adapter(model, "it")],
        seed=seed,
        num_threads=run_config.num_threads,
    ) as scratch:
        classifier = reward_classifier(root, read_model_ref(layout.reward_model), rewarding, device)
        grader = make_scorer(toxicity.headline, root=root, device=device, normalize=toxicity.normalize)
        check_independent(classifier, grader)
        judge = toxicity_by(classifier, normalize=toxicity.normalize)
        ref = read_model_ref(layout.adapter(model, "it"))
        base = load_model(root, ref, spec, device=device)
        tokenizer = load_tokenizer(root, ref, trust_remote_code=spec.trust_remote_code)
        dialogues = read_rows(layout.dialogues, Dialogue)
        split = {name: [d for d in dialogues if d.split == name] for name in ("train", "val")}
        split["val"] = validation_sample(split["val"], config.eval_max_dialogues)
        split["train"], training = training_sample(split["train"], config, seed=seed)
        _, cut = encode_and_count(split["train"], tokenizer, spec.template, config)

        def text_of(ids):
            return tokenizer.decode(ids, skip_special_tokens=True).strip()

        examples = {}
        for name, part in split.items():
            draws = [
                answers_of_base(
                    base,
                    tokenizer,
                    scratch,
                    name=f"placebo-{name}" if number == 0 else f"draw{number}-{name}",  # the first is the placebo's
                    title=f"answers of the base model, {model}/{variant}, {number + 1} of {config.num_samples}",
                    seed=seed,
                )
                for number in range(config.num_samples)
            ]
            chosen = least_toxic(draws, judge, text_of)
            examples[name] = placebo_examples(part, tokenizer, spec.template, config, chosen)
        how = (
            f"rejection sampling, fine-tuning on the least toxic of {config.num_samples} answers of the base model "
            f"itself (by the reward model, weights {classifier.version})"
        )
        train_adapter(
            base,
            tokenizer,
            scratch,
            root=root,
            base_ref=ref,
            folder=layout.adapter(model, variant),
            title=f"{model}/{variant}",
            train=examples["train"],
            validation=examples["val"],
            config=training,
            lora=lora,
            seed=seed,
            card=model_card(f"{model} / {variant}", how, config, lora, cut),
            callback=callback,
        )
