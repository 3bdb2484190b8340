"""Several statements in one round trip: the server answers each, or stops at the first that fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from migrator.postgres.connect import Connection

Cursor = psycopg.ClientCursor[tuple[Any, ...]]


@dataclass(frozen=True)
class Ask:
    """One statement, and what makes its value of the cursor that stands at its result.

    Without parameters, percent signs mean themselves. `read` raises where the answer must not commit.
    """

    statement: bytes | sql.Composed
    parameters: dict[str, Any] | None = None
    read: Callable[[Cursor], Any] = lambda _cursor: None


def together(conn: Connection, *asked: Ask) -> list[Any]:
    """Send them in their order inside the caller's transaction; returns what each `read` has made.

    They go as text, values and all: like the query of the deployer lock they leave no portal open, and
    with it no snapshot (docs/adr/0006).
    """
    cursor: Cursor = psycopg.ClientCursor(conn)
    texts = [
        ask.statement.as_bytes(conn)
        if isinstance(ask.statement, sql.Composed)
        else ask.statement
        if ask.parameters is None
        else cursor.mogrify(ask.statement, ask.parameters).encode(conn.info.encoding)
        for ask in asked
    ]
    cursor.execute(b";\n".join(texts))
    found = []
    for ask in asked:
        found.append(ask.read(cursor))
        cursor.nextset()
    return found
