"""Forecast of one execution of each stage, from counts of tokens and rows and from measured speeds. Pure.

Letters: P prompt tokens, G generated tokens, N rows. A factor of two is what to expect of the hours: lengths are means,
batches are taken as full, and a machine that does other things is slower.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from detoxlens.models.footprint import GIB, Footprint
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.interpolate import InterpolateConfig
from detoxlens.params.ppo import PpoConfig
from detoxlens.params.preference import PreferenceConfig
from detoxlens.params.sft import SftConfig
from detoxlens.params.tiny import TinyConfig
from detoxlens.plan import memory
from detoxlens.plan.counts import Counts
from detoxlens.plan.measure import Speeds
from detoxlens.sft.train import num_steps

REMOTE_QUERIES_PER_SECOND = {"perspective": (1, 1), "openai_moderation": (32, 1)}
"""Scorer -> texts per query, queries per second."""
TRAINER_STEP_SECONDS = 0.02
"""Of TRL's trainer around an optimizer step."""
SCORED_TEXTS_PER_SECOND = 4000.0
"""Of `profanity_check` on one core."""
CLASSIFIER_PARAMETERS = 1.25e8
"""Of a classifier as large as RoBERTa-base, which `hf:` scorers and reward models from a hub are taken to be."""
WORDS_PER_TOKEN, GRADINGS_PER_WORD = 0.75, 4
"""Of toxic words: a text without each word, each beginning of it, and the rounds of a minimal set of two words."""
TOXIC_SHARE = 1 / 3
"""Of completions, whose words are asked about: between an embedded base model's two thirds and a real one's tenth."""
REPORT_SECONDS, PREPARE_SECONDS = 5.0, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one execution of a stage."""

    stage: str
    variant: str = ""
    """Empty for a stage that has none."""
    seconds: float
    memory_gib: float = 0.0
    disk_gib: float = 0.0
    num_api_calls: int = 0


@dataclass(frozen=True, slots=True)
class Judge:
    """A scorer or a reward model: Judge("hf:data/recorded/scorers/mine", 1.1e6)"""

    name: str
    """As in params; a reward model as a scorer of the same source."""
    num_parameters: float = CLASSIFIER_PARAMETERS
    """Of one that is read by torch."""


def base_cost(tiny: TinyConfig | None, counts: Counts, speeds: Speeds, footprint: Footprint, start: float) -> Cost:
    """Training of an embedded model, or the look-up of another, whose weights the hub's cache will hold."""
    seconds = start
    needed = 0.0
    if tiny is not None:
        tokens = tiny.batch_size * counts.base_example_tokens
        seconds += tiny.num_steps * tokens * speeds.train_all
        needed = memory.base_bytes(tiny, counts, footprint)
    disk = footprint.weights.num_bytes(footprint.dtype)  # quantised when it is loaded
    return Cost(stage="base", seconds=seconds, memory_gib=needed / GIB, disk_gib=disk / GIB)


def finetune_cost(sft: SftConfig, counts: Counts, speeds: Speeds, footprint: Footprint, start: float) -> Cost:
    """Steps of LoRA training, and a validation on a tenth of the data, or a sample of it, every so often."""
    steps = num_steps(counts.num_examples, sft)
    tokens = steps * sft.batch_size * sft.gradient_accumulation_steps * counts.example_tokens
    num_validated = min(counts.num_examples / 10, sft.eval_max_dialogues or math.inf)
    validation = steps // sft.eval_every * num_validated * counts.example_tokens
    recompute = 4 / 3 if sft.gradient_checkpointing else 1.0
    train, forward = speeds.training(sft.autocast)
    seconds = start + recompute * tokens * train + validation * forward
    seconds += steps * TRAINER_STEP_SECONDS
    return _trained("finetune", seconds, memory.finetune_bytes(sft, counts, footprint), footprint)


