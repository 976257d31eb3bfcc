"""docs/adapter.ipynb runs from top to bottom on an adapter and the report's curves."""

import csv
from pathlib import Path

import pytest

from tests.models.checkpoints import save_language_model
from tests.root import ROOT

pytestmark = pytest.mark.slow


def _project(folder: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = folder / "models/tiny-neox/base"
    save_language_model(base)
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules=["query_key_value"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora).save_pretrained(folder / "adapters/tiny-neox/ft")
    (folder / "reports").mkdir()
    names = [
        "model",
        "variant",
        "text",
        "scope",
        "measure",
        "group",
        "step",
        "mean",
        "lo",
        "hi",
        "band_lo",
        "band_hi",
        "n",
        "unit",
    ]
    with (folder / "reports/entropy_curves.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(names)
        for variant in ("it", "ft"):
            for step in (1, 2, 3):
                where = ["tiny-neox", variant, "it", "prompt", "prompt_entropy_bits", "all", step]
                rows.writerow([*where, 3.0, 2.9, 3.1, 2.8, 3.2, 40, "token"])


def test_every_cell_runs_and_shows_a_heat_map_and_a_figure(tmp_path, monkeypatch):
    client = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
    nbformat = pytest.importorskip("nbformat")
    _project(tmp_path)
    monkeypatch.setenv("DETOXLENS_ROOT", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    notebook = nbformat.read(ROOT / "docs/adapter.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # committed without what a model wrote
    client.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    kinds = {kind for output in shown for kind in output.get("data", {})}
    html = "".join(output["data"].get("text/html", "") for output in shown if "data" in output)
    assert "image/png" in kinds and 'class="heatmap"' in html
