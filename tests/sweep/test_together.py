"""Two sweeps and a `dvc repro` at the same time, in one project, with one tracking store."""

import sys

import pytest
from ruamel.yaml import YAML

from detoxlens.tracking import resolve_store
from detoxlens.tracking.store import open_client
from tests.pipeline.test_pipeline import raw_params, shrink
from tests.sweep.checkout import DVC, clone, run, start
from tests.sweep.project import MODEL, SPACE, outcome, trials_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def root(tmp_path):
    """A clone with very small params, everything made once."""
    root = clone(tmp_path / "clone")
    raw = shrink(raw_params(), [MODEL])
    raw["run"] |= {"variants": ["it", "rl"], "sft_variants": []}
    raw["sweep"] |= {"constraints": {"fluency/val/perplexity": {"max": 1e9}}, "space": SPACE}
    write_params(root, raw)
    run(root, *DVC, "repro", "--quiet")
    return root


def write_params(root, raw):
    with (root / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(raw, file)


def lock_of(root, stage):
    outs = YAML(typ="safe").load((root / "dvc.lock").read_text("utf-8"))["stages"][stage]["outs"]
    return [out["md5"] for out in outs]


def test_they_neither_block_nor_corrupt_one_another(root):
    before = lock_of(root, f"rl@{MODEL}-rl")
    raw = YAML(typ="safe").load((root / "params.yaml").read_text("utf-8"))
    raw["ppo"]["value_coef"] = 0.2
    write_params(root, raw)
    program = [sys.executable, "-m", "detoxlens", "sweep", "--trials", "3"]
    under_way = [
        start(root, *DVC, "repro"),
        start(root, *program, "--study", "one"),
        start(root, *program, "--study", "two"),
    ]
    assert [process.wait(timeout=400) for process in under_way] == [0, 0, 0]

    together = lock_of(root, f"rl@{MODEL}-rl")
    assert together != before
    run(root, *DVC, "repro", "--force", "--single-item", "--quiet", f"rl@{MODEL}-rl")  # alone
    assert lock_of(root, f"rl@{MODEL}-rl") == together

    assert [t.state.name for t in trials_of(root, "one")] == ["COMPLETE"] * 3
    assert outcome(root, "one") == outcome(root, "two")  # the same seed, so the same trials
    client, experiment = open_client(resolve_store(root, {}))
    kinds = [r.data.tags["detoxlens.kind"] for r in client.search_runs([experiment], max_results=1000)]
    assert (kinds.count("sweep"), kinds.count("trial")) == (2, 6)
