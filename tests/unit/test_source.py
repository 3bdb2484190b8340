from __future__ import annotations

import ast

import pytest

from migrator.source import module_hash, source_hash

SOURCE = '''
"""What it is."""
import os

def area(width: int, *, height=2):
    """Multiply."""
    # the reason
    return width * height
'''


@pytest.mark.parametrize(
    "same",
    [
        SOURCE.replace("# the reason", "# another reason, much longer"),
        SOURCE.replace('"""Multiply."""', '"""Say it in other words."""'),
        SOURCE.replace('"""What it is."""', ""),
        SOURCE.replace("width * height", "(width*height)"),
        SOURCE.replace("    return", "\n\n    return"),
        SOURCE.replace("width: int, *, height=2", "\n    width: int,\n    *,\n    height=2,\n"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(same):
    assert module_hash(same) == module_hash(SOURCE)


@pytest.mark.parametrize(
    "other",
    [
        SOURCE.replace("height=2", "height=3"),
        SOURCE.replace("width * height", "width + height"),
        SOURCE.replace("area", "surface"),
        SOURCE.replace("import os", "import sys"),
        SOURCE.replace("*, ", ""),
        SOURCE.replace("width: int", "width: str"),
        SOURCE + "\nx = 1",
    ],
)
def test_what_the_code_does_counts(other):
    assert module_hash(other) != module_hash(SOURCE)


@pytest.mark.parametrize(
    ("one", "other"), [("1", "'1'"), ("1", "1.0"), ("1", "True"), ("b'x'", "'x'")]
)
def test_constants_of_another_type_differ(one, other):
    assert module_hash(f"x = {one}") != module_hash(f"x = {other}")


def test_a_string_that_is_used_counts():
    assert module_hash("op.execute('a')") != module_hash("op.execute('b')")


def test_the_order_of_statements_counts():
    one, two = ast.parse("a()").body[0], ast.parse("b()").body[0]
    assert source_hash([one, two]) != source_hash([two, one])


def test_the_hash_of_a_known_source_never_changes():
    """Ledgers hold it, so a newer Python or migrator must come to the same."""
    assert module_hash("def upgrade():\n    op.drop_column('t', 'c')\n") == PINNED


PINNED = "18331ba0148df6bba04be3d284916a903af0ef6559334c6652118f0a33063b56"
