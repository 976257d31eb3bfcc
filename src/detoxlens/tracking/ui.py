"""MLflow's pages, served on the project's store."""

from __future__ import annotations

import logging
import os
import time
import urllib.request
from pathlib import Path
from threading import Thread

from detoxlens.common.errors import UserError
from detoxlens.tracking import Store, charts_url, resolve_store, send_or_warn, ui_command, ui_environment
from detoxlens.tracking.guard import serve

log = logging.getLogger(__name__)


def ui(root: Path, *, host: str, port: int, workers: int = 1) -> int:
    """Serves MLflow's pages on the project's store until this process ends; names those of a server.

    Raises:
        UserError: the port is taken.
    """
    store = resolve_store(root, os.environ)
    if store.is_server:
        print(f"{store.shown_uri} is a server and shows its pages itself: {charts_url(store)}")
        return 0
    _check_port(host, port)
    send_or_warn(store)
    page = _page(store, host, port)
    print(f"MLflow is starting, some ten seconds, minutes on a busy machine (Ctrl-C stops): {page}", flush=True)
    Thread(target=say_when_ready, args=(host, port, page), daemon=True).start()
    command = ui_command(store, host=host, port=port, workers=workers)
    status = serve(command, environment=os.environ | ui_environment(store))
    if status > 0:
        _check_port(host, port)  # another server may have taken it while this one was starting
    return status


def say_when_ready(host: str, port: int, page: str) -> None:
    """Prints the page's address once MLflow answers: its own lines say that it runs before its workers have started."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://[{address}]:{port}/health" if ":" in address else f"http://{address}:{port}/health"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine's, whatever its proxy
    while True:
        try:
            with opener.open(url, timeout=5):
                break
        except OSError:
            time.sleep(0.5)
    print(f"Ready: {page}", flush=True)


def _page(store: Store, host: str, port: int) -> str:
    """Where the runs are compared; MLflow's front page while the experiment is in its bin."""
    try:
        return charts_url(store, host=host, port=port)
    except UserError as e:
        log.warning("%s", e)
        return f"http://{host}:{port}"


def _check_port(host: str, port: int) -> None:
    """Raises a UserError if a server listens there already, or the address is not this machine's."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as e:
            other = port + 1 if port < 65535 else port - 1
            raise UserError(f"--port {port} on {host} cannot be used ({e.strerror}); try --port {other}.") from None
