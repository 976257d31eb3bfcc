"""Checkpoints of a PPO run: kill it at any moment, start it again, and it ends with the same bytes.

    <folder>/checkpoint-000010/  adapter.safetensors  value_function.safetensors  best_adapter.safetensors  trainer.pt

A checkpoint is written beside its final name and renamed once complete. PPO's own draws are functions of (seed, step),
and the learning rate is one of the step, so neither has a state to save; the global generators are saved for the sake
of reward functions that draw from them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from detoxlens.common.errors import UserError
from detoxlens.rl.controller import KlController
from detoxlens.rl.validation import Validation
from detoxlens.rl.value_function import ValueFunction

PREFIX = "checkpoint-"


@dataclasses.dataclass(slots=True, kw_only=True)
class TrainingState:
    """What PPO carries from step to step beside the weights."""

    step: int
    """PPO steps done."""
    controller: KlController
    history: list[dict[str, float | int]]
    best: Validation | None
    """The validation that the kept adapter won with; None without validation."""
    best_adapter: dict[str, Tensor]
    """Weights of the kept adapter, on CPU; empty without validation."""
    stop_reason: str | None
    """Why training ended before its last step."""

    def keep_if_best(
        self, verdict: Validation, model: PeftModel, *, kl_budget: float, kl_target: float | None = None
    ) -> None:
        """Makes the model's adapter, which `verdict` is about, the kept one if it beats the one kept so far."""
        if self.best is None or verdict.beats(self.best, kl_budget=kl_budget, kl_target=kl_target):
            self.best, self.best_adapter = verdict, adapter_state(model)


def adapter_state(model: PeftModel) -> dict[str, Tensor]:
    """A copy, on CPU, of the trainable weights by name."""
    return {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_adapter_state(model: PeftModel, state: Mapping[str, Tensor]) -> None:
    """Puts weights from `adapter_state` back."""
    parameters = dict(model.named_parameters())
    for name, tensor in state.items():
        parameters[name].copy_(tensor)


def save_checkpoint(
    folder: Path,
    state: TrainingState,
    *,
    model: PeftModel,
    value_function: ValueFunction,
    optimizer: torch.optim.Optimizer,
    fingerprint: str,
) -> None:
    """Writes the checkpoint of `state.step`, then removes earlier ones.

    Args:
        folder: where checkpoints lie; made if missing.
        state: as it is after `state.step` steps.
        model: its trainable weights are written.
        value_function: its weights are written.
        optimizer: its state is written.
        fingerprint: of config, seed and data; a checkpoint is only read back into the same.
    """
    final = folder / f"{PREFIX}{state.step:06d}"
    partial = folder / f"partial-{state.step:06d}"
    for leftover in folder.glob("partial-*"):
        shutil.rmtree(leftover)
    partial.mkdir(parents=True)
    save_file(adapter_state(model), partial / "adapter.safetensors")
    save_file(value_function.state(), partial / "value_function.safetensors")
    save_file(state.best_adapter, partial / "best_adapter.safetensors")
    torch.save(
        {"state": _plain(state), "optimizer": optimizer.state_dict(), "rng": _rng_state(), "fingerprint": fingerprint},
        partial / "trainer.pt",
    )
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    for earlier in folder.glob(f"{PREFIX}*"):
        if earlier != final:
            shutil.rmtree(earlier)


def load_checkpoint(
    folder: Path,
    *,
    model: PeftModel,
    value_function: ValueFunction,
    optimizer: torch.optim.Optimizer,
    fingerprint: str,
) -> TrainingState | None:
    """Restores the newest checkpoint into model, value function, optimizer and generators; None if there is none.

    Raises:
        UserError: the checkpoint was made with other settings, another seed or other prompts.
    """
    found = sorted(folder.glob(f"{PREFIX}*"))
    if not found:
        return None
    newest = found[-1]
    saved = torch.load(newest / "trainer.pt", weights_only=True, map_location="cpu")
    _check_fingerprint(saved["fingerprint"], fingerprint, newest)
    load_adapter_state(model, load_file(newest / "adapter.safetensors"))
    value_function.load_state(load_file(newest / "value_function.safetensors"))
    optimizer.load_state_dict(saved["optimizer"])
    _set_rng_state(saved["rng"])
    return _state(saved["state"], load_file(newest / "best_adapter.safetensors"))


def save_kept(folder: Path, state: TrainingState, fingerprint: str) -> None:
    """Writes what another trainer's checkpoint does not hold: `state` with the adapter that is kept so far."""
    partial = folder.with_name(f"partial-{folder.name}")
    for old in (partial, folder):
        shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(state.best_adapter, partial / "best_adapter.safetensors")
    (partial / "state.json").write_text(json.dumps({"state": _plain(state), "fingerprint": fingerprint}))
    partial.rename(folder)


def load_kept(folder: Path, fingerprint: str) -> TrainingState:
    """The state that `save_kept` wrote.

    Raises:
        UserError: it was made with other settings, another seed or other prompts.
    """
    saved = json.loads((folder / "state.json").read_text())
    _check_fingerprint(saved["fingerprint"], fingerprint, folder)
    return _state(saved["state"], load_file(folder / "best_adapter.safetensors"))


def fingerprint_of(settings: Sequence[object], *prompt_sets: Sequence[Sequence[int]]) -> str:
    """sha256 of everything that a checkpoint must agree with; `settings` must be JSON."""
    ids = [[[int(i) for i in prompt] for prompt in prompts] for prompts in prompt_sets]
    return hashlib.sha256(json.dumps([settings, ids]).encode()).hexdigest()


def _check_fingerprint(saved: str, expected: str, folder: Path) -> None:
    if saved != expected:
        raise UserError(
            f"{folder} belongs to a PPO run with other settings, another seed or other prompts. Continue that run with "
            f"its own settings, give another checkpoint folder, or delete this one to start afresh."
        )


def _plain(state: TrainingState) -> dict[str, Any]:
    """The state as JSON has it, without the weights."""
    return {
        "step": state.step,
        "controller": dataclasses.asdict(state.controller),
        "history": state.history,
        "best": None if state.best is None else dataclasses.asdict(state.best),
        "stop_reason": state.stop_reason,
    }


def _state(plain: Mapping[str, Any], best_adapter: dict[str, Tensor]) -> TrainingState:
    """The inverse of `_plain`."""
    return TrainingState(
        step=plain["step"],
        controller=KlController(**plain["controller"]),
        history=plain["history"],
        best=None if plain["best"] is None else Validation(**plain["best"]),
        best_adapter=best_adapter,
        stop_reason=plain["stop_reason"],
    )


def _rng_state() -> dict[str, Any]:
    numpy_state = np.random.get_state(legacy=False)
    numpy_state["state"]["key"] = numpy_state["state"]["key"].tolist()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": numpy_state,
    }


def _set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate(state["python"])
    numpy_state = dict(state["numpy"])
    numpy_state["state"] = {**numpy_state["state"], "key": np.array(numpy_state["state"]["key"], dtype=np.uint32)}
    np.random.set_state(numpy_state)
