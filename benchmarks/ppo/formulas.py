"""Our formulas and TRL 1.12.0's on the same random tensors: its own functions, and statements cut out of its loop.

Sequences have different lengths, but for the token rewards: TRL puts the score of a sequence that ended early one place
behind its last token, ours on it, so that with lambda < 1 the two differ there on purpose.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from detoxlens.common.errors import UserError
from detoxlens.common.seeding import torch_generator
from detoxlens.rl.advantages import KL_ESTIMATORS, gae, masked_whiten, token_rewards
from detoxlens.rl.losses import policy_loss, value_loss

TOLERANCE = 1e-6
CHILD = Path(__file__).with_name("trl_child.py")


def random_tensors(seed: int = 0, *, batch: int = 32, time: int = 32) -> dict[str, Tensor]:
    """Everything that a PPO step computes with, (batch, time) in float32, and its coefficients."""
    generator = torch_generator(seed, "ppo formulas")

    def normal(scale: float) -> Tensor:
        return scale * torch.randn(batch, time, generator=generator)

    lengths = torch.randint(2, time + 1, (batch,), generator=generator)
    old_logprobs, old_values = -5 + normal(1.0), normal(0.5)
    return {
        "mask": (torch.arange(time) < lengths[:, None]).to(torch.uint8),
        "old_logprobs": old_logprobs,
        "logprobs": old_logprobs + normal(0.2),  # about a third of the ratios leave the clip range
        "ref_logprobs": old_logprobs + normal(0.3),
        "old_values": old_values,
        "values": old_values + normal(0.2),
        "rewards": normal(0.5),
        "advantages": normal(1.0),
        "scores": torch.randn(batch, generator=generator),
        "kl_coef": torch.tensor(0.05),
        "gamma": torch.tensor(0.99),
        "lam": torch.tensor(0.95),
        "cliprange": torch.tensor(0.2),
        "cliprange_value": torch.tensor(0.2),
        "vf_coef": torch.tensor(0.1),
    }


def ours(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What our formulas make of `random_tensors`."""
    mask = given["mask"].bool()
    whole = torch.ones_like(mask)
    results: dict[str, Tensor] = {}
    for name, estimator in KL_ESTIMATORS.items():
        results[f"kl_{name}"] = estimator(given["old_logprobs"], given["ref_logprobs"])
        results[f"token_rewards_{name}"] = token_rewards(
            given["scores"],
            given["old_logprobs"],
            given["ref_logprobs"],
            whole,
            kl_coef=given["kl_coef"].item(),
            estimator=name,
        )
    results["advantages"], results["returns"] = gae(
        given["rewards"], given["old_values"], mask, gamma=given["gamma"].item(), lam=given["lam"].item()
    )
    results["whitened"] = masked_whiten(given["rewards"], mask)
    results["whitened_keeping_mean"] = masked_whiten(given["rewards"], mask, shift_mean=False)
    tokens = {name: t[mask] for name, t in given.items() if t.shape == mask.shape}
    num_tokens = mask.sum()
    policy = policy_loss(
        tokens["logprobs"], tokens["old_logprobs"], tokens["advantages"], clip_range=given["cliprange"].item()
    )
    value = value_loss(
        tokens["values"], tokens["old_values"], tokens["rewards"], clip_range=given["cliprange_value"].item()
    )
    results["policy_loss"], results["value_loss"] = policy / num_tokens, value / num_tokens
    results["loss"] = results["policy_loss"] + given["vf_coef"].item() * results["value_loss"]
    return results


def trls(given: Mapping[str, Tensor], folder: Path, environment: Mapping[str, str]) -> dict[str, Tensor]:
    """What TRL makes of them, in its own process.

    Raises:
        UserError: the process failed.
    """
    save_file(dict(given), folder / "given.safetensors")
    result = folder / "trl.safetensors"
    command = [sys.executable, str(CHILD), "formulas", str(folder / "given.safetensors"), str(result)]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"TRL's formulas could not be run: {' '.join(done.stderr.split()[-40:])}")
    return load_file(result)


def max_abs_differences(own: Mapping[str, Tensor], others: Mapping[str, Tensor], mask: Tensor) -> dict[str, float]:
    """Largest |ours - TRL's| per formula, on the tokens of `mask` where the formula has masked tokens."""
    whole = torch.ones_like(mask)
    found = {}
    for name, tensor in own.items():
        difference = (tensor - others[name]).abs()
        if difference.shape == mask.shape:
            difference = difference[whole if name.startswith(("kl", "token_rewards")) else mask]
        found[name] = difference.max().item()
    return found
