"""`python -m benchmarks.ppo.ours CASE TOY RESULT SEED THREADS`: one run of our PPO, measured."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.ppo.case import Settings, read_case, reward_of_text
from benchmarks.ppo.resident import forget_peak, peak
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.ppo import KlConfig
from detoxlens.rl import PPO, PpoConfig


def configs(settings: Settings) -> tuple[PpoConfig, GenerationConfig]:
    """The case's settings as ours; what TRL has no setting for is as in TRL: no truncation, no warm-up.

    Two differences stay, as each side's users meet them: ours clips the gradient to norm 1, where TRL's loop does not,
    and its value function is a head on the policy's backbone, where TRL trains a second model.
    """
    config = PpoConfig(
        num_steps=settings.num_steps,
        rollout_batch_size=settings.rollout_batch_size,
        minibatch_size=settings.minibatch_size,
        micro_batch_size=settings.minibatch_size,
        num_epochs=settings.num_epochs,
        learning_rate=settings.learning_rate,
        value_learning_rate=settings.learning_rate,
        gamma=settings.gamma,
        lam=settings.lam,
        clip_range=settings.clip_range,
        value_clip_range=settings.value_clip_range,
        value_coef=settings.value_coef,
        kl=KlConfig(control="fixed", coef=settings.kl_coef),
    )
    decoding = GenerationConfig(
        max_new_tokens=settings.response_length,
        min_new_tokens=0,
        temperature=settings.temperature,
        top_k=0,
        top_p=1.0,
        no_repeat_ngram_size=0,
        num_samples=1,
        batch_size="auto",
    )
    return config, decoding


def train(folder: Path, seed: int) -> dict[str, list[float]]:
    """Trains on the case in `folder`; when each PPO step ended (on two clocks, seconds) and its mean reward."""
    settings, prompts = read_case(folder)
    config, decoding = configs(settings)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    torch.manual_seed(seed)
    lora = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        target_modules=list(settings.lora_targets),
        task_type="CAUSAL_LM",
    )
    policy = get_peft_model(model, lora)
    found: dict[str, list[float]] = {"step_ended": [], "cpu_seconds": [], "rewards": []}

    def reward(texts: list[str]) -> list[float]:
        return [reward_of_text(text, settings.reward_every) for text in texts]

    def on_step(row: dict[str, float | int]) -> None:
        found["step_ended"].append(time.perf_counter())
        found["cpu_seconds"].append(time.process_time())
        found["rewards"].append(row["ppo/reward"])

    PPO(policy, tokenizer, reward, config=config, decoding=decoding, seed=seed).train(prompts, on_step=on_step)
    return found


def main() -> None:
    """The toy once, so that what is loaded lazily is loaded; then the case, with its memory."""
    case, toy, result, seed, num_threads = sys.argv[1:]
    torch.set_num_threads(int(num_threads))
    train(Path(toy), int(seed))
    before = forget_peak()
    found = train(Path(case), int(seed))
    Path(result).write_text(json.dumps({**found, "resident_before": before, "peak": peak()}), encoding="utf-8")


if __name__ == "__main__":
    main()
