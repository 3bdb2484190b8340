"""What an exempt revision commits on its way, noted so that a run after a kill goes on behind it.

Each statement that changes something has a position. That it is committed is noted in the transaction
that commits it; of a statement that takes no transaction, before that it is sent, and after that it is
done. The next run lets upgrade() send all of it again and leaves out, position by position, what is
committed and still the same. What only reads is asked again, and cannot write. docs/adr/0010 has the
reasons.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import sqlalchemy as sa
from pglast import ast, enums
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row
from sqlalchemy import event

from migrator.errors import Refused
from migrator.migrations import indexes, scripts, session, wanted
from migrator.migrations.retry import StillBuilding
from migrator.postgres.blockers import Want
from migrator.postgres.connect import Connection, connect
from migrator.postgres.locks import Fence
from migrator.settings import Settings

SHOWN = 200
_PLACEHOLDER = re.compile(r"%\(\w+\)s|%s")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A statement of an exempt revision, as migrator.committed has it."""

    position: int
    statement: str
    statement_hash: str
    is_committed: bool = True
    needs_session: bool = False

    def __str__(self) -> str:
        known = "" if self.is_committed else " (sent; whether it is committed is not known)"
        return f"{self.position}: {scripts.first_line(self.statement)}{known}"


@dataclass(frozen=True)
class Resumed:
    """An interrupted run had committed a part of the revision; this one goes on behind it."""

    revision: str
    statements: tuple[str, ...]


@dataclass
class _Sending:
    """A statement that is under way, and what follows it on the same session."""

    piece: Piece | None = None
    wrapped: bool = False
    outside: bool = False
    can_be_half_done: bool = False
    makes_temporary: bool = False
    then: list[str] = field(default_factory=list)


