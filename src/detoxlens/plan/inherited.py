"""Learning rates chosen on the embedded models that a larger one would inherit; they are too high for it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from detoxlens.params.load import Params
from detoxlens.params.ppo import PpoConfig
from detoxlens.params.preference import PreferenceConfig
from detoxlens.params.sft import SftConfig

CHOSEN: Mapping[str, tuple[str, type, float, str]] = MappingProxyType(
    {
        "sft": ("sft", SftConfig, 3.0e-3, "3e-4"),
        "rl": ("ppo", PpoConfig, 7.0e-4, "5e-6"),
        "preference": ("preference", PreferenceConfig, 1.0e-3, ""),
    }
)
"""Kind -> its section, the class of it, the committed learning rate, and the paper's at 3 and 7 billion parameters."""
SMALL = 2e7
"""Parameters up to which a model is as the embedded ones."""


def inherited(params: Params, model: str, num_parameters: float) -> str | None:
    """What a model of that size inherits, in a sentence with the keys to set; None where it inherits nothing."""
    if num_parameters <= SMALL:
        return None
    found: dict[str, str] = {}
    for variant in params.run.variants:
        section, config, committed, of_paper = CHOSEN.get(params.variant(variant).kind, ("", None, 0.0, ""))
        if section and params.section(section, config, model=model, variant=variant).learning_rate == committed:
            paper = f" (the paper's models: {of_paper})" if of_paper else ""
            found[f"{section}.learning_rate={committed:g}{paper}"] = f"models.{model}.overrides.{section}.learning_rate"
    if not found:
        return None
    return (
        f"{model} has {num_parameters / 1e6:,.0f} M parameters and inherits {', '.join(found)}, chosen on models of "
        f"one million; set {', '.join(found.values())}."
    )
