"""`detoxlens ui` names a taken port and a server's own pages."""

import socket

import pytest

from detoxlens.common.errors import UserError
from detoxlens.tracking.ui import ui


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
