"""Rewrites with the statement's own names."""

import pytest
from pglast import parse_sql

from migrator.migrations.lint.safe_way import safe_way

CASES = [
    (
        "require-concurrent-index-creation",
        'CREATE INDEX i ON "T" (a, b DESC) WHERE a > 1',
        ['CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON "T" (a, b DESC) WHERE a > 1;'],
    ),
    (
        "require-concurrent-index-creation",
        "CREATE INDEX ON t (a)",
        ["CREATE INDEX CONCURRENTLY ON t (a);"],
    ),
    (
        "require-concurrent-index-deletion",
        "DROP INDEX s.i",
        ["DROP INDEX CONCURRENTLY IF EXISTS s.i;"],
    ),
    (
        "adding-foreign-key-constraint",
        "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u (id)",
        [
            "ALTER TABLE t ADD CONSTRAINT t_a_fkey FOREIGN KEY (a) REFERENCES u (id) NOT VALID;",
            "ALTER TABLE t VALIDATE CONSTRAINT t_a_fkey;",
        ],
    ),
    (
        "constraint-missing-not-valid",
        "ALTER TABLE s.t ADD CONSTRAINT c CHECK (a > 0), ADD COLUMN b bigint",
        [
            "ALTER TABLE s.t ADD CONSTRAINT c CHECK (a > 0) NOT VALID;",
            "ALTER TABLE s.t VALIDATE CONSTRAINT c;",
        ],
    ),
    (
        "disallowed-unique-constraint",
        "ALTER TABLE t ADD UNIQUE (a, b)",
        [
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS t_a_b_key ON t (a, b);",
            "ALTER TABLE t ADD CONSTRAINT t_a_b_key UNIQUE USING INDEX t_a_b_key;",
        ],
    ),
    (
        "adding-serial-primary-key-field",
        "ALTER TABLE t ADD PRIMARY KEY (id)",
        [
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS t_pkey ON t (id);",
            "ALTER TABLE t ADD CONSTRAINT t_pkey PRIMARY KEY USING INDEX t_pkey;",
        ],
    ),
    (
        "adding-not-nullable-field",
        'ALTER TABLE t ALTER COLUMN "A" SET NOT NULL',
        [
            'ALTER TABLE t ADD CONSTRAINT "t_A_not_null" CHECK ("A" IS NOT NULL) NOT VALID;',
            'ALTER TABLE t VALIDATE CONSTRAINT "t_A_not_null";',
            'ALTER TABLE t ALTER COLUMN "A" SET NOT NULL;',
            'ALTER TABLE t DROP CONSTRAINT "t_A_not_null";',
        ],
    ),
]


@pytest.mark.parametrize(("rule", "sql", "expected"), CASES, ids=[case[1][:40] for case in CASES])
def test_the_rewrite_has_the_statements_own_names_and_parses(rule, sql, expected):
    said = safe_way(rule, parse_sql(sql)[0].stmt)
    assert [line for line in said.splitlines() if not line.startswith("--")] == expected
    parse_sql(said)


def test_a_form_without_a_rewrite_of_its_own_has_none():
    assert (
        safe_way("adding-required-field", parse_sql("ALTER TABLE t ADD a int NOT NULL")[0]) is None
    )
    inline = parse_sql("ALTER TABLE t ADD COLUMN a bigint REFERENCES u (id)")[0].stmt
    assert safe_way("adding-foreign-key-constraint", inline) is None
