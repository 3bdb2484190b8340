"""SECURITY DEFINER without a search_path of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast, parse_sql

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings
from migrator.migrations.lint.rewriting import show


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    pinned = {
        _name(statement.node) for statement in script.statements if _has(statement.node, "set")
    }
    for statement in script.statements:
        node: Any = statement.node
        if _has(node, "security") and _name(node) not in pinned:
            yield RULE.finding(
                f"{_name(node)} runs with its owner's rights and finds its tables by the caller's "
                "search_path: who may create a schema can make it use tables of his own",
                "-- names of tables and functions in the body then need their schema\n"
                + show(node, **_with_path(node)),
                statement=statement,
            )


def _options(node: Any) -> Any:
    if isinstance(node, ast.CreateFunctionStmt):
        return node.options or ()
    return (node.actions or ()) if isinstance(node, ast.AlterFunctionStmt) else ()


def _has(node: Any, option: str) -> bool:
    return any(
        each.defname == option
        and (each.arg.boolval if option == "security" else each.arg.name == "search_path")
        for each in _options(node)
    )


def _name(node: Any) -> str:
    names: Any = ()
    if isinstance(node, ast.CreateFunctionStmt):
        names = node.funcname
    elif isinstance(node, ast.AlterFunctionStmt):
        names = node.func.objname if node.func else ()
    return ".".join(each.sval for each in names or ())


def _with_path(node: Any) -> dict[str, Any]:
    template: Any = parse_sql("ALTER FUNCTION f() SET search_path TO ''")[0].stmt
    options = _options(node)
    if isinstance(node, ast.CreateFunctionStmt):
        # The body comes last, as people write it.
        return {"options": (*options[:-1], *template.actions, *options[-1:])}
    return {"actions": (*options, *template.actions)}


RULE = Rule(
    "security-definer-without-search-path",
    "data",
    "warning",
    "SECURITY DEFINER without a search_path",
    check,
)
