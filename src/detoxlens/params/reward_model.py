"""Settings of the reward classifier; params section `reward_model`."""

from __future__ import annotations

from typing import Literal

from detoxlens.params.section import Section
from detoxlens.params.tiny import TinyConfig


class RewardModelConfig(Section):
    """The classifier that rewards PPO. It never grades: `score` refuses a scorer with the same weights."""

    source: str
    """`tiny:roberta` (trained on the sample's labels), a local folder, or a hub id; the authors took
    facebook/roberta-hate-speech-dynabench-r4-target."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; the stage `reward_model` pins it."""
    label: str | None = None
    """Name of the hateful label where the classifier's config leaves it open; None reads it from there."""
    activation: Literal["softmax", "sigmoid"] | None = None
    """softmax if its labels exclude one another, sigmoid if a text can have several; None reads it from the config."""
    trust_remote_code: bool = False
    """Run the classifier's own Python code from the hub."""
    tiny: TinyConfig
    """Size and training of `tiny:roberta`."""
