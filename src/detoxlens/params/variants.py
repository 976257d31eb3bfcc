"""Params section `variants`: the rows of Table 1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from detoxlens.params.kinds import ALGORITHMS, KINDS
from detoxlens.params.section import Name, Section


class VariantConfig(Section):
    """One row of Table 1."""

    kind: Literal[*KINDS]
    """A line of `params.kinds`."""
    algorithm: Literal[*ALGORITHMS] | None = None
    """Of kind `rl`: our PPO, or RLOO or GRPO through TRL; all read the sections `ppo`, `lora` and `generation`. Of kind
    `preference`: DPO or KTO through TRL; both read `preference`, `lora` and `generation`."""
    init_from: Name | None = None
    """Variant whose adapter the training starts from; None is the base model."""
    placebo_of: Name | None = None
    """The variant that this one is the control of: it inherits its overrides and is trained alike, without the signal.
    `ft`: on answers of the base model's own, as many tokens and steps. `rl`: with the rewards of each batch permuted,
    until its KL is that of the adapter that `rl` kept."""
    seed: int | None = Field(default=None, ge=0)
    """Training seed; None takes run.seed. Several seeds of one method are several variants of one `group`."""
    group: str | None = None
    """Variants of one group are seeds of one method, shown together with their spread."""
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Section -> the keys of it that differ for this variant; they win over the model's."""

    @model_validator(mode="after")
    def _keys_go_together(self) -> VariantConfig:
        def mistake(key: str, message: str) -> PydanticCustomError:
            return PydanticCustomError("of_key", "{message}", {"key": key, "message": message})

        own = KINDS[self.kind]
        if own.algorithms and self.algorithm is None:
            raise mistake("algorithm", f" is missing; a variant of kind {self.kind} needs {_either(own.algorithms)}")
        if not own.algorithms and self.algorithm is not None:
            homes = [name for name, kind in KINDS.items() if self.algorithm in kind.algorithms]
            message = f"={self.algorithm!r}: a variant of kind {self.kind} has none; remove it, or set kind: {homes[0]}"
            raise mistake("algorithm", message)
        if own.algorithms and self.algorithm not in own.algorithms:
            message = f"={self.algorithm!r}: a variant of kind {self.kind} needs {_either(own.algorithms)}"
            raise mistake("algorithm", message)
        if own.init_from is None and self.init_from not in (None, "it"):
            able = _either([name for name, kind in KINDS.items() if kind.init_from])
            message = f"={self.init_from!r}: only variants of kind {able} start from another adapter; remove it"
            raise mistake("init_from", message)
        if self.init_from not in (None, "it", own.init_from):
            raise mistake("init_from", f"={self.init_from!r}: allowed are 'it' and {own.init_from!r}")
        if not own.draws and self.seed is not None:
            raise mistake("seed", f"={self.seed}: nothing is drawn for a variant of kind {self.kind}; remove it")
        if self.placebo_of not in (None, own.placebo_of):
            allowed = f"allowed is {own.placebo_of!r} for kind {self.kind}"
            none = f"no variant of kind {self.kind} is a placebo"
            raise mistake("placebo_of", f"={self.placebo_of!r}: {allowed if own.placebo_of else none}")
        if self.placebo_of and self.init_from == own.init_from is not None:
            what = f"the placebo of `{self.placebo_of}` starts from the base model, as `{self.placebo_of}` does"
            raise mistake("init_from", f"={self.init_from!r}: {what}")
        return self


def _either(names: Iterable[str]) -> str:
    """`ppo, rloo or grpo`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
