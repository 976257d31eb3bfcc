"""`dvc plots diff` in a real browser without a network: the entropy curves of two revisions.

DETOXLENS_SCREENSHOTS names a folder that keeps the picture.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from detoxlens.reporting.report import write_report
from tests.reporting.synthetic import write_study
from tests.reporting.test_report import CONFIG, load
from tests.root import ROOT
from tests.tools.project import run
from tests.tools.test_browser import MODEL, OPTIONS

pytestmark = pytest.mark.slow
OFFLINE = ("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000", "--window-size=1300,2200")


def chromium(*arguments):
    command = [shutil.which("chromium"), *OPTIONS, *OFFLINE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout


def test_the_curves_of_two_revisions_are_drawn_without_a_network_a_row_for_each(tmp_path):
    if not shutil.which("chromium"):
        pytest.skip("apt-get install chromium")
    layout = write_study(tmp_path, [MODEL])
    write_report(layout.reports, load(layout, models=(MODEL,)), CONFIG)
    shutil.copytree(ROOT / ".dvc/plots", tmp_path / ".dvc/plots")
    shutil.copy(ROOT / ".dvc/config", tmp_path / ".dvc/config")
    plots = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    with (tmp_path / "dvc.yaml").open("w", encoding="utf-8") as file:
        YAML().dump({"plots": plots}, file)
    run("git init -q && git add -A && git commit -qm one", cwd=tmp_path)
    table = layout.reports / "entropy_curves.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(",2.", ",2.5"), encoding="utf-8")
    run("dvc plots diff HEAD", cwd=tmp_path)
    address = (tmp_path / "dvc_plots/index.html").as_uri()
    kept = Path(os.environ.get("DETOXLENS_SCREENSHOTS", tmp_path / "screenshots"))
    kept.mkdir(exist_ok=True)
    chromium(f"--screenshot={kept / 'plots-diff.png'}", address)
    drawn = chromium("--dump-dom", address).partition("<body>")[2].partition("</svg>")[0]
    texts = ("HEAD", "workspace", "base", "ft", "rl", "toxic text of base", "other text of base")
    assert [text for text in texts if f">{text}<" not in drawn] == []
