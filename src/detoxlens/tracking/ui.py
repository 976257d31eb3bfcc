"""MLflow's pages, served on the project's store."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from detoxlens.common.errors import UserError
from detoxlens.tracking import Store, charts_url, resolve_store, send_or_warn, ui_command, ui_environment
from detoxlens.tracking.guard import serve

log = logging.getLogger(__name__)


def ui(root: Path, *, host: str, port: int) -> int:
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
    print(f"Starting; in a moment: {_page(store, host, port)}   (Ctrl-C stops)", flush=True)
    status = serve(ui_command(store, host=host, port=port), environment=os.environ | ui_environment(store))
    if status > 0:
        _check_port(host, port)  # another server may have taken it while this one was starting
    return status


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
