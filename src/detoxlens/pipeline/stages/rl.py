"""Stage rl@model-variant: a LoRA adapter by PPO, RLOO or GRPO on 1 - P(hate) of the response, or its log-odds.

deps: data/prepared/dialogues.parquet, data/prepared/prompts.parquet, models/reward, models/<m>/base,
      adapters/<m>/it or adapters/<m>/<init_from>, adapters/<m>/<placebo_of>           outs: adapters/<m>/<v>
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.common.artifacts import Layout, read_history, read_model_ref, read_rows
from detoxlens.common.errors import UserError, did_you_mean
from detoxlens.common.records import Dialogue, Prompt
from detoxlens.common.scoring import Scorer
from detoxlens.common.seeding import fix_global_state
from detoxlens.data.replies import stops_of
from detoxlens.data.templates import Template, encode_prompt, turn_end_ids
from detoxlens.jobs.progress import Snapshot, StepCallback, progress
from detoxlens.jobs.scratch import Scratch, replace_output
from detoxlens.jobs.stage_scratch import stage_scratch
from detoxlens.models.adapters import save_adapter_folder
from detoxlens.models.end_tokens import set_end_tokens
from detoxlens.models.forward import context_length
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.models.lora import add_adapter
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import Params
from detoxlens.params.lora import LoraConfig
from detoxlens.params.models import ModelConfig
from detoxlens.params.ppo import PpoConfig
from detoxlens.params.reward_model import RewardModelConfig
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.params.variants import VariantConfig
from detoxlens.regularization.toxic_tokens import judge_of
from detoxlens.rl.groups import GroupTrainer
from detoxlens.rl.ppo import PPO
from detoxlens.rl.regularized import prompt_marks
from detoxlens.rl.rewards import Grader, NonToxicity
from detoxlens.rl.trainer import PpoResult, Row
from detoxlens.rl.validation import kept_validation, nothing_learnt
from detoxlens.rl.world import World, join
from detoxlens.scorers import make_scorer
from detoxlens.scorers.reward import check_independent, reward_classifier

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
MOST_TRUNCATED = 0.01
"""Share of responses that the reward reads in part above which a warning says so."""


def run(root: Path, params: Params, *, model: str, variant: str, callback: StepCallback | None = None) -> None:
    layout, spec, run_config = Layout(root), params.model(model), params.run
    chosen = params.trained_variant(variant, stage="rl", kind="rl")
    seed = params.training_seed(variant)
    config = params.section("ppo", PpoConfig, model=model, variant=variant)
    decoding = params.section("generation", GenerationConfig, model=model, variant=variant)
    lora = params.section("lora", LoraConfig, model=model, variant=variant)
    rewarding = params.section("reward_model", RewardModelConfig)
    toxicity = params.section("toxicity", ToxicityConfig)
    headline, normalize = toxicity.headline, toxicity.normalize
    selecting = toxicity.chooser
    start, final = layout.adapter(model, chosen.init_from or "it"), layout.adapter(model, variant)
    placebo_kl_nats = kept_kl_nats(layout, params, model, chosen.placebo_of) if chosen.placebo_of else None
    with join(os.environ, device=run_config.device) as world:
        check_processes(chosen, variant, spec, model, world)
        settings = {
            "sections": [c.model_dump(mode="json") for c in (config, decoding, lora, spec)],
            "reward": [rewarding.label, rewarding.activation, rewarding.trust_remote_code],
            "variant": [chosen.algorithm, chosen.init_from, seed, headline, selecting, normalize, placebo_kl_nats],
            "num_processes": world.size,
            "device": run_config.device,
        }
        inputs = [layout.dialogues, layout.prompts, layout.reward_model, start]
        fix_global_state(seed, run_config.num_threads)  # in every process
        unfinished = stage_scratch(
            root,
            f"rl@{model}-{variant}",
            module=__name__,
            settings=settings,
            inputs=inputs,
            seed=seed,
            num_threads=run_config.num_threads,
        )
        with shared(world, unfinished) as scratch:
            classifier = reward_classifier(root, read_model_ref(layout.reward_model), rewarding, world.device)
            scorer = make_scorer(headline, root=root, device=world.device, normalize=normalize)
            check_independent(classifier, scorer)
            selector = (
                scorer
                if selecting == headline
                else make_scorer(selecting, root=root, device=world.device, normalize=normalize)
            )
            reward = NonToxicity(classifier, normalize=normalize, scale=config.reward_scale)
            grader = grader_of(scorer)
            ref = read_model_ref(start)
            tokenizer = load_tokenizer(root, ref, trust_remote_code=spec.trust_remote_code)
            policy = load_model(root, ref, spec, device=world.device, trainable_adapter=ref.adapter is not None)
            if ref.adapter is None:
                policy = add_adapter(policy, lora)
            set_end_tokens(policy, tokenizer, turn_end_ids(tokenizer, spec.template))
            decoding = decoding.model_copy(update={"stop": stops_of(decoding, tokenizer, spec.template)})
            context = context_length(policy) or config.max_prompt_tokens + decoding.max_new_tokens
            training, validating, num_left_out = read_prompts(
                layout, tokenizer, spec.template, config, longest=context - decoding.max_new_tokens
            )
            marks = None
            if (penalty := config.regularizer).is_on:
                judge = None
                if penalty.kind == "toxic_share":
                    judge = judge_of(make_scorer(penalty.scorer, root=root, device=world.device), section="ppo")
                marks = prompt_marks(tokenizer, spec.template, read_contexts(layout, config), judge)
            if chosen.algorithm == "ppo":
                trainer = PPO(
                    policy,
                    tokenizer,
                    reward,
                    config=config,
                    decoding=decoding,
                    seed=seed,
                    grader=grader,
                    selector=grader_of(selector),
                    placebo_kl_nats=placebo_kl_nats,
                    world=world,
                    marks=marks,
                )
            else:
                trainer = GroupTrainer(
                    policy,
                    tokenizer,
                    reward,
                    algorithm=chosen.algorithm,
                    config=config,
                    decoding=decoding,
                    seed=seed,
                    grader=grader,
                    selector=grader_of(selector),
                    placebo_kl_nats=placebo_kl_nats,
                )
            if world.is_main:
                log.info("%s %s/%s: reward = %s", chosen.algorithm, model, variant, reward.description())
            with shown_by_main(world, f"{chosen.algorithm} {model}/{variant}", config.num_steps) as show:

                def on_step(row: Row) -> None:
                    show(row)
                    if callback is not None:
                        done = row["step"] / config.num_steps
                        callback(Snapshot(fraction=done, row=row, model=policy, tokenizer=tokenizer))

                result = trainer.train(
                    training,
                    validation_prompts=validating,
                    checkpoint_folder=scratch.path / "checkpoints",
                    on_step=on_step,
                )
            if world.is_main:
                if (share := truncated_share(result)) > MOST_TRUNCATED:
                    log.warning(
                        "%s/%s: the reward model reads %d tokens, and %.1f %% of the responses were longer: their ends "
                        "were not judged. Lower generation.max_new_tokens, or take another reward_model.",
                        model,
                        variant,
                        classifier.max_length,
                        100 * share,
                    )
                told = nothing_learnt(
                    result.history,
                    kl_budget=config.kl.budget_nats_per_sequence,
                    reward_is_prob=config.reward_scale == "probability",
                )
                if told and not chosen.placebo_of:
                    log.warning("%s/%s did not learn: %s", model, variant, told)
                built = scratch.path / "adapter"
                save_adapter_folder(
                    policy,
                    built,
                    root=root,
                    base_ref=ref,
                    history=result.history,
                    card=model_card(
                        model, variant, chosen, config, reward, selector, len(training), num_left_out, result
                    ),
                    final_folder=final,
                )
                replace_output(built, final)
                scratch.finish()
            world.wait()  # a launcher may end the process that still writes when another has left


@contextmanager
def shared(world: World, unfinished: AbstractContextManager[Scratch]) -> Iterator[Scratch]:
    """The scratch folder, opened and locked by the main process and known to all."""
    with ExitStack() as stack:
        held: list[Scratch] = []

        def hold() -> str:
            held.append(stack.enter_context(unfinished))
            return str(held[0].path)

        path = world.from_main(hold)
        yield held[0] if held else Scratch(Path(path))


@contextmanager
def shown_by_main(world: World, title: str, num_steps: int) -> Iterator[Callable[[Row], None]]:
    """A progress bar in the main process; what to tell every new row of the history."""
    if not world.is_main:
        yield lambda row: None
        return
    with progress(title, total=num_steps, unit="steps") as bar:
        shown = 0

        def show(row: Row) -> None:
            nonlocal shown
            if row["step"] > shown + 1:  # continued from a checkpoint
                bar.already(row["step"] - 1 - shown)
            bar.advance(min(row["step"], 1))
            shown = row["step"]

        yield show


def kept_kl_nats(layout: Layout, params: Params, model: str, variant: str) -> float:
    """KL per sequence, on the validation prompts, of the adapter that the training of `variant` kept.

    Raises:
        UserError: it has no validation in its history, or kept the adapter that it started from.
    """
    budget = params.section("ppo", PpoConfig, model=model, variant=variant).kl.budget_nats_per_sequence
    folder = layout.adapter(model, variant)
    kept = kept_validation(read_history(folder), kl_budget=budget)
    if kept is None or kept.step == 0:
        raise UserError(
            f"{folder}: {'no validation is recorded' if kept is None else 'the adapter before the first step was kept'}"
            f", so there is no KL for its placebo to reach. Train {variant} with ppo.validation first, or take the "
            "placebo out of run.variants."
        )
    return kept.kl_nats_per_sequence


def read_prompts(
    layout: Layout, tokenizer: PreTrainedTokenizerBase, template: Template, config: PpoConfig, *, longest: int
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]], int]:
    """Token ids of the training contexts and of the validation prompts, neither longer than `longest`, and how many
    contexts are longer."""
    longest = min(config.max_prompt_tokens, longest)
    contexts = read_contexts(layout, config)
    questions = validation_prompts(read_rows(layout.prompts, Prompt), config.validation.filter)
    chosen = questions[: config.validation.num_prompts]
    training = [encode_prompt(tokenizer, template, turns).ids for turns in contexts]
    validating = [encode_prompt(tokenizer, template, [p.text], evaluation=True).ids for p in chosen]
    kept = within(training, longest, what="dialogue contexts")
    return kept, within(validating, longest, what="validation prompts"), len(training) - len(kept)


def read_contexts(layout: Layout, config: PpoConfig) -> list[tuple[str, ...]]:
    """What is trained on: `hater_contexts` of the training dialogues."""
    dialogues = [d for d in read_rows(layout.dialogues, Dialogue) if d.split == "train"]
    return hater_contexts(dialogues, config.max_context_turns)


def check_processes(chosen: VariantConfig, variant: str, spec: ModelConfig, model: str, world: World) -> None:
    """Raises UserError if several processes were started for what runs in one.

    TRL's algorithms do; and so does a model spread over all cards, of which every process would take a part of each.
    """
    if world.size == 1:
        return
    if chosen.algorithm != "ppo":
        raise UserError(
            f"params.yaml: variants.{variant}.algorithm={chosen.algorithm!r} runs in one process and {world.size} were "
            f"launched; run `detoxlens rl` without the launcher, or set algorithm: ppo."
        )
    if spec.device_map is not None:
        raise UserError(
            f"params.yaml: models.{model}.device_map={spec.device_map!r} spreads one copy of the model over all cards, "
            f"and {world.size} processes were launched, each of which needs a copy on a card of its own to add up "
            "gradients. Run `detoxlens rl` without the launcher, or set device_map: null (and quantization: 4bit "
            "where a card is too small)."
        )


def hater_contexts(dialogues: Sequence[Dialogue], max_turns: int) -> list[tuple[str, ...]]:
    """Every hater turn with the at most `max_turns - 1` turns before it; each distinct context once."""
    contexts = [d.turns[max(0, n - max_turns) : n] for d in dialogues for n in range(1, len(d.turns) + 1, 2)]
    return list(dict.fromkeys(contexts))


def validation_prompts(prompts: Sequence[Prompt], name: str) -> list[Prompt]:
    """The validation prompts that meet the split `name`.

    Raises:
        UserError: there are none.
    """
    found = [p for p in prompts if p.split == "val" and name in p.filters]
    if not found:
        names = sorted({f for p in prompts if p.split == "val" for f in p.filters})
        raise UserError(
            f"ppo.validation.filter={name!r}: no validation prompt meets it.{did_you_mean(name, names)} Splits with "
            f"validation prompts: {', '.join(names) or 'none'} (params splits.<name>.max_val)."
        )
    return found


def within(prompts: Sequence[tuple[int, ...]], longest: int, *, what: str) -> list[tuple[int, ...]]:
    """The prompts of at most `longest` tokens; how many were left out is logged.

    Raises:
        UserError: none is left.
    """
    kept = [p for p in prompts if len(p) <= longest]
    if not kept:
        raise UserError(
            f"ppo: all {len(prompts)} {what} have more than {longest} tokens (ppo.max_prompt_tokens, or the model's "
            f"context less generation.max_new_tokens). Raise ppo.max_prompt_tokens or lower generation.max_new_tokens."
        )
    if len(kept) < len(prompts):
        log.warning(
            "ppo: %d of %d %s have more than %d tokens and are left out",
            len(prompts) - len(kept),
            len(prompts),
            what,
            longest,
        )
    return kept


def grader_of(scorer: Scorer) -> Grader:
    """The scorer as PPO calls it: toxicity, or None where a text could not be scored."""
    return lambda texts: [scored.toxicity for scored in scorer.score(texts)]


def truncated_share(result: PpoResult) -> float:
    """Share of the training's responses of which the reward read only the beginning, 0..1."""
    steps = [row for row in result.history if row["step"] > 0]
    return sum(row.get("ppo/reward_truncated_share", 0.0) for row in steps) / max(1, len(steps))


