"""One Neon project whose branches are databases of a PostgreSQL on this machine.

Unlike the real one it cuts the sessions on a branch that is copied: CREATE DATABASE ... TEMPLATE needs that.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

PROJECT = "fake-project-123456"
ROLE = "postgres"


class Wrong(Exception):
    """The request is answered with an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.body = status, {"code": code, "message": message}


@dataclass
class Branch:
    id: str
    name: str
    database: str  # the local one
    parent_id: str | None = None
    default: bool = False
    protected: bool = False
    expires_at: str | None = None
    annotation: dict[str, str] = field(default_factory=dict)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    restricted: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Operation:
    branch_id: str
    action: str
    starts: float
    ends: float
    id: str = field(default_factory=lambda: str(uuid4()))
    endpoint_id: str | None = None
    outcome: str = "finished"
    made: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def status(self) -> str:
        now = time.monotonic()
        return "scheduling" if now < self.starts else "running" if now < self.ends else self.outcome

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.ends


def now() -> str:
    return stamp(datetime.now(UTC))


def stamp(when: datetime) -> str:
    return when.isoformat(timespec="seconds").replace("+00:00", "Z")


class Project:
    """`url` is of the database that branch `main` is; its server holds the others, too.

    Without one, branches are names alone. `restore_moves_compute`: a restored branch has another id than before.
    """

    def __init__(self, url: str | None) -> None:
        self._has_databases = url is not None
        url = url or "postgresql://127.0.0.1:1/shop"
        self._server = url.rpartition("/")[0] + "/postgres"
        self._numbers = itertools.count(1)
        self.logical = str(conninfo_to_dict(url)["dbname"])
        self.id = PROJECT
        self.operation_s = 0.004
        self.restore_moves_compute = False
        self.next_outcome = "finished"
        self.branches: dict[str, Branch] = {}
        self.endpoints: dict[str, str] = {}
        self.snapshots: dict[str, dict[str, Any]] = {}
        self.operations: list[Operation] = []
        self.points_elsewhere: str | None = None
        main = self._branch("main", self.logical)
        main.default = True
        self.endpoints[self._id("ep")] = main.id
        self._mark(main)

    # Local databases

    def _run(self, *statements: sql.Composed) -> None:
        if not self._has_databases:
            return
        with psycopg.connect(self._server, autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement)

    def _cut(self, database: str) -> None:
        self._run(
            sql.SQL(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = {}"
            ).format(sql.Literal(database))
        )

    def _copy(self, source: str, target: str) -> None:
        for attempt in range(20):
            self._cut(source)
            try:
                self._run(
                    sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                        sql.Identifier(target), sql.Identifier(source)
                    )
                )
            except psycopg.errors.ObjectInUse:
                if attempt == 19:
                    raise
            else:
                return

    def _rename(self, source: str, target: str) -> None:
        self._cut(source)
        self._run(
            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                sql.Identifier(source), sql.Identifier(target)
            )
        )

    def _mark(self, branch: Branch) -> None:
        """What compute_ctl writes into postgresql.conf."""
        said = {"neon.branch_id": branch.id, "neon.project_id": self.id}
        self._run(
            *(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    sql.Identifier(branch.database), sql.Identifier(name), sql.Literal(value)
                )
                for name, value in said.items()
            )
        )

    def _drop(self, database: str) -> None:
        self._run(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database))
        )

    def close(self) -> None:
        for branch in self.branches.values():
            if branch.database != self.logical:
                self._drop(branch.database)

    # State

    def _id(self, prefix: str) -> str:
        return f"{prefix}-fake-{next(self._numbers):06}"

    def _branch(self, name: str, database: str | None = None, **said: Any) -> Branch:
        id_ = self._id("br")
        branch = Branch(id_, name, database or f"{self.logical}_{id_}", **said)
        self.branches[id_] = branch
        return branch

    def named(self, name: str) -> Branch:
        return next(b for b in self.branches.values() if b.name == name)

    def of(self, branch_id: str) -> Branch:
        if branch_id not in self.branches:
            raise Wrong(404, "BRANCH_NOT_FOUND", f"branch {branch_id} not found")
        return self.branches[branch_id]

    def children(self, branch_id: str) -> list[Branch]:
        return [b for b in self.branches.values() if b.parent_id == branch_id]

    def refuse_while_busy(self) -> None:
        if any(not o.is_over for o in self.operations):
            raise Wrong(
                423,
                "",
                "project already has running operations, scheduling of new ones is prohibited",
            )

    def _begin(self, branch_id: str, *actions: str) -> list[Operation]:
        start = time.monotonic()
        outcome, self.next_outcome = self.next_outcome, "finished"
        made = [
            Operation(
                branch_id,
                action,
                start + number * self.operation_s,
                start + (number + 1) * self.operation_s,
                outcome=outcome,
            )
            for number, action in enumerate(actions)
        ]
        self.operations += made
        return made

    def _taken(self, name: str) -> None:
        if any(b.name == name for b in self.branches.values()):
            raise Wrong(409, "BRANCH_ALREADY_EXISTS", f"branch {name!r} already exists")

    def create(self, asked: dict[str, Any]) -> tuple[Branch, list[Operation]]:
        said = asked.get("branch", {})
        parent = self.of(said.get("parent_id") or self.named("main").id)
        name = said.get("name") or self._id("branch")
        self._taken(name)
        if parent.expires_at:
            raise Wrong(400, "", "a branch with an expiration cannot have children")
        branch = self._branch(
            name,
            parent_id=parent.id,
            protected=said.get("protected", False),
            expires_at=said.get("expires_at"),
            annotation=asked.get("annotation_value", {}),
        )
        self._copy(parent.database, branch.database)
        self._mark(branch)
        actions = ["create_branch"]
        if asked.get("endpoints"):
            self.endpoints[self._id("ep")] = branch.id
            actions.append("start_compute")
        return branch, self._begin(branch.id, *actions)

    def update(self, branch: Branch, said: dict[str, Any]) -> list[Operation]:
        if said.get("expires_at") and (branch.default or branch.protected):
            raise Wrong(400, "", "a default or protected branch cannot expire")
        if said.get("expires_at") and self.children(branch.id):
            raise Wrong(400, "", "a branch with children cannot expire")
        if "expires_at" in said:
            branch.expires_at = said["expires_at"]
        branch.protected = said.get("protected", branch.protected)
        branch.name = said.get("name", branch.name)
        return []

    def delete(self, branch: Branch) -> list[Operation]:
        if branch.default or branch.protected or self.children(branch.id):
            raise Wrong(422, "", "a default or protected branch, or a parent, cannot be deleted")
        self._drop(branch.database)
        del self.branches[branch.id]
        self.endpoints = {e: b for e, b in self.endpoints.items() if b != branch.id}
        return self._begin(branch.id, "suspend_compute", "delete_timeline")

    def restore(self, branch: Branch, asked: dict[str, Any]) -> tuple[Branch, list[Operation]]:
        source = self.of(asked["source_branch_id"])
        keep = asked.get("preserve_under_name")
        if branch.restricted:
            raise Wrong(422, "", branch.restricted[0]["reason"])
        if source is branch and not (asked.get("source_lsn") or asked.get("source_timestamp")):
            raise Wrong(400, "", "source_lsn or source_timestamp is required")
        if not keep and (source is branch or self.children(branch.id)):
            raise Wrong(400, "", "preserve_under_name is required: the branch has children")
        if keep:
            self._taken(keep)
        content = f"{branch.database}_new"
        self._copy(source.database, content)
        if keep:
            branch = self._preserve(branch, keep)
        else:
            self._drop(branch.database)
        self._rename(content, branch.database)
        self._mark(branch)
        return branch, self._begin(branch.id, "suspend_compute", "create_branch", "start_compute")

    def _preserve(self, branch: Branch, name: str) -> Branch:
        """Keep what the branch was under another name; its children go there. Returns the new head."""
        kept = self._branch(name, parent_id=branch.parent_id)
        self._rename(branch.database, kept.database)
        for child in self.children(branch.id):
            child.parent_id = kept.id
        if branch.parent_id:
            branch.parent_id = kept.id
        if self.restore_moves_compute:
            old, branch.id = branch.id, self._id("br")
            # The old id stays with the old state.
            del self.branches[kept.id]
            for child in self.children(kept.id):
                child.parent_id = old
            if branch.parent_id == kept.id:
                branch.parent_id = old
            kept.id = old
            self.branches |= {old: kept, branch.id: branch}
            self.endpoints = {e: branch.id if b == old else b for e, b in self.endpoints.items()}
        self._mark(kept)
        return branch

    def add_endpoint(self, branch: Branch) -> tuple[str, list[Operation]]:
        if branch.id in self.endpoints.values():
            raise Wrong(409, "", "read-write endpoint already exists for branch")
        id_ = self._id("ep")
        self.endpoints[id_] = branch.id
        return id_, self._begin(branch.id, "start_compute")

    def snapshot(self, branch: Branch, name: str | None) -> tuple[dict[str, Any], list[Operation]]:
        id_ = self._id("snap")
        made = {
            "id": id_,
            "name": name or id_,
            "source_branch_id": branch.id,
            "created_at": now(),
            "manual": True,
        }
        self.snapshots[id_] = made
        return made, self._begin(branch.id, "create_timeline")

    # For the tests

    def add(self, name: str, *, parent: str = "main", **said: Any) -> Branch:
        """A branch that somebody else has made."""
        of = self.named(parent)
        branch = self._branch(name, parent_id=of.id, **said)
        self._copy(of.database, branch.database)
        self._mark(branch)
        return branch

    def url(self, branch: Branch, role: str = ROLE) -> str:
        shown = self.branches[self.points_elsewhere] if self.points_elsewhere else branch
        scheme, _, rest = self._server.partition("://")
        place = rest.rpartition("@")[2].rpartition("/")[0]
        return f"{scheme}://{role}:secret-of-{branch.id}@{place}/{shown.database}"

    def names(self) -> Iterable[str]:
        return sorted(b.name for b in self.branches.values())
