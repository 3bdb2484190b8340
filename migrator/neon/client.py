"""Neon's API, as far as migrator needs it: what is asked for once is done once.

Whatever makes something is get-or-make, by its name. Where an answer is lost, the state is read again
before anything is sent a second time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, SecretStr, ValidationError

from migrator.errors import Busy, MigratorError, Refused, SettingsError
from migrator.neon import transport
from migrator.neon.models import (
    DONE,
    LOST,
    Branch,
    Database,
    Endpoint,
    Operation,
    Project,
    Snapshot,
)
from migrator.neon.transport import Answer, Patience, Transport, Unclear

if TYPE_CHECKING:
    from migrator.settings import Neon

Made = TypeVar("Made")
Model = TypeVar("Model", bound=BaseModel)
PAGE = 400
RETRIED_WITHIN = timedelta(minutes=15)


@dataclass(frozen=True)
class Child:
    """A branch to be made. `annotation` says whose it is; at most 50 names."""

    name: str
    parent_id: str
    annotation: Mapping[str, str]
    expires_at: datetime | None = None
    has_compute: bool = False


@contextmanager
def opened(neon: Neon) -> Iterator[NeonClient]:
    """Open the API of the project that the settings name.

    Raises:
        SettingsError: no project is named, or there is no key.
    """
    if neon.project_id is None:
        raise SettingsError(
            "no Neon project is named", expected="[neon] project_id, or MIGRATOR_NEON_PROJECT_ID"
        )
    client = NeonClient(neon, Transport(neon))
    try:
        yield client
    finally:
        client.close()


class NeonClient:
    """Calls of one project. Every one raises as `Transport.read`, beside what it says itself."""

    def __init__(self, neon: Neon, sender: Transport) -> None:
        assert neon.project_id is not None
        self._neon, self._sender = neon, sender
        self.project_id = neon.project_id
        self._project = f"/projects/{neon.project_id}"
        self._begun: set[str] = set()

    def close(self) -> None:
        self._sender.close()

    # Reading

    def project(self) -> Project:
        answer = self._sender.read(self._project)
        if answer.status == 404:
            raise MigratorError(
                f"there is no Neon project {self.project_id}: {answer.said}",
                expected="[neon] project_id to be one that the API key may see",
                next_step="correct [neon] project_id",
            )
        return _parsed(Project, answer, "project")

    def branches(self, search: str | None = None) -> list[Branch]:
        """Every branch with its annotation; `search` is a part of a name or an id."""
        asked = {"limit": str(PAGE)} | ({"search": search} if search else {})
        found: list[Branch] = []
        while True:
            answer = self._needed(f"{self._project}/branches", asked)
            notes = answer.body.get("annotations") or {}
            page = _list(Branch, answer, "branches")
            found += [b.model_copy(update={"annotation": _value(notes.get(b.id))}) for b in page]
            following = (answer.body.get("pagination") or {}).get("next")
            if not page or not following or following == asked.get("cursor"):
                return list({branch.id: branch for branch in found}.values())
            asked["cursor"] = following

    def branch(self, branch_id: str) -> Branch | None:
        """The branch with its annotation; None if there is none of that id."""
        answer = self._sender.read(self._of(branch_id))
        if answer.status == 404:
            return None
        branch = _parsed(Branch, answer, "branch")
        return branch.model_copy(update={"annotation": _value(answer.body.get("annotation"))})

    def branch_named(self, name: str) -> Branch | None:
        return next((b for b in self.branches(name) if b.name == name), None)

    def endpoints(self, branch_id: str) -> list[Endpoint]:
        return _list(Endpoint, self._needed(f"{self._of(branch_id)}/endpoints"), "endpoints")

    def databases(self, branch_id: str) -> list[Database]:
        return _list(Database, self._needed(f"{self._of(branch_id)}/databases"), "databases")

    def snapshots(self) -> list[Snapshot]:
        return _list(Snapshot, self._needed(f"{self._project}/snapshots"), "snapshots")

    def connection_uri(self, branch_id: str, *, database: str, role: str) -> SecretStr:
        """The URL of the branch's own read-write compute, never the pooled one; with its password."""
        asked = {
            "branch_id": branch_id,
            "database_name": database,
            "role_name": role,
            "pooled": "false",
        }
        answer = self._needed(f"{self._project}/connection_uri", asked)
        return SecretStr(str(answer.body["uri"]))

    def compare_schema(self, branch_id: str, base_branch_id: str, *, database: str) -> str:
        """A unified diff of two branches' schemas in SQL; empty where they are equal."""
        asked = {"db_name": database, "base_branch_id": base_branch_id}
        answer = self._needed(f"{self._of(branch_id)}/compare_schema", asked)
        return str(answer.body.get("diff") or "")

    # Branches

    def create_branch(self, child: Child) -> Branch:
        """Get or make the branch, and wait until it is ready. A compute is made only if asked for.

        Raises:
            Refused: there is one of that name which is not what was asked for, or the answer is about
                another branch.
        """
        branch = self.branch_named(child.name) or self._created(child)
        self._refuse_another(child, branch)
        self.settle(branch.id)
        if child.has_compute:
            self.compute(branch.id)
        return self._ready(branch.id)

    def _created(self, child: Child) -> Branch:
        branch: dict[str, Any] = {"name": child.name, "parent_id": child.parent_id}
        if child.expires_at is not None:
            branch["expires_at"] = rfc3339(child.expires_at)
        asked = {
            "branch": branch,
            "annotation_value": dict(child.annotation),
            **({"endpoints": [{"type": "read_write"}]} if child.has_compute else {}),
        }

        def read(answer: Answer) -> Branch:
            if answer.status == 409:
                return self._there(self.branch_named(child.name), answer)
            made = _parsed(Branch, answer, "branch")
            self._refuse_another(child, made)
            # Not from the answer: what counts is what the project has.
            return self._there(self.branch(made.id), answer)

        return self._once(
            "POST",
            f"{self._project}/branches",
            read,
            lambda: self.branch_named(child.name),
            body=asked,
            accepted=(409,),
        )

    def _refuse_another(self, child: Child, found: Branch) -> None:
        said = {k: v for k, v in child.annotation.items() if found.annotation.get(k) != v}
        if found.project_id != self.project_id or found.name != child.name:
            what = f"the answer is about branch {found.name} of project {found.project_id}"
        elif found.id == child.parent_id or found.default:
            what = f"the answer is about {found.id}, which is the parent or the default branch"
        elif found.parent_id != child.parent_id:
            what = f"branch {found.name} is a child of {found.parent_id or 'no branch'}"
        elif found.annotation and said:
            what = f"branch {found.name} is another's: {_shown(found.annotation)}"
        else:
            return
        raise Refused(
            f"{what}; nothing was written",
            expected=f"{child.name} of {self.project_id}, a child of {child.parent_id}",
            next_step="take another name, or look at the branch in Neon's console",
            branch_id=found.id,
        )

    def set_expiry(self, branch_id: str, expires_at: datetime | None) -> None:
        """Set when the branch is deleted by itself; None for never."""
        asked = {"branch": {"expires_at": rfc3339(expires_at) if expires_at else None}}
        self._again("PATCH", self._of(branch_id), body=asked)
        self.settle(branch_id)

    def delete_branch(self, branch_id: str) -> bool:
        """Delete a branch, and wait; False if it was gone already.

        Raises:
            Refused: it is the default branch, protected, or has children.
        """
        branch = self.branch(branch_id)
        if branch is None:
            return False
        children = [b.name for b in self.branches() if b.parent_id == branch_id]
        if why := _keeps(branch, children):
            raise Refused(
                f"branch {branch.name} ({branch_id}) is not deleted: {why}",
                expected="a branch that nothing depends on",
                branch_id=branch_id,
            )
        self._again("DELETE", self._of(branch_id), accepted=(404,))
        self.settle(branch_id)
        return True

    def restore(
        self,
        branch_id: str,
        *,
        source_id: str,
        preserve_as: str | None = None,
        source_lsn: str | None = None,
    ) -> Branch:
        """Make a branch what another one is, or was at an LSN, and wait; all its databases follow.

        What it was is kept as branch `preserve_as`, with its children; that name must be new. Without
        it only the head of a source can be taken, which may safely be done twice. The answer may have
        another id than `branch_id`: ask the compute's endpoint.
        """
        asked = {"source_branch_id": source_id}
        asked |= {"preserve_under_name": preserve_as} if preserve_as else {}
        asked |= {"source_lsn": source_lsn} if source_lsn else {}
        before = self._there(self.branch(branch_id))

        def restored() -> Branch | None:
            if preserve_as is None or self.branch_named(preserve_as) is None:
                return None
            return self.branch_named(before.name)

        def read(answer: Answer) -> Branch:
            if answer.status != 409:
                return _parsed(Branch, answer, "branch")
            found = restored()
            if found is None:
                raise MigratorError(f"Neon refuses to restore {before.name}: {answer.said}")
            return found

        path = f"{self._of(branch_id)}/restore"
        branch = self._once("POST", path, read, restored, body=asked, accepted=(409,))
        self.settle(branch.id)
        return self._ready(branch.id)

    # Computes

    def compute(self, branch_id: str) -> Endpoint:
        """Get or make the branch's read-write compute, and wait for it."""
        found = self._writer(branch_id)
        if found is None:
            asked = {"endpoint": {"branch_id": branch_id, "type": "read_write"}}

            def read(answer: Answer) -> Endpoint:
                if answer.status == 409:
                    return self._there(self._writer(branch_id), answer)
                return _parsed(Endpoint, answer, "endpoint")

            found = self._once(
                "POST",
                f"{self._project}/endpoints",
                read,
                lambda: self._writer(branch_id),
                body=asked,
                accepted=(409,),
            )
        self.settle(branch_id)
        if found.branch_id != branch_id:
            raise Refused(f"the compute {found.id} is of branch {found.branch_id}, not {branch_id}")
        return found

    def start(self, endpoint: Endpoint) -> None:
        """Wake a compute up, and wait; a running one stays as it is."""
        self._again("POST", f"{self._project}/endpoints/{quote(endpoint.id)}/start")
        self.settle(endpoint.branch_id)

    def _writer(self, branch_id: str) -> Endpoint | None:
        return next((e for e in self.endpoints(branch_id) if e.type == "read_write"), None)

    # Snapshots

    def create_snapshot(self, branch_id: str, name: str) -> Snapshot:
        """Get or make the snapshot of that name, and wait."""

        def there() -> Snapshot | None:
            return next((s for s in self.snapshots() if s.name == name), None)

        found = there() or self._once(
            "POST",
            f"{self._of(branch_id)}/snapshot",
            lambda answer: _parsed(Snapshot, answer, "snapshot"),
            there,
            params={"name": name},
        )
        self.settle(branch_id)
        return found

    def delete_snapshot(self, snapshot_id: str) -> None:
        path = f"{self._project}/snapshots/{quote(snapshot_id, safe='')}"
        self._again("DELETE", path, accepted=(404,))

    # Operations

    def settle(self, branch_id: str) -> None:
        """Wait until no operation of the branch is under way.

        Raises:
            Busy: one still is when the patience is spent.
            MigratorError: one that this client has begun, or seen under way, has failed.
        """
        limit = time.monotonic() + self._neon.wait_s
        while True:
            recent = [o for o in self._operations() if o.branch_id == branch_id]
            left = [o for o in recent if _is_under_way(o)]
            lost = [o for o in recent if o.id in self._begun and o.status in LOST]
            if lost:
                raise _failed(lost[0])
            if not left:
                return
            self._begun |= {o.id for o in left}
            if time.monotonic() >= limit:
                raise _late(left[0])
            time.sleep(transport.PACE.poll_s)

    def _operations(self) -> list[Operation]:
        """The newest operations of the project: what is under way is among them."""
        answer = self._needed(f"{self._project}/operations", {"limit": "200"})
        return _list(Operation, answer, "operations")

    def _ready(self, branch_id: str) -> Branch:
        limit = time.monotonic() + self._neon.wait_s
        while True:
            branch = self._there(self.branch(branch_id))
            if branch.current_state in ("ready", "archived"):
                return branch
            if time.monotonic() >= limit:
                raise Busy(
                    f"branch {branch.name} is {branch.current_state}, and nothing works on it",
                    expected="it to be ready within [neon] wait_s",
                    next_step="look at the project's operations in Neon's console",
                )
            time.sleep(transport.PACE.poll_s)

    # Sending

    def _of(self, branch_id: str) -> str:
        return f"{self._project}/branches/{quote(branch_id, safe='')}"

    def _needed(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        answer = self._sender.read(path, params)
        if answer.status == 404:
            raise MigratorError(f"Neon does not find GET {path}: {answer.said}")
        return answer

    def _there(self, found: Made | None, answer: Answer | None = None) -> Made:
        if found is None:
            said = f": {answer.said}" if answer else ""
            raise MigratorError(
                f"what Neon was asked for is not there{said}",
                next_step="run the same command again: somebody else changes the project",
            )
        return found

    def _once(
        self,
        method: str,
        path: str,
        read: Callable[[Answer], Made],
        done: Callable[[], Made | None],
        **asked: Any,
    ) -> Made:
        """Send a write; where it is unclear whether it was carried out, see before sending again."""
        patience = Patience(self._neon)
        while True:
            try:
                answer = self._sender.write(method, path, patience, **asked)
            except Unclear as unclear:
                patience.spend("away", unclear.error)
                if (found := done()) is not None:
                    return found
            else:
                self._begun |= {str(o.get("id")) for o in answer.body.get("operations") or ()}
                return read(answer)

    def _again(self, method: str, path: str, **asked: Any) -> Answer:
        """Send a write that may safely be carried out twice."""
        return self._once(method, path, lambda answer: answer, lambda: None, **asked)


def rfc3339(when: datetime) -> str:
    """To the second, in UTC: the only form that expires_at takes."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _keeps(branch: Branch, children: list[str]) -> str | None:
    if branch.default:
        return "it is the default branch"
    if branch.protected:
        return "it is protected"
    if children:
        return f"it has children ({', '.join(sorted(children))})"
    return None


def _is_under_way(operation: Operation) -> bool:
    """A failed one is, for as long as Neon may be expected to try it again."""
    since = datetime.now(UTC) - operation.updated_at
    given_up = operation.status == "failed" and since > RETRIED_WITHIN
    return operation.status not in DONE | LOST and not given_up


def _failed(operation: Operation) -> MigratorError:
    return MigratorError(
        f"Neon's operation {operation.action} ended as {operation.status}: "
        f"{operation.error or 'no reason given'} (operation {operation.id})",
        next_step="run the same command again",
        operation=operation.id,
    )


def _late(operation: Operation) -> Busy:
    return Busy(
        f"Neon's operation {operation.action} is {operation.status} (operation {operation.id}, "
        f"{operation.failures_count} failures so far)",
        expected="its end within [neon] wait_s",
        next_step="run the same command again: it goes on from there",
        operation=operation.id,
    )


def _shown(annotation: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(annotation.items()))


def _value(note: Any) -> dict[str, str]:
    value = note.get("value") if isinstance(note, dict) else None
    return {str(k): str(v) for k, v in (value or {}).items()}


def _parsed(model: type[Model], answer: Answer, name: str) -> Model:
    return _as(model, answer.body.get(name), answer)


def _list(model: type[Model], answer: Answer, name: str) -> list[Model]:
    return [_as(model, each, answer) for each in answer.body.get(name) or ()]


def _as(model: type[Model], value: Any, answer: Answer) -> Model:
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        wrong = ", ".join(".".join(map(str, e["loc"])) or "all of it" for e in exc.errors())
        raise MigratorError(
            f"Neon's answer is no {model.__name__.lower()} that migrator knows: {wrong} "
            f"(request id {answer.request_id})",
            expected="the API that docs/neon.md names",
            next_step="use a newer migrator",
        ) from None
