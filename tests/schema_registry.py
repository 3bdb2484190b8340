"""A Schema Registry on a port, for what workers in other processes ask: schemas by id, GUID and version.

What it answers comes from the client's own mock; `fail_with` makes it answer an HTTP status instead.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError


class StandIn:
    """`client` registers schemas; `url` is where they are found; `asked` lists the paths asked for."""

    def __init__(self) -> None:
        self.client = SchemaRegistryClient.new_client({"url": "mock://"})
        self.asked: list[str] = []
        self.fail_with: int | None = None
        self.authorization: str | None = None
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                stand_in.asked.append(path)
                stand_in.authorization = self.headers.get("Authorization")
                status, answer = stand_in.answer(path)
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str) -> tuple[int, Any]:
        if self.fail_with is not None:
            return self.fail_with, {"error_code": self.fail_with * 100, "message": "no"}
        try:
            if found := re.fullmatch(r"/schemas/ids/(\d+)", path):
                return 200, self.client.get_schema(int(found[1])).to_dict()
            if found := re.fullmatch(r"/schemas/guids/(.+)", path):
                return 200, self.client.get_schema_by_guid(found[1]).to_dict()
            if found := re.fullmatch(r"/subjects/(.+)/versions/(\d+)", path):
                registered = self.client.get_version(found[1], int(found[2]))
                return 200, registered.to_dict()
        except SchemaRegistryError as exc:
            return 404, {"error_code": exc.error_code, "message": exc.error_message}
        return 404, {"error_code": 404, "message": "no such path"}

    @contextmanager
    def running(self) -> Iterator[StandIn]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def register(
    client: SchemaRegistryClient, schema: str, kind: str = "AVRO", *, subject: str = "s"
) -> tuple[int, uuid.UUID]:
    """Register a schema; its id and its GUID."""
    found = client.register_schema_full_response(subject, Schema(schema, kind))
    assert found.schema_id is not None
    return found.schema_id, uuid.UUID(found.guid)
