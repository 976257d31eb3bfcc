"""`python trl_child.py train CASE TOY RESULT SEED THREADS`: one run of TRL 1.12.0's PPOTrainer, measured.
`python trl_child.py formulas TENSORS RESULT`: what TRL's own statements make of the given tensors.

Runs in an environment with TRL 1.12.0, where detoxlens is not installed. The value model is of the policy's shape, all
its weights trained, as TRL's examples have it; the reference is the policy with its adapter off.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from datasets import Dataset
from peft import LoraConfig
from resident import forget_peak, peak
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

EOS, PAD, BOT = 0, 1, 2


class WordReward(nn.Module):
    """The case's reward in the form TRL asks for: a backbone and a `score`, on token ids, a value at every position.

    Position t: the share of rewarded words among the words behind the prompt's last token (BOT) up to t.
    """

    base_model_prefix = "backbone"

    def __init__(self, reward_every: int):
        super().__init__()
        self.reward_every = reward_every
        self.backbone, self.score = self.shares, nn.Identity()

    def shares(self, input_ids: Tensor, attention_mask: Tensor, **_: object) -> SimpleNamespace:
        """hidden_states[-1] is (batch, seq, 1)."""
        behind = ((input_ids == BOT) & attention_mask).long().cumsum(1).cumsum(1) > 1  # the first BOT is the prompt's
        words = behind & (input_ids > BOT) & attention_mask
        rewarded = words & (input_ids % self.reward_every == 0)
        shares = rewarded.cumsum(1) / words.cumsum(1).clamp(min=1)
        return SimpleNamespace(hidden_states=[shares.unsqueeze(-1)])


class Watch(TrainerCallback):
    """When each PPO step ended, on two clocks, and its mean reward."""

    def __init__(self) -> None:
        self.step_ended: list[float] = []
        self.cpu_seconds: list[float] = []
        self.rewards: list[float] = []

    def on_log(self, args, state, control, logs=None, **_) -> None:
        self.rewards.append(logs["objective/scores"])

    def on_step_end(self, args, state, control, **_) -> None:
        self.step_ended.append(time.perf_counter())
        self.cpu_seconds.append(time.process_time())


def train(folder: Path, seed: int) -> dict[str, list[float]]:
    """Trains on the case in `folder`."""
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    settings = case["settings"]
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    policy = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    torch.manual_seed(seed)
    value = AutoModelForSequenceClassification.from_pretrained(folder / "model", num_labels=1, dtype=torch.float32)
    watch = Watch()
    with tempfile.TemporaryDirectory() as output:
        config = PPOConfig(
            output_dir=output,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            seed=seed,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            num_sample_generations=0,
            total_episodes=settings["num_steps"] * settings["rollout_batch_size"],
            per_device_train_batch_size=settings["rollout_batch_size"],
            num_mini_batches=settings["rollout_batch_size"] // settings["minibatch_size"],
            num_ppo_epochs=settings["num_epochs"],
            response_length=settings["response_length"],
            stop_token="eos",
            temperature=settings["temperature"],
            learning_rate=settings["learning_rate"],
            lr_scheduler_type="constant",
            kl_coef=settings["kl_coef"],
            gamma=settings["gamma"],
            lam=settings["lam"],
            cliprange=settings["clip_range"],
            cliprange_value=settings["value_clip_range"],
            vf_coef=settings["value_coef"],
        )
        trainer = PPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=policy,
            ref_model=None,
            reward_model=WordReward(settings["reward_every"]),
            value_model=value,
            train_dataset=Dataset.from_dict({"input_ids": case["prompts"]}),
            eval_dataset=Dataset.from_dict({"input_ids": case["prompts"][:1]}),
            callbacks=[watch],
            peft_config=LoraConfig(
                r=settings["lora_r"],
                lora_alpha=settings["lora_alpha"],
                target_modules=list(settings["lora_targets"]),
                task_type="CAUSAL_LM",
            ),
        )
        trainer.train()
    return {"step_ended": watch.step_ended, "cpu_seconds": watch.cpu_seconds, "rewards": watch.rewards}


def formulas(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What TRL makes of the tensors of `formulas.random_tensors`: its functions, and statements cut out of its loop."""
    mask, whole = given["mask"].bool(), given["scores"]
    lengths = torch.full(whole.shape, mask.shape[1] - 1)
    results: dict[str, Tensor] = {}
    for estimator in ("k1", "k3"):
        args = SimpleNamespace(kl_estimator=estimator, kl_coef=given["kl_coef"].item())
        names = {
            "args": args,
            "logprobs": given["old_logprobs"],
            "ref_logprobs": given["ref_logprobs"],
            "scores": whole,
            "sequence_lengths": lengths,
            "sequence_lengths_p1": lengths + 1,
        }
        run_statements(names, first="logr", last="rewards[actual_start, actual_end]")
        results[f"kl_{estimator}"], results[f"token_rewards_{estimator}"] = names["kl"], names["rewards"]
    args = SimpleNamespace(**{n: given[n].item() for n in ("gamma", "lam", "cliprange", "cliprange_value", "vf_coef")})
    names = {"args": args, "responses": mask, "rewards": given["rewards"] * mask, "values": given["old_values"] * mask}
    run_statements(names, first="lastgaelam", last="returns")
    results["advantages"], results["returns"] = names["advantages"].contiguous(), names["returns"].contiguous()
    results["whitened"] = ppo_trainer.masked_whiten(given["rewards"], mask)
    results["whitened_keeping_mean"] = ppo_trainer.masked_whiten(given["rewards"], mask, shift_mean=False)
    names = {
        "args": args,
        "vpred": given["values"],
        "mb_values": given["old_values"],
        "mb_return": given["rewards"],
        "new_logprobs": given["logprobs"],
        "mb_logprobs": given["old_logprobs"],
        "mb_advantage": given["advantages"],
        "padding_mask": ~mask,
        "padding_mask_p1": ~mask,
        "micro_batch_inds": slice(None),
    }
    run_statements(names, first="vpredclipped", last="loss")
    results |= {"policy_loss": names["pg_loss"], "value_loss": names["vf_loss"], "loss": names["loss"]}
    return results


