"""A serial column added to a table that stands."""

from __future__ import annotations

from collections.abc import Iterator

from pglast import enums

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings
from migrator.migrations.lint.rewriting import Raw, fill, name_of
from migrator.migrations.lint.walk import actions

_TYPES = {
    "serial": "integer",
    "serial4": "integer",
    "bigserial": "bigint",
    "serial8": "bigint",
    "smallserial": "smallint",
    "serial2": "smallint",
}
_REWRITE = """CREATE SEQUENCE {sequence} AS {type} OWNED BY NONE;
ALTER TABLE {table} ADD COLUMN {column} {type};
ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT nextval('{sequence}');
-- in later revisions: fill the rows with backfill(); then, where NULL must not be:
ALTER TABLE {table} ADD CONSTRAINT {check} CHECK ({column} IS NOT NULL) NOT VALID;"""


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    for action in actions(script):
        column = action.command.def_
        if action.command.subtype != enums.AlterTableType.AT_AddColumn:
            continue
        known = _TYPES.get(column.typeName.names[-1].sval)
        if known is not None:
            rewrite = fill(
                _REWRITE,
                table=action.relation,
                column=column.colname,
                type=Raw(known),
                sequence=name_of(f"{action.table}_{column.colname}_seq"),
                check=f"{action.relation.relname}_{column.colname}_not_null",
            )
            yield RULE.finding(
                f"a serial column gives every row of {action.table} a value of its own: the table "
                "is rewritten while nobody can read it (ACCESS EXCLUSIVE)",
                rewrite,
                statement=action.statement,
                table=action.table,
            )


RULE = Rule("serial-column-added", "lock", "error", "A serial column added to a table", check)
