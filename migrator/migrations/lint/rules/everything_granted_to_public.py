"""GRANT ALL TO PUBLIC."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.model import Finding, Rule, Script, Surroundings
from migrator.migrations.lint.rewriting import show

_PUBLIC = enums.RoleSpecType.ROLESPEC_PUBLIC
_CSTRING = enums.RoleSpecType.ROLESPEC_CSTRING
_ENOUGH = {
    enums.ObjectType.OBJECT_TABLE: "select",
    enums.ObjectType.OBJECT_SEQUENCE: "usage",
    enums.ObjectType.OBJECT_SCHEMA: "usage",
    enums.ObjectType.OBJECT_DATABASE: "connect",
}


def check(script: Script, _around: Surroundings) -> Iterator[Finding]:
    for statement in script.statements:
        node: Any = statement.node
        by_default = isinstance(node, ast.AlterDefaultPrivilegesStmt)
        grant = node.action if by_default else node
        if not isinstance(grant, ast.GrantStmt) or not _is_all_to_public(grant):
            continue
        yield RULE.finding(
            "every role, also each that is made later, may do everything with this",
            "-- what is needed, to the role that needs it:\n" + _rewrite(node, grant, by_default),
            statement=statement,
        )


def _is_all_to_public(grant: Any) -> bool:
    to_public = any(each.roletype == _PUBLIC for each in grant.grantees or ())
    return bool(grant.is_grant) and grant.privileges is None and to_public


def _rewrite(node: Any, grant: Any, by_default: bool) -> str:
    enough = _ENOUGH.get(grant.objtype)
    changes: dict[str, Any] = {"grantees": (ast.RoleSpec(_CSTRING, "app_reader"),)}
    if enough is not None:
        changes["privileges"] = (ast.AccessPriv(enough),)
    if not by_default:
        return show(grant, **changes)
    kept = {name: getattr(grant, name) for name in changes}
    try:
        for name, value in changes.items():
            setattr(grant, name, value)
        return show(node)
    finally:
        for name, value in kept.items():
            setattr(grant, name, value)


RULE = Rule("everything-granted-to-public", "data", "warning", "GRANT ALL to PUBLIC", check)