def rejection_cost(
    sft: SftConfig, reward: Judge, counts: Counts, speeds: Speeds, footprint: Footprint, start: float
) -> Cost:
    """`sft.num_samples` answers in place of each written reply, as long in tokens, their verdicts; then fine-tuning.

    Args:
        sft: settings.
        reward: the reward model.
        counts: lengths; half of an example's tokens are taken to be replies.
        speeds: measured.
        footprint: sizes of the model.
        start: seconds before the work begins.
    """
    trained = finetune_cost(sft, counts, speeds, footprint, start)
    tokens = 1.1 * sft.num_samples * counts.num_examples * counts.example_tokens / 2
    num_answers = round(tokens / counts.generated_tokens)
    judged, num_calls = judging(reward, num_answers, counts, speeds, footprint)
    num_steps_decoded = math.ceil(num_answers / memory.AUTO_BATCH) * 2 * counts.generated_tokens
    seconds = trained.seconds + num_steps_decoded * speeds.decode_step + tokens * speeds.decode_row + judged
    return dataclasses.replace(trained, stage="rejection", seconds=seconds, num_api_calls=num_calls)


def rl_cost(
    ppo: PpoConfig,
    algorithm: str,
    config: GenerationConfig,
    judges: tuple[Judge, Judge],
    counts: Counts,
    speeds: Speeds,
    footprint: Footprint,
    start: float,
) -> Cost:
    """Per step a rollout, its verdicts, its likelihoods, `num_epochs` passes over it; and validations.

    Likelihoods: under policy and base, and as much again around them. TRL's algorithms measure them a second time, for
    their loss; a value function with an adapter of its own reads and learns in passes of its own. Groups of
    `num_generations` answers change how many prompts are drawn, not how many answers.

    Args:
        ppo: settings; a step samples `rollout_batch_size` responses.
        algorithm: ppo, rloo or grpo.
        config: how responses are sampled.
        judges: the reward model and the headline scorer; both read every response, the scorer validation answers too.
        counts: lengths.
        speeds: measured.
        footprint: sizes of the model.
        start: seconds before the work begins.
    """
    seq = counts.prompt_tokens + counts.generated_tokens
    tokens = ppo.rollout_batch_size * seq
    is_ppo = algorithm == "ppo"
    own_values = is_ppo and ppo.value_function == "lora"
    num_passes = ppo.num_epochs * (2 if own_values else 1)
    num_forward_passes = 3 + own_values + (0 if is_ppo else 2)
    recompute = 4 / 3 if ppo.gradient_checkpointing else 1.0
    rollout = _decode(1, ppo.rollout_batch_size, config, counts, speeds)
    train, forward = speeds.training(ppo.autocast)
    step = rollout + num_forward_passes * tokens * forward + recompute * num_passes * tokens * train
    if not is_ppo:
        step += ppo.num_epochs * ppo.rollout_batch_size / ppo.minibatch_size * TRAINER_STEP_SECONDS
    num_validated = ppo.validation.num_prompts
    validation = _decode(1, num_validated, config, counts, speeds) + 2 * num_validated * seq * speeds.forward
    num_validations = 2 + ppo.num_steps // ppo.validation.every
    seconds, num_calls = start + ppo.num_steps * step + num_validations * validation, 0
    reward, headline = judges
    for judge, num_texts, times in (
        (reward, ppo.rollout_batch_size, ppo.num_steps),
        (headline, ppo.rollout_batch_size, ppo.num_steps),
        (headline, num_validated, num_validations),
    ):
        taken, calls = judging(judge, num_texts, counts, speeds, footprint)
        seconds, num_calls = seconds + times * taken, num_calls + times * calls
    needed = memory.rl_bytes(ppo, config, counts, footprint, is_ppo=is_ppo)
    return _trained("rl", seconds, needed, footprint, num_api_calls=num_calls)


def preference_cost(
    config: PreferenceConfig,
    algorithm: str,
    generation: GenerationConfig,
    reward: Judge,
    counts: Counts,
    speeds: Speeds,
    footprint: Footprint,
    start: float,
) -> Cost:
    """Answers to every hater turn and their verdicts; two answers a turn under the reference once, and learnt from.

    Validation turns are a tenth of the training turns. KTO reads every answer again with another prompt, for its KL.

    Args:
        config: settings.
        algorithm: dpo or kto.
        generation: how answers are sampled.
        reward: the reward model.
        counts: lengths.
        speeds: measured.
        footprint: sizes of the model.
        start: seconds before the work begins.
    """
    num_turns = min(counts.num_hater_turns, config.pairs.max_contexts or math.inf)
    num_answers = 1.1 * num_turns * config.pairs.num_samples
    judged, num_calls = judging(reward, round(num_answers), counts, speeds, footprint)
    num_batches = math.ceil(num_answers / memory.AUTO_BATCH)
    pair_tokens = 2 * (counts.prompt_tokens + counts.generated_tokens)
    num_rows = num_turns * (1 if algorithm == "dpo" else 2)
    steps = math.ceil(config.num_epochs * num_rows / config.batch_size / config.gradient_accumulation_steps)
    again = 0 if algorithm == "dpo" else 1
    reading = 1.1 * (1 + again) + config.num_epochs * again + steps // config.eval_every * 0.1 * (1 + again)
    recompute = 4 / 3 if config.gradient_checkpointing else 1.0
    train, forward = speeds.training(config.autocast)
    learning = recompute * config.num_epochs * train
    seconds = start + _decode(num_batches, round(num_answers), generation, counts, speeds) + judged
    seconds += num_turns * pair_tokens * (reading * forward + learning) + steps * TRAINER_STEP_SECONDS
    needed = memory.preference_bytes(config, generation, counts, footprint, is_dpo=algorithm == "dpo")
    return _trained("preference", seconds, needed, footprint, num_api_calls=num_calls)


