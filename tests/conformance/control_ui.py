"""The Control UI of an installed package, served by a web server of our own.

In the original the gateway serves it. Ours does not: whoever wants it puts its
files on a web server and names that server in ``server.allowed_origins``. The
page asks its server for one JSON file, and opens the WebSocket elsewhere.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

SETTINGS_PATHS = ("/__openclaw/control-ui-config.json", "/control-ui-config.json")
SETTINGS = {
    "basePath": "",
    "assistantName": "Assistant",
    "assistantAvatar": "A",
    "assistantAgentId": "main",
}


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path in SETTINGS_PATHS:
            self._answer_json(SETTINGS)
            return
        if "." not in path.rpartition("/")[2]:
            self.path = "/index.html"  # a page of the application: it does its own routing
        super().do_GET()

    def _answer_json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: failures are looked for in the page."""


@contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[str]:
    """Serve the files of ``folder``; yields the origin."""
    with ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, directory=folder)) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
