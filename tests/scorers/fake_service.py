"""Perspective (or OpenAI, where a list is asked) on loopback: answers from a script, counts, stops and starts."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Trouble = tuple[int, bytes] | float
"""A status and body instead of a score, or seconds of silence before one."""


def toxicity_of(text: str) -> float:
    """What the service thinks of `text`."""
    return (sum(text.encode()) % 97) / 100


class FakeService:
    """`with FakeService(trouble) as service:`; `trouble(text, attempt)` is a `Trouble`, or None for a score."""

    def __init__(self, trouble: Callable[[str, int], Trouble | None] = lambda text, attempt: None) -> None:
        self.trouble = trouble
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.paths: set[str] = set()
        self.bodies: list[dict] = []
        self.port = 0

    def start(self) -> None:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                texts = body["input"] if "input" in body else [body["comment"]["text"]]
                service.bodies.append(body)
                service.keys.add(self.headers["X-Goog-Api-Key"] or self.headers["Authorization"])
                service.paths.add(self.path)
                service.asked.update(texts)
                troubles = [service.trouble(text, service.asked[text]) for text in texts]
                trouble = next((t for t in troubles if t is not None), None)
                if isinstance(trouble, float):
                    time.sleep(trouble)
                elif trouble is not None:
                    return self.reply(*trouble)
                if "input" in body:
                    score = {"results": [{"category_scores": {"hate": toxicity_of(t), "harassment": 0}} for t in texts]}
                else:
                    score = {"attributeScores": {"TOXICITY": {"summaryScore": {"value": toxicity_of(texts[0])}}}}
                service.answered.update(texts)
                self.reply(200, json.dumps(score).encode())

            def do_GET(self) -> None:  # where a followed redirect ends up
                service.paths.add(self.path)
                self.reply(500, b"")

            def reply(self, status: int, body: bytes) -> None:
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    if status == 302:
                        self.send_header("Location", f"http://127.0.0.1:{service.port}/elsewhere")
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    service.answered["(nobody listened)"] += 1

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/analyze"

    def __enter__(self) -> FakeService:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def error(status: int, message: str) -> tuple[int, bytes]:
    """An error as Google words it."""
    return status, json.dumps({"error": {"code": status, "message": message}}).encode()
