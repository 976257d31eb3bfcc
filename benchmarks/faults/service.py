"""A paid scoring service on loopback, in a process of its own: Perspective's protocol, kept books, and an end."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextlib.contextmanager
def serving(port: int, books: Path, *, until: int | None = None) -> Iterator[None]:
    """The service at `port` while the block runs, or until so many answers are in the books, one text a line (JSON)."""
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(port, books, until))
    process.start()
    try:
        while process.is_alive() and not _answers(port):
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.join()


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def booked(books: Path) -> list[str]:
    """The texts that were answered, and so paid for, in order."""
    return [json.loads(line) for line in books.read_text().splitlines()] if books.exists() else []


def _answers(port: int) -> bool:
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


def _serve(port: int, books: Path, until: int | None) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["comment"]["text"]
            if until is not None and len(booked(books)) >= until:
                os._exit(0)  # in the middle of a query
            with books.open("a") as file:
                file.write(json.dumps(text) + "\n")
            toxicity = (sum(text.encode()) % 97) / 100
            body = json.dumps({"attributeScores": {"TOXICITY": {"summaryScore": {"value": toxicity}}}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
