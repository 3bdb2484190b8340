"""Branches on Neon: seconds to make, whatever the size, while the database is in use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, get_args

from psycopg.conninfo import conninfo_to_dict

from migrator.errors import Refused, UsageError
from migrator.neon import branches, identity, models
from migrator.neon.branches import NOTE, Branch, Kept, Kind, Reach, Restored, Wanted
from migrator.neon.client import Child, NeonClient
from migrator.postgres.connect import Connection, connect

if TYPE_CHECKING:
    from migrator.settings import Settings


_KEPT = r"-before-.+-(?P<at>\d{14})-(?P<token>[0-9a-f]{8})"


class NeonBranches:
    """See `branches.Branches`. The database's own branch is the one that its server names."""

    provider: Literal["neon", "postgresql"] = "neon"

    def __init__(self, settings: Settings, api: NeonClient) -> None:
        self._settings, self._api = settings, api

    def every(self, kind: Kind) -> list[Branch]:
        database = self._database_name(self._parent_of(kind))
        found = [
            _branch(each)
            for each in self._api.branches()
            if each.annotation.get(NOTE + "kind") == kind
            and each.annotation.get(NOTE + "database") == database
        ]
        return sorted(found, key=lambda b: b.created_at)

    def create(self, wanted: Wanted) -> Branch:
        parent = self._parent_of(wanted.kind)
        whose = branches.of(wanted.kind, wanted.name, self._database_name(parent))
        child = Child(
            name=f"{wanted.kind}/{wanted.name}",
            parent_id=parent.id,
            annotation={**(wanted.note or {}), **whose},
            expires_at=wanted.expires_at,
            has_compute=wanted.has_compute,
        )
        return _branch(self._api.create_branch(child))

    def reset(self, branch: Branch, expires_at: datetime | None) -> Branch:
        parent = self._parent_of(branch.kind)
        self._api.restore(branch.id, source_id=parent.id)
        self._api.set_expiry(branch.id, expires_at)
        found = self._api.branch(branch.id)
        return branch if found is None else _branch(found)

    def settings(self, branch: Branch) -> Settings:
        parent = self._parent_of(branch.kind)
        uri = self._api.connection_uri(
            branch.id, database=self._database_name(parent), role=self._role(parent)
        )
        database = self._settings.database.model_copy(update={"url": uri})
        led = self._settings.model_copy(update={"database": database})
        with connect(led, "identity", autocommit=True) as conn:
            identity.refuse_another(conn, self._settings.neon.project_id, branch.id)
        return led

    def delete(self, branch: Branch) -> bool:
        return self._api.delete_branch(branch.id)

    def reach(self) -> Reach:
        own = self._own()
        with self._session() as conn:
            slots = conn.execute("SELECT slot_name::text FROM pg_replication_slots ORDER BY 1")
            slot_names = tuple(name for (name,) in slots.fetchall())
            row = conn.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' "
                "AND pid <> pg_backend_pid() AND datname IS NOT NULL"
            ).fetchone()
        assert row is not None
        return Reach(
            branch=f"{own.name} ({own.id})",
            databases=tuple(sorted(d.name for d in self._api.databases(own.id))),
            children=tuple(sorted(b.name for b in self._api.branches() if b.parent_id == own.id)),
            slots=slot_names,
            sessions=row[0],
        )

    def restore(self, branch: Branch, keep_as: str) -> Restored:
        own = self._own()
        if why := [a.reason for a in own.restricted_actions if a.name == "restore"]:
            raise Refused(
                f"Neon does not let branch {own.name} be restored: {why[0] or 'no reason given'}",
                expected="a branch without restrictions",
                next_step="look at the branch in Neon's console",
            )
        computes = {e.id for e in self._api.endpoints(own.id) if e.type == "read_write"}
        after = self._api.restore(own.id, source_id=branch.id, preserve_as=keep_as)
        moved = {e.id for e in self._api.endpoints(after.id)}
        if not computes <= moved:
            raise Refused(
                f"branch {after.name} is restored as {after.id}, but the compute "
                f"{', '.join(sorted(computes - moved))} is not on it; what was there is {keep_as}",
                next_step="look at the computes in Neon's console before anything is written",
            )
        return Restored(keep_as, after.id)

    def kept(self) -> list[Kept]:
        # Neon takes no annotation for what it preserves; the name has to say all.
        pattern = re.compile(re.escape(self._own().name) + _KEPT)
        named = [(pattern.fullmatch(each.name), each) for each in self._api.branches()]
        found = [
            Kept(each.name, match["token"], _stamped(match["at"])) for match, each in named if match
        ]
        return sorted(found, key=lambda kept: kept.created_at)

    def kept_name(self, branch: Branch, at: datetime) -> str:
        return f"{self._own().name}-before-{branch.name}-{at:%Y%m%d%H%M%S}-{branch.token}"

    def settled(self) -> str | None:
        own = self._own().id
        self._api.settle(own)
        return own

    def _own(self) -> models.Branch:
        """The branch that the settings' database is on, by its own word and by the API's."""
        neon = self._settings.neon
        with self._session() as conn:
            said = identity.read(conn)
            if said.branch_id is None or said.project_id != neon.project_id:
                identity.refuse_another(conn, neon.project_id, said.branch_id or "any")
        found = self._api.branch(said.branch_id or "")
        if found is None or (neon.branch is not None and neon.branch not in (found.id, found.name)):
            what = "which the project does not have" if found is None else f"named {found.name}"
            raise Refused(
                f"the database is on branch {said.branch_id}, {what}; nothing was written",
                expected=f"branch {neon.branch or 'of the project'} of {neon.project_id}",
                next_step="check the database's URL, and [neon] branch",
            )
        return found

    def _parent_of(self, kind: Kind) -> models.Branch:
        """Only a preview may be made without the database's URL; all else is of its own branch."""
        if kind != "preview" or self._settings.names_a_database:
            return self._own()
        wanted = self._settings.neon.branch
        for each in self._api.branches():
            if wanted in (each.id, each.name) or (wanted is None and each.default):
                return each
        raise UsageError(
            f"there is no branch {wanted or 'that is the default'} in {self._api.project_id}",
            expected="[neon] branch to name one",
        )

    def _database_name(self, parent: models.Branch) -> str:
        neon = self._settings.neon
        if neon.database is not None:
            return neon.database
        if self._settings.names_a_database and (name := self._said("dbname")):
            return name
        names = sorted(d.name for d in self._api.databases(parent.id))
        if len(names) != 1:
            raise UsageError(
                f"branch {parent.name} has {len(names)} databases: {', '.join(names) or 'none'}",
                expected="[neon] database to name one of them",
            )
        return names[0]

    def _role(self, parent: models.Branch) -> str:
        neon = self._settings.neon
        if neon.role is not None:
            return neon.role
        if self._settings.names_a_database and (name := self._said("user")):
            return name
        name = self._database_name(parent)
        owners = [d.owner_name for d in self._api.databases(parent.id) if d.name == name]
        if not owners:
            raise UsageError(f"branch {parent.name} has no database {name}")
        return owners[0]

    def _said(self, part: str) -> str | None:
        value = conninfo_to_dict(self._settings.conninfo).get(part)
        return str(value) if value else None

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        with connect(self._settings, "branches", autocommit=True) as conn:
            yield conn


def _stamped(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)


def _branch(found: models.Branch) -> Branch:
    said = found.annotation.get(NOTE + "kind")
    return Branch(
        kind=next((kind for kind in get_args(Kind) if kind == said), "checkpoint"),
        name=found.annotation.get(NOTE + "name", found.name),
        id=found.id,
        shown=f"branch {found.name} ({found.id})",
        created_at=found.created_at,
        expires_at=found.expires_at,
        note=found.annotation,
    )
