"""Which timeout a statement sets, and for how long; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pglast import ast, enums

from migrator.migrations.lint.model import Script, Surroundings

NAMES = ("lock_timeout", "statement_timeout")
_UNITS_MS = {
    "us": 0.001,
    "ms": 1.0,
    "s": 1000.0,
    "min": 60_000.0,
    "h": 3_600_000.0,
    "d": 86_400_000.0,
}
_RESETS = (
    enums.VariableSetKind.VAR_RESET,
    enums.VariableSetKind.VAR_SET_DEFAULT,
    enums.VariableSetKind.VAR_RESET_ALL,
)


@dataclass(frozen=True)
class Setting:
    """A setting that a statement makes; `value_ms` of a timeout, where it is written as one."""

    name: str
    value_ms: float | None
    is_local: bool


def is_managed(script: Script, around: Surroundings) -> bool:
    """Whether the runner sends it, with its timeouts: a revision, or a rollback script."""
    return script.revision is not None or around.lock_timeout_ms is not None


def setting(node: Any) -> Setting | None:
    """What SET, or set_config() with constants, sets; None for anything else, RESET too."""
    if isinstance(node, ast.VariableSetStmt):
        if node.kind != enums.VariableSetKind.VAR_SET_VALUE:
            return None
        value = milliseconds(node.args[0]) if node.args else None
        return Setting((node.name or "").lower(), value, bool(node.is_local))
    if isinstance(node, ast.SelectStmt):
        return _configured(node)
    return None


def resets(node: Any, name: str) -> bool:
    """Whether the statement takes the session's setting back to what it was."""
    if not isinstance(node, ast.VariableSetStmt) or node.kind not in _RESETS:
        return False
    return node.kind == enums.VariableSetKind.VAR_RESET_ALL or (node.name or "").lower() == name


def milliseconds(value: Any) -> float | None:
    """`'2s'`, `500`, `'1.5 min'` as PostgreSQL reads a timeout; None where it is none."""
    constant = value.val if isinstance(value, ast.A_Const) else value
    match constant:
        case ast.Integer():
            return float(constant.ival or 0)
        case ast.Float():
            return float(constant.fval or 0)
        case ast.String():
            found = re.fullmatch(r"\s*(\d*\.?\d+)\s*(us|ms|s|min|h|d)?\s*", constant.sval or "")
            return float(found[1]) * _UNITS_MS[found[2] or "ms"] if found else None
        case _:
            return None


def said(milliseconds: float) -> str:
    """The time as it would be written: 500 ms, 2 s, 3 min."""
    for unit, size in (("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if milliseconds >= size and milliseconds % size == 0:
            return f"{milliseconds / size:g} {unit}"
    return f"{milliseconds:g} ms"


def _configured(node: Any) -> Setting | None:
    call = getattr((node.targetList or (None,))[0], "val", None)
    if not isinstance(call, ast.FuncCall) or call.funcname is None:
        return None
    name: Any = call.funcname[-1]
    args: Any = call.args or ()
    if name.sval != "set_config" or len(args) != 3:
        return None
    what = getattr(getattr(args[0], "val", None), "sval", "")
    local = getattr(getattr(args[2], "val", None), "boolval", False)
    return Setting(str(what).lower(), milliseconds(args[1]), bool(local))
