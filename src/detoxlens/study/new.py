"""`detoxlens init`: a folder of one's own in which `dvc repro` runs a study, with the code that is installed.

dvc.yaml and params.yaml are those of the detoxlens that writes them: of its checkout, or of its wheel, which carries
them below share/detoxlens. A folder without src/detoxlens runs what is installed; its stage `code` looks every time.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from detoxlens.common.artifacts import write_text
from detoxlens.common.errors import UserError
from detoxlens.common.fingerprint import PACKAGE, SOURCE
from detoxlens.params.edit import REMOVED, change_params
from detoxlens.params.load import load_params
from detoxlens.params.toxicity import RECORDED, SCORERS

FILES = (
    "dvc.yaml",
    "params.yaml",
    "params.schema.json",
    ".gitignore",
    ".dvcignore",
    ".dvc/config",
    ".dvc/plots/*",
    "presets/*.yaml",
    "data/sample/*",
    "data/raw/README.md",
    "data/recorded/README.md",
)
"""What a new study starts from, relative to the checkout; pyproject.toml puts the same into the wheel."""
SPLIT = "prompts"
"""What the split of the user's own prompts is called."""


def new_study(
    folder: Path, *, models: Mapping[str, str], prompts: Path | None = None, column: str = "prompt", scorer: str | None
) -> None:
    """Writes a study into `folder`, a git and DVC repository that `dvc repro` runs.

    Args:
        folder: made; where it exists it must be empty.
        models: name -> `models.<name>.source`; empty leaves the embedded models. A path is written out, since sweeps
            and DVC's copies run in other folders.
        prompts: a file of prompts, copied into data/raw: JSON lines like RealToxicityPrompts', or a CSV; None leaves
            the sample's.
        column: of a CSV, the one that holds the prompts.
        scorer: grader, as in params `toxicity.scorers`; a file or folder that it names is copied into data/recorded.
            None leaves the embedded one.

    Raises:
        UserError: the folder holds something, the prompts are no file, or a value is not valid; the folder is as it
            was.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty; `detoxlens init` writes a new study: name a folder that is not there.")
    if prompts is not None and not prompts.is_file():
        raise UserError(f"--prompts={prompts} is no file; name JSON lines like RealToxicityPrompts' or a CSV.")
    if shutil.which("git") is None:
        raise UserError("`detoxlens init` makes a git repository, which DVC needs, and finds no git; install it.")
    existed = folder.exists()
    try:
        _copy_template(folder)
        _run_installed_code(folder / "dvc.yaml")
        changes = _model_changes(folder, models) | _scorer_changes(folder, scorer)
        if prompts is not None:
            shutil.copyfile(prompts, folder / "data/raw" / prompts.name)
            changes |= _prompt_changes(folder, f"data/raw/{prompts.name}", column)
        change_params(folder / "params.yaml", changes)
        if not _is_in_repository(folder):
            subprocess.run(["git", "init", "--quiet", str(folder)], check=True, capture_output=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if existed:
            folder.mkdir()
        raise


def template_folder() -> Path:
    """Where the files of a new study are copied from: the checkout that is running, or the installed wheel's.

    Raises:
        UserError: neither has them.
    """
    wheel = [
        file.locate().resolve().parent
        for file in metadata.files(PACKAGE) or ()
        if file.as_posix().endswith(f"share/{PACKAGE}/dvc.yaml")
    ]
    for place in (SOURCE.parent, *wheel, SOURCE / "share" / PACKAGE):
        if (place / "dvc.yaml").is_file() and (place / "data/sample").is_dir():
            return place
    raise UserError(
        f"The files that a new study starts from are neither in {SOURCE.parent} nor in this installation; install "
        "detoxlens from its wheel or from a clone."
    )


def _copy_template(folder: Path) -> None:
    source = template_folder()
    for pattern in FILES:
        for file in source.glob(pattern):
            target = folder / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def _run_installed_code(dvc_yaml: Path) -> None:
    """The stage `code` compares with what is installed, whenever DVC runs: there is no source folder to watch."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 10_000
    document = yaml.load(dvc_yaml.read_text(encoding="utf-8"))
    del document["stages"]["code"]["deps"]
    document["stages"]["code"]["always_changed"] = True
    out = StringIO()
    yaml.dump(document, out)
    write_text(dvc_yaml, out.getvalue())


def _model_changes(folder: Path, models: Mapping[str, str]) -> dict[tuple[str, ...], Any]:
    if not models:
        return {}
    embedded = load_params(folder / "params.yaml").raw["models"]
    others: dict[tuple[str, ...], Any] = {("models", name): REMOVED for name in embedded if name not in models}
    replaced = {("models", name): {"source": _written_out(source)} for name, source in models.items()}
    return others | replaced | {("run", "models"): list(models)}


def _written_out(source: str) -> str:
    """The full path of a folder or GGUF file; any other source as it is."""
    kind, path = ("gguf:", source[5:]) if source.startswith("gguf:") else ("", source)
    return f"{kind}{Path(path).resolve().as_posix()}" if Path(path).exists() else source


def _scorer_changes(folder: Path, scorer: str | None) -> dict[tuple[str, ...], Any]:
    if scorer is None:
        return {}
    kind, _, path, rest = re.fullmatch(r"((hf|onnx|recorded):)?([^#]*)(.*)", scorer, re.DOTALL).groups()
    if kind and (source := Path(path)).exists():
        place = RECORDED if kind == "recorded:" else SCORERS
        (folder / place).mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, folder / place / source.name)
        scorer = f"{kind}{place}/{source.name}{rest}"
    return {("toxicity", "scorers"): [scorer], ("toxicity", "headline"): scorer}


def _prompt_changes(folder: Path, source: str, column: str) -> dict[tuple[str, ...], Any]:
    """Its prompts as the only split, and everything that named another one."""
    raw = load_params(folder / "params.yaml").raw
    split: dict[str, Any] = {"where": {}, "max_val": raw["splits"]["p50"]["max_val"], "max_test": None}
    if source.endswith(".csv"):
        split |= {"source": source, "columns": {"prompt.text": column}}
    else:
        split["source"] = source
    primary = {k: v.replace("/p50/", f"/{SPLIT}/") for k, v in raw["report"]["primary"].items() if "/polite/" not in v}
    return (
        {("splits", name): REMOVED for name in raw["splits"]}
        | {("splits", SPLIT): split, ("report", "primary_split"): SPLIT, ("report", "primary"): primary}
        | {("attribution", "filters"): [SPLIT], ("ppo", "validation", "filter"): SPLIT}
    )


def _is_in_repository(folder: Path) -> bool:
    return any((parent / ".git").exists() for parent in folder.resolve().parents)
