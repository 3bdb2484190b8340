"""The HTTP side of the fake: routes, faults, and the contract that every exchange is held to."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import uuid4

from tests.fake_neon.faults import BEFORE, Fault, Faults
from tests.fake_neon.openapi import Contract
from tests.fake_neon.project import ROLE, Branch, Operation, Project, Wrong, now, stamp

KEY = "neon-test-key-0123456789"
Reply = tuple[int, Any]


class FakeNeon:
    """A project at `base_url`; `violations` is what broke the contract, if it has one."""

    def __init__(self, url: str | None, contract: Contract | None = None) -> None:
        self.project = Project(url)
        self.faults = Faults()
        self.contract = contract
        self.violations: list[str] = []
        self.requests: list[tuple[str, str, Any]] = []
        self.served: list[str] = []
        self.slow_s = 0.5
        self.page_size = 400
        self.change: Callable[[str, str, Any], Any] | None = None
        self._one_by_one = threading.RLock()
        self._closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/api/v2"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        with self._one_by_one:
            self.project.close()

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Reply:
        """Carry a request out."""
        with self._one_by_one:
            for verb, pattern, route in _ROUTES:
                match = re.fullmatch(pattern, path)
                if verb == method and match:
                    try:
                        if method != "GET":
                            self.project.refuse_while_busy()
                        return route(self, *map(unquote, match.groups()), query=query, body=body)
                    except Wrong as wrong:
                        return wrong.status, wrong.body
        return 404, {"code": "", "message": f"no route {method} {path}"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet

            def log_message(self, *_: Any) -> None:
                pass

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, TimeoutError):
                    self.close_connection = True

            def do_GET(self) -> None:
                fake._serve(self)

            do_POST = do_PATCH = do_DELETE = do_PUT = do_GET  # noqa: N815

        return Handler

    def _serve(self, http: BaseHTTPRequestHandler) -> None:
        split = urlsplit(http.path)
        path = split.path.removeprefix("/api/v2")
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        raw = http.rfile.read(int(http.headers.get("Content-Length") or 0))
        method = http.command
        body = json.loads(raw) if raw else {}
        self.requests.append((method, path, body or query))
        if self.contract:
            wrong = self.contract.request(method, path, query, http.headers, raw)
            self.violations += [f"request {method} {path}: {each}" for each in wrong]
        if http.headers.get("Authorization") != f"Bearer {KEY}":
            self._send(http, 401, {"code": "", "message": "this key is not valid"})
            return
        fault = self.faults.next(method, path)
        if fault in BEFORE:
            self._fail(http, fault)
            return
        status, answered = self.answer(method, path, query, body)
        if self.change:
            answered = self.change(method, path, answered)
        if fault == "slow":
            self._closing.wait(self.slow_s)
        if fault is None or fault == "slow":
            self._send(http, status, answered)
        else:
            self._fail(http, fault)

    def _fail(self, http: BaseHTTPRequestHandler, fault: Fault | None) -> None:
        match fault:
            case "locked":
                self._send(http, 423, _error("project already has running operations"))
            case "rate_limited":
                self._send(http, 429, _error("too many requests"), {"Retry-After": "0"})
            case "rate_limited_until":
                until = format_datetime(datetime.now(UTC) + timedelta(seconds=0), usegmt=True)
                self._send(http, 429, _error("too many requests"), {"Retry-After": until})
            case "unavailable":
                self._send(http, 503, _error("try again"), {"Retry-After": "0"})
            case "failed" | "failed_after":
                self._send(http, 500, _error("internal error"))
            case "page":
                self._send(http, 502, b"<html>bad gateway</html>")
            case _:
                http.close_connection = True

    def _send(
        self,
        http: BaseHTTPRequestHandler,
        status: int,
        answered: Any,
        headers: dict[str, str] | None = None,
    ) -> None:
        path = urlsplit(http.path).path.removeprefix("/api/v2")
        request_id = http.headers.get("X-Request-ID") or str(uuid4())
        if status >= 400 and isinstance(answered, dict):
            answered = {**answered, "request_id": request_id}
        if self.contract and not isinstance(answered, bytes):
            wrong = self.contract.response(http.command, path, status, answered)
            self.violations += [f"response {http.command} {path} {status}: {w}" for w in wrong]
        content = answered if isinstance(answered, bytes) else json.dumps(answered).encode()
        if status == 204:
            content = b""
        self.served.append(request_id)
        http.send_response(status)
        kind = "text/html" if isinstance(answered, bytes) else "application/json"
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            http.send_header(name, value)
        http.send_header("Content-Length", str(len(content)))
        http.end_headers()
        http.wfile.write(content)


def _error(message: str) -> dict[str, str]:
    return {"code": "", "message": message}


# What is answered


def _branch(fake: FakeNeon, b: Branch) -> dict[str, Any]:
    busy = any(o.branch_id == b.id and not o.is_over for o in fake.project.operations)
    shown: dict[str, Any] = {
        "id": b.id,
        "project_id": fake.project.id,
        "name": b.name,
        "current_state": "init" if busy else "ready",
        "state_changed_at": stamp(b.created_at),
        "creation_source": "console",
        "created_at": stamp(b.created_at),
        "updated_at": now(),
        "default": b.default,
        "primary": b.default,
        "protected": b.protected,
        "cpu_used_sec": 0,
        "active_time_seconds": 0,
        "compute_time_seconds": 0,
        "written_data_bytes": 0,
        "data_transfer_bytes": 0,
        "logical_size": 30_000_000,
        "init_source": "parent-data",
    }
    if b.parent_id:
        shown |= {"parent_id": b.parent_id, "parent_lsn": "0/1DE2850"}
    if b.expires_at:
        shown["expires_at"] = b.expires_at
    if b.restricted:
        shown["restricted_actions"] = b.restricted
    return shown


def _annotation(b: Branch) -> dict[str, Any]:
    return {
        "object": {"type": "console/branch", "id": b.id},
        "value": b.annotation,
        "created_at": stamp(b.created_at),
    }


def _operation(fake: FakeNeon, o: Operation) -> dict[str, Any]:
    shown = {
        "id": o.id,
        "project_id": fake.project.id,
        "branch_id": o.branch_id,
        "action": o.action,
        "status": o.status,
        "failures_count": 0,
        "created_at": stamp(o.made),
        "updated_at": now(),
        "total_duration_ms": 3,
    }
    if o.status in ("failed", "error"):
        shown["error"] = "the fake was told to fail"
    return shown


def _endpoint(fake: FakeNeon, id_: str) -> dict[str, Any]:
    return {
        "id": id_,
        "host": f"{id_}.fake.neon.test",
        "project_id": fake.project.id,
        "branch_id": fake.project.endpoints[id_],
        "region_id": "aws-us-east-2",
        "autoscaling_limit_min_cu": 0.25,
        "autoscaling_limit_max_cu": 1,
        "type": "read_write",
        "current_state": "active",
        "pooler_enabled": False,
        "pooler_mode": "transaction",
        "disabled": False,
        "passwordless_access": True,
        "creation_source": "console",
        "created_at": now(),
        "updated_at": now(),
        "settings": {},
        "proxy_host": "fake.neon.test",
        "suspend_timeout_seconds": 0,
        "provisioner": "k8s-neonvm",
    }


def _database(fake: FakeNeon, b: Branch) -> dict[str, Any]:
    return {
        "id": 1,
        "branch_id": b.id,
        "name": fake.project.logical,
        "owner_name": ROLE,
        "created_at": now(),
        "updated_at": now(),
    }


def _with_operations(fake: FakeNeon, b: Branch, operations: list[Operation]) -> dict[str, Any]:
    return {"branch": _branch(fake, b), "operations": [_operation(fake, o) for o in operations]}


# Routes


def project(fake: FakeNeon, **_: Any) -> Reply:
    zero = dict.fromkeys(
        [
            "active_time_seconds",
            "compute_time_seconds",
            "written_data_bytes",
            "data_transfer_bytes",
            "data_storage_bytes_hour",
            "branch_logical_size_limit",
            "branch_logical_size_limit_bytes",
            "cpu_used_sec",
        ],
        0,
    )
    return 200, {
        "project": {
            **zero,
            "id": fake.project.id,
            "name": "fake",
            "platform_id": "aws",
            "region_id": "aws-us-east-2",
            "pg_version": 17,
            "proxy_host": "fake.neon.test",
            "store_passwords": True,
            "provisioner": "k8s-neonvm",
            "creation_source": "console",
            "history_retention_seconds": 86400,
            "consumption_period_start": now(),
            "consumption_period_end": now(),
            "created_at": now(),
            "updated_at": now(),
            "owner_id": "629982cc-de05-43db-ae16-28f2399c4910",
        }
    }


def list_branches(fake: FakeNeon, *, query: dict[str, str], **_: Any) -> Reply:
    wanted = query.get("search", "")
    found = [b for b in fake.project.branches.values() if wanted in b.name or wanted in b.id]
    start = int(query.get("cursor") or 0)
    size = min(int(query.get("limit") or 100), fake.page_size)
    page = found[start : start + size]
    more = {"next": str(start + size)} if start + size < len(found) else {}
    return 200, {
        "branches": [_branch(fake, b) for b in page],
        "annotations": {b.id: _annotation(b) for b in page if b.annotation},
        "pagination": more,
    }


def create_branch(fake: FakeNeon, *, body: dict[str, Any], **_: Any) -> Reply:
    branch, operations = fake.project.create(body)
    endpoints = [e for e, b in fake.project.endpoints.items() if b == branch.id]
    return 201, {
        **_with_operations(fake, branch, operations),
        "endpoints": [_endpoint(fake, e) for e in endpoints],
        "roles": [],
        "databases": [_database(fake, branch)],
    }


def get_branch(fake: FakeNeon, id_: str, **_: Any) -> Reply:
    branch = fake.project.of(id_)
    return 200, {"branch": _branch(fake, branch), "annotation": _annotation(branch)}


def update_branch(fake: FakeNeon, id_: str, *, body: dict[str, Any], **_: Any) -> Reply:
    branch = fake.project.of(id_)
    return 200, _with_operations(fake, branch, fake.project.update(branch, body["branch"]))


def delete_branch(fake: FakeNeon, id_: str, **_: Any) -> Reply:
    if id_ not in fake.project.branches:
        return 204, None
    branch = fake.project.of(id_)
    return 200, _with_operations(fake, branch, fake.project.delete(branch))


def restore_branch(fake: FakeNeon, id_: str, *, body: dict[str, Any], **_: Any) -> Reply:
    branch, operations = fake.project.restore(fake.project.of(id_), body)
    return 200, _with_operations(fake, branch, operations)


def branch_endpoints(fake: FakeNeon, id_: str, **_: Any) -> Reply:
    found = [e for e, b in fake.project.endpoints.items() if b == id_]
    return 200, {"endpoints": [_endpoint(fake, e) for e in found]}


def databases(fake: FakeNeon, id_: str, **_: Any) -> Reply:
    return 200, {"databases": [_database(fake, fake.project.of(id_))]}


def create_endpoint(fake: FakeNeon, *, body: dict[str, Any], **_: Any) -> Reply:
    branch = fake.project.of(body["endpoint"]["branch_id"])
    id_, operations = fake.project.add_endpoint(branch)
    return 201, {
        "endpoint": _endpoint(fake, id_),
        "operations": [_operation(fake, o) for o in operations],
    }


def start_endpoint(fake: FakeNeon, id_: str, **_: Any) -> Reply:
    return 200, {"endpoint": _endpoint(fake, id_), "operations": []}


def operations(fake: FakeNeon, *, query: dict[str, str], **_: Any) -> Reply:
    newest = fake.project.operations[::-1][: int(query.get("limit") or 100)]
    return 200, {"operations": [_operation(fake, o) for o in newest]}


def connection_uri(fake: FakeNeon, *, query: dict[str, str], **_: Any) -> Reply:
    branch = fake.project.of(query.get("branch_id") or fake.project.named("main").id)
    if branch.id not in fake.project.endpoints.values():
        raise Wrong(404, "", "the branch has no compute endpoint")
    if query["database_name"] != fake.project.logical:
        raise Wrong(404, "", f"there is no database {query['database_name']}")
    return 200, {"uri": fake.project.url(branch, query["role_name"])}


def compare_schema(fake: FakeNeon, id_: str, *, query: dict[str, str], **_: Any) -> Reply:
    fake.project.of(id_)
    fake.project.of(query["base_branch_id"])
    return 200, {"diff": ""}


def snapshots(fake: FakeNeon, **_: Any) -> Reply:
    return 200, {"snapshots": list(fake.project.snapshots.values())}


def create_snapshot(fake: FakeNeon, id_: str, *, query: dict[str, str], **_: Any) -> Reply:
    made, operations = fake.project.snapshot(fake.project.of(id_), query.get("name"))
    return 200, {"snapshot": made, "operations": [_operation(fake, o) for o in operations]}


def delete_snapshot(fake: FakeNeon, id_: str, **_: Any) -> Reply:
    if fake.project.snapshots.pop(id_, None) is None:
        raise Wrong(404, "", "snapshot not found")
    return 202, {"operations": []}


_P = r"/projects/fake-project-123456"
_B = _P + r"/branches/([^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., Reply]]] = [
    ("GET", _P, project),
    ("GET", _P + "/branches", list_branches),
    ("POST", _P + "/branches", create_branch),
    ("GET", _B, get_branch),
    ("PATCH", _B, update_branch),
    ("DELETE", _B, delete_branch),
    ("POST", _B + "/restore", restore_branch),
    ("GET", _B + "/endpoints", branch_endpoints),
    ("GET", _B + "/databases", databases),
    ("GET", _B + "/compare_schema", compare_schema),
    ("POST", _B + "/snapshot", create_snapshot),
    ("GET", _P + "/snapshots", snapshots),
    ("DELETE", _P + "/snapshots/([^/]+)", delete_snapshot),
    ("POST", _P + "/endpoints", create_endpoint),
    ("POST", _P + "/endpoints/([^/]+)/start", start_endpoint),
    ("GET", _P + "/operations", operations),
    ("GET", _P + "/connection_uri", connection_uri),
]
