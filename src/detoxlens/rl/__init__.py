"""PPO for LoRA adapters on any reward over texts, usable on its own.

    from pathlib import Path

    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from detoxlens.params.generation import GenerationConfig
    from detoxlens.rl import PPO, PpoConfig

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    model = get_peft_model(model, LoraConfig(r=8, target_modules=["query_key_value"], task_type="CAUSAL_LM"))

    def brevity(texts):  # any callable: texts in, one number per text out
        return [1 / (1 + len(text.split())) for text in texts]

    decoding = GenerationConfig(
        max_new_tokens=16, min_new_tokens=2, temperature=1.0, top_k=0, top_p=1.0, no_repeat_ngram_size=0,
        num_samples=1, batch_size="auto",
    )
    config = PpoConfig(num_steps=4, rollout_batch_size=8, learning_rate=1e-3)
    ppo = PPO(model, tokenizer, brevity, config=config, decoding=decoding, seed=0)
    result = ppo.train(
        [tokenizer(text).input_ids for text in prompts],
        checkpoint_folder=Path("ppo-checkpoints"),  # killed? run it again, and it ends with the same bytes
        on_step=print,
    )
    model.save_pretrained("adapter")

RLOO and GRPO take the same arguments: `GroupTrainer(model, tokenizer, brevity, algorithm="rloo", ...)`.
In processes that torchrun or accelerate launch has started:
`with join(os.environ, device="cuda") as world: PPO(model.to(world.device), ..., world=world).train(...)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detoxlens.params.ppo import KlConfig, PpoConfig, ValidationConfig
    from detoxlens.rl.groups import GroupTrainer
    from detoxlens.rl.ppo import PPO
    from detoxlens.rl.rewards import NonToxicity, WeightedSum
    from detoxlens.rl.trainer import PpoResult
    from detoxlens.rl.world import World, join

_HOME = {
    "PPO": "rl.ppo",
    "PpoResult": "rl.trainer",
    "PpoConfig": "params.ppo",
    "KlConfig": "params.ppo",
    "ValidationConfig": "params.ppo",
    "NonToxicity": "rl.rewards",
    "WeightedSum": "rl.rewards",
    "GroupTrainer": "rl.groups",
    "World": "rl.world",
    "join": "rl.world",
}
__all__ = [
    "PPO",
    "GroupTrainer",
    "KlConfig",
    "NonToxicity",
    "PpoConfig",
    "PpoResult",
    "ValidationConfig",
    "WeightedSum",
    "World",
    "join",
]


def __getattr__(name: str) -> object:
    """Imports on first use: torch is not needed to validate params or to print help."""
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"detoxlens.{_HOME[name]}"), name)
