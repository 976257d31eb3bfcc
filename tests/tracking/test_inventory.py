"""What a store holds, as the doctor reads it."""

import pytest

from detoxlens.tracking import (
    AdapterVersion,
    StoredRun,
    StoredVersion,
    register_adapters,
    stored_runs,
    stored_versions,
    track_stage,
    write_comparable_run,
)
from detoxlens.tracking.store import open_client
from tests.tracking.stores import NEOX_FT, NOISE

pytestmark = pytest.mark.filterwarnings(NOISE)


def test_live_filled_runs_are_listed_with_their_outputs_and_versions_with_their_aliases(store, files):
    with track_stage(store, stage="score", model="tiny-neox", variant="rl", key="b" * 64, params={}):
        pass  # opens the run of `rl`, which no report has filled yet
    run_id = write_comparable_run(store, **NEOX_FT, **files)
    assert stored_runs(store) == [StoredRun(name="tiny-neox/ft", outputs=files["outputs"])]
    adapter = AdapterVersion(
        variant="ft", md5="a", run_id=run_id, toxicity=0.1, perplexity=2.0, perplexity_ratio=1.0, yardstick="y"
    )
    register_adapters(store, model="tiny-neox", adapters=[adapter], max_perplexity_ratio=1.2)
    version = StoredVersion(
        name="tiny-neox-detox", version=1, aliases=["champion", "latest-ft"], variant="ft", run="live"
    )
    assert stored_versions(store) == [version]
    open_client(store)[0].delete_run(run_id)
    assert stored_runs(store) == []
    assert [v.run_is_live for v in stored_versions(store)] == [False]
