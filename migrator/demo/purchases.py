"""Read the CDNOW purchase log: 69,659 real purchases at an online shop, January 1997 to June 1998.

customer_id  date number_of_cds  dollar_value
00001 19970101  1   11.77
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

from migrator.errors import MigratorError

COLUMNS = ["customer_id", "date", "number_of_cds", "dollar_value"]
_LINE = re.compile(r" (\d{5}) (\d{8}) +(\d+) +(\d+)\.(\d\d)", re.ASCII)


class Purchase(NamedTuple):
    """One line of the log; `line` is its number in the file, where 1 is the header's."""

    line: int
    customer_id: str
    day: datetime
    items: int
    total_cents: int


def parse(text: str) -> Iterator[Purchase]:
    """Yield every purchase in the log's order; money is whole cents, days begin at 0:00 UTC.

    Raises:
        MigratorError: a line is not of this form; its number is in the message.
    """
    header, *lines = text.splitlines() or [""]
    if header.split() != COLUMNS:
        raise _malformed(1, header, " ".join(COLUMNS))
    for number, line in enumerate(lines, 2):
        found = _LINE.fullmatch(line)
        day = _day(found[2]) if found else None
        if not found or not day:
            raise _malformed(number, line, "a customer of 5 digits, YYYYMMDD, CDs, dollars.cents")
        # In whole numbers: 11.77 has no exact float.
        cents = int(found[4]) * 100 + int(found[5])
        yield Purchase(number, found[1], day, int(found[3]), cents)


@cache
def _day(digits: str) -> datetime | None:
    try:
        return datetime.strptime(digits, "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None


def _malformed(number: int, line: str, expected: str) -> MigratorError:
    return MigratorError(
        f"line {number} of the purchase log is {line!r}",
        expected=expected,
        next_step="the file in the cache was changed: remove the folder cdnow-* there, "
        "then run the same command again",
        line=number,
    )
