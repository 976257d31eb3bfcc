"""Scratch folders: what a killed stage had finished is found again, and outs change as a whole or not at all."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import detoxlens.jobs.scratch as module
from detoxlens.common.errors import UserError
from detoxlens.jobs.scratch import LineLog, open_scratch, replace_output, scratch_key

STAGE = "generate@tiny-neox-it"


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/prompts.parquet").write_bytes(b"prompts")
    (tmp_path / "in/adapter").mkdir()
    (tmp_path / "in/adapter/adapter_model.safetensors").write_bytes(b"weights")
    return [tmp_path / "in/prompts.parquet", tmp_path / "in/adapter"]


MODULES = ["detoxlens.jobs.scratch"]


def key_of(inputs: list[Path], *, num_threads: int = 1, **params) -> str:
    return scratch_key(modules=MODULES, params={"seed": 0} | params, inputs=inputs, num_threads=num_threads)


def test_the_key_depends_on_params_threads_and_content_but_not_on_place_date_or_key_order(inputs, tmp_path):
    key = key_of(inputs)
    assert len(key) == 64 and key == key_of(inputs)
    assert scratch_key(modules=MODULES, params={"b": 1, "a": 2}, inputs=[], num_threads=1) == scratch_key(
        modules=MODULES, params={"a": 2, "b": 1}, inputs=[], num_threads=1
    )
    os.utime(inputs[0], (0, 0))
    (tmp_path / "in").rename(tmp_path / "moved")
    moved = [tmp_path / "moved" / p.name for p in inputs]
    assert key_of(moved) == key
    assert key_of(moved, seed=1) != key
    assert key_of(moved, num_threads=2) != key
    (moved[1] / "adapter_model.safetensors").write_bytes(b"other weights")
    assert key_of(moved) != key


def test_the_key_depends_on_versions_and_on_the_code_of_its_modules(inputs, monkeypatch):
    monkeypatch.setattr(module, "code_sha256", lambda name: "1")
    key = key_of(inputs)
    with monkeypatch.context() as patch:
        patch.setattr(module.metadata, "version", lambda name: "0.0.1")
        assert key_of(inputs) != key
    code = {MODULES[0]: "1", "detoxlens.cli": "1"}
    monkeypatch.setattr(module, "code_sha256", code.__getitem__)
    key = key_of(inputs)
    code["detoxlens.cli"] = "2"  # a module that this result does not depend on
    assert key_of(inputs) == key
    code[MODULES[0]] = "2"
    assert key_of(inputs) != key


def test_a_missing_input_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.parquet does not exist"):
        key_of([tmp_path / "gone.parquet"])


def test_appended_rows_are_read_back_by_the_next_process(tmp_path):
    with open_scratch(tmp_path, STAGE, "k") as scratch:
        scratch.log("rows").append([{"i": 0, "text": "Zürich\u2028"}, {"i": 1}])
        scratch.log("rows").append([{"i": 2}])
    with open_scratch(tmp_path, STAGE, "k") as scratch:
        assert scratch.log("rows").read() == [{"i": 0, "text": "Zürich\u2028"}, {"i": 1}, {"i": 2}]
        assert scratch.log("other").read() == []


def test_work_of_a_killed_experiment_is_found_by_the_next_in_another_temporary_folder(tmp_path):
    for place in ("tmp1", "tmp2"):
        with open_scratch(tmp_path, STAGE, "k", place=tmp_path / place) as scratch:
            found = scratch.log("rows").read()
            scratch.log("rows").append([{"i": len(found)}])
    assert found == [{"i": 0}]


def test_two_checkouts_at_the_same_work_do_it_apart_and_the_same_checkout_twice_is_refused(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    with open_scratch(tmp_path / ".state", STAGE, "k", place=one) as first:
        with open_scratch(tmp_path / ".state", STAGE, "k", place=two) as second:
            assert second.path.is_relative_to(two) and second.path != first.path
            second.finish()
        with pytest.raises(UserError, match="already running"):
            open_scratch(tmp_path / ".state", STAGE, "k", place=one).__enter__()
        assert first.path.is_dir()


def test_finish_keeps_what_another_checkout_was_killed_at_for_two_weeks(tmp_path):
    for key, place in (("fresh", "tmp1"), ("old", "tmp1"), ("own", "here")):
        with open_scratch(tmp_path, STAGE, key, place=tmp_path / place):
            pass
    folder = tmp_path / "scratch" / STAGE
    for path in (folder / "old", *(folder / "old").iterdir()):
        os.utime(path, (time.time() - 15 * 86400,) * 2)
    with open_scratch(tmp_path, STAGE, "k", place=tmp_path / "here") as scratch:
        scratch.finish()
    assert [p.name for p in folder.iterdir() if p.is_dir()] == ["fresh"]


@pytest.mark.parametrize("torn", [b'{"i": 1, "te', b'{"i": 1}', b"\0\0\0\0", b"\0\0\n"])
def test_a_torn_last_line_is_dropped_from_the_rows_and_from_the_file(tmp_path, torn):
    log = LineLog(tmp_path / "rows.jsonl")
    log.append([{"i": 0}])
    with log.path.open("ab") as file:
        file.write(torn)
    assert log.read() == [{"i": 0}]
    log.append([{"i": 2}])
    assert log.path.read_text() == '{"i": 0}\n{"i": 2}\n'


def test_appending_after_a_torn_line_does_not_glue_the_two_together(tmp_path):
    log = LineLog(tmp_path / "rows.jsonl")
    log.append([{"i": 0}])
    with log.path.open("ab") as file:
        file.write(b'{"i": 1, "te')
    log.append([{"i": 2}])
    assert log.read() == [{"i": 0}, {"i": 2}]


def write_until_killed(state: Path) -> None:
    with open_scratch(state, STAGE, "k") as scratch:
        log = scratch.log("rows")
        for i in range(10**9):
            log.append([{"i": i, "padding": "x" * 1000}])


def test_rows_survive_kill_minus_nine_and_the_lock_does_not(tmp_path):
    worker = multiprocessing.get_context("spawn").Process(target=write_until_killed, args=(tmp_path,))
    worker.start()
    path = tmp_path / "scratch" / STAGE / "k/rows.jsonl"
    deadline = time.monotonic() + 30
    while not (path.exists() and path.stat().st_size > 20_000):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(UserError, match=rf"already running.*process {worker.pid} "), open_scratch(tmp_path, STAGE, "k"):
        pass
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    with open_scratch(tmp_path, STAGE, "k") as scratch:
        rows = scratch.log("rows").read()
    assert len(rows) >= 19 and [row["i"] for row in rows] == list(range(len(rows)))


def test_a_second_holder_is_refused_and_another_key_is_not(tmp_path):
    with open_scratch(tmp_path, STAGE, "k"):
        with pytest.raises(UserError, match="already running on the same inputs and params"):
            open_scratch(tmp_path, STAGE, "k").__enter__()
        with open_scratch(tmp_path, STAGE, "other"):
            pass


def test_an_exception_keeps_the_folder_and_frees_the_lock(tmp_path):
    with pytest.raises(KeyboardInterrupt), open_scratch(tmp_path, STAGE, "k") as scratch:
        scratch.log("rows").append([{"i": 0}])
        raise KeyboardInterrupt
    with open_scratch(tmp_path, STAGE, "k") as scratch:
        assert scratch.log("rows").read() == [{"i": 0}]


def test_finish_deletes_this_key_and_stale_ones_but_not_one_in_use_nor_another_stage(tmp_path):
    with open_scratch(tmp_path, STAGE, "stale"), open_scratch(tmp_path, "rl@tiny-neox-rl", "k"):
        pass
    with open_scratch(tmp_path, STAGE, "busy"):
        with open_scratch(tmp_path, STAGE, "k") as scratch:
            scratch.finish()
        left = {p.name for p in (tmp_path / "scratch" / STAGE).iterdir()}
        assert left == {"busy", "busy.lock"}
    assert (tmp_path / "scratch/rl@tiny-neox-rl/k").is_dir()


def test_a_log_whose_name_goes_on_behind_a_dot_is_another_log(tmp_path):
    with open_scratch(tmp_path, STAGE, "k") as scratch:
        scratch.log("0").append([{"i": 0}])
        scratch.log("0.5").append([{"i": 1}])
        assert scratch.read_logs("0") == [{"i": 0}]


def test_parts_work_side_by_side_and_the_whole_reads_their_logs(tmp_path):
    with open_scratch(tmp_path, STAGE, "k", part="a") as a, open_scratch(tmp_path, STAGE, "k", part="b") as b:
        a.log("rows").append([{"i": 0}])
        b.log("rows").append([{"i": 1}])
        with b.log("rows").path.open("ab") as file:
            file.write(b'{"i": 2, "te')  # b is in the middle of a line when a looks
        assert a.read_logs("rows") == [{"i": 0}, {"i": 1}]
        assert b.log("rows").path.read_bytes().endswith(b"te")
        with pytest.raises(UserError, match=r"generate@tiny-neox-it \(a\) is already running"):
            open_scratch(tmp_path, STAGE, "k", part="a").__enter__()
        with pytest.raises(UserError, match=r"generate@tiny-neox-it \(a\) is already running"):
            open_scratch(tmp_path, STAGE, "k").__enter__()
    with open_scratch(tmp_path, STAGE, "k") as whole:
        whole.log("rows").append([{"i": 3}])
        assert whole.read_logs("rows") == [{"i": 0}, {"i": 1}, {"i": 3}]
        whole.finish()
    assert list((tmp_path / "scratch" / STAGE).iterdir()) == []


def test_a_part_is_refused_while_the_whole_is_at_work(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)
    with (
        open_scratch(tmp_path, STAGE, "k"),
        pytest.raises(UserError, match=f"{STAGE} is already running"),
        open_scratch(tmp_path, STAGE, "k", part="a"),
    ):
        pass


def test_finish_leaves_another_key_alone_while_a_part_of_it_is_at_work(tmp_path):
    with open_scratch(tmp_path, STAGE, "busy", part="a") as part:
        with open_scratch(tmp_path, STAGE, "k") as scratch:
            scratch.finish()
        assert part.path.is_dir()


def test_what_is_made_once_is_the_same_for_all(tmp_path):
    with open_scratch(tmp_path, STAGE, "k", part="a") as a, open_scratch(tmp_path, STAGE, "k", part="b") as b:
        assert a.once("plan", lambda: [[0, 1], [2]]) == [[0, 1], [2]]
        assert b.once("plan", lambda: [[2], [0, 1]]) == [[0, 1], [2]]


def test_stages_whose_names_hold_slashes_do_not_nest(tmp_path):
    with open_scratch(tmp_path, "rl/tiny-neox/rl", "k") as inner:
        inner.log("rows").append([{"i": 0}])
    with open_scratch(tmp_path, "rl/tiny-neox", "k") as outer:
        outer.finish()
    assert inner.log("rows").read() == [{"i": 0}]


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_in_append_keeps_the_earlier_rows_and_says_where(tmp_path, monkeypatch):
    log = LineLog(tmp_path / "rows.jsonl")
    log.append([{"i": 0}])
    monkeypatch.setattr(module.os, "fsync", full_disk)
    with pytest.raises(UserError, match=rf"disk is full: .*rows\.jsonl.* free in {tmp_path}"):
        log.append([{"i": 1}])
    assert log.read() == [{"i": 0}]


def test_a_full_disk_inside_the_block_is_told_and_the_scratch_kept(tmp_path):
    with pytest.raises(UserError, match="disk is full"), open_scratch(tmp_path, STAGE, "k") as scratch:
        scratch.log("rows").append([{"i": 0}])
        full_disk()
    with open_scratch(tmp_path, STAGE, "k") as scratch:
        assert len(scratch.log("rows").read()) == 1


def make(path: Path, content: str, *, folder: bool) -> Path:
    if folder:
        path.mkdir(parents=True)
        (path / "adapter_config.json").write_text(content)
        (path / f"{content}.txt").write_text(content)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return path


def content_of(path: Path) -> str:
    return (path / "adapter_config.json").read_text() if path.is_dir() else path.read_text()


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("old", [None, False, True])
def test_publish_replaces_whatever_is_there_and_leaves_nothing_beside_it(tmp_path, folder, old):
    source = make(tmp_path / "scratch/result", "new", folder=folder)
    out = tmp_path / "adapters/m/ft"
    if old is not None:
        make(out, "old", folder=old)
    replace_output(source, out)
    assert content_of(out) == "new" and not source.exists()
    assert [p.name for p in out.parent.iterdir()] == ["ft"]
    if folder:
        assert {p.name for p in out.iterdir()} == {"adapter_config.json", "new.txt"}


def test_publish_replaces_a_link_and_not_what_it_points_to(tmp_path):
    cached = make(tmp_path / "cache/ab", "cached", folder=True)
    out = tmp_path / "out"
    out.symlink_to(cached)
    replace_output(make(tmp_path / "new", "new", folder=True), out)
    assert content_of(out) == "new" and not out.is_symlink() and content_of(cached) == "cached"


@pytest.mark.parametrize(("folder", "failing_call"), [(False, 1), (False, 2), (True, 1), (True, 2), (True, 3)])
def test_a_failed_publish_leaves_the_old_out_and_the_source(tmp_path, monkeypatch, folder, failing_call):
    source, out = make(tmp_path / "scratch/new", "new", folder=folder), make(tmp_path / "out", "old", folder=folder)
    rename, calls = os.rename, 0

    def failing(a, b):
        nonlocal calls
        calls += 1
        if calls == failing_call:
            full_disk()
        rename(a, b)

    monkeypatch.setattr(module.os, "rename", failing)
    with pytest.raises(UserError, match="disk is full"):
        replace_output(source, out)
    assert content_of(out) == "old" and content_of(source) == "new"


@pytest.mark.parametrize("folder", [False, True])
def test_publish_copies_across_file_systems(tmp_path, monkeypatch, folder):
    source, out = make(tmp_path / "scratch/new", "new", folder=folder), make(tmp_path / "out", "old", folder=folder)
    rename = os.rename

    def other_device(a, b):
        if Path(a) == source:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(a, b)

    monkeypatch.setattr(module.os, "rename", other_device)
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "copytree" if folder else "copy2", full_disk)
        with pytest.raises(UserError, match="disk is full"):
            replace_output(source, out)
    assert content_of(out) == "old" and content_of(source) == "new"
    replace_output(source, out)
    assert content_of(out) == "new" and not source.exists()


def test_a_publish_killed_between_its_two_renames_is_mended_by_the_next(tmp_path, monkeypatch):
    out, source = make(tmp_path / "out", "old", folder=True), make(tmp_path / "new", "new", folder=True)
    out.rename(tmp_path / ".out.old")  # where a kill between the renames leaves things
    make(tmp_path / ".out.partial", "half", folder=True)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_rename_or_copy", full_disk)
        with pytest.raises(UserError):
            replace_output(source, out)
    assert content_of(out) == "old"
    replace_output(source, out)
    assert content_of(out) == "new" and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_really_full_file_system_is_told_in_one_paragraph(tmp_path):
    """/dev/full answers every write with ENOSPC, as a full disk does."""
    code = (
        "import sys; from pathlib import Path; from detoxlens.jobs.scratch import open_scratch\n"
        "with open_scratch(Path(sys.argv[1]), 'generate', 'k') as scratch:\n"
        "    with open('/dev/full', 'w') as file: file.write('x')\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert result.returncode != 0 and "UserError: The disk is full" in result.stderr


@pytest.mark.parametrize("save", ["safetensors", "torch"])
def test_a_library_that_words_a_full_disk_its_own_way_is_understood(tmp_path, monkeypatch, save):
    words = {
        "safetensors": "I/O error: No space left on device (os error 28)",
        "torch": "[enforce fail at inline_container.cc:672]",
    }
    monkeypatch.setattr("detoxlens.common.errors.shutil.disk_usage", lambda _: SimpleNamespace(free=4096))
    with pytest.raises(UserError, match="The disk is full"), open_scratch(tmp_path, "base", "k"):
        raise RuntimeError(words[save])


def test_another_error_of_torch_save_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="inline_container"), open_scratch(tmp_path, "base", "k"):
        raise RuntimeError("[enforce fail at inline_container.cc:672]")  # there is room here
