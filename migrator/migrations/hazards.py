"""What breaks a release that runs while an expand revision is applied. Pure: the list, no code.

Each entry is tested on a real server, with a statement of an old release before and after it:
tests/integration/test_phase_list.py. docs/phases.md shows the same table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hazard:
    """One kind of change. `breaks` is False where it is worth a notice, and refused by nobody."""

    id: str
    what: str
    why: str
    way: str
    breaks: bool = True


NOT_PROVABLE = "not-provable"
OLD_RELEASE = "old-release"

_CONTRACT = "Do it in a revision of phase contract, when no running release names it any more."
_NEW_NAME = (
    "Create it under the new name beside the old one, keep both current while both releases run, "
    "and drop the old one in a revision of phase contract."
)
_NEW_COLUMN = (
    "Add a new column, let the new release write both, backfill, read the new one, and drop the "
    "old one in a revision of phase contract."
)
_ONCE_ALL_COMPLY = (
    "Let the new release comply first; add it in a revision of phase contract, when no running "
    "release writes otherwise."
)
_NEW_OBJECT = (
    "Create the new form under a new name for the new release, and drop the old one in a revision "
    "of phase contract."
)

_ALL = (
    # Names that go.
    Hazard(
        "drop-table",
        "DROP TABLE, DROP FOREIGN TABLE",
        "every statement that names the table fails (42P01)",
        _CONTRACT,
    ),
    Hazard(
        "rename-table",
        "ALTER TABLE ... RENAME TO",
        "every statement that names the table by its old name fails (42P01)",
        _NEW_NAME,
    ),
    Hazard(
        "drop-column",
        "ALTER TABLE ... DROP COLUMN",
        "every statement that names the column fails (42703), and so does a prepared SELECT * (0A000)",
        _CONTRACT,
    ),
    Hazard(
        "rename-column",
        "ALTER TABLE ... RENAME COLUMN, of a view too",
        "every statement that names the column by its old name fails (42703)",
        _NEW_COLUMN,
    ),
    Hazard(
        "drop-view",
        "DROP VIEW, DROP MATERIALIZED VIEW",
        "every statement that names the view fails (42P01)",
        _CONTRACT,
    ),
    Hazard(
        "rename-view",
        "ALTER VIEW ... RENAME TO",
        "every statement that names the view by its old name fails (42P01)",
        _NEW_OBJECT,
    ),
    Hazard(
        "drop-schema",
        "DROP SCHEMA",
        "every statement that names an object in it fails (42P01, 3F000)",
        _CONTRACT,
    ),
    Hazard(
        "rename-schema",
        "ALTER SCHEMA ... RENAME TO",
        "every statement that names the schema fails (42P01), and a search_path that has it finds "
        "nothing there",
        "Create the new schema beside the old one, move by copy, and drop the old one in a revision "
        "of phase contract.",
    ),
    Hazard(
        "set-schema",
        "ALTER ... SET SCHEMA, of anything",
        "every statement that finds the object in its old schema fails (42P01, 42883, 42704)",
        _NEW_NAME,
    ),
    Hazard(
        "drop-type",
        "DROP TYPE, DROP DOMAIN",
        "every cast to the type and every parameter of it fails (42704)",
        _CONTRACT,
    ),
    Hazard(
        "rename-type",
        "ALTER TYPE or DOMAIN ... RENAME TO",
        "every cast to the type by its old name fails (42704)",
        "Leave the name; or create a new type, and a new column of it, beside the old one.",
    ),
    Hazard(
        "rename-enum-value",
        "ALTER TYPE ... RENAME VALUE",
        "the old value is no input any more (22P02), and readers meet one that they do not know",
        "ADD VALUE with the new name, let the new release write it, backfill; leave the old value.",
    ),
    Hazard(
        "change-composite",
        "ALTER TYPE ... ADD, DROP, ALTER or RENAME ATTRIBUTE",
        "a row that is cast to the type no longer fits it (42846, 22P02)",
        "Create a new type beside the old one.",
    ),
    Hazard(
        "drop-function",
        "DROP FUNCTION, PROCEDURE, ROUTINE or AGGREGATE",
        "every call fails (42883)",
        _CONTRACT,
    ),
    Hazard(
        "rename-function",
        "ALTER FUNCTION, PROCEDURE, ROUTINE or AGGREGATE ... RENAME TO",
        "every call by its old name fails (42883)",
        _NEW_OBJECT,
    ),
    Hazard(
        "replace-function",
        "CREATE OR REPLACE FUNCTION or PROCEDURE",
        "the old release's calls run the new body",
        "Create the new function under a new name, without OR REPLACE; drop the old one in a "
        "revision of phase contract.",
    ),
    Hazard(
        "change-function",
        "ALTER FUNCTION ...: volatility, strictness, security, its settings",
        "the old release's calls behave otherwise: NULL instead of a value, other rights, other plans",
        _NEW_OBJECT,
    ),
    Hazard(
        "drop-sequence",
        "DROP SEQUENCE",
        "nextval() fails (42P01)",
        _CONTRACT,
    ),
    Hazard(
        "rename-sequence",
        "ALTER SEQUENCE ... RENAME TO",
        "nextval() by the old name fails (42P01)",
        "Leave the name.",
    ),
    Hazard(
        "change-sequence",
        "ALTER SEQUENCE ... RESTART, MINVALUE, MAXVALUE, INCREMENT, AS, CYCLE; the same of an "
        "identity column; setval()",
        "nextval() returns values that are taken (23505) or runs out (2200H)",
        "Leave the sequence; let new rows take their ids from a new one.",
    ),
    Hazard(
        "drop-constraint",
        "ALTER TABLE ... DROP CONSTRAINT",
        "INSERT ... ON CONFLICT that rests on a UNIQUE or EXCLUDE fails (42P10, 42704); what a "
        "CHECK or FOREIGN KEY refused, or an ON DELETE did, no longer happens",
        _CONTRACT,
    ),
    Hazard(
        "rename-constraint",
        "ALTER TABLE ... RENAME CONSTRAINT; ALTER INDEX ... RENAME TO",
        "INSERT ... ON CONFLICT ON CONSTRAINT fails (42704), and code that knows an error by its "
        "constraint no longer does; the index of a constraint takes its constraint along",
        "Leave the name. To rebuild an index: REINDEX INDEX CONCURRENTLY.",
    ),
    Hazard(
        "change-constraint",
        "ALTER TABLE ... ALTER CONSTRAINT",
        "the same write fails at another moment, or no longer: deferred, immediate, not enforced",
        _ONCE_ALL_COMPLY,
    ),
    Hazard(
        "drop-index",
        "DROP INDEX",
        "INSERT ... ON CONFLICT (columns) that rests on a unique one fails (42P10); queries that "
        "rest on it become slow",
        _CONTRACT,
    ),
    Hazard(
        "drop-extension",
        "DROP EXTENSION",
        "every statement that uses its functions, types or operators fails (42883, 42704)",
        _CONTRACT,
    ),
    Hazard(
        "change-extension",
        "ALTER EXTENSION ... UPDATE, ADD or DROP",
        "its functions, types and views change under the running release",
        "Read what the update does, then allow it by name.",
    ),
    Hazard(
        "drop-object",
        "DROP of anything else: operator, cast, collation, publication, role, database, OWNED BY ...",
        "every statement or subscriber that uses it fails",
        _CONTRACT,
    ),
    Hazard(
        "rename-object",
        "RENAME of anything else: role, database, publication, trigger ...",
        "whoever knows it by its old name fails; triggers fire in the order of their names",
        "Leave the name.",
    ),
    # Writes that are refused, or write something else.
    Hazard(
        "set-not-null",
        "ALTER COLUMN ... SET NOT NULL; ADD PRIMARY KEY USING INDEX; NOT NULL of a domain or of a "
        "generated column",
        "an INSERT or UPDATE that leaves the column NULL fails (23502)",
        _ONCE_ALL_COMPLY,
    ),
    Hazard(
        "add-required-column",
        "ADD COLUMN ... NOT NULL without a default, in one step or several",
        "every INSERT, which does not know the column, fails (23502)",
        "Add it with a DEFAULT, or nullable; drop the default, or set NOT NULL, in a revision of "
        "phase contract.",
    ),
    Hazard(
        "add-check",
        "ADD CONSTRAINT ... CHECK, NOT VALID too; CHECK of a domain",
        "an INSERT or UPDATE that violates it fails (23514): NOT VALID spares the old rows only",
        _ONCE_ALL_COMPLY,
    ),
    Hazard(
        "add-foreign-key",
        "ADD CONSTRAINT ... FOREIGN KEY, NOT VALID too",
        "a write without the row it refers to fails, and so does a DELETE of a row that is "
        "referred to (23503)",
        _ONCE_ALL_COMPLY,
    ),
    Hazard(
        "add-unique",
        "CREATE UNIQUE INDEX, CONCURRENTLY too; ADD UNIQUE or PRIMARY KEY",
        "a second row with the same values fails (23505)",
        _ONCE_ALL_COMPLY,
    ),
    Hazard(
        "add-exclusion",
        "ADD CONSTRAINT ... EXCLUDE",
        "a row that conflicts with another fails (23P01)",
        _ONCE_ALL_COMPLY,
    ),
    Hazard(
        "drop-default",
        "ALTER COLUMN ... DROP DEFAULT, DROP IDENTITY, DROP EXPRESSION",
        "an INSERT that leaves the column out writes NULL, or fails (23502)",
        _CONTRACT,
    ),
    Hazard(
        "change-default",
        "ALTER COLUMN ... SET DEFAULT, SET EXPRESSION; of a domain too",
        "an INSERT that leaves the column out writes another value than before",
        "Let the new release write the value itself; change the default in a revision of phase "
        "contract.",
    ),
    Hazard(
        "add-identity",
        "ALTER COLUMN ... ADD GENERATED ALWAYS AS IDENTITY, SET GENERATED ALWAYS",
        "an INSERT that gives the column a value fails (428C9)",
        "GENERATED BY DEFAULT takes the release's values; ALWAYS in a revision of phase contract.",
    ),
    Hazard(
        "retype-column",
        "ALTER COLUMN ... TYPE, widening too",
        "a prepared SELECT of the column fails once in each session (0A000: cached plan must not "
        "change result type); a narrower type refuses values (22001, 22003)",
        _NEW_COLUMN,
    ),
    Hazard(
        "add-trigger",
        "CREATE TRIGGER",
        "it runs in every write of the old release, and may refuse or change what is written",
        "Where the new release cannot write both forms itself, see that the trigger neither raises "
        "nor touches what the old release reads, and allow it by name.",
    ),
    Hazard(
        "drop-trigger",
        "DROP TRIGGER",
        "what it wrote or refused for the old release's writes no longer happens",
        _CONTRACT,
    ),
    Hazard(
        "switch-trigger",
        "ALTER TABLE ... ENABLE or DISABLE TRIGGER",
        "it fires, or no longer fires, in the old release's writes",
        _CONTRACT,
    ),
    Hazard(
        "change-rule",
        "CREATE RULE, DROP RULE, ENABLE or DISABLE RULE",
        "the old release's statements are rewritten into others",
        "Let the new release send the other statement itself.",
    ),
    Hazard(
        "replica-identity",
        "ALTER TABLE ... REPLICA IDENTITY",
        "UPDATE and DELETE of a published table fail where it is none (55000), and subscribers get "
        "other columns",
        "Change it in a revision of phase contract, after the subscribers.",
    ),
    Hazard(
        "publish-table",
        "CREATE PUBLICATION, ALTER PUBLICATION",
        "UPDATE and DELETE of a published table without replica identity fail (55000); "
        "subscribers get other tables",
        "See that each table has a primary key, and allow it by name.",
    ),
    # Rights and what is visible.
    Hazard(
        "revoke",
        "REVOKE, of a role too",
        "statements that need the privilege fail (42501)",
        _CONTRACT,
    ),
    Hazard(
        "change-role",
        "ALTER ROLE, ALTER ROLE or DATABASE ... SET, ALTER SYSTEM",
        "the old release's next session cannot log in, has other rights, or runs with other settings",
        "Give the new release a role of its own.",
    ),
    Hazard(
        "change-owner",
        "ALTER ... OWNER TO, REASSIGN OWNED",
        "what the old owner could do without a grant fails (42501)",
        "GRANT what the new owner needs; change the owner in a revision of phase contract.",
    ),
    Hazard(
        "row-security",
        "ENABLE, DISABLE, FORCE or NO FORCE ROW LEVEL SECURITY; CREATE, ALTER or DROP POLICY",
        "rows vanish from SELECT, UPDATE and DELETE, or appear in them; an INSERT fails (42501)",
        "Give the new release a role of its own; secure the rows in a revision of phase contract.",
    ),
    Hazard(
        "replace-view",
        "CREATE OR REPLACE VIEW; ALTER VIEW ... SET",
        "the old release's SELECT returns what the new definition says, and a prepared SELECT * "
        "fails (0A000)",
        "Create the new view under a new name, without OR REPLACE; drop the old one in a revision "
        "of phase contract.",
    ),
    Hazard(
        "attach-partition",
        "ATTACH PARTITION, INHERIT of a table that was there before",
        "a SELECT of the parent returns its rows, and it refuses rows outside its bounds (23514)",
        "CREATE TABLE ... PARTITION OF makes a new partition, and breaks nobody.",
    ),
    Hazard(
        "detach-partition",
        "DETACH PARTITION, NO INHERIT",
        "its rows vanish from the parent, and an INSERT of such a row fails (23514)",
        _CONTRACT,
    ),
    # Data.
    Hazard(
        "truncate",
        "TRUNCATE",
        "the rows that the old release reads are gone",
        _CONTRACT,
    ),
    Hazard(
        "delete-data",
        "DELETE, MERGE ... DELETE",
        "rows that the old release reads are gone",
        _CONTRACT,
    ),
    Hazard(
        "update-data",
        "UPDATE, MERGE, INSERT ... ON CONFLICT DO UPDATE of columns that were there before",
        "the old release reads other values than it wrote",
        "Write into a new column. A backfill says WHERE column IS NULL for each column that it "
        "sets, so that it changes no value that is there.",
    ),
    Hazard(
        "set-unlogged",
        "ALTER TABLE or SEQUENCE ... SET UNLOGGED",
        "a crash of the server empties it, and a standby cannot read it",
        "Leave it LOGGED.",
    ),
    Hazard(
        "lock-table",
        "LOCK TABLE",
        "the old release's statements wait until the revision commits, and fail where they have a "
        "lock_timeout (55P03)",
        "Leave it out: each statement takes the lock that it needs.",
    ),
    Hazard(
        NOT_PROVABLE,
        "DO, CALL, EXECUTE, a SELECT that calls a function of your own; SQL that depends on what "
        "the database answers; statements that this list does not know",
        "what it does to the old release cannot be known beforehand",
        "Write plain statements. Where that cannot be, prove it by hand and allow it by name.",
    ),
    # Worth a notice.
    Hazard(
        "add-column",
        "ADD COLUMN to a table that was there before",
        "a prepared SELECT * or RETURNING * fails once in each session (0A000: cached plan must "
        "not change result type)",
        "Let the release name its columns, as ORMs do, or not prepare SELECT *.",
        breaks=False,
    ),
    Hazard(
        "computed-in-writes",
        "ADD COLUMN ... GENERATED ALWAYS AS (expression); an index on an expression or with WHERE",
        "the expression is computed in every write of the old release; where it raises, the write "
        "fails",
        "See that it raises for no value that the old release writes.",
        breaks=False,
    ),
    Hazard(
        "add-enum-value",
        "ALTER TYPE ... ADD VALUE",
        "old readers may meet a value that they do not know, once the new release writes it",
        "Write it when no running release lacks it.",
        breaks=False,
    ),
    Hazard(
        "drop-not-null",
        "ALTER COLUMN ... DROP NOT NULL",
        "old readers may meet NULL, once the new release writes it",
        "Write NULL when every running release can read it.",
        breaks=False,
    ),
    Hazard(
        "fill-null",
        "UPDATE ... SET column WHERE column IS NULL",
        "where the old release reads the column, it meets a value instead of NULL",
        "See that the old release does not read it, or can.",
        breaks=False,
    ),
)

HAZARDS = {hazard.id: hazard for hazard in _ALL}
