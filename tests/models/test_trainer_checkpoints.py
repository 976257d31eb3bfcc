"""Checkpoints of transformers' Trainer: which is the newest, and which are no longer needed."""

import json
import os

from detoxlens.models.trainer_checkpoints import keep_newest, last_complete_checkpoint


def checkpoint(folder, step, *, age=0, **state):
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    (made / "trainer_state.json").write_text(json.dumps({"global_step": step, **state}))
    os.utime(made, (1_000_000 - age,) * 2)
    return made


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_the_newest_is_the_highest_number_whatever_a_clock_that_was_set_back_says(tmp_path):
    checkpoint(tmp_path, 9, age=0)
    checkpoint(tmp_path, 10, age=500)
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-10"
    keep_newest(tmp_path, step=10)
    assert names(tmp_path) == ["checkpoint-10"]


def test_the_best_is_kept_and_a_later_one_too(tmp_path):
    for step in (2, 4, 6, 8):
        checkpoint(tmp_path, step)
    keep_newest(tmp_path, step=6, best_step=2)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-6", "checkpoint-8"]


def test_a_torn_one_is_passed_over_and_the_best_is_named_where_the_folder_is_now(tmp_path):
    checkpoint(tmp_path, 2, best_model_checkpoint="/old/checkpoint-2")
    (checkpoint(tmp_path, 4) / "trainer_state.json").write_text('{"global')
    found = last_complete_checkpoint(tmp_path)
    assert names(tmp_path) == ["checkpoint-2"] and found.name == "checkpoint-2"
    state = json.loads((found / "trainer_state.json").read_text())
    assert state == {"global_step": 2, "best_model_checkpoint": str(tmp_path / "checkpoint-2")}
