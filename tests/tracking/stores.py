"""What the tests of tracking share: names, and how to look into a store."""

from detoxlens.tracking import Store
from detoxlens.tracking.location import local_folder
from detoxlens.tracking.store import open_client
from tests.root import ROOT

NOISE = "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
"""MLflow 3.17 with SQLAlchemy 2.1; the warning is about MLflow's own mappers."""
KEY = "a" * 64
NEOX_FT = {"model": "tiny-neox", "variant": "ft", "key": KEY}
METRICS = {
    "toxicity": {"p50": {"rate_gt_50": 0.25, "ci95": [0.2, 0.3], "delta_vs_it": {"value": -0.3, "ci95": [-0.4, -0.2]}}},
    "fluency": {"perplexity": 12.5, "distinct_1": None, "note": "text"},
}


def runs_of(store: Store, **tags: str):
    """Live runs whose `detoxlens.<name>` tags are these, oldest first."""
    client, experiment_id = open_client(store)
    found = client.search_runs([experiment_id], order_by=["attributes.start_time ASC"])
    return [r for r in found if all(r.data.tags.get(f"detoxlens.{k}") == v for k, v in tags.items())]


def everything(store: Store, run_id: str) -> dict:
    """All that MLflow keeps of a run, histories included."""
    client, _ = open_client(store)
    run = client.get_run(run_id).to_dictionary()
    histories = {k: [(m.step, m.value) for m in client.get_metric_history(run_id, k)] for k in run["data"]["metrics"]}
    folder = local_folder(run["info"]["artifact_uri"])
    artifacts = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {"run": run, "histories": histories, "artifacts": artifacts}


def documented_line() -> str:
    """The guide's line that loads the champion of tiny-neox."""
    guide = (ROOT / "docs/guide.md").read_text("utf-8").splitlines()
    (line,) = [line for line in guide if "@champion" in line and "PeftModel" in line]
    return line.strip()