@dataclass
class Pieces:
    """One attempt of an exempt revision. `left_ms` is how long CONCURRENTLY may wait for locks."""

    settings: Settings
    revision: str
    run: UUID
    fence: Fence
    left_ms: int
    noted: dict[int, Piece] = field(default_factory=dict)
    sent: int = 0
    _pending: list[Piece] = field(default_factory=list)
    _sending: _Sending | None = None

    @property
    def known(self) -> tuple[str, ...]:
        """The statements that are committed, or may be."""
        return tuple(str(self.noted[position]) for position in sorted(self.noted))

    def read(self, conn: Connection) -> None:
        """Find what interrupted runs have committed; the session is idle, and is so afterwards."""
        query = b"""SELECT position, statement, statement_hash, is_committed, needs_session
                    FROM migrator.committed WHERE revision = %s"""
        with conn.transaction(), conn.cursor(row_factory=class_row(Piece)) as cursor:
            found = cursor.execute(query, (self.revision,)).fetchall()
        self.noted = {piece.position: piece for piece in found}

    def forget(self, conn: Connection) -> None:
        """Take the notes back, in the transaction of the stamp.

        Raises:
            Refused: upgrade() has sent less than an interrupted run had committed.
        """
        if self.sent < len(self.noted):
            raise self._stuck(f"now it sends only {self.sent}")
        if self.noted:
            conn.execute("DELETE FROM migrator.committed WHERE revision = %s", (self.revision,))

    def before(self, raw: Connection, statement: str, parameters: object) -> bool:
        """Prepare a statement; False where it is committed already, and must not be sent.

        Raises:
            Refused: it is not what an interrupted run has sent at this position, or what became of
                that one is not known.
        """
        self._sending = None
        nodes = _parsed(statement)
        if nodes and all(isinstance(n, ast.VariableSetStmt | ast.DiscardStmt) for n in nodes):
            return True
        if len(nodes) == 1 and isinstance(nodes[0], ast.TransactionStmt):
            self._control(raw, nodes[0].kind)
            return True
        if nodes and all(map(_reads, nodes)):
            if self.sent < len(self.noted):
                self._sending = _read_only(raw)
            return True
        piece = self._next(statement, repr(parameters))
        if piece.position in self.noted and not self._is_due(raw, piece, nodes):
            return False
        self._sending = self._begin(raw, piece, nodes, wanted.of(statement))
        return True

    def after(self, raw: Connection, *, gave_rows: bool) -> None:
        """Note what a statement has done; what has a transaction of its own is committed with it."""
        sending, self._sending = self._sending, None
        if sending is None:
            return
        if sending.piece is not None:
            needs_session = gave_rows or sending.makes_temporary
            done = replace(sending.piece, is_committed=True, needs_session=needs_session)
            if sending.outside:
                self._note(raw, done)
            else:
                self._pending.append(done)
            if sending.wrapped:
                self.flush(raw)
        for text in sending.then:
            raw.execute(text.encode())

    def failed(self, raw: Connection, cause: BaseException | None) -> None:
        """Clean up after a statement that failed.

        Raises:
            Refused: it only read, or so it seemed; sent a second time it would write a second time.
        """
        sending, self._sending = self._sending, None
        if sending is None or raw.closed:
            return
        if sending.piece is None:
            if raw.autocommit:
                raw.execute("ROLLBACK")
            if isinstance(cause, psycopg.errors.ReadOnlySqlTransaction):
                raise self._stuck("a SELECT between them writes, and would do so twice") from cause
            return
        with suppress(psycopg.Error):
            if sending.wrapped:
                raw.execute("ROLLBACK")
            refused = isinstance(cause, psycopg.Error) and cause.sqlstate is not None
            if sending.outside and refused and not sending.can_be_half_done:
                self._unnote(raw, sending.piece)
            for text in sending.then:
                if text != "COMMIT":
                    raw.execute(text.encode())

    def flush(self, raw: Connection) -> None:
        """Note what the transaction that ends now has changed, and that the lock is ours."""
        pending, self._pending = self._pending, []
        if pending and raw.info.transaction_status != TransactionStatus.INERROR:
            self.fence.check(raw)
            for piece in pending:
                self._note(raw, piece)

    def rolled_back(self) -> None:
        """Forget what was not committed."""
        self._pending.clear()

    def rolled_back_to_savepoint(self) -> None:
        """Leave a mark that nothing equals: what was taken back cannot be told from what was not."""
        mark = self._next("ROLLBACK TO SAVEPOINT", uuid4().hex)
        if mark.position in self.noted:
            raise self._stuck("it takes a part of them back, to a savepoint")
        self._pending.append(mark)

    def _control(self, raw: Connection, kind: enums.TransactionStmtKind | None) -> None:
        kinds = enums.TransactionStmtKind
        if kind == kinds.TRANS_STMT_COMMIT:
            self.flush(raw)
        elif kind == kinds.TRANS_STMT_ROLLBACK:
            self.rolled_back()
        elif kind == kinds.TRANS_STMT_ROLLBACK_TO:
            self.rolled_back_to_savepoint()

    def _next(self, statement: str, parameters: str) -> Piece:
        self.sent += 1
        digest = hashlib.sha256(f"{statement}\n{parameters}".encode()).hexdigest()
        return Piece(position=self.sent, statement=statement[:SHOWN], statement_hash=digest)

    def _begin(
        self, raw: Connection, piece: Piece, nodes: list[Any], wants: tuple[Want, ...]
    ) -> _Sending:
        """Choose how a statement and its note are committed together, or else one by one."""
        commits = len(nodes) > 1 and any(isinstance(n, ast.TransactionStmt) for n in nodes)
        sending = _Sending(piece, makes_temporary=any(map(_is_temporary, nodes)))
        sending.outside = commits or (raw.autocommit and not _takes_a_transaction(nodes))
        if sending.outside:
            several = len(nodes) != 1
            sending.can_be_half_done = several or isinstance(nodes[0], ast.CallStmt | ast.DoStmt)
            self.flush(raw)
            self._announce(raw, piece, nodes)
        if raw.autocommit:
            sending.then += self._give_time(raw, wants, outside=sending.outside)
        if raw.autocommit and not sending.outside:
            raw.execute("BEGIN")
            sending.wrapped = True
            sending.then.insert(0, "COMMIT")
        return sending

    def _is_due(self, raw: Connection, piece: Piece, nodes: list[Any]) -> bool:
        """Whether a statement that an interrupted run has sent is to be sent again."""
        was = self.noted[piece.position]
        if was.statement_hash != piece.statement_hash:
            now = scripts.first_line(piece.statement)
            raise self._stuck(f"statement {piece.position} is another one now: {now}")
        if was.needs_session:
            raise self._stuck(
                f"statement {piece.position} gave rows, or something temporary, to a session that "
                "is gone"
            )
        if was.is_committed:
            return False
        due = _is_due(raw, nodes)
        if due is None:
            raise self._unknown(was)
        if not due:
            self._note(raw, replace(piece, is_committed=True))
        return due

    def _announce(self, raw: Connection, piece: Piece, nodes: list[Any]) -> None:
        """Note before it is sent that a statement will be, and make way for an index's build."""
        index = _index(nodes)
        if index is not None:
            indexes.clear_invalid(raw, index)
        if piece.position in self.noted:
            return
        sent = replace(piece, is_committed=False)
        if raw.autocommit:
            self._note(raw, sent)
        else:
            with connect(self.settings, "note", autocommit=True) as conn:
                self._note(conn, sent)

    def _note(self, conn: Connection, piece: Piece) -> None:
        """Write it; a session that a killed run left behind may be about to note the same.

        Raises:
            StillBuilding: it was.
        """
        if piece.position in self.noted:
            conn.execute(
                "UPDATE migrator.committed SET is_committed = %s, needs_session = %s, run = %s, "
                "changed_at = clock_timestamp() WHERE revision = %s AND position = %s",
                (piece.is_committed, piece.needs_session, self.run, self.revision, piece.position),
            )
        else:
            row = vars(piece) | {"revision": self.revision, "run": self.run}
            try:
                conn.execute(_INSERT, row)
            except psycopg.errors.UniqueViolation as exc:
                raise StillBuilding("another session has just committed the same") from exc
        self.noted[piece.position] = piece

    def _unnote(self, raw: Connection, piece: Piece) -> None:
        raw.execute(
            "DELETE FROM migrator.committed WHERE revision = %s AND position = %s",
            (self.revision, piece.position),
        )
        del self.noted[piece.position]

    def _give_time(self, raw: Connection, wants: tuple[Want, ...], *, outside: bool) -> list[str]:
        """Raise the timeouts of what blocks nobody; returns how to lower them again."""
        if not wants or not all(want.blocks_nobody for want in wants):
            return []
        database = self.settings.database
        longer = [
            ("statement_timeout", database.statement_timeout_ms, database.long_statement_timeout_ms)
        ]
        if outside:
            longer.append(("lock_timeout", database.lock_timeout_ms, self.left_ms))
        for name, usual, long in longer:
            raw.execute(_exchange(name, usual, long).encode())
        return [_exchange(name, long, usual) for name, usual, long in longer]

    def _stuck(self, why: str) -> Refused:
        return Refused(
            f"revision {self.revision} was interrupted and cannot go on: {why}{self._state()}",
            expected="the statements that are committed, sent again in the same order",
            next_step="restore the file as it was, then run migrator up again; or undo these "
            f"statements by hand, then: DELETE {self._rows()}",
            committed=list(self.known),
        )

    def _unknown(self, was: Piece) -> Refused:
        row = f"WHERE revision = '{self.revision}' AND position = {was.position}"
        return Refused(
            f"revision {self.revision} was interrupted in statement {was.position}, which may or "
            f"may not have done its work, and may do harm when it is repeated{self._state()}",
            expected="a word from you: the database alone does not say",
            next_step="look whether it has done its work. "  # noqa: S608 - shown, not sent
            f"If so: UPDATE migrator.committed SET is_committed = true {row}. "
            f"If not: DELETE FROM migrator.committed {row}. Then run migrator up again",
            committed=list(self.known),
        )

    def _rows(self) -> str:
        return f"FROM migrator.committed WHERE revision = '{self.revision}'"

    def _state(self) -> str:
        return f"\nof {self.revision} these statements are committed:" + "".join(
            f"\n  {text}" for text in self.known
        )


