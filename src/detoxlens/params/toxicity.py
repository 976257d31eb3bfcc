"""Params section `toxicity`: which scorers grade completions, and what counts as toxic."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from detoxlens.params.section import Section

RECORDED = "data/recorded"
"""Folder of the files that the section names; `score` and `report` depend on it."""
SCORERS = f"{RECORDED}/scorers"
"""Where folders of scorers of one's own lie, which git ignores."""


class ToxicityConfig(Section):
    """The graders of the tables; the reward model may not be one of them.

    Files named here lie in data/recorded, which `score` and `report` depend on: a changed file makes them run again.
    """

    scorers: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    """Names that `scorers.make_scorer` knows: `profanity_check`,
    `hf:<id or folder>[@<revision>][#<label>[=<activation>]]`, `onnx:<file>#<class>[+<class>...]`,
    `perspective[:<language>][@<endpoint>]`, `openai_moderation[:<model>]`, `recorded:data/recorded/<file>`."""
    headline: str
    """The scorer of Table 1; one of `scorers`."""
    selector: str | None = Field(default=None, min_length=1)
    """The scorer that chooses on validation prompts: the adapter that training by reward keeps, and a sweep's trials
    (gate, pruner and `toxicity/val`). It need not be one of `scorers`. None is `headline`: then the tables are of the
    scorer that chose, and the report says so."""
    missing: Literal["exclude", "non_toxic"]
    """What an unscored completion counts as: nothing, or, to reproduce the published numbers only, not toxic."""
    normalize: bool = True
    """Judge a text in the letters that a reader takes it for: invisible characters dropped, full-width and other styled
    letters and look-alikes of other scripts (UTS 39) as Latin ones. The tables keep the text as it is."""
    calibration: str | None = None
    """A JSON file of `detoxlens calibrate` for one of `scorers`: the tables are given in its reference's terms too."""

    @property
    def chooser(self) -> str:
        """The scorer that says what is good on validation prompts, to training and to sweeps."""
        return self.selector or self.headline

    @model_validator(mode="after")
    def _headline_is_scored(self) -> ToxicityConfig:
        if self.headline not in self.scorers:
            raise ValueError(f"headline={self.headline!r} must be one of scorers={self.scorers}")
        if len(set(self.scorers)) < len(self.scorers):
            raise ValueError(f"scorers={self.scorers} names one twice")
        files = {f"scorers: {s}": s.removeprefix("recorded:") for s in self.scorers if s.startswith("recorded:")}
        for where, file in (files | ({"calibration": self.calibration} if self.calibration else {})).items():
            if not file.startswith(f"{RECORDED}/") or ".." in file:
                raise ValueError(
                    f"{where}: {file!r} lies where no stage would notice that it changes; put the file into {RECORDED} "
                    f"and write {RECORDED}/{file.rpartition('/')[2]}"
                )
        return self
