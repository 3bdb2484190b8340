"""A real HTTP server that answers what a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str], tuple[int, Any]]


@contextmanager
def answering(answer: Answer) -> Iterator[Any]:
    """A server at `.url`; `.answer(path)` gives status and body, `.seen` what was asked.

    `.seen` holds method, path, headers and body of each request.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            server.seen.append((self.command, self.path, dict(self.headers), body))
            status, document = server.answer(self.path)
            said = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_POST = do_PUT = do_GET  # noqa: N815 - http.server asks for these names

        def log_message(self, *_: object) -> None:
            pass

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answer, server.seen = answer, []
    server.url = f"http://127.0.0.1:{server.server_port}/healthz"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
