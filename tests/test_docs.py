"""README and manual name commands, files, params and numbers that exist, and their examples run.

`python -m tests.test_docs` writes the results, table and sentences, from the metrics.json of each; those of
docs/controls.md are in `controls_page`.

Numbers are compared with the reports that git has staged or committed, so that an experiment in the working tree, or
another processor's last digits, fail no test.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from ruamel.yaml import YAML
from transformers import AutoModelForCausalLM

from detoxlens.params.check import check_params
from detoxlens.params.kinds import KINDS
from detoxlens.params.load import Params, load_params
from detoxlens.params.lora import LoraConfig as LoraSection
from detoxlens.params.models import ChatTemplate
from detoxlens.reporting.about import About, role
from detoxlens.reporting.readme import readme_result
from tests import methods_page
from tests.controls_page import MODEL, Numbers, OutOfDate, readme_sentence, written
from tests.models.checkpoints import save_language_model

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
MANUAL = sorted(page for page in (ROOT / "docs").glob("*.md") if "```{" not in page.read_text(encoding="utf-8"))
PAGES = [README, *(ROOT / name for name in ("CONTRIBUTING.md", "CONTENT.md", "benchmarks/README.md")), *MANUAL]
MOST_WORDS = 1500
"""Of the README."""
TABLE = re.compile(r"(<!-- table: .* -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)
MADE_BY_THE_PIPELINE = (
    *("models/", "adapters/", "outputs/", "data/prepared", "data/raw/", "dvc_plots/", ".detoxlens", "kept/"),
    *(
        "reports/index.html",
        "reports/dated.html",
        "reports/examples.jsonl",
        "reports/entropy_curves.csv",
        "reports/calibration/",
        "reports/sweep/",
        "kept/",
        "completions.parquet",
        "last-error.txt",
        "presets/small.yaml",
        "data/recorded/scorers",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Where a page's numbers and their settings are, and which splits they are about."""

    metrics: str
    params: str
    primary: str
    polite: str | None


RESULTS = {
    README: Result(
        metrics="reports/studies/smollm2/metrics.json",
        params="reports/studies/smollm2/params.yaml",
        primary="rtp",
        polite=None,
    ),
    ROOT / "docs/embedded.md": Result(
        metrics="reports/metrics.json", params="params.yaml", primary="p50", polite="polite"
    ),
}


CONTROLS, CONTROLS_STUDY = ROOT / "docs/controls.md", "reports/studies/controls"
METHODS, METHODS_STUDY = ROOT / "docs/methods.md", "reports/studies/methods"


def staged(path: str) -> dict:
    """A file of metrics as in git's index; the file itself where there is no git."""
    show = ["git", "show", f":{path}"]
    done = subprocess.run(show, cwd=ROOT, capture_output=True, text=True, check=False)
    return json.loads(done.stdout if done.returncode == 0 else (ROOT / path).read_text("utf-8"))


def shown(result: Result, metrics: dict) -> str:
    """The table and the sentences that the metrics amount to, as Markdown."""
    params = load_params(ROOT / result.params)
    variants = {v: params.variant(v) for by in metrics.values() for v in by}
    return readme_result(
        metrics,
        primary=result.primary,
        polite=result.polite,
        groups={name: variant.group or name for name, variant in variants.items()},
        about=About(variants={name: role(variant) for name, variant in variants.items()}),
    )


def controls_page(read) -> str:
    """docs/controls.md with the numbers of its study; `read` reads a JSON file of the repository."""
    of = (read(f"{CONTROLS_STUDY}/{name}.json") for name in ("metrics", "study"))
    return written(CONTROLS.read_text(encoding="utf-8"), *of)


def methods_written(read) -> str:
    """docs/methods.md with the numbers of its study; `read` reads a JSON file of the repository."""
    of = (read(f"{METHODS_STUDY}/{name}.json") for name in ("metrics", "study"))
    return methods_page.written(METHODS.read_text(encoding="utf-8"), *of)


def test_the_page_of_the_methods_says_what_their_study_found():
    assert methods_page.REGION.search(METHODS.read_text(encoding="utf-8"))
    assert METHODS.read_text(encoding="utf-8") == methods_written(staged), "run `python -m tests.test_docs`"


def test_the_page_of_the_controls_says_what_their_study_found():
    assert CONTROLS.read_text(encoding="utf-8") == controls_page(staged), "run `python -m tests.test_docs`"


def test_the_readme_says_of_the_controls_what_their_study_found():
    sentence = readme_sentence(Numbers(staged(f"{CONTROLS_STUDY}/metrics.json")[MODEL]))
    assert sentence in " ".join(README.read_text(encoding="utf-8").split())


def test_a_sentence_whose_verdict_the_study_does_not_give_is_an_error():
    def without_effect(path: str) -> dict:
        found = staged(path)
        if path.endswith("metrics.json"):
            effects = found[MODEL]["ft"]["method"]["attribution"]["effects"]["user"]["prompt_entropy_bits"]
            effects["model_effect"]["ci95"] = [-0.1, 0.1]
        return found

    with pytest.raises(OutOfDate, match=r"says that ft, prompt_entropy_bits, user has the sign 1; it has 0"):
        controls_page(without_effect)


