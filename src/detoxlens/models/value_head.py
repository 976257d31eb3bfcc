"""The value function of PPO as a small head on the policy's own backbone, so that no second model is in memory."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ValueHead(nn.Module):
    """One linear layer, hidden state -> expected return, computed in float32 whatever the backbone's dtype.

    It starts at zero, so that the first advantages are the rewards themselves rather than noise.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1, dtype=torch.float32)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Float[Tensor, "*tokens hidden"]) -> Float[Tensor, "*tokens"]:
        """The value of each position, in units of the reward."""
        return self.linear(hidden.float()).squeeze(-1)
