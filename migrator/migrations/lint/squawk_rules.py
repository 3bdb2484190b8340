"""Squawk's rules in our words: category, severity, the safe rewrite, and our own rules for the same.

A rule that is not here is not heard:
require-lock-timeout and require-statement-timeout are left to our own rules, which know the runner's. In a rewrite `{t}` is the table. `own` are ids of our rules that say the same hazard: where
one of them speaks of a statement, squawk's finding is dropped. `sized` is False where the harm does
not grow with the table.
"""

from __future__ import annotations

from dataclasses import dataclass

from migrator.migrations.lint.model import Category, Severity


@dataclass(frozen=True)
class Known:
    """What we make of one of squawk's rules."""

    category: Category
    severity: Severity
    rewrite: str
    own: tuple[str, ...] = ()
    sized: bool = True
    opt_in: bool = False


_NOT_VALID = """\
ALTER TABLE {t} ADD CONSTRAINT c CHECK (...) NOT VALID;   -- this revision: no scan
ALTER TABLE {t} VALIDATE CONSTRAINT c;                    -- the next revision: reads and writes go on"""
_FOREIGN_KEY = """\
ALTER TABLE {t} ADD CONSTRAINT c FOREIGN KEY (x) REFERENCES u (id) NOT VALID;   -- this revision
ALTER TABLE {t} VALIDATE CONSTRAINT c;                                          -- the next revision"""
_NOT_NULL = """\
ALTER TABLE {t} ADD CONSTRAINT c CHECK (x IS NOT NULL) NOT VALID;   -- this revision
ALTER TABLE {t} VALIDATE CONSTRAINT c;                              -- the next revision
ALTER TABLE {t} ALTER COLUMN x SET NOT NULL;                        -- then this needs no scan
ALTER TABLE {t} DROP CONSTRAINT c;"""
_UNIQUE = """\
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON {t} (x);   -- a revision of its own, autocommit_block
ALTER TABLE {t} ADD CONSTRAINT c UNIQUE USING INDEX i;         -- the next revision"""
_PRIMARY = """\
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON {t} (id);   -- a revision of its own, autocommit_block
ALTER TABLE {t} ADD CONSTRAINT c PRIMARY KEY USING INDEX i;     -- the next revision; id is NOT NULL already"""
_INDEX = """\
CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON {t} (x);   -- a revision of its own:
# with op.get_context().autocommit_block():
#     op.create_index("i", "{t}", ["x"], postgresql_concurrently=True, if_not_exists=True)"""
_DROP_INDEX = """\
DROP INDEX CONCURRENTLY IF EXISTS i;   -- a revision of its own, in autocommit_block()"""
_NEW_COLUMN = """\
ALTER TABLE {t} ADD COLUMN x_new ...;                    -- expand: beside the old one
-- the new release writes both; backfill() copies the old rows in pages, each its own transaction
ALTER TABLE {t} DROP COLUMN x;                           -- contract: when no release reads the old one"""
_DEFAULT = """\
ALTER TABLE {t} ADD COLUMN x ...;                        -- nullable, without the default: no rewrite
ALTER TABLE {t} ALTER COLUMN x SET DEFAULT f();          -- for new rows
-- then backfill() the old rows in pages, each its own transaction"""
_REQUIRED = """\
ALTER TABLE {t} ADD COLUMN x ... NOT NULL DEFAULT 0;     -- a constant default costs nothing
-- or add it nullable, backfill(), then NOT NULL by a validated CHECK"""
_CONTRACT = """\
-- in a revision with phase = "contract", when no running release uses it any more"""
_VIEW = """\
-- expand: add the new name beside the old one (a view, or a column that both releases write)
-- contract: drop the old name when no running release uses it any more"""
_DOMAIN = """\
-- a CHECK constraint on the table's column instead, NOT VALID first, then VALIDATE"""

