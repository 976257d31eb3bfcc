"""A hub on loopback that speaks as much of its protocol as one upload needs. https://huggingface.co/docs/hub/api"""

import base64
import contextlib
import http.server
import json
import threading


class FakeHub:
    """What was asked of it: `files` by repository and path, `repositories` with whether they are private."""

    def __init__(self, status: int = 200):
        self.status, self.files, self.repositories, self.tokens = status, {}, {}, set()
        self.endpoint = ""


@contextlib.contextmanager
def fake_hub(status: int = 200):
    """Serves; `status` other than 200 is its answer to every commit."""
    hub = FakeHub(status)

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self, value, status=200):
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self._answer({"id": "x/y", "sha": "0" * 40, "siblings": []})

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.tokens.add(self.headers.get("Authorization"))
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                hub.repositories[name] = asked.get("private", asked.get("visibility") == "private")
                return self._answer({"url": f"{hub.endpoint}/{name}"})
            if self.path == "/api/validate-yaml":
                return self._answer({"errors": [], "warnings": []})
            if "/preupload/" in self.path:
                files = json.loads(body)["files"]
                modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
                return self._answer({"files": modes})
            if "/commit/" in self.path and hub.status == 200:
                repository = self.path.removeprefix("/api/models/").partition("/commit/")[0]
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        file = line["value"]
                        hub.files.setdefault(repository, {})[file["path"]] = base64.b64decode(file["content"])
                url = f"{hub.endpoint}/{repository}/commit/{'1' * 40}"
                return self._answer({"commitUrl": url, "commitOid": "1" * 40, "success": True})
            return self._answer({"error": "no"}, hub.status if hub.status != 200 else 404)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