def run_statements(names: dict[str, object], *, first: str, last: str) -> None:
    """Runs the statements of PPOTrainer.train from the one that assigns `first` to the one that assigns `last`.

    Args:
        names: the variables they read; what they assign is added.
        first: target of the first statement, as in the source.
        last: target of the last one, in the same block.
    """
    tree = ast.parse(inspect.getsource(ppo_trainer))
    trainer = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "PPOTrainer")
    loop = next(n for n in trainer.body if isinstance(n, ast.FunctionDef) and n.name == "train")
    for node in ast.walk(loop):
        block = getattr(node, "body", None)
        if not isinstance(block, list) or first not in (targets := [target_of(s) for s in block]):
            continue
        start = targets.index(first)
        code = ast.Module(body=block[start : targets.index(last, start) + 1], type_ignores=[])
        exec(compile(code, ppo_trainer.__file__, "exec"), vars(ppo_trainer) | {"torch": torch}, names)
        return
    raise LookupError(f"{ppo_trainer.__file__}: train() has no statement that assigns {first}")


def target_of(statement: ast.stmt) -> str:
    """What a statement assigns to; empty if it assigns nothing."""
    if isinstance(statement, ast.Assign):
        return ast.unparse(statement.targets[0])
    return ast.unparse(statement.target) if isinstance(statement, ast.AugAssign) else ""


def main() -> None:
    """The toy once, so that what is loaded lazily is loaded; then the case, with its memory."""
    mode, *arguments = sys.argv[1:]
    if mode == "formulas":
        tensors, result = arguments
        save_file(formulas(load_file(tensors)), result)
        return
    case, toy, result, seed, num_threads = arguments
    torch.set_num_threads(int(num_threads))
    train(Path(toy), int(seed))
    before = forget_peak()
    found = train(Path(case), int(seed))
    Path(result).write_text(json.dumps({**found, "resident_before": before, "peak": peak()}), encoding="utf-8")


if __name__ == "__main__":
    main()