def judging(judge: Judge, num_texts: int, counts: Counts, speeds: Speeds, footprint: Footprint) -> tuple[float, int]:
    """Seconds and queries of a scorer for so many texts; a remote one keeps its own pace, an embedded one is free."""
    kind = judge.name.partition(":")[0]
    if kind in REMOTE_QUERIES_PER_SECOND:
        per_query, per_second = REMOTE_QUERIES_PER_SECOND[kind]
        calls = math.ceil(num_texts / per_query)
        return calls / per_second, calls
    if kind == "hf":
        share = judge.num_parameters / footprint.weights.num_parameters
        return num_texts * counts.generated_tokens * speeds.forward * share, 0
    return num_texts / SCORED_TEXTS_PER_SECOND if kind == "profanity_check" else 0.0, 0


def intervene_cost(num_read: int, counts: Counts, speeds: Speeds, footprint: Footprint, start: float) -> Cost:
    """`num_read` replies read once."""
    seconds = start + num_read * counts.example_tokens * speeds.forward
    return Cost(stage="intervene", seconds=seconds, memory_gib=memory.score_bytes(counts, footprint) / GIB)


def generate_cost(config: GenerationConfig, counts: Counts, speeds: Speeds, footprint: Footprint, start: float) -> Cost:
    batch = memory.AUTO_BATCH if config.batch_size == "auto" else config.batch_size
    num_batches = math.ceil(counts.num_rows / batch)
    seconds = start + _decode(num_batches, counts.num_rows, config, counts, speeds)
    seconds += counts.num_rows * counts.prompt_tokens * speeds.forward
    return Cost(stage="generate", seconds=seconds, memory_gib=memory.generate_bytes(config, counts, footprint) / GIB)


def score_cost(
    scorers: Sequence[Judge],
    located_by: Judge | None,
    counts: Counts,
    speeds: Speeds,
    footprint: Footprint,
    start: float,
) -> Cost:
    """Likelihoods under `it`, each scorer, and the words of a third of the completions, the toxic ones.

    `located_by` is the scorer that is asked about parts of texts, or None.
    """
    seq = counts.prompt_tokens + counts.generated_tokens
    verdicts = [judging(judge, counts.num_rows, counts, speeds, footprint) for judge in scorers]
    if located_by is not None:
        num_words = TOXIC_SHARE * counts.num_rows * counts.generated_tokens * WORDS_PER_TOKEN
        num_parts = math.ceil(num_words * GRADINGS_PER_WORD)
        verdicts.append(judging(located_by, num_parts, counts, speeds, footprint))
    return Cost(
        stage="score",
        seconds=start + counts.num_rows * seq * speeds.forward + sum(seconds for seconds, _ in verdicts),
        memory_gib=memory.score_bytes(counts, footprint) / GIB,
        num_api_calls=sum(calls for _, calls in verdicts),
    )