_INSERT = b"""
INSERT INTO migrator.committed
    (revision, position, statement, statement_hash, is_committed, needs_session, run)
VALUES (%(revision)s, %(position)s, %(statement)s, %(statement_hash)s, %(is_committed)s,
        %(needs_session)s, %(run)s)
"""


@contextmanager
def followed(connection: sa.Connection, pieces: Pieces) -> Iterator[None]:
    """Let the pieces decide, for the block, what is sent; an empty query takes the place of the rest.

    What goes past SQLAlchemy, by the driver's own cursor or another connection, is not seen.
    """

    def before(
        _conn: Any, cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
    ) -> tuple[str, Any]:
        if pieces.before(cursor.connection, statement, parameters):
            return statement, parameters
        return "", [()] if many else ()

    def after(_conn: Any, cursor: Any, *_: Any) -> None:
        pieces.after(cursor.connection, gave_rows=cursor.description is not None)

    def failed(context: Any) -> None:
        if context.connection is connection and not connection.invalidated:
            pieces.failed(session.driver(connection), context.original_exception)

    def commit(_conn: Any) -> None:
        pieces.flush(session.driver(connection))

    hooks: list[tuple[Any, str, Any]] = [
        (connection, "after_cursor_execute", after),
        (connection, "commit", commit),
        (connection, "rollback", lambda _conn: pieces.rolled_back()),
        (connection.engine, "handle_error", failed),
    ]
    event.listen(connection, "before_cursor_execute", before, retval=True)
    for target, name, hook in hooks:
        event.listen(target, name, hook)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", before)
        for target, name, hook in hooks:
            event.remove(target, name, hook)


