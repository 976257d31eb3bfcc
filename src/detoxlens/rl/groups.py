"""RLOO and GRPO through TRL's own trainers, with PPO's guards and validation.

RLOO: Ahmadian et al. 2024 (arXiv 2402.14740). GRPO: Shao et al. 2024 (arXiv 2402.03300); TRL's default loss (DAPO's
normalisation). Both need no value function: a response is measured against the others to the same prompt.

    rollout_batch_size 64, num_generations 4      16 prompts x 4 responses a step, the prompts in PPO's order
    minibatch_size, micro_batch_size, num_epochs  as for PPO: 64 responses learnt in minibatches, several times
    kl.coef                                       RLOO: taken from the reward; GRPO: times k3, added to the loss

What differs from PPO: TRL corrects nothing for truncated sampling (its probabilities are those of softmax(logits / T)
over the whole vocabulary); the KL coefficient stays fixed; an exceeded budget ends training after the step, not before.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import PrinterCallback

from detoxlens.common.errors import UserError
from detoxlens.models.end_tokens import set_end_tokens
from detoxlens.models.fused_head import check_head_is_free, fused_loss_is_right
from detoxlens.models.trainer_checkpoints import last_complete_checkpoint
from detoxlens.models.training import in_bfloat16
from detoxlens.params.ppo import PpoConfig
from detoxlens.rl.checkpoint import TrainingState, fingerprint_of, load_kept
from detoxlens.rl.controller import KlController
from detoxlens.rl.group_callback import GroupCallback
from detoxlens.rl.rollout import prompts_of_step
from detoxlens.rl.trainer import PolicyTrainer, PpoResult, Prompts, Row

log = logging.getLogger(__name__)


@dataclass(eq=False)
class GroupTrainer(PolicyTrainer):
    """GroupTrainer(model, tokenizer, reward, algorithm="rloo", config=config, ...).train(prompts); otherwise as PPO.

    One process only. `num_generations` responses to a prompt form a group.
    """

    _: KW_ONLY
    algorithm: Literal["rloo", "grpo"]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_batches(self.config)
        check_head_is_free(self.model, what=self.algorithm, instead="variant with algorithm: ppo")
        if not fused_loss_is_right(self.model, filler_id=self.capabilities.filler_id, padding="left"):
            name = type(self.model.get_base_model()).__name__
            raise UserError(
                f"{self.algorithm}: TRL pads prompts on the left without position ids and multiplies the backbone's "
                f"output by the output layer; for {name} that gives other probabilities than its own. Use algorithm: "
                "ppo."
            )
        kl = self.config.kl
        if kl.control == "adaptive":
            log.warning("%s: TRL keeps ppo.kl.coef=%g fixed; kl.control=adaptive is PPO's.", self.algorithm, kl.coef)

    def train(
        self,
        prompts: Prompts,
        *,
        validation_prompts: Prompts = (),
        checkpoint_folder: Path,
        on_step: Callable[[Row], None] | None = None,
    ) -> PpoResult:
        """Trains the adapter; leaves the best one (given selector and validation prompts), else the last, in the model.

        Args:
            prompts: token ids; every one is used once before any is used again.
            validation_prompts: token ids of prompts that are not trained on.
            checkpoint_folder: where to continue from and what to write every `config.checkpoint_every` steps.
            on_step: called with every new row of the history.

        Raises:
            UserError: as `PPO.train`, with the same words.
        """
        config = self.config
        num_prompts = config.rollout_batch_size // config.num_generations
        if len(prompts) < num_prompts:
            raise UserError(
                f"{self.algorithm} has {len(prompts)} prompts, fewer than one batch (ppo.rollout_batch_size="
                f"{config.rollout_batch_size} / ppo.num_generations={config.num_generations}); lower "
                f"ppo.rollout_batch_size or provide more prompts."
            )
        fingerprint = fingerprint_of(
            [
                self.algorithm,
                config.model_dump(mode="json"),
                self.decoding.model_dump(mode="json"),
                self.seed,
                self.placebo_kl_nats,
            ],
            prompts,
            validation_prompts,
        )
        newest = last_complete_checkpoint(checkpoint_folder)
        state = _fresh_state(config) if newest is None else load_kept(_kept(newest), fingerprint)
        report = on_step or (lambda row: None)
        callback = GroupCallback(self, self.algorithm, prompts, validation_prompts, state, fingerprint, report)
        if state.step < config.num_steps and state.stop_reason is None:
            order = [
                i
                for step in range(config.num_steps)
                for i in prompts_of_step(len(prompts), num_prompts, step=step, seed=self.seed)
            ]
            self._run(self._trainer(callback, order, checkpoint_folder), newest)
        return self.finish(state)

    def _run(self, trainer: Any, newest: Path | None) -> None:
        """Trains, from the checkpoint if there is one, and takes TRL's patches off the model again."""
        try:
            with warnings.catch_warnings():  # TRL 1.16 calls transformers 5.23 by its old names
                warnings.filterwarnings("ignore", message="`gradient_checkpointing_(enable|disable)` is deprecated")
                trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
        finally:
            trainer.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
            self.model.get_base_model().__dict__.pop("forward", None)  # TRL's fused head
            self.model.eval()

    def _trainer(self, callback: GroupCallback, order: Sequence[int], folder: Path) -> Any:
        """TRL's trainer for this algorithm; a prompt of its dataset is the number of one of ours."""
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

        config, decoding, model = self.config, self.decoding, self.model
        own_config, own_trainer = {"rloo": (RLOOConfig, RLOOTrainer), "grpo": (GRPOConfig, GRPOTrainer)}[self.algorithm]
        num_updates = updates_per_step(config)
        set_end_tokens(model, self.tokenizer)  # TRL takes them from there

        class OnTokenIds(own_trainer):
            def _tokenize_prompts(self, prompts):
                return [list(callback.prompts[int(number)]) for number in prompts], None, {}

        arguments = own_config(
            output_dir=str(folder),
            max_steps=config.num_steps * num_updates,
            learning_rate=config.learning_rate,
            lr_scheduler_type="linear" if config.schedule == "linear" else "constant_with_warmup",
            warmup_steps=config.warmup_steps * num_updates,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            per_device_train_batch_size=config.micro_batch_size,
            gradient_accumulation_steps=config.minibatch_size // config.micro_batch_size,
            generation_batch_size=config.rollout_batch_size,
            num_generations=config.num_generations,
            num_iterations=config.num_epochs,
            shuffle_dataset=False,
            max_completion_length=decoding.max_new_tokens,
            temperature=decoding.temperature,
            top_k=decoding.top_k,
            top_p=decoding.top_p,
            generation_kwargs={
                "min_new_tokens": decoding.min_new_tokens,
                "no_repeat_ngram_size": decoding.no_repeat_ngram_size,
            },
            beta=config.kl.coef,
            epsilon=config.clip_range,
            disable_dropout=True,
            router_aux_loss_coef=0.0,  # routers are not trained
            activation_checkpointing=config.gradient_checkpointing,
            bf16=in_bfloat16(model, config.autocast),
            use_cpu=model.device.type == "cpu",
            seed=self.seed,
            data_seed=self.seed,
            logging_steps=num_updates,
            logging_nan_inf_filter=False,
            save_strategy="steps",
            save_steps=config.checkpoint_every * num_updates,
            report_to=[],
            disable_tqdm=True,
        )
        if self.algorithm == "rloo":
            arguments.normalize_advantages = config.whiten_advantages
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            trainer = OnTokenIds(
                model=model,
                reward_funcs=callback.reward,
                args=arguments,
                train_dataset=Dataset.from_dict({"prompt": [str(i) for i in order]}),
                processing_class=self.tokenizer,
                callbacks=[callback],
            )
        trainer.remove_callback(PrinterCallback)  # the progress bar replaces it
        if "ref" in model.peft_config:  # the reference is the base model, also where training starts from an adapter
            model.delete_adapter("ref")
        return trainer


def check_batches(config: PpoConfig) -> None:
    """Raises UserError unless groups fill a rollout batch and micro batches a minibatch, as TRL needs it."""
    for whole, part in (("rollout_batch_size", "num_generations"), ("minibatch_size", "micro_batch_size")):
        size, unit = getattr(config, whole), getattr(config, part)
        if size % unit:
            best = max(d for d in range(1, unit + 1) if size % d == 0)
            raise UserError(f"ppo.{part}={unit} must divide ppo.{whole}={size} for rloo and grpo; try {best}.")


def updates_per_step(config: PpoConfig) -> int:
    """Optimizer steps that one rollout batch is used for."""
    return config.num_epochs * config.rollout_batch_size // config.minibatch_size


def _fresh_state(config: PpoConfig) -> TrainingState:
    controller = KlController(coef=config.kl.coef, target=None, horizon=config.kl.horizon)
    return TrainingState(step=0, controller=controller, history=[], best=None, best_adapter={}, stop_reason=None)


def _kept(checkpoint: Path) -> Path:
    """Where the state lies that belongs to TRL's checkpoint-<n>: written before it, and kept as long as it."""
    return checkpoint.with_name(checkpoint.name.replace("checkpoint-", "kept-"))