def attribute_cost(
    config: AttributionConfig, counts: Counts, speeds: Speeds, footprint: Footprint, start: float
) -> Cost:
    """The variant's and base's readings of each other's texts, further methods on a sample, and what tests them.

    Reliance takes two forwards per text. The tests of faithfulness attribute anew under a copy with shuffled weights
    and read half-deleted prompts; the check of few bits loads a twin in float32. Scores are stored as eight bytes per
    (generated token, token before it), compressed to about a third.
    """
    p, g = counts.prompt_tokens, counts.generated_tokens
    num_texts = counts.num_attributed + counts.num_attributed_beside
    one = text_seconds(config, counts, speeds, footprint, speeds.attribute)
    test = config.faithfulness
    tested = min(test.num_sequences, counts.num_attributed_test)
    deletions = 1 + len(test.fractions) * 2 * (1 + test.num_random)
    seconds = start + (num_texts + tested) * one + num_texts * 2 * (p + g) * speeds.forward
    seconds += tested * min(test.steps_per_sequence, g) * deletions * (p + g) / 2 * speeds.forward
    num_cells = num_texts / counts.num_attributed if counts.num_attributed else 0
    sampled = num_cells * min(config.agreement.num_sequences, counts.num_attributed_test)
    for method in [m for m in config.agreement.methods if m != config.method]:
        other = config.model_copy(update={"method": method})
        seconds += sampled * text_seconds(other, counts, speeds, footprint, speeds.attribute)
    if footprint.dtype != "float32" or footprint.quantization:
        checked = min(config.precision_check, counts.num_attributed_test)
        seconds += checked * text_seconds(config, counts, speeds, footprint, speeds.attribute_float32)
    disk = num_texts * (g * p + g * (g - 1) / 2) * 8 / 3
    needed = memory.attribute_bytes(config, counts, footprint)
    return Cost(stage="attribute", seconds=seconds, memory_gib=needed / GIB, disk_gib=disk / GIB)


def interpolate_cost(
    config: InterpolateConfig,
    decoding: GenerationConfig,
    attribution: AttributionConfig,
    headline: Judge,
    counts: Counts,
    speeds: Speeds,
    footprint: Footprint,
    start: float,
) -> Cost:
    """Answers, verdicts and likelihoods at each strength; at each but 0 three readings of every attributed text."""
    num_alphas, num_rows = len(config.alphas), config.num_prompts
    batch = memory.AUTO_BATCH if decoding.batch_size == "auto" else decoding.batch_size
    tokens = counts.prompt_tokens + counts.generated_tokens
    answers = _decode(math.ceil(num_rows / batch), num_rows, decoding, counts, speeds)
    answers += num_rows * (counts.prompt_tokens + tokens) * speeds.forward
    verdicts, num_calls = judging(headline, num_alphas * num_rows, counts, speeds, footprint)
    num_texts = (3 * (num_alphas - 1) + 1) * min(config.num_attributed, num_rows)
    seconds = start + num_alphas * answers + verdicts
    seconds += num_texts * text_seconds(attribution, counts, speeds, footprint, speeds.attribute)
    needed = max(
        memory.generate_bytes(decoding, counts, footprint), memory.attribute_bytes(attribution, counts, footprint)
    )
    return Cost(stage="interpolate", seconds=seconds, memory_gib=needed / GIB, num_api_calls=num_calls)


def text_seconds(
    config: AttributionConfig, counts: Counts, speeds: Speeds, footprint: Footprint, gradient_seconds: float
) -> float:
    """Of attributing one text: by gradients per pair, by occlusion a forward per token, by Inseq over each prefix."""
    p, g = counts.prompt_tokens, counts.generated_tokens
    pairs = g * p + g * (g - 1) / 2
    mean_prefix = p + (g - 1) / 2
    if config.method == "attention":
        return pairs * speeds.forward
    if config.method == "occlusion":
        return (p + g) ** 2 * speeds.forward
    if config.method == "value_zeroing":  # a pass without each token of the prefix, in every layer
        return pairs * mean_prefix * footprint.num_layers * speeds.forward
    return pairs * gradient_seconds * (config.num_path_steps if config.method == "integrated_gradients" else 1)


def _decode(num_batches: int, num_rows: int, config: GenerationConfig, counts: Counts, speeds: Speeds) -> float:
    """Seconds: a batch runs until its longest row ends, a row until it ends itself."""
    longest = min(config.max_new_tokens, 2 * counts.generated_tokens)
    return num_batches * longest * speeds.decode_step + num_rows * counts.generated_tokens * speeds.decode_row


def _trained(stage: str, seconds: float, needed: float, footprint: Footprint, *, num_api_calls: int = 0) -> Cost:
    disk = 4 * footprint.num_adapter_parameters
    return Cost(stage=stage, seconds=seconds, memory_gib=needed / GIB, disk_gib=disk / GIB, num_api_calls=num_api_calls)
