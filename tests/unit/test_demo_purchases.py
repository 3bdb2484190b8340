"""The purchase log is read exactly, or not at all."""

from datetime import UTC, datetime

import pytest

from migrator.demo.purchases import Purchase, parse
from migrator.errors import MigratorError

HEADER = " customer_id  date number_of_cds  dollar_value\r\n"


def read(*lines):
    return list(parse(HEADER + "\r\n".join(lines)))


def test_a_line_is_a_purchase_with_its_number_in_the_file():
    assert read(" 00001 19970101  1   11.77", " 07592 19980630 19  512.04") == [
        Purchase(2, "00001", datetime(1997, 1, 1, tzinfo=UTC), 1, 1177),
        Purchase(3, "07592", datetime(1998, 6, 30, tzinfo=UTC), 19, 51204),
    ]


@pytest.mark.parametrize(
    ("dollars", "cents"), [("0.00", 0), ("0.29", 29), ("19.99", 1999), ("1286.01", 128_601)]
)
def test_money_is_exact_to_the_cent(dollars, cents):
    (purchase,) = read(f" 00001 19970101  1 {dollars:>7}")
    assert purchase.total_cents == cents


@pytest.mark.parametrize(
    "line",
    [
        "",
        " 00001 19970101  1   11.7",
        " 00001 19970101  1   -1.77",
        " 00001 19970101  x   11.77",
        " 0001 19970101  1   11.77",
        " 00001 19970231  1   11.77",
        " 00001 19970101  1   11.77 more",
    ],
)
def test_a_malformed_line_stops_the_reading_with_its_number(line):
    with pytest.raises(MigratorError, match="line 3 of the purchase log") as caught:
        read(" 00001 19970101  1   11.77", line, " 00002 19970101  1   11.77")
    assert caught.value.data == {"line": 3}


@pytest.mark.parametrize("text", ["", "customer,date\r\n 00001 19970101  1   11.77"])
def test_another_header_is_another_file(text):
    with pytest.raises(MigratorError, match="line 1 of the purchase log"):
        list(parse(text))