RULES: dict[str, Known] = {
    "adding-field-with-default": Known(
        "lock", "error", _DEFAULT, ("table-rewritten", "serial-column-added")
    ),
    "adding-foreign-key-constraint": Known("lock", "error", _FOREIGN_KEY),
    "adding-not-nullable-field": Known("lock", "error", _NOT_NULL),
    "adding-required-field": Known("compat", "error", _REQUIRED),
    "adding-serial-primary-key-field": Known("lock", "error", _PRIMARY),
    "ban-alter-domain-with-add-constraint": Known("lock", "warning", _DOMAIN),
    "ban-char-field": Known("style", "notice", "... text"),
    "ban-concurrent-index-creation-in-transaction": Known("transaction", "error", _INDEX),
    "ban-create-domain-with-constraint": Known("style", "notice", _DOMAIN),
    "ban-disable-trigger": Known(
        "compat", "warning", _CONTRACT, ("trigger-switched",), opt_in=True
    ),
    "ban-drop-column": Known("compat", "error", _CONTRACT),
    "ban-drop-constraint": Known("compat", "warning", _CONTRACT),
    "ban-drop-database": Known("compat", "error", "-- by hand, never in a migration"),
    "ban-drop-default": Known("compat", "warning", _CONTRACT),
    "ban-drop-domain": Known("compat", "error", _CONTRACT),
    "ban-drop-extension": Known("compat", "error", _CONTRACT),
    "ban-drop-function": Known("compat", "error", _CONTRACT),
    "ban-drop-generated-expression": Known("compat", "error", _CONTRACT),
    "ban-drop-not-null": Known("compat", "warning", _CONTRACT),
    "ban-drop-schema": Known("compat", "error", _CONTRACT),
    "ban-drop-sequence": Known("compat", "error", _CONTRACT),
    "ban-drop-table": Known("compat", "error", _CONTRACT),
    "ban-drop-trigger": Known("compat", "warning", _CONTRACT, opt_in=True),
    "ban-drop-type": Known("compat", "error", _CONTRACT),
    "ban-drop-view": Known("compat", "error", _CONTRACT),
    "ban-duplicate-column-assignments": Known(
        "data", "error", "-- assign each column once: PostgreSQL refuses the statement"
    ),
    "ban-set-schema": Known("compat", "error", _VIEW),
    "ban-truncate-cascade": Known(
        "compat", "error", "TRUNCATE a, b;   -- name every table that is to be emptied"
    ),
    "ban-uncommitted-transaction": Known(
        "transaction", "error", "COMMIT;", ("transaction-control",)
    ),
    "changing-column-type": Known("lock", "error", _NEW_COLUMN, ("table-rewritten",)),
    "constraint-missing-not-valid": Known(
        "lock", "error", _NOT_VALID, ("validate-in-same-transaction", "exclusion-constraint-added")
    ),
    "disallowed-unique-constraint": Known("lock", "error", _UNIQUE),
    "identifier-too-long": Known(
        "style", "warning", "-- a name of at most 63 bytes; PostgreSQL cuts what is longer"
    ),
    "prefer-bigint-over-int": Known("style", "notice", "... bigint"),
    "prefer-bigint-over-smallint": Known("style", "notice", "... bigint"),
    "prefer-identity": Known(
        "style", "notice", "... bigint GENERATED BY DEFAULT AS IDENTITY", ("serial-column-added",)
    ),
    "prefer-repack": Known("lock", "warning", "REPACK (CONCURRENTLY) {t};", ("table-rewritten",)),
    "prefer-robust-stmts": Known(
        "style",
        "notice",
        "... IF NOT EXISTS, IF EXISTS: outside a transaction a statement may have to be repeated",
    ),
    "prefer-text-field": Known(
        "style", "notice", "... text, with a CHECK where its length matters"
    ),
    "prefer-timestamp-tz": Known("style", "notice", "... timestamptz"),
    "renaming-column": Known("compat", "error", _VIEW),
    "renaming-object": Known("compat", "error", _VIEW),
    "renaming-table": Known("compat", "error", _VIEW),
    "require-concurrent-index-creation": Known("lock", "error", _INDEX),
    "require-concurrent-index-deletion": Known("lock", "warning", _DROP_INDEX, sized=False),
    "require-concurrent-partition-detach": Known(
        "lock", "error", "ALTER TABLE {t} DETACH PARTITION p CONCURRENTLY;", sized=False
    ),
    "require-concurrent-reindex": Known("lock", "error", "REINDEX INDEX CONCURRENTLY i;"),
    "require-enum-value-ordering": Known(
        "compat", "notice", "ALTER TYPE e ADD VALUE IF NOT EXISTS 'v' AFTER 'w';"
    ),
    "transaction-nesting": Known(
        "transaction",
        "error",
        "-- no BEGIN, COMMIT or ROLLBACK: migrator opens the transaction",
        ("transaction-control",),
    ),
}

# What is one transaction is never half done, so its statements need not be repeatable.
IN_TRANSACTION = frozenset({"prefer-robust-stmts"})

# Where squawk says one hazard twice: the second is dropped beside any of the first.
SAID_BETTER_BY = {
    "constraint-missing-not-valid": frozenset(
        {
            "adding-foreign-key-constraint",
            "adding-serial-primary-key-field",
            "disallowed-unique-constraint",
        }
    ),
}