def model_card(
    model: str,
    variant: str,
    chosen: VariantConfig,
    config: PpoConfig,
    reward: NonToxicity,
    scorer: Scorer,
    num_prompts: int,
    num_left_out: int,
    result: PpoResult,
) -> str:
    """What the adapter's README says: how it was made, nothing about how good it is (the report does)."""
    start = f"the adapter of `{chosen.init_from}`" if chosen.init_from else "a fresh adapter"
    steps = [row for row in result.history if row["step"] > 0]
    stopped = f" Training stopped early: {result.stop_reason}." if result.stop_reason else ""
    how = {"ppo": "PPO", "rloo": "RLOO (TRL)", "grpo": "GRPO (TRL)"}[chosen.algorithm]
    control = config.kl.control if chosen.algorithm == "ppo" else "fixed"
    groups = "" if chosen.algorithm == "ppo" else f" in groups of {config.num_generations}"
    permuted = ", permuted within each batch: this is a placebo" if chosen.placebo_of else ""
    kept = (
        f"its KL on the validation prompts is nearest to that of `{chosen.placebo_of}`"
        if chosen.placebo_of
        else f"the least toxic on validation prompts by {scorer.name} ({scorer.version}) within "
        f"{config.kl.budget_nats_per_sequence:g} nats of KL per sequence"
    )
    return (
        f"# {model} / {variant}\n\n"
        f"LoRA adapter trained by {how} from {start}, on {num_prompts} dialogue contexts that end with a hater "
        f"turn ({num_left_out} longer ones left out).\n\n"
        f"- Reward: {reward}; of the response's text only{permuted}; {100 * truncated_share(result):.1f} % of the "
        f"responses were longer than the {reward.classifier.max_length} tokens that it reads.\n"
        f"- KL penalty against the base model: {control}, coefficient {config.kl.coef:g}.\n"
        f"- {len(steps)} {how.split()[0]} steps of {config.rollout_batch_size} responses{groups}, learning rate "
        f"{config.learning_rate:g}."
        f"{stopped}\n"
        f"- Kept: the adapter after step {result.kept_step}, {kept}.\n\n"
        f"Training curves: `history.jsonl`.\n"
    )
