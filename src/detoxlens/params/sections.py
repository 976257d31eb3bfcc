"""The sections of params.yaml and the class of each; every file named here imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.data import DataConfig
from detoxlens.params.dexperts import DexpertsConfig
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.interpolate import InterpolateConfig
from detoxlens.params.lora import LoraConfig
from detoxlens.params.ppo import PpoConfig
from detoxlens.params.preference import PreferenceConfig
from detoxlens.params.prompt import PromptConfig
from detoxlens.params.report import ReportConfig
from detoxlens.params.reward_model import RewardModelConfig
from detoxlens.params.section import Section
from detoxlens.params.sft import SftConfig
from detoxlens.params.splits import SplitsConfig
from detoxlens.params.steering import SteeringConfig
from detoxlens.params.sweep import SweepConfig
from detoxlens.params.tiny import TinyConfig
from detoxlens.params.toxic_words import ToxicWordsConfig
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.params.tracking import TrackingConfig

CLASSES: Mapping[str, type[Section]] = MappingProxyType(
    {
        "data": DataConfig,
        "splits": SplitsConfig,
        "lora": LoraConfig,
        "sft": SftConfig,
        "ppo": PpoConfig,
        "preference": PreferenceConfig,
        "prompt": PromptConfig,
        "steering": SteeringConfig,
        "dexperts": DexpertsConfig,
        "reward_model": RewardModelConfig,
        "tiny": TinyConfig,
        "generation": GenerationConfig,
        "toxicity": ToxicityConfig,
        "toxic_words": ToxicWordsConfig,
        "attribution": AttributionConfig,
        "interpolate": InterpolateConfig,
        "report": ReportConfig,
        "sweep": SweepConfig,
        "tracking": TrackingConfig,
    }
)
"""What a model and a variant may override; `run`, `models` and `variants` are read by `params.load`."""
SECTIONS = ("run", "models", "variants", *CLASSES)
"""Every top-level key of params.yaml."""
