"""Write the safe SQL that a finding shows; pure. It is shown, never run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from pglast import ast
from pglast.stream import RawStream, maybe_double_quote_name


class Raw(str):
    """A piece of SQL that goes into a template as it is."""

    __slots__ = ()


Part = str | ast.RangeVar | Sequence[str]


def fill(template: str, **parts: Part) -> str:
    """Fill names into a template, quoted where they must be; a sequence becomes a list of names."""
    return template.format(**{name: _written(part) for name, part in parts.items()})


def show(node: Any, **changes: Any) -> str:
    """The statement as SQL, with attributes changed; the given node stays as it is."""
    if changes:
        node = copy.copy(node)
        for name, value in changes.items():
            setattr(node, name, value)
    return f"{RawStream()(node)};"


def name_of(table: str) -> Raw:
    """A table's name as `qualified` gives it, quoted part by part."""
    schema, _, name = table.rpartition(".")
    return Raw(".".join(maybe_double_quote_name(each) for each in (schema, name) if each))


def _written(part: Part) -> str:
    if isinstance(part, Raw):
        return part
    if isinstance(part, str):
        return str(maybe_double_quote_name(part))
    if isinstance(part, ast.RangeVar):
        names = (part.schemaname, part.relname)
        return ".".join(maybe_double_quote_name(each) for each in names if each)
    return ", ".join(maybe_double_quote_name(each) for each in part)