def _parsed(statement: str) -> list[Any]:
    """The syntax trees; none where it is not known what the statement is."""
    try:
        return scripts.parsed(_PLACEHOLDER.sub("NULL", statement))
    except ValueError:
        return []


def _reads(node: Any) -> bool:
    return isinstance(node, ast.VariableShowStmt) or (
        isinstance(node, ast.SelectStmt) and node.intoClause is None and not _has_dml(node)
    )


def _has_dml(node: ast.SelectStmt) -> bool:
    ctes = (node.withClause.ctes if node.withClause else None) or ()
    return any(not isinstance(cte.ctequery, ast.SelectStmt) for cte in ctes)


def _is_temporary(node: Any) -> bool:
    into = getattr(node, "into", None) or getattr(node, "intoClause", None)
    made = into.rel if into else getattr(node, "relation", None) or getattr(node, "view", None)
    makes = into or isinstance(node, ast.CreateStmt | ast.ViewStmt)
    return bool(makes and made is not None and made.relpersistence == "t")


def _read_only(raw: Connection) -> _Sending:
    """Ask again what was asked when it was committed, and let it write nothing."""
    if raw.autocommit:
        raw.execute("BEGIN READ ONLY")
        return _Sending(then=["COMMIT"])
    raw.execute("SAVEPOINT migrator_read")
    raw.execute("SET TRANSACTION READ ONLY")
    return _Sending(then=["RELEASE SAVEPOINT migrator_read"])


_NO_TRANSACTION = (
    ast.AlterSystemStmt,
    ast.CallStmt,
    ast.CreateSubscriptionStmt,
    ast.AlterSubscriptionStmt,
    ast.CreateTableSpaceStmt,
    ast.CreatedbStmt,
    ast.DoStmt,
    ast.DropSubscriptionStmt,
    ast.DropTableSpaceStmt,
    ast.DropdbStmt,
    ast.ReindexStmt,
    ast.VacuumStmt,
)


def _takes_a_transaction(nodes: list[Any]) -> bool:
    """Whether it can be sent between BEGIN and COMMIT; what is not known cannot."""
    return bool(nodes) and not any(
        isinstance(node, _NO_TRANSACTION)
        or getattr(node, "concurrent", False)
        or (isinstance(node, ast.ClusterStmt) and node.relation is None)
        or (isinstance(node, ast.AlterTableStmt) and scripts.detached(node) is not None)
        for node in nodes
    )


def _index(nodes: list[Any]) -> indexes.IndexName | None:
    """The index that a single CONCURRENTLY builds, where it names it."""
    if len(nodes) != 1 or not isinstance(nodes[0], ast.IndexStmt) or nodes[0].idxname is None:
        return None
    return indexes.built_by(nodes[0]) if nodes[0].concurrent else None


def _is_due(raw: Connection, nodes: list[Any]) -> bool | None:
    """Whether an interrupted statement has work left; None where the catalog does not say."""
    index = _index(nodes)
    if index is not None:
        indexes.clear_invalid(raw, index)
        return not indexes.is_valid(raw, index)
    if len(nodes) == 1 and scripts.is_concurrent_reindex(nodes[0]):
        indexes.clear_reindexed(raw, nodes[0].relation)
    if len(nodes) == 1 and scripts.is_repeatable(nodes[0]):
        return True
    return None


def _exchange(name: str, old_ms: int, new_ms: int) -> str:
    """SQL that sets a timeout, unless the revision has set one of its own."""
    return (
        f"SELECT set_config('{name}', '{new_ms}ms', false) "
        f"WHERE current_setting('{name}')::interval = '{old_ms}ms'"
    )
