"""Stage preference@model-variant: pairs of answers by the reward model, then a LoRA adapter by DPO or KTO on them.

deps: data/prepared/dialogues.parquet, models/reward, models/<m>/base, adapters/<m>/it
outs: adapters/<m>/<v>, and in it pairs.parquet
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.common.artifacts import Layout, read_model_ref, read_rows, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Dialogue
from detoxlens.data.replies import stops_of
from detoxlens.data.templates import turn_end_ids
from detoxlens.jobs.batches import Batches
from detoxlens.jobs.progress import Snapshot, StepCallback, progress
from detoxlens.jobs.scratch import Scratch, replace_output
from detoxlens.jobs.stage_scratch import stage_scratch
from detoxlens.models.adapters import save_adapter_folder
from detoxlens.models.capabilities import examine
from detoxlens.models.end_tokens import set_end_tokens
from detoxlens.models.forward import context_length
from detoxlens.models.generation import plan_batches
from detoxlens.models.likelihood import completion_nll
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.models.lora import add_adapter
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import Params
from detoxlens.params.lora import LoraConfig
from detoxlens.params.preference import PreferenceConfig
from detoxlens.params.reward_model import RewardModelConfig
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.preference.answers import own_answers
from detoxlens.preference.pairs import Pair, exchanges, make_pairs
from detoxlens.preference.train import References, all_answers, dpo_rows, kto_rows, num_steps, tune
from detoxlens.scorers import make_scorer
from detoxlens.scorers.reward import check_independent, reward_classifier, toxicity_by

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
PAIRS = "pairs.parquet"
NLL_BATCH_SIZE = 32
"""Answers in one forward pass of the reference."""


def run(root: Path, params: Params, *, model: str, variant: str, callback: StepCallback | None = None) -> None:
    layout, spec, run_config = Layout(root), params.model(model), params.run
    chosen = params.trained_variant(variant, stage="preference", kind="preference")
    config = params.section("preference", PreferenceConfig, model=model, variant=variant)
    decoding = params.section("generation", GenerationConfig, model=model, variant=variant)
    lora = params.section("lora", LoraConfig, model=model, variant=variant)
    rewarding = params.section("reward_model", RewardModelConfig)
    toxicity = params.section("toxicity", ToxicityConfig)
    seed, device, final = params.training_seed(variant), run_config.device, layout.adapter(model, variant)
    with stage_scratch(
        root,
        f"preference@{model}-{variant}",
        module=__name__,
        settings={
            "sections": [c.model_dump(mode="json") for c in (config, decoding, lora, spec)],
            "reward": [rewarding.label, rewarding.activation, rewarding.trust_remote_code],
            "variant": [chosen.algorithm, seed, toxicity.headline, toxicity.normalize],
            "device": device,
        },
        inputs=[layout.dialogues, layout.reward_model, layout.adapter(model, "it")],
        seed=seed,
        num_threads=run_config.num_threads,
    ) as scratch:
        classifier = reward_classifier(root, read_model_ref(layout.reward_model), rewarding, device)
        grader = make_scorer(toxicity.headline, root=root, device=device, normalize=toxicity.normalize)
        check_independent(classifier, grader)
        ref = read_model_ref(layout.adapter(model, "it"))
        base = load_model(root, ref, spec, device=device)
        tokenizer = load_tokenizer(root, ref, trust_remote_code=spec.trust_remote_code)
        set_end_tokens(base, tokenizer, turn_end_ids(tokenizer, spec.template))
        decoding = decoding.model_copy(update={"stop": stops_of(decoding, tokenizer, spec.template)})
        longest = min(config.max_length, context_length(base) or config.max_length)
        judge = toxicity_by(classifier, normalize=toxicity.normalize)
        pairs: dict[str, list[Pair]] = {}
        counts: dict[str, str] = {}
        dialogues = read_rows(layout.dialogues, Dialogue)
        for split in ("train", "val"):
            found, num_too_long = exchanges(
                [d for d in dialogues if d.split == split],
                tokenizer,
                spec.template,
                config.pairs,
                longest_prompt=longest - decoding.max_new_tokens,
                max_length=longest,
            )
            if not found:
                raise UserError(
                    f"preference: no hater turn of the split {split!r} leaves room for an answer; {num_too_long} need "
                    f"more than {longest} tokens with generation.max_new_tokens={decoding.max_new_tokens}. Raise "
                    f"preference.max_length={config.max_length}, or check data.dialoconan."
                )
            answers = own_answers(
                base,
                tokenizer,
                [exchange.prompt_ids for exchange in found],
                judge,
                scratch,
                decoding=decoding,
                num_samples=config.pairs.num_samples,
                split=split,
                title=f"answers of the base model, {model}/{variant}, {split}",
                seed=seed,
            )
            pairs[split] = make_pairs(found, answers, judge, config.pairs, split=split)
            counts[split] = f"{len(pairs[split])} pairs of {len(found)} hater turns ({split})"
            log.info("%s/%s: %s; %d turns too long", model, variant, counts[split], num_too_long)
        reference = references(base, tokenizer, scratch, title=f"reference, {model}/{variant}")
        pairs = {split: with_reference(found, reference(split)) for split, found in pairs.items()}
        if chosen.algorithm == "kto":
            rows = {
                split: kto_rows(found, reference(f"kl-{split}"), batch_size=config.batch_size, seed=seed)
                for split, found in pairs.items()
            }
        else:
            rows = {split: dpo_rows(found) for split, found in pairs.items()}
        policy = add_adapter(base, lora)
        total = num_steps(len(rows["train"]), config)
        with progress(f"{chosen.algorithm} {model}/{variant}", total=total, unit="steps") as bar:

            def on_step(num_new: int, num_done: int, row: dict[str, float | int]) -> None:
                bar.advance(num_new)
                if callback is not None:
                    callback(Snapshot(fraction=min(1.0, num_done / total), row=row, model=policy, tokenizer=tokenizer))

            history = tune(
                policy,
                tokenizer,
                algorithm=chosen.algorithm,
                train=rows["train"],
                validation=rows["val"],
                config=config,
                seed=seed,
                checkpoints=scratch.path / "checkpoints",
                on_step=on_step,
            )
        built = scratch.path / "adapter"
        card = model_card(model, variant, chosen.algorithm, config, lora, counts.values(), classifier.version)
        save_adapter_folder(policy, built, root=root, base_ref=ref, history=history, card=card, final_folder=final)
        write_rows(built / PAIRS, [*pairs["train"], *pairs["val"]], Pair)
        replace_output(built, final)
        scratch.finish()


def references(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, scratch: Scratch, *, title: str
) -> Callable[[str], References]:
    """A function from the name of a set of answers to its `References`; each is measured once, and kept."""
    able = examine(base, pad_token_id=tokenizer.pad_token_id)

    def of(name: str) -> References:
        def measured(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[float]:
            lengths = [len(p) + len(a) for p, a in zip(prompts, answers, strict=True)]
            batches = Batches(scratch, plan_batches(lengths, NLL_BATCH_SIZE), name=f"reference-{name}")

            def work(rows: Sequence[int]) -> list[float]:
                nll_nats = completion_nll(
                    base,
                    [prompts[i] for i in rows],
                    [answers[i] for i in rows],
                    batch_size=NLL_BATCH_SIZE,
                    pad_token_id=tokenizer.pad_token_id,
                    capabilities=able,
                )
                return [-nll for nll in nll_nats]

            with progress(f"{title}, {name}", total=batches.num_rows, unit="answers", num_done=batches.num_done) as bar:
                found = batches.run(work, bar)
            return [found[i] for i in range(len(prompts))]

        return measured

    return of


def with_reference(pairs: Sequence[Pair], reference: References) -> list[Pair]:
    """The pairs with the log-probabilities of the base model."""
    prompts, answers = zip(*all_answers(pairs), strict=True)
    nats = reference(prompts, answers)
    return [
        dataclasses.replace(pair, chosen_ref_nats=nats[2 * i], rejected_ref_nats=nats[2 * i + 1])
        for i, pair in enumerate(pairs)
    ]


def model_card(
    model: str,
    variant: str,
    algorithm: str,
    config: PreferenceConfig,
    lora: LoraConfig,
    counts: Iterable[str],
    reward_version: str,
) -> str:
    """What the adapter's README says: how it was made, nothing about how good it is (the report does)."""
    source = {
        "counter_narrative": f"chosen: the written counter-narrative; rejected: the most toxic of "
        f"{config.pairs.num_samples} answers of the base model",
        "best_of_n": f"chosen and rejected: the least and the most toxic of {config.pairs.num_samples} answers of the "
        "base model",
    }[config.pairs.source]
    return (
        f"# {model} / {variant}\n\n"
        f"LoRA adapter (r {lora.r}, alpha {lora.alpha:g}, on {lora.where}) trained by {algorithm.upper()}: beta "
        f"{config.beta:g}, {config.num_epochs:g} epochs, learning rate {config.learning_rate:g}, batch "
        f"{config.batch_size * config.gradient_accumulation_steps}. The reference is the base model. The checkpoint "
        "with the lowest validation loss was kept (`history.jsonl`).\n\n"
        f"Pairs (`{PAIRS}`): {source}; toxicity by the reward model (weights {reward_version}), margin more than "
        f"{config.pairs.min_margin:g}. {'; '.join(counts)}.\n"
    )
