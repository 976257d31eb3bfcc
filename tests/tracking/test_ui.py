"""`detoxlens ui` names a taken port and a server's own pages, and leaves no server behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from detoxlens.common.errors import UserError
from detoxlens.tracking.ui import say_when_ready, ui
from tests.root import ROOT


def test_a_taken_port_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port} on 127.0.0.1 cannot be used"):
            ui(tmp_path, host="127.0.0.1", port=port)


def test_a_server_shows_its_pages_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@mlflow.example:5000")
    monkeypatch.setattr("detoxlens.tracking.store.open_client", lambda store: (None, "7"))
    assert ui(tmp_path, host="127.0.0.1", port=5000) == 0
    told = capsys.readouterr().out
    assert "http://mlflow.example:5000/#/experiments/7/runs" in told and "secret" not in told


def test_the_address_is_said_again_once_mlflow_answers_there(capsys):
    asked = []

    class Health(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(503 if len(asked) < 3 else 200)  # its workers start one by one
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        say_when_ready("127.0.0.1", server.server_port, "http://page")
        server.shutdown()
    assert asked == ["/health"] * 3 and capsys.readouterr().out == "Ready: http://page\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_and_its_workers_end_with_the_command_however_that_ends(tmp_path, number):
    pids = tmp_path / "pids"
    server = f"sleep 60 & echo $$ $! > {pids}; wait"
    code = f"from detoxlens.tracking.guard import serve; serve(['sh', '-c', {server!r}], environment={{}})"
    command = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    command.send_signal(number)
    command.wait()
    wait_for(lambda: not any(map(alive, pids.read_text().split())))


def alive(pid):
    """Whether a process runs; one that ended and waits for its parent (Z) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
