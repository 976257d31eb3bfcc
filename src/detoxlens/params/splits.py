"""Params section `splits`: which prompts are evaluated, as filters over RealToxicityPrompts' fields.

splits:
  pc50:
    where: {prompt.toxicity: {gt: 0.5}, continuation.toxicity: {gt: 0.5}}
"""

from __future__ import annotations

import operator
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from detoxlens.params.section import Name, Section

Scalar = bool | int | float | str | None


class Condition(Section):
    """What one field of an RTP row must satisfy; several comparisons are all required. A null satisfies none."""

    gt: float | None = None
    """Above."""
    ge: float | None = None
    """At least."""
    lt: float | None = None
    """Below."""
    le: float | None = None
    """At most."""
    eq: Scalar = None
    """Equal to; also of texts and true or false."""

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

    `detoxlens annotate` writes that field. A split may read another file than data.rtp; in a CSV every column is a
    field (numbers as numbers), and `columns` says which of them are RTP's:

        conan:
          source: data/raw/Multitarget-CONAN.csv
          columns: {prompt.text: HATE_SPEECH, target: TARGET}
          where: {}
          max_val: 0
        xstest:
          source: data/raw/xstest_prompts.csv
          columns: {prompt.text: prompt, category: type}
          where: {label: {eq: safe}}

    Fields of ours beside RTP's: `target`, the group spoken of; `category`; `reference.text`, a reference reply.
    """

    source: str | None = None
    """Where its prompts come from: JSON lines like RTP's or a CSV; None is data.rtp."""
    columns: dict[str, str] = Field(default_factory=dict)
    """RTP's field to the CSV's column; prompt.text is needed."""

    where: dict[str, Condition]
    """Field path, e.g. prompt.toxicity, to the condition on it; all must hold."""
    text: Literal["prompt", "prompt+continuation"] = "prompt"
    """What the model is given: RTP's prompt alone, or with its continuation."""
    max_val: int | None = Field(default=None, ge=0)
    """Most prompts of it in `val`; None takes all that meet the filter, 0 none. Where no split of a `source` of its own
    wants any, all of that file's prompts are for `test`."""
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
    def _columns_are_of_a_csv(self) -> SplitsConfig:
        for name, split in self.by_name.items():
            is_csv = (split.source or "").partition("#")[0].endswith(".csv")
            if is_csv != bool(split.columns) or (is_csv and "prompt.text" not in split.columns):
                raise ValueError(
                    f"{name}: source={split.source!r} with columns={split.columns}: a .csv file needs "
                    "columns: {prompt.text: <column>}, and nothing else takes columns"
                )
        return self

    @model_validator(mode="after")
    def _at_least_one(self) -> SplitsConfig:
        if not self.by_name:
            raise ValueError("declare at least one split, e.g. p50: {where: {prompt.toxicity: {gt: 0.5}}}")
        return self

    def by_source(self, default: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], dict[str, SplitConfig]]:
        """(source, columns) -> the splits that read it, `default` first."""
        found: dict[tuple[str, tuple[tuple[str, str], ...]], dict[str, SplitConfig]] = {}
        for name, split in self.by_name.items():
            key = (split.source or default, tuple(sorted(split.columns.items())))
            found.setdefault(key, {})[name] = split
        return dict(sorted(found.items(), key=lambda item: item[0][0] != default))

    @property
    def by_name(self) -> dict[str, SplitConfig]:
        """The splits in the order of params.yaml."""
        return dict(self.__pydantic_extra__ or {})
