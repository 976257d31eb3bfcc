"""A migrated store, and what a (model, variant) leaves on disk."""

import shutil
from pathlib import Path

import pytest

from detoxlens.tracking import Curve, DatasetInput, Store, prepare_store, resolve_store
from tests.tracking.stores import METRICS


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    """A migrated store, copied into each test: the migration takes seconds."""
    root = tmp_path_factory.mktemp("template")
    prepare_store(resolve_store(root, {}))
    return root


@pytest.fixture
def root(template, tmp_path) -> Path:
    (tmp_path / "project/.detoxlens").mkdir(parents=True)
    shutil.copy(template / ".detoxlens/mlflow.db", tmp_path / "project/.detoxlens/mlflow.db")
    return tmp_path / "project"


@pytest.fixture
def store(root) -> Store:
    return resolve_store(root, {})


@pytest.fixture
def files(root) -> dict:
    for name in ("adapters/tiny-neox/ft", "reports/figures", "data/prepared"):
        (root / name).mkdir(parents=True)
    (root / "adapters/tiny-neox/ft/adapter_model.safetensors").write_bytes(b"weights")
    (root / "reports/figures/entropy.svg").write_text("<svg/>")
    (root / "data/prepared/prompts.parquet").write_bytes(b"prompts")
    return {
        "root": root,
        "adapter": root / "adapters/tiny-neox/ft",
        "figures": [root / "reports/figures/entropy.svg"],
        "datasets": [DatasetInput(name="prompts", path=root / "data/prepared/prompts.parquet", context="evaluation")],
        "curves": [Curve(name="entropy/own/prompt_entropy_bits", points=((0, 2.5), (1, 2.25), (2, 2.0)))],
        "completions": {
            "prompt": ["Zorgons are", "<b>Oboes</b>"],
            "completion": ["kind.", ""],
            "toxicity": [0.1, None],
        },
        "params": {"ppo": {"clip": 0.2}},
        "metrics": METRICS,
        "outputs": {"adapters/tiny-neox/ft": "0" * 32 + ".dir"},
        "color": "#0072b2",
    }
