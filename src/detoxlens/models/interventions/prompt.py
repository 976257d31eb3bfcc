"""Prompting: a system message before each chat; the network stays as it is.

Written as the model's template says (`params.models`): by the tokenizer's chat template, or as text before the first
human turn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detoxlens.models.interventions.materials import Materials
from detoxlens.params.prompt import PromptConfig


def make(config: PromptConfig, materials: Materials, folder: Path) -> dict[str, Any]:
    """The settings; `system` also stands in model_ref.json, where whoever writes a chat reads it.

    Raises:
        UserError: the model's chats take no system message.
    """
    materials.check_system(config.system)
    return {"system": config.system}