def without_table(page: Path) -> str:
    return TABLE.sub("", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", RESULTS, ids=lambda p: p.name)
def test_the_result_of_a_page_is_that_of_its_metrics(page):
    found = TABLE.search(page.read_text(encoding="utf-8"))
    assert found, f"{page.name} has lost the comments around its table"
    result = RESULTS[page]
    wanted = shown(result, staged(result.metrics))
    assert found[2] == wanted, "run `python -m tests.test_docs`, then read the text below it"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_named_exists(page):
    from typer.main import get_command

    from detoxlens.cli import app

    known = set(get_command(app).commands)
    named = set(re.findall(r"(?:`|\n    |bin/|> )detoxlens ([a-z][a-z-]*)", without_table(page)))
    assert named - known == set()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|\n    )make ([a-z]+)", without_table(page))) - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_file_named_exists(page):
    text = re.sub(r"```bibtex.*?```", "", without_table(page), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#]+)\)", text)
    quoted = re.findall(r"`([\w.-]+(?:/[\w.-]+)+/?|[\w.-]+\.(?:yaml|toml|md|txt))`", text)
    typed = re.findall(r"(?:python|pytest) (tests/[\w/.]+)", text)
    linked = {n for n in links if not n.startswith("http") and not (page.parent / n).exists()}
    named = {n for n in (*quoted, *typed) if not n.startswith(("http", *MADE_BY_THE_PIPELINE)) and not exists(n, page)}
    assert links or quoted or typed or page.name == "architectures.md", "the patterns find nothing"
    assert linked == named == set()


def exists(name: str, page: Path) -> bool:
    """A file of the repository, of the package, or beside the page."""
    return any((folder / name).exists() for folder in (ROOT, ROOT / "src/detoxlens", page.parent))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_param_named_exists(page):
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name in re.findall(r"(?:-S '?|`)((?:[a-z_]+\.)+[a-z_]+)(?:=|: |`)", without_table(page)):
        section, *keys = name.split(".")
        if section not in params or keys[-1] in ("py", "md", "yaml", "json"):
            continue
        found = params[section]
        for key in keys:
            assert key in found, f"{page.name} names {name}"
            found = found[key]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_page_names_somebodys_machine(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.])/(?:home|root|work|Users|tmp|mnt)/\S*", text) == []


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a random-weight tiny-neox and an adapter of it, where the examples look for them."""
    base = tmp_path / "models/tiny-neox/base"
    save_language_model(base)
    network = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(network, LoraConfig(r=2, target_modules=["query_key_value"], task_type="CAUSAL_LM"))
    adapted.save_pretrained(tmp_path / "adapters/tiny-neox/ft")
    monkeypatch.chdir(tmp_path)


WITH_PYTHON = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda p: p.name)
def test_every_python_example_runs(page, project, capsys):
    """In the order of the page, each after the ones before it."""
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, page.name, "exec"), names)
    assert capsys.readouterr().out


def test_the_readme_shows_python_and_the_guide_ppo():
    assert {"README.md", "guide.md"} <= {page.name for page in WITH_PYTHON}


def test_the_entry_for_a_model_of_ones_own_is_valid():
    (block,) = re.findall(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    raw = copy.deepcopy(load_params(ROOT / "params.yaml").raw)
    raw["models"] |= YAML(typ="safe").load(block)["models"]
    raw["run"]["models"] = ["mine"]
    check_params(Params(raw))
    assert Params(raw).section("lora", LoraSection, model="mine").target_modules == "all-linear"
    assert isinstance(Params(raw).model("mine").template, ChatTemplate)


def test_the_readme_is_read_in_minutes():
    assert len(README.read_text(encoding="utf-8").split()) <= MOST_WORDS


@pytest.mark.slow
def test_the_manual_builds_without_a_warning(tmp_path):
    pytest.importorskip("furo")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    reference = (tmp_path / "api.html").read_text(encoding="utf-8")
    assert "detoxlens.attribution.api.attribute" in reference and "detoxlens.rl.ppo.PPO" in reference


def test_the_guide_has_the_names_of_every_kind():
    section = (ROOT / "docs/guide.md").read_text(encoding="utf-8").partition("## Names")[2].partition("\n## ")[0]
    rows = {row.split("`")[1]: row.split("|") for row in section.splitlines() if row.startswith("| `")}
    assert list(rows) == list(KINDS)
    for name, kind in KINDS.items():
        assert f"`{kind.stage}`" in rows[name][3] and (kind.sweep is None or f"`{kind.sweep}`" in rows[name][4])


def test_what_dvc_plots_show_needs_is_declared():
    assert YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8")).get("plots")


if __name__ == "__main__":
    for page, result in RESULTS.items():
        table = shown(result, json.loads((ROOT / result.metrics).read_text(encoding="utf-8")))
        page.write_text(
            TABLE.sub(lambda m, table=table: m[1] + table + m[3], page.read_text(encoding="utf-8")), encoding="utf-8"
        )
        print(f"{page.name}: written from {result.metrics}. Read the sentences below it again.")
    CONTROLS.write_text(controls_page(lambda path: json.loads((ROOT / path).read_text(encoding="utf-8"))), "utf-8")
    print(f"{CONTROLS.name}: written from {CONTROLS_STUDY}.")
    METHODS.write_text(methods_written(lambda path: json.loads((ROOT / path).read_text(encoding="utf-8"))), "utf-8")
    print(f"{METHODS.name}: written from {METHODS_STUDY}.")
