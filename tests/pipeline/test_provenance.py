"""What a run says about where it comes from, and the sentence that it begins with."""

import shutil
import subprocess

import pytest

from detoxlens.params.edit import change_params
from detoxlens.params.load import load_params
from detoxlens.pipeline.provenance import description, facts_of, made_by
from detoxlens.tracking import Execution
from tests.root import ROOT


@pytest.fixture
def root(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("a = 1\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    return tmp_path


def tags_of(root, **environ):
    return made_by(root, load_params(root / "params.yaml"), environ)


def test_the_commit_is_named_and_nothing_changed_is_no_tag(root):
    head = subprocess.check_output(["git", "-C", str(root), "rev-parse", "HEAD"], text=True).strip()
    tags = tags_of(root)
    assert tags["git.commit"] == tags["mlflow.source.git.commit"] == head
    assert not {"dvc.exp", "detoxlens.changed", "git.uncommitted"} & tags.keys()


def test_the_experiment_its_changed_keys_and_changed_source_are_named(root):
    path = root / "params.yaml"
    change_params(path, {("ppo", "kl", "coef"): 0.02, ("run", "models"): ["tiny-neox"], ("run", "seed"): 1})
    (root / "src/a.py").write_text("a = 2\n")
    tags = tags_of(root, DVC_EXP_NAME="low-kl")
    assert tags["dvc.exp"] == "low-kl" and tags["git.uncommitted"] == "src/a.py"
    assert tags["detoxlens.changed"] == "run.models=['tiny-neox'], run.seed=1, ppo.kl.coef=0.02"


def test_without_git_there_is_no_commit(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    assert "git.commit" not in tags_of(tmp_path)


MINUTE_MS, NOON_MS = 60_000, 1_764_590_400_000  # 2025-12-01 12:00 UTC
RAN = [
    Execution(name="prepare", start_ms=NOON_MS, end_ms=NOON_MS + 3 * MINUTE_MS, machine="2 cores, 8 GiB"),
    Execution(name="report", start_ms=NOON_MS + 10 * MINUTE_MS, end_ms=NOON_MS + 19 * MINUTE_MS, machine=None),
]


def test_the_dated_page_says_when_where_from_what_and_how_long(root):
    assert facts_of(RAN, {"git.commit": "0123456789abcdef"}) == {
        "Date": "2025-12-01 12:00 to 2025-12-01 12:19 UTC",
        "Commit": "0123456789ab",
        "Changed settings": "none (params.yaml against that commit)",
        "Hardware": "2 cores, 8 GiB",
        "Hours": "0.20 in 2 stages that ran here; the longest: report 0.15",  # 3 and 9 of 60 minutes
    }
    change_params(root / "params.yaml", {("ppo", "kl", "coef"): 0.02})
    (root / "src/a.py").write_text("a = 2\n")
    facts = facts_of([], tags_of(root, DVC_EXP_NAME="low-kl"))
    assert facts["Date"].startswith("no stage ran here") and facts["Hours"] == "not recorded here"
    assert facts["Experiment"] == "low-kl" and facts["Changed source"] == "src/a.py"
    assert facts["Changed settings"].startswith("ppo.kl.coef=0.02 (")
    assert facts_of(RAN, {})["Commit"] == "not in a git repository" and "Changed settings" not in facts_of(RAN, {})


FLUENCY = {"perplexity": 2.0, "distinct_2": 0.5}


def metrics(**ft):
    rates = {"rate_gt_50": 0.4, "ci95": [0.35, 0.45], "num_scored": 400}
    it = {"toxicity": {"p50": rates}, "fluency": FLUENCY}
    delta = {"value": -0.1, "ci95": [-0.2, 0.01]}
    own = {"rate_gt_50": 0.3, "ci95": [0.2, 0.4], "num_scored": 400, "delta_vs_it": delta}
    return {"it": it, "ft": {"toxicity": {"p50": own}, "fluency": FLUENCY | {"perplexity": 2.5}} | ft}


def said(variant, **ft):
    return description(
        "m", variant, metrics(**ft), split="p50", made_by={"dvc.exp": "e", "git.commit": "0123456789abc"}
    )


def test_the_first_sentence_says_how_toxic_compared_with_what_and_how_sure():
    assert said("it").startswith("**40.0 [35.0, 45.0] % of 400 completions are toxic (score above .5, split `p50`)**.")
    text = said("ft")
    assert "**, −10.0 points [−20.0, +1.0] against base: no difference shown." in text
    assert "Perplexity of its completions under base: 2.50." in text
    assert "m, `ft`, experiment `e`, commit `0123456789`. Tables and figures: `reports/index.html`, here" in text


def test_a_training_that_kept_nothing_is_said_and_an_unscored_split_too():
    assert "`ft` is base: every completion is the same" in said("ft", identical_to="it")
    assert "every completion is the same" not in said("ft")
    unscored = {"rate_gt_50": None, "ci95": None, "num_scored": 0, "delta_vs_it": None}
    assert said("ft", toxicity={"p50": unscored}).startswith("**No completion of `ft` on p50 has a score**.")
