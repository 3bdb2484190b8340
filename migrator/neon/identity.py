"""Which Neon branch a session is on: the compute says so itself, whatever host led there.

compute_ctl writes neon.project_id and neon.branch_id into postgresql.conf. A host's name, or a
variable's, proves nothing: actions have handed out the URL of `main` for that of a preview.
"""

from __future__ import annotations

from dataclasses import dataclass

from migrator.errors import Refused
from migrator.postgres.connect import Connection


@dataclass(frozen=True)
class Identity:
    """Both are None on a server that is not Neon's."""

    project_id: str | None
    branch_id: str | None


def read(conn: Connection) -> Identity:
    """Ask the session's server; read-only. To be asked first: a session may set both itself."""
    row = conn.execute(
        "SELECT nullif(current_setting('neon.project_id', true), ''), "
        "nullif(current_setting('neon.branch_id', true), '')"
    ).fetchone()
    assert row is not None
    return Identity(*row)


def refuse_another(conn: Connection, project_id: str | None, branch_id: str) -> None:
    """Refuse a session that is not on this branch, before anything is written.

    Raises:
        Refused: it is on another one, or not on Neon.
    """
    found = read(conn)
    if found == Identity(project_id, branch_id):
        return
    where = (
        f"branch {found.branch_id} of project {found.project_id}"
        if found.branch_id
        else "no Neon branch"
    )
    raise Refused(
        f"the connection leads to {where}; nothing was written",
        expected=f"branch {branch_id} of project {project_id}",
        next_step="check the database's URL and [neon] project_id; if both are right, look at the "
        "branch's computes in Neon's console",
        found_branch=found.branch_id,
        expected_branch=branch_id,
    )
