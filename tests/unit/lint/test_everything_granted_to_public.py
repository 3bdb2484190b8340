"""Rights go to a role, and not all of them."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.everything_granted_to_public import RULE
from tests.unit.lint.checking import findings, lines


@pytest.mark.parametrize(
    ("sql", "rewrite"),
    [
        ("GRANT ALL ON s.a TO PUBLIC", "GRANT SELECT ON TABLE s.a TO app_reader;"),
        ("GRANT ALL PRIVILEGES ON a TO bob, PUBLIC", "GRANT SELECT ON TABLE a TO app_reader;"),
        (
            "GRANT ALL ON ALL TABLES IN SCHEMA s TO PUBLIC",
            "GRANT SELECT ON ALL TABLES IN SCHEMA s TO app_reader;",
        ),
        ("GRANT ALL ON SCHEMA s TO PUBLIC", "GRANT USAGE ON SCHEMA s TO app_reader;"),
        ("GRANT ALL ON FUNCTION f() TO PUBLIC", "TO app_reader;"),
        (
            "ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT ALL ON TABLES TO PUBLIC",
            "GRANT SELECT ON TABLES TO app_reader;",
        ),
    ],
)
def test_all_to_public_is_found_and_rewritten(sql, rewrite):
    (found,) = findings(RULE, sql)
    assert rewrite in found.rewrite


@pytest.mark.parametrize(
    "sql",
    [
        "GRANT SELECT ON TABLE a TO PUBLIC",
        "GRANT ALL ON a TO bob",
        'GRANT ALL ON a TO "public_role"',
        "REVOKE ALL ON a FROM PUBLIC",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    ],
)
def test_less_or_to_a_role_is_fine(sql):
    assert lines(RULE, sql) == []
