"""The KL coefficient over time, fixed or steered to a target. Ziegler et al. 2019 (arXiv 1909.08593), section 2.2."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KlController:
    """KlController(coef=0.2, target=6.0, horizon=10_000), the authors' TRL defaults; `target=None` keeps `coef`."""

    coef: float
    """Weight of the KL penalty in the reward, reward per nat."""
    target: float | None
    """Nats per sequence to steer to."""
    horizon: int
    """Sequences over which the coefficient reacts."""

    def updated(self, kl_nats_per_sequence: float, num_sequences: int) -> KlController:
        """The controller after a batch: coef * (1 + clip(kl / target - 1, -0.2, 0.2) * num_sequences / horizon)."""
        if self.target is None:
            return self
        error = min(max(kl_nats_per_sequence / self.target - 1, -0.2), 0.2)
        return dataclasses.replace(self, coef=self.coef * (1 + error * num_sequences / self.horizon))
