"""Slips of a user: whatever the command, one paragraph that names the thing and the remedy, and nothing made by it."""

import shutil

import pytest
from typer.testing import CliRunner

from detoxlens.cli import app
from detoxlens.common.errors import UserError
from tests.root import ROOT

RTP = '{"prompt": {"text": "Zorgons"}, "continuation": {"text": " hum"}}\n'
FILES = {
    "empty.csv": "",
    "empty.jsonl": "\n",
    "wrong.csv": "question,answer\na,b\n",
    "wrong.jsonl": '{"x": 1}\n',
    "list.jsonl": "[1]\n",
    "rtp.jsonl": RTP,
    "presets/broken.yaml": "run: [\n",
    "presets/list.yaml": "- run\n",
}
ANNOTATE, CALIBRATE = (
    "annotate {} out.jsonl --scorer profanity_check",
    "calibrate --scorer profanity_check --against {}",
)
IMPORT = "import-completions {} --model m --variant it"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "adapters/tiny-neox/it").mkdir(parents=True)
    (tmp_path / "adapters/tiny-neox/it/model_ref.json").write_text("{}")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(command: str) -> str:
    """What the user reads."""
    done = CliRunner().invoke(app, command.split())
    assert isinstance(done.exception, UserError), done.exception
    assert "\n" not in str(done.exception)
    return str(done.exception)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("preset nope", "There is no preset 'nope'."),
        ("preset nope", "A preset is a YAML file there with keys of params.yaml."),
        ("preset ../params", "There is no preset '../params'."),
        ("preset broken", "broken.yaml is not valid YAML"),
        ("preset list", "list.yaml holds list, not sections of params.yaml"),
        (ANNOTATE.format("gone.jsonl"), "gone.jsonl does not exist; name a file of the kind .csv, .jsonl, .parquet."),
        (ANNOTATE.format("empty.jsonl"), "empty.jsonl holds no rows; it needs one row per text."),
        (ANNOTATE.format("list.jsonl"), "list.jsonl cannot be read as jsonl: line 1 is not an object."),
        (ANNOTATE.format("wrong.jsonl"), "row 1 has no prompt.text and continuation.text. Lines in RealToxicity"),
        ("annotate rtp.jsonl presets --scorer profanity_check", "presets is a folder; name the .jsonl file to write."),
        (CALIBRATE.format("presets"), "presets is a folder; name a file of the kind"),
        (CALIBRATE.format("empty.csv"), "empty.csv holds no rows; it needs a first line with the columns' names, then"),
        (CALIBRATE.format("wrong.csv"), "has no column 'text'. It has: question, answer. Name the column: --text"),
        (CALIBRATE.format("wrong.csv --text-column answer"), "has no column 'toxicity'."),
        (CALIBRATE.format("wrong.csv --text-column answer"), "Name the column: --score-column <column>."),
        (IMPORT.format("wrong.csv"), "has no column 'prompt'. It has: question, answer. Name the column of"),
        (IMPORT.format("wrong.csv"), "--columns prompt=<column>, or --format rewardlm for a file of the"),
        (IMPORT.format("wrong.csv --columns prompt=question"), "--columns completion=<column>"),
        ("sweep apply --study x --trial 0", "No sweep was begun here yet; `detoxlens sweep --study x` begins one"),
        ("explain --checkpoint tiny-neox --prompt hi", "names a model; name the folder of a variant. Here are: ad"),
    ],
)
def test_a_slip_is_reported_with_the_remedy(folder, command, message):
    before = sorted(folder.rglob("*"))
    assert message in said(command)
    assert sorted(folder.rglob("*")) == before


def test_a_preset_without_params_is_refused(folder):
    (folder / "params.yaml").unlink()
    (folder / "presets/small.yaml").write_text("run: {seed: 1}")
    assert "params.yaml does not exist; run from the project's root" in said("preset small")
