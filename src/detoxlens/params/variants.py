"""Params section `variants`: the rows of Table 1."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from detoxlens.params.section import Name, Section


class VariantConfig(Section):
    """One row of Table 1."""

    kind: Literal["base", "sft", "rl"]
    algorithm: Literal["ppo", "rloo", "grpo"] | None = None
    """Of kind `rl`: our PPO, or RLOO or GRPO through TRL; all read the sections `ppo`, `lora` and `generation`."""
    init_from: Name | None = None
    """Variant whose adapter the training starts from; None is the base model."""
    placebo_of: Name | None = None
    """The variant that this one is the control of: it inherits its overrides and is trained alike, without the signal.
    `ft`: on answers of the base model's own, as many tokens and steps. `rl`: with the rewards of each batch permuted,
    until its KL is that of the adapter that `rl` kept."""
    seed: int | None = Field(default=None, ge=0)
    """Training seed; None takes run.seed. Several seeds of one method are several variants of one `group`."""
    group: str | None = None
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _keys_go_together(self) -> VariantConfig:
        def mistake(key: str, message: str) -> PydanticCustomError:
            return PydanticCustomError("of_key", "{message}", {"key": key, "message": message})

        if self.kind == "rl" and self.algorithm is None:
            raise mistake("algorithm", " is missing; a variant of kind rl needs ppo, rloo or grpo")
        if self.kind != "rl" and self.algorithm is not None:
            message = f"={self.algorithm!r}: a variant of kind {self.kind} has none; remove it, or set kind: rl"
            raise mistake("algorithm", message)
        if self.kind != "rl" and self.init_from not in (None, "it"):
            message = f"={self.init_from!r}: only variants of kind rl start from another adapter; remove it"
            raise mistake("init_from", message)
        if self.init_from not in (None, "it", "ft"):
            raise mistake("init_from", f"={self.init_from!r}: allowed are 'it' and 'ft'")
        control_of = {"sft": "ft", "rl": "rl"}.get(self.kind)
        if self.placebo_of not in (None, control_of):
            allowed = "no variant of kind base is a placebo" if control_of is None else f"allowed is {control_of!r}"
            raise mistake("placebo_of", f"={self.placebo_of!r}: {allowed} for kind {self.kind}")
        if self.placebo_of and self.init_from == "ft":
            raise mistake("init_from", "='ft': the placebo of `rl` starts from the base model, as `rl` does")
        return self
