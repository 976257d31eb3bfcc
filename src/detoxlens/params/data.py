"""Params section `data`: where dialogues and prompts come from, and how they are parted."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from detoxlens.params.section import Section

LinkedBy = Literal["all_turns", "hater_turns"]


class PairColumns(Section):
    """A CSV with one exchange per row, by the names of its columns.

    CONAN: {hater: hateSpeech, counter: counterSpeech, target: hsSubType, id: cn_id, language: EN}
    Multitarget-CONAN: {hater: HATE_SPEECH, counter: COUNTER_NARRATIVE, target: TARGET}
    """

    hater: str
    """The hateful text."""
    counter: str
    """The reply to it."""
    target: str | None = None
    """The group spoken of."""
    id: str | None = None
    """Each pair's id, as CONAN's cn_id tells them: versions of one pair (EN1, EN1P1; FR1, FR1T1) stay in one split."""
    language: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")
    """Keep the pairs in one language, e.g. EN (translations into it as well), as their ids say; None keeps all."""

    @field_validator("language")
    @classmethod
    def _told_by_ids(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("id") is None:
            raise ValueError("the language of a pair is told by its id: name the column, id: cn_id")
        return value


class DataConfig(Section):
    """Where dialogues and prompts are read from, and how they are parted into train, val and test.

    A source is a path (absolute, or relative to the repository root), a URL (`https://...`, optionally pinned by
    `#sha256=<hex>`) or a Hugging Face dataset id (`hf:owner/name` or `owner/name`, optionally pinned by `@<revision>`).
    """

    dialoconan: str = Field(min_length=1)
    """DialoCONAN's CSV: text, TARGET, dialogue_id, turn_id, type, source (Bonaldi et al. 2022)."""
    dialogue_columns: PairColumns | None = None
    """Where `dialoconan` names another CSV, with one exchange per row: what its columns are called."""
    rtp: str = Field(min_length=1)
    """RealToxicityPrompts' JSON lines (Gehman et al. 2020)."""
    response_kinds: str | None = Field(default=None, min_length=1)
    """A CSV of replies: text, kind (refusal, counter_speech, answer), part (fit, test), note. With the dialogues' turns
    it teaches the grader of replies what counter-speech is; its errors on the test part are reported. None: replies are
    not told apart. Ours is in the sample's words: for other models, have answers of theirs labelled."""
    seed: int = Field(ge=0)
    """Decides who goes into which split; independent of run.seed, so that runs stay comparable."""
    dialogue_val_fraction: float = Field(gt=0, lt=1)
    """Share of the dialogues held out for validation."""
    dialogue_test_fraction: float = Field(gt=0, lt=1)
    """Share of the dialogues held out from training and selection both."""
    dialogue_linked_by: LinkedBy
    """Dialogues that share such a turn stay in one split: any turn, or a hater turn."""
    trained_prompts: Literal["leave_out", "keep"] = "leave_out"
    """Prompts that stand in a training dialogue as a turn, word for word but for case and white space: a model that has
    learnt the answer by heart is not evaluated on it. Either way they are counted, and so are near copies."""
    prompt_val_fraction: float = Field(gt=0, lt=1)
    """Share of the evaluation prompts that are for selection and sweeps; the rest is for the report."""

    @field_validator("dialogue_test_fraction")
    @classmethod
    def _something_left_to_train_on(cls, value: float, info: ValidationInfo) -> float:
        if value + info.data.get("dialogue_val_fraction", 0) >= 1:
            raise ValueError("with dialogue_val_fraction it must stay below 1, or nothing is left to train on")
        return value
