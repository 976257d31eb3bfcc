"""Experience of a PPO step: responses, rewards, grades, and what the models make of them.

Sampled, rewarded and measured in as many processes as there are, then put together in the order of the prompts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from detoxlens.rl.likelihoods import Measured
from detoxlens.rl.rewards import RewardedResponse
from detoxlens.rl.rollout import Response
from detoxlens.rl.world import World


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """One entry per prompt in each list and each first axis."""

    responses: list[Response]
    measured: Measured
    rewarded: list[RewardedResponse]
    """Empty at validation."""
    graded: list[float | None] | None
    """Toxicity by the independent grader, None where there was no text or no verdict; None without a grader."""


def gathered(world: World, num_prompts: int, collect: Callable[[list[int]], Experience]) -> Experience:
    """The experience of prompts 0, 1, ..., of which every process collects its share.

    Args:
        world: the processes.
        num_prompts: prompts of the whole batch, at least one.
        collect: indices of prompts -> their experience; not called where a process has none to do.

    Raises:
        UserError: `collect` raised one in some process, or a process has ended.
    """
    rows = list(range(num_prompts))
    if world.size == 1:
        return collect(rows)
    share = world.share(rows)
    parts = world.together(lambda: _packed(collect(share)) if share else b"")
    return _joined([_unpacked(part, world.device) for part in parts if part], num_prompts)


def _packed(experience: Experience) -> bytes:
    """As one safetensors file in memory; what is no tensor is JSON in a tensor of bytes."""
    measured = {f.name: getattr(experience.measured, f.name) for f in dataclasses.fields(Measured)}
    supports = measured.pop("supports")
    tensors = {name: tensor.cpu().contiguous() for name, tensor in measured.items()}
    if supports is not None:
        tensors |= {f"supports.{i}": support.cpu().contiguous() for i, support in enumerate(supports)}
    plain = {
        "responses": [dataclasses.asdict(r) for r in experience.responses],
        "rewarded": [dataclasses.asdict(r) for r in experience.rewarded],
        "graded": experience.graded,
    }
    tensors["json"] = torch.frombuffer(bytearray(json.dumps(plain).encode()), dtype=torch.uint8)
    return save(tensors)


def _unpacked(data: bytes, device: str) -> Experience:
    tensors = load(data)
    plain = json.loads(bytes(tensors.pop("json").tolist()))
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    supports = [tensors.pop(f"supports.{i}") for i in range(sum(name.startswith("supports.") for name in tensors))]
    responses = [
        Response(**r | {"prompt_ids": tuple(r["prompt_ids"]), "token_ids": tuple(r["token_ids"])})
        for r in plain["responses"]
    ]
    return Experience(
        responses=responses,
        measured=Measured(**tensors, supports=supports or None),
        rewarded=[RewardedResponse(**r) for r in plain["rewarded"]],
        graded=plain["graded"],
    )


def _joined(parts: Sequence[Experience], num_prompts: int) -> Experience:
    """The parts of rank 0, 1, ... interleaved: prompt i is entry i // n of part i % n."""
    places = [(i % len(parts), i // len(parts)) for i in range(num_prompts)]

    def interleaved(lists: list[list]) -> list:
        return [lists[part][entry] for part, entry in places] if all(lists) else []

    width = max(part.measured.mask.shape[1] for part in parts)

    def padded(name: str) -> Tensor:
        columns = [getattr(part.measured, name) for part in parts]
        wide = [nn.functional.pad(c, (0, width - c.shape[1])) for c in columns]
        return torch.stack([wide[part][entry] for part, entry in places])

    names = [f.name for f in dataclasses.fields(Measured) if f.name != "supports"]
    truncated = parts[0].measured.supports is not None
    return Experience(
        responses=interleaved([part.responses for part in parts]),
        measured=Measured(
            supports=interleaved([part.measured.supports or [] for part in parts]) if truncated else None,
            **{name: padded(name) for name in names},
        ),
        rewarded=interleaved([part.rewarded for part in parts]),
        graded=None if parts[0].graded is None else interleaved([part.graded or [] for part in parts]),
    )
