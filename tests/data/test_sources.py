"""Sources: local files, URLs (a server on the loopback interface) and hub ids (a local folder of the same name)."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import socket
import threading
from pathlib import Path

import pytest

from detoxlens.common.errors import UserError
from detoxlens.data.sources import local_file, sha256_of
from tests.data.files import rtp_row, write_jsonl


def content_of(source, root, form="csv"):
    with local_file(source, root, key="data.dialoconan", form=form) as path:
        return path.read_bytes()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/broken.csv":  # promises more than it sends
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"only this")
        else:
            super().do_GET()

    def log_message(self, format, *args):
        """Says nothing."""


@pytest.fixture
def server(tmp_path):
    (tmp_path / "d.csv").write_bytes(b"text\n")
    handler = functools.partial(_Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_path_is_relative_to_the_root_or_absolute_and_the_file_itself_is_read(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/d.csv").write_bytes(b"text\n")
    for source in ("raw/d.csv", str(tmp_path / "raw/d.csv")):
        with local_file(source, tmp_path, key="data.rtp", form="jsonl") as path:
            assert path == tmp_path / "raw/d.csv"


def test_an_existing_path_wins_over_a_hub_id_of_the_same_form(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/dialogues").write_bytes(b"text\n")
    assert content_of("raw/dialogues", tmp_path) == b"text\n"


@pytest.mark.parametrize("source", ["raw/d.csv", "d.csv", "/nowhere/d.csv", "hf:d.csv"])
def test_a_missing_file_is_named_and_no_network_is_asked(tmp_path, source):
    with pytest.raises(UserError, match=r"data\.dialoconan=.*(does not exist|is no Hugging Face).*owner/name"):
        content_of(source, tmp_path)


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match="'raw' is a folder; name the CSV file in it"):
        content_of("raw", tmp_path)


def test_a_url_is_downloaded_to_a_temporary_file_and_its_pin_checked(tmp_path, server):
    digest = hashlib.sha256(b"text\n").hexdigest()
    with local_file(f"{server}/d.csv#sha256={digest}", tmp_path, key="data.rtp", form="csv") as path:
        assert path.read_bytes() == b"text\n"
        assert sha256_of(path) == digest
    assert not path.exists()
    with pytest.raises(UserError, match=f"has changed, its sha256 is now {digest}"):
        content_of(f"{server}/d.csv#sha256={'0' * 64}", tmp_path)
    with pytest.raises(UserError, match="what follows # must be sha256="):
        content_of(f"{server}/d.csv#md5=1", tmp_path)


def test_a_failed_download_names_the_key_and_the_remedy(tmp_path, server):
    with pytest.raises(UserError, match=r"data\.dialoconan='http.*404.*download the file yourself"):
        content_of(f"{server}/nothing.csv", tmp_path)
    with pytest.raises(UserError, match="broke off after 9 of 100 bytes"):
        content_of(f"{server}/broken.csv", tmp_path)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match="could not be downloaded"):
            content_of(f"http://127.0.0.1:{unused.getsockname()[1]}/d.csv", tmp_path)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """A working folder with a data set `owner/name` of two parts: `datasets` looks here before it asks the hub."""
    folder = tmp_path / "cwd/owner/name"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write_jsonl(folder / "train.jsonl", [rtp_row("Zorgons are", None, challenging=True), rtp_row("Zorgons knit", 0.25)])
    write_jsonl(folder / "test.jsonl", [rtp_row("Zorgons eat", 0.5)])
    return folder


@pytest.mark.parametrize("source", ["hf:owner/name", "owner/name"])
def test_all_parts_of_a_hub_data_set_arrive_with_nested_fields_and_nulls(tmp_path, hub, source):
    rows = [json.loads(line) for line in content_of(source, tmp_path, "jsonl").splitlines()]
    assert [row["prompt"]["text"] for row in rows] == ["Zorgons are", "Zorgons knit", "Zorgons eat"]
    assert [row["prompt"]["toxicity"] for row in rows] == [None, 0.25, 0.5]
    assert rows[0]["challenging"] is True


def test_a_hub_data_set_of_dialogues_arrives_as_csv(tmp_path, hub):
    from detoxlens.data.dialoconan import read_dialoconan

    (hub / "train.jsonl").unlink()
    (hub / "test.jsonl").unlink()
    text = 'text,TARGET,dialogue_id,turn_id,type,source\n"a, ""b""\nc",Z,1,0,HS,s\nd,Z,1,1,CN,s\n'
    (hub / "train.csv").write_text(text)
    with local_file("hf:owner/name", tmp_path, key="data.dialoconan", form="csv") as path:
        assert read_dialoconan(path).conversations[0].turns == ('a, "b"\nc', "d")


def test_an_unknown_hub_id_is_told_without_a_traceback(tmp_path, monkeypatch):
    import datasets

    def refuse(path, revision):
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset {path!r} doesn't exist on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError, match=r"owner/nothing@v2 is no file here, and could not be loaded.*doesn't exist"):
        content_of("owner/nothing@v2", tmp_path)
