"""The params sections `data` and `splits`: where the data come from, and which prompts are evaluated.

data:
  dialoconan: data/sample/dialogues.csv         # or a URL, or a Hugging Face dataset id
splits:
  pc50:
    where: {prompt.toxicity: {gt: 0.5}, continuation.toxicity: {gt: 0.5}}
"""

from __future__ import annotations

import operator
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from detoxlens.config import Name, Section

Scalar = bool | int | float | str | None
LinkedBy = Literal["all_turns", "hater_turns"]


class DataConfig(Section):
    """Where dialogues and prompts are read from, and how they are parted into train, val and test.

    A source is a path (absolute, or relative to the repository root), a URL (`https://...`, optionally pinned by
    `#sha256=<hex>`) or a Hugging Face dataset id (`hf:owner/name` or `owner/name`, optionally pinned by `@<revision>`).
    """

    dialoconan: str = Field(min_length=1)
    """DialoCONAN's CSV: text, TARGET, dialogue_id, turn_id, type, source (Bonaldi et al. 2022)."""
    rtp: str = Field(min_length=1)
    """RealToxicityPrompts' JSON lines (Gehman et al. 2020)."""
    seed: int = Field(ge=0)
    """Decides who goes into which split; independent of run.seed, so that runs stay comparable."""
    dialogue_val_fraction: float = Field(gt=0, lt=1)
    """Share of the dialogues held out for validation."""
    dialogue_test_fraction: float = Field(gt=0, lt=1)
    """Share of the dialogues held out from training and selection both."""
    dialogue_linked_by: LinkedBy
    """Dialogues that share such a turn stay in one split: any turn, or a hater turn."""
    prompt_val_fraction: float = Field(gt=0, lt=1)
    """Share of the evaluation prompts that are for selection and sweeps; the rest is for the report."""

    @field_validator("dialogue_test_fraction")
    @classmethod
    def _something_left_to_train_on(cls, value: float, info: ValidationInfo) -> float:
        if value + info.data.get("dialogue_val_fraction", 0) >= 1:
            raise ValueError("with dialogue_val_fraction it must stay below 1, or nothing is left to train on")
        return value


class Condition(Section):
    """What one field of an RTP row must satisfy; several comparisons are all required. A null satisfies none."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    eq: Scalar = None

    @model_validator(mode="after")
    def _compares_something(self) -> Condition:
        if not self.given:
            raise ValueError("name at least one of gt, ge, lt, le, eq, each with a value")
        return self

    @property
    def given(self) -> dict[str, Scalar]:
        """The comparisons asked for, e.g. {"gt": 0.5}."""
        return {op: value for op in ("gt", "ge", "lt", "le", "eq") if (value := getattr(self, op)) is not None}

    def accepts(self, value: object) -> bool:
        """Does `value` satisfy every comparison? None and NaN, which some exporters write for it, satisfy none.

        Raises:
            TypeError: an order is asked for and `value` is not a number.
        """
        if value is None or value != value:
            return False
        for op, bound in self.given.items():
            if op == "eq":
                if isinstance(value, bool) != isinstance(bound, bool) or value != bound:  # in Python, 1 == True
                    return False
            elif isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{value!r} is not a number")
            elif not getattr(operator, op)(value, bound):
                return False
        return True

    def __str__(self) -> str:
        signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "=="}
        return " and ".join(f"{signs[op]} {value}" for op, value in self.given.items())


class SplitConfig(Section):
    """One set of evaluation prompts: a filter over RTP's fields. `where: {}` takes every row.

    The authors' two test sets are declared like this; the second needs the reward classifier's verdict, which RTP does
    not hold, as a field of one's own in the JSON lines (any field can be filtered on, nested ones by dots):

        authors_p50:
          where: {prompt.toxicity: {gt: 0.5}, continuation.toxicity: {gt: 0.5}}
          text: prompt+continuation
        authors_pc50:
          where: {prompt.toxicity: {gt: 0.5}, continuation.toxicity: {gt: 0.5}, reward_hate_prob: {gt: 0.5}}
          text: prompt+continuation
    """

    where: dict[str, Condition]
    """Field path, e.g. prompt.toxicity, to the condition on it; all must hold."""
    text: Literal["prompt", "prompt+continuation"] = "prompt"
    """What the model is given: RTP's prompt alone, or with its continuation."""
    max_val: int | None = Field(default=None, ge=0)
    """Most prompts of it in `val`; None takes all that meet the filter, 0 none."""
    max_test: int | None = Field(default=None, ge=0)
    """Most prompts of it in `test`; None takes all that meet the filter, 0 none."""


def _not_reserved(name: str) -> str:
    if name in ("train", "val", "test"):
        raise ValueError(f"{name!r} is a part of the data itself; name this split otherwise")
    return name


class SplitsConfig(Section):
    """All declared splits, by name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[Annotated[Name, AfterValidator(_not_reserved)], SplitConfig] = Field(init=False)

    @model_validator(mode="after")
    def _at_least_one(self) -> SplitsConfig:
        if not self.by_name:
            raise ValueError("declare at least one split, e.g. p50: {where: {prompt.toxicity: {gt: 0.5}}}")
        return self

    @property
    def by_name(self) -> dict[str, SplitConfig]:
        """The splits in the order of params.yaml."""
        return dict(self.__pydantic_extra__ or {})
