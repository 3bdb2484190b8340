"""Learn what a revision sends by running it in a transaction that is rolled back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event

from migrator.migrations import imports, render, session
from migrator.migrations.history import History
from migrator.migrations.lint import source
from migrator.migrations.lint.source import Source
from migrator.migrations.revision import Revision
from migrator.settings import Settings

_CATALOG = re.compile(
    r"^\s*SELECT\b.*\bFROM\s+(pg_catalog|information_schema)\.", re.IGNORECASE | re.DOTALL
)


def capture(
    settings: Settings, history: History, pending: Iterable[Revision], wanted: frozenset[str]
) -> dict[str, Source]:
    """Run the pending revisions up to the last wanted one, and return the wanted ones' sources.

    It all happens in one transaction under the settings' lock_timeout and is rolled back; until then
    its locks are held. A revision that is not pending, or leaves its transaction, is not captured.
    Alembic's questions to the catalog are not part of what a revision sends.
    """
    caught: dict[str, Source] = {}
    left = set(wanted)
    with session.opened(settings, "lint --capture") as connection:
        try:
            for revision in pending:
                if not left:
                    break
                shown = source.shown_path(revision.path)
                found = _run(settings, history, connection, revision, shown)
                if revision.id in left:
                    caught[revision.id] = found
                    left.remove(revision.id)
                if not found.script.analysable:
                    break
        finally:
            connection.rollback()
    return caught


def _run(
    settings: Settings, history: History, connection: sa.Connection, revision: Revision, shown: str
) -> Source:
    if not revision.transactional:
        return source.unknown(revision, shown, "it leaves its transaction, so it cannot be tried")
    sent: list[str] = []
    places: list[tuple[int, int]] = []
    path = str(revision.path)

    def listen(_conn: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if _CATALOG.match(statement):
            return
        line = source.calling_line(path)
        if line is not None:
            places.append((sum(map(len, sent)), line))
        sent.append(f"{_literal(cursor, statement, parameters).rstrip().rstrip(';')};\n\n")

    event.listen(connection, "before_cursor_execute", listen)
    try:
        with render.environment(
            history.scripts, connection=connection, **imports.options(settings)
        ) as context:
            context.autocommit_block = _refuse  # type: ignore[method-assign]
            render.script(history, revision).module.upgrade()
    except Exception as exc:  # noqa: BLE001 (whatever the revision raises is the answer)
        return source.unknown(revision, shown, f"it fails here: {type(exc).__name__}: {exc}")
    finally:
        event.remove(connection, "before_cursor_execute", listen)
    return source.known(revision, shown, "".join(sent), places)


def _literal(cursor: Any, statement: str, parameters: Any) -> str:
    if not parameters:
        return statement.replace("%%", "%") if parameters is not None else statement
    return psycopg.ClientCursor(cursor.connection).mogrify(statement, parameters)


def _refuse() -> Any:
    raise session.EndsTransaction("autocommit_block")
