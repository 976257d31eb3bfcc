"""Every `-S KEY=VALUE` that README and docs show is one that DVC takes and that leaves params.yaml valid."""

import itertools
import re
import shlex
import shutil

import pytest
from dvc.utils.hydra import apply_overrides

from detoxlens.params.check import check_params
from detoxlens.params.load import Params, read_yaml
from tests.root import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def shown():
    """Command lines with overrides, the comment behind them cut off."""
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True) if re.match(r"\s+(\$ )?dvc exp run .*-S", line) else []
            found = [value for flag, value in itertools.pairwise(words) if flag == "-S"]
            if found:
                yield pytest.param(found, id=f"{page.name}: {' '.join(found)}")


CASES = list(shown())


@pytest.mark.parametrize("overrides", CASES)
def test_it_is_taken_and_valid(tmp_path, overrides):
    file = shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    apply_overrides(file, overrides)
    after = read_yaml(file)
    assert after != read_yaml(ROOT / "params.yaml")
    check_params(Params(after))


def test_keys_with_dots_and_slashes_are_among_them():
    overrides = [override for case in CASES for override in case.values[0]]
    assert any(re.match(r"splits\.p50\.where=\{prompt\.toxicity", override) for override in overrides)
    assert any("fluency/val/perplexity" in override for override in overrides)
    assert len(overrides) >= 6


def test_a_mapping_keeps_what_it_does_not_name(tmp_path):
    file = shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    before = read_yaml(file)["sweep"]["constraints"]
    apply_overrides(file, ["sweep.constraints={fluency/val/perplexity: {max: 5}}"])
    assert read_yaml(file)["sweep"]["constraints"] == before | {"fluency/val/perplexity": {"max": 5}}
