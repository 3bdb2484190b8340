"""The names of things as the parser gives them, made comparable. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pglast import ast, enums
from pglast.enums import ObjectType

from migrator.migrations.lint.model import qualified

_RELATIONS = {
    ObjectType.OBJECT_TABLE,
    ObjectType.OBJECT_FOREIGN_TABLE,
    ObjectType.OBJECT_VIEW,
    ObjectType.OBJECT_MATVIEW,
    ObjectType.OBJECT_INDEX,
    ObjectType.OBJECT_SEQUENCE,
}
_FUNCTIONS = {
    ObjectType.OBJECT_FUNCTION,
    ObjectType.OBJECT_PROCEDURE,
    ObjectType.OBJECT_ROUTINE,
    ObjectType.OBJECT_AGGREGATE,
}
_NOT_CALLED_WITH = {
    enums.FunctionParameterMode.FUNC_PARAM_OUT,
    enums.FunctionParameterMode.FUNC_PARAM_TABLE,
}


def kind(of: Any) -> str:
    """The namespace that names of this sort share: tables, views, indexes and sequences have one."""
    if of in _RELATIONS:
        return "relation"
    if of in _FUNCTIONS:
        return "function"
    if of in (ObjectType.OBJECT_TYPE, ObjectType.OBJECT_DOMAIN):
        return "type"
    return str(of.name).removeprefix("OBJECT_").lower()


def name(of: Any) -> str:
    """The dotted name of whatever the parser gives for one; empty where it gives none."""
    match of:
        case str():
            return of
        case tuple() | list():
            return ".".join(part for part in map(name, of) if part)
        case ast.ObjectWithArgs():
            return signature(of.objname, (arg for arg in of.objargs or () if arg is not None))
        case ast.RangeVar():
            return qualified(of)
    # String, TypeName, RoleSpec, AccessPriv: each keeps its name under another attribute.
    for attribute in ("sval", "names", "rolename", "priv_name"):
        found = getattr(of, attribute, None)
        if found:
            return name(found).removeprefix("pg_catalog.")
    return ""


def signature(names: Any, arguments: Iterable[Any]) -> str:
    """A function by its name and the types of its arguments."""
    return f"{name(names)}({', '.join(name(argument) for argument in arguments)})"


def created_function(node: Any) -> str:
    """The function of CREATE FUNCTION by its name and the types that it is called with."""
    called_with = (p for p in node.parameters or () if p.mode not in _NOT_CALLED_WITH)
    return signature(node.funcname, (p.argType for p in called_with))
