"""When and where the stages ran that a comparable run rests on, and the dated page among its artifacts."""

import pytest

from detoxlens.common.machine import machine
from detoxlens.tracking import executions, log_page, track_stage, write_comparable_run
from detoxlens.tracking.location import local_folder
from detoxlens.tracking.store import open_client
from tests.tracking.stores import NEOX_FT, NOISE

pytestmark = pytest.mark.filterwarnings(NOISE)


def run(store, stage, error=None, **of):
    try:
        with track_stage(store, stage=stage, params={}, **of):
            if error is not None:
                raise error
    except RuntimeError:
        pass


def test_the_last_finished_execution_of_each_stage_is_found_with_its_machine(store, files):
    run(store, "prepare")
    for error in (None, None, RuntimeError()):
        run(store, "generate", error, **NEOX_FT)
    run(store, "generate", **NEOX_FT | {"variant": "rl", "key": "b" * 64})  # of another run
    run_id = write_comparable_run(store, **NEOX_FT, **files)
    prepare, generate = executions(store, [run_id])
    assert (prepare.name, generate.name) == ("prepare", "generate/tiny-neox/ft")
    assert prepare.machine == generate.machine == machine()
    client, experiment_id = open_client(store)
    starts = [
        r.info.start_time
        for r in client.search_runs([experiment_id], "tags.`detoxlens.stage` = 'generate'")
        if r.data.tags["mlflow.parentRunId"] == run_id and r.info.status == "FINISHED"
    ]
    assert len(starts) == 2 and generate.start_ms == max(starts) <= generate.end_ms


def test_the_page_is_copied_once_per_page(store, files, tmp_path):
    run_id = write_comparable_run(store, **NEOX_FT, **files)
    client, _ = open_client(store)
    copy = local_folder(client.get_run(run_id).info.artifact_uri) / "dated.html"
    for text, md5, expected in (("one", "a", "one"), ("later", "a", "one"), ("two", "b", "two")):
        (tmp_path / "dated.html").write_text(text)
        log_page(store, [run_id], tmp_path / "dated.html", md5=md5)
        assert copy.read_text() == expected
