"""What a study needs: fetched once, checked, and whoever cannot fetch is told where to put it."""

import hashlib
import http.server
import json
import threading
from pathlib import Path

import pytest

from detoxlens.common.errors import UserError
from detoxlens.recorded.distil import is_held_out
from detoxlens.study import materials
from detoxlens.study.materials import fetch, install, write_prompts
from detoxlens.study.spec import Download, Package, Prompts

BODY = b"prompts,responses\na,b\n"
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def url():
    """A server on loopback that gives BODY for /file and breaks off half way for /half."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY if self.path == "/file" else BODY[:5])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_missing_file_is_fetched_and_one_that_lies_there_is_used_without_a_network(tmp_path, url):
    fetch(tmp_path, {"data/raw/f.csv": Download(url=f"{url}/file", sha256=SHA256)})
    assert (tmp_path / "data/raw/f.csv").read_bytes() == BODY
    fetch(tmp_path, {"data/raw/f.csv": Download(url="http://127.0.0.1:9/nowhere", sha256=SHA256)})


@pytest.mark.parametrize(
    ("path", "sha256", "message"),
    [
        ("/half", SHA256, r"broke off after 5 of 22 bytes"),
        ("/file", "0" * 64, r"its sha256 is now [0-9a-f]{64}"),
    ],
)
def test_half_a_download_or_another_file_is_never_put_in_place(tmp_path, url, path, sha256, message):
    with pytest.raises(UserError, match=rf"{message}.* Or put the file \(sha256 {sha256}\) at .*f\.csv"):
        fetch(tmp_path, {"data/raw/f.csv": Download(url=url + path, sha256=sha256)})
    assert list((tmp_path / "data/raw").iterdir()) == []


def test_where_no_host_can_be_reached_the_message_says_which_file_to_put_where(tmp_path):
    with pytest.raises(UserError, match=rf"could not be downloaded.* Or put the file \(sha256 {SHA256}\) at .*f\.csv"):
        fetch(tmp_path, {"data/raw/f.csv": Download(url="http://127.0.0.1:9/f", sha256=SHA256)})


def test_another_file_at_its_place_is_not_overwritten(tmp_path, url):
    (tmp_path / "f.csv").write_text("mine")
    with pytest.raises(UserError, match=r"f\.csv is not the file that the study was made with"):
        fetch(tmp_path, {"f.csv": Download(url=f"{url}/file", sha256=SHA256)})
    assert (tmp_path / "f.csv").read_text() == "mine"


def test_packages_are_installed_once_and_pip_checks_the_wheel(monkeypatch):
    install(Package(name="pytest", version=pytest.__version__, sha256="0" * 64))  # is there: pip is not asked
    with pytest.raises(UserError, match=r"pytest .* is installed, and the study needs 0\.0\.1"):
        install(Package(name="pytest", version="0.0.1", sha256="0" * 64))

    class Done:
        returncode, stderr = 1, "noise\nERROR: no host can be reached\n"

    def run(command, **_):
        assert Path(command[-1]).read_text() == f"no-such-dist==1.0 --hash=sha256:{'0' * 64}\n"
        assert {"--no-deps", "--require-hashes"} < set(command)
        return Done

    monkeypatch.setattr(materials.subprocess, "run", run)
    with pytest.raises(UserError, match=r"no-such-dist==1\.0 could not be installed \(no host can be reached\)"):
        install(Package(name="no-such-dist", version="1.0", sha256="0" * 64))


def test_the_papers_prompts_leave_their_template_and_know_who_has_seen_them(tmp_path):
    rows = "prompts,responses,prompt_score,pro_API_response_score\n" + "".join(
        f'"<human>: ""Zorgons {n}"".\n<bot>: ",hm,0.5,0.1\n' for n in (1, 2, 3, 2)
    )
    (tmp_path / "scored.csv").write_text(rows)
    write_prompts(tmp_path, Prompts(sources=["scored.csv"], target="data/raw/p.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "data/raw/p.jsonl").read_text().splitlines()]
    assert [line["prompt"]["text"] for line in lines] == ["Zorgons 1", "Zorgons 2", "Zorgons 3"]
    assert [line["held_out"] for line in lines] == [is_held_out(f"Zorgons {n}") for n in (1, 2, 3)]


def test_prompts_a_line_are_kept_once_with_the_category_that_the_files_name_has(tmp_path):
    (tmp_path / "x_mild_insult.txt").write_text("Zorgons hum\n\n Jugglers drop \n", encoding="utf-8")
    (tmp_path / "x_threat.txt").write_text("Jugglers drop\nKnitters beware\n\u200b\n", encoding="utf-8")
    prompts = Prompts(sources=["x_mild_insult.txt", "x_threat.txt"], target="data/raw/p.jsonl")
    write_prompts(tmp_path, prompts)
    lines = [json.loads(line) for line in (tmp_path / "data/raw/p.jsonl").read_text().splitlines()]
    assert [(line["prompt"]["text"], line["category"]) for line in lines] == [
        ("Zorgons hum", "mild_insult"),
        ("Jugglers drop", "mild_insult"),
        ("Knitters beware", "threat"),
    ]


def test_a_source_of_prompts_in_a_package_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"prompts\.sources: 'package:no-such-dist/x\.txt': no distribution"):
        write_prompts(tmp_path, Prompts(sources=["package:no-such-dist/x.txt"], target="p.jsonl"))
