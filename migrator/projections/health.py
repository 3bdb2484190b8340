"""Serve /healthz, /readyz and /metrics of the projectors of this process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client.exposition import choose_encoder

from migrator.errors import UsageError
from migrator.projections.vitals import Metrics, Vitals


@contextmanager
def served(host: str, port: int, metrics: Metrics, vitals: Sequence[Vitals]) -> Iterator[int]:
    """Answer GET on the port, 0 for any, while the block runs; yields the port.

    /healthz is 200 while every projector turns, /readyz while all of them are near the ends, or wait
    for their build; else 503. Both say why as JSON.

    Raises:
        UsageError: the port cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/healthz":
                    self._said(all(each.is_alive for each in vitals))
                case "/readyz":
                    self._said(all(each.is_alive and each.is_ready for each in vitals))
                case "/metrics":
                    encode, kind = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(200, kind, encode(metrics.registry))
                case _:
                    self._answer(404, "text/plain", b"/healthz /readyz /metrics\n")

        def _said(self, is_well: bool) -> None:
            document = json.dumps({"projections": [each.as_json() for each in vitals]})
            self._answer(200 if is_well else 503, "application/json", document.encode())

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Probes come every few seconds: they are not worth a line."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as exc:
        raise UsageError(
            f"port {port} of {host} cannot be had: {exc.strerror}",
            next_step="choose another --port",
        ) from exc
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
