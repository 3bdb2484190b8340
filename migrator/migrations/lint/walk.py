"""What rules ask of a script: its transactions, its tables, its actions; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.model import Script, Statement, qualified

Transaction = tuple[Statement, ...]
_BEGINS = {
    enums.TransactionStmtKind.TRANS_STMT_BEGIN,
    enums.TransactionStmtKind.TRANS_STMT_START,
}
_ENDS = {
    enums.TransactionStmtKind.TRANS_STMT_COMMIT,
    enums.TransactionStmtKind.TRANS_STMT_ROLLBACK,
    enums.TransactionStmtKind.TRANS_STMT_PREPARE,
}


def nodes(node: Any) -> Iterator[Any]:
    """The node and all that lies within it."""
    if isinstance(node, ast.Node):
        yield node
        for member in node:
            yield from nodes(getattr(node, member))
    elif isinstance(node, tuple):
        for each in node:
            yield from nodes(each)


def begins(node: Any) -> bool:
    """Whether the statement is BEGIN."""
    return isinstance(node, ast.TransactionStmt) and node.kind in _BEGINS


def ends(node: Any) -> bool:
    """Whether the statement is COMMIT or ROLLBACK; back to a savepoint does not end it."""
    return isinstance(node, ast.TransactionStmt) and node.kind in _ENDS


def transactions(script: Script) -> Iterator[Transaction]:
    """The statements that commit together; outside a transaction each is one of its own."""
    held: list[Statement] = []
    within = script.in_transaction
    for statement in script.statements:
        if begins(statement.node):
            within = True
        elif ends(statement.node):
            if held:
                yield tuple(held)
            held, within = [], False
        elif within:
            held.append(statement)
        else:
            yield (statement,)
    if held:
        yield tuple(held)


def key(name: str) -> str:
    """A table's name as it is compared: `public` is where a name without a schema lies."""
    return name.removeprefix("public.")


def same(one: str, other: str) -> bool:
    """Whether two names can only be the same table."""
    return key(one) == key(other)


def created(script: Script) -> frozenset[str]:
    """Keys of the tables that the script itself makes, also from a query or as a view."""
    made = {key(name) for name in script.created_tables}
    for statement in script.statements:
        made |= {
            key(qualified(each.rel))
            for each in nodes(statement.node)
            if isinstance(each, ast.IntoClause)
        }
    return frozenset(made)


@dataclass(frozen=True)
class Action:
    """One action of an ALTER TABLE."""

    statement: Statement
    relation: Any
    command: Any

    @property
    def table(self) -> str:
        return qualified(self.relation)


def actions(script: Script) -> Iterator[Action]:
    """Each action of each ALTER TABLE on a table that the script has not made itself."""
    made = created(script)
    for statement in script.statements:
        node: Any = statement.node
        if alters_table(node) and key(qualified(node.relation)) not in made:
            for command in node.cmds or ():
                yield Action(statement, node.relation, command)


def actions_together(script: Script) -> Iterator[list[Action]]:
    """The actions of each transaction; the whole script is read once, however many it has."""
    of_statement: dict[int, list[Action]] = {}
    for action in actions(script):
        of_statement.setdefault(id(action.statement), []).append(action)
    for transaction in transactions(script):
        yield [action for each in transaction for action in of_statement.get(id(each), ())]


def alters_table(node: Any) -> bool:
    """Whether it is ALTER TABLE; not of an index or a view, which have the same parse tree."""
    return isinstance(node, ast.AlterTableStmt) and node.objtype == enums.ObjectType.OBJECT_TABLE


def foreign_keys(command: Any) -> Iterator[Any]:
    """The foreign keys that an action of ALTER TABLE adds."""
    if command.subtype == enums.AlterTableType.AT_AddConstraint:
        found: tuple[Any, ...] = (command.def_,)
    elif command.subtype == enums.AlterTableType.AT_AddColumn:
        found = command.def_.constraints or ()
    else:
        found = ()
    yield from (each for each in found if each.contype == enums.ConstrType.CONSTR_FOREIGN)


def sets(node: Any, *names: str) -> bool:
    """Whether the statement is SET of one of these settings."""
    return isinstance(node, ast.VariableSetStmt) and (node.name or "").lower() in names


_WRITES = (ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt, ast.MergeStmt)
STAMP = "alembic_version"


def writes(node: Any) -> Iterator[Any]:
    """The INSERT, UPDATE, DELETE and MERGE in a statement, in its WITH too; not Alembic's stamp."""
    if isinstance(node, (*_WRITES, ast.SelectStmt)):
        for each in nodes(node):
            if isinstance(each, _WRITES) and not qualified(each.relation).endswith(STAMP):
                yield each


def is_backfill(write: Any) -> bool:
    """Whether a write's work grows with a table; INSERT ... VALUES writes what it lists."""
    if isinstance(write, ast.InsertStmt):
        query: Any = write.selectStmt
        return query is not None and not query.valuesLists
    return True
