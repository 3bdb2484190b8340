"""A function with its owner's rights has a search_path of its own."""

from __future__ import annotations

import pytest

from migrator.migrations.lint.rules.security_definer_without_search_path import RULE
from tests.unit.lint.checking import findings, lines

CREATE = "CREATE OR REPLACE FUNCTION s.f(x int) RETURNS int LANGUAGE sql SECURITY DEFINER {} AS '1'"


@pytest.mark.parametrize(
    "sql",
    [
        CREATE.format(""),
        CREATE.format("SET work_mem = '1MB'"),
        "CREATE PROCEDURE s.f() SECURITY DEFINER LANGUAGE sql AS '1'",
        "CREATE FUNCTION s.f() RETURNS int SECURITY DEFINER LANGUAGE sql BEGIN ATOMIC SELECT 1; END",
        "ALTER FUNCTION s.f(int) SECURITY DEFINER",
    ],
)
def test_one_without_is_found_and_rewritten(sql):
    (found,) = findings(RULE, sql)
    assert found.message.startswith("s.f ")
    assert "SET search_path TO ''" in found.rewrite


@pytest.mark.parametrize(
    "sql",
    [
        CREATE.format("SET search_path = s, pg_temp"),
        CREATE.format("SET search_path FROM CURRENT"),
        CREATE.format("") + "; ALTER FUNCTION s.f(int) SET search_path = ''",
        CREATE.format("").replace("DEFINER", "INVOKER"),
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS '1'",
        "ALTER FUNCTION s.f(int) SECURITY INVOKER",
        "ALTER FUNCTION s.f(int) SECURITY DEFINER SET search_path = ''",
    ],
)
def test_one_with_it_or_of_the_callers_rights_is_fine(sql):
    assert lines(RULE, sql) == []
