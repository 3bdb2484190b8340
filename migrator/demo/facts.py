"""What the tables must say after a rebuild, and what SQL finds in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from migrator.demo.generate import PREFIX, Totals
from migrator.postgres.connect import Connection

Source = Literal["CDNOW", "made up"]
OF = {
    "CDNOW": f"customer_id NOT LIKE '{PREFIX}%'",
    "made up": f"customer_id LIKE '{PREFIX}%'",
}
CUSTOMERS = 23_570
RETURNING = 11_662  # of them have more than one order


@dataclass(frozen=True)
class Question:
    """A query of one number, and the number that it must give."""

    source: str
    name: str
    query: str
    expected: int


@dataclass(frozen=True)
class Fact(Question):
    """A question with its answer; `found` is None where the query gave no number."""

    found: int | None

    @property
    def ok(self) -> bool:
        return self.found == self.expected


def ask(conn: Connection, questions: list[Question]) -> list[Fact]:
    """Put every question to the database; read-only."""
    return [_answered(conn, question) for question in questions]


def _answered(conn: Connection, question: Question) -> Fact:
    row = conn.execute(question.query.encode()).fetchone()
    found = None if row is None or row[0] is None else int(row[0])
    return Fact(question.source, question.name, question.query, question.expected, found)


def of_topic(events: int) -> list[Question]:
    """Every event of the topic is folded, once."""
    query = """SELECT sum(events) FROM migrator.position JOIN migrator.build USING (build)
               WHERE state = 'live' AND projection = 'orders'"""
    return [Question("topic", "events folded", query, events)]


def of_cdnow() -> list[Question]:
    """What the CDNOW log comes to, whatever else is in the topic."""
    busiest = " AND customer_id = '07592'"
    return [
        _over("CDNOW", "orders", "count(*)", "orders", 69_659),
        _over("CDNOW", "customers", "count(*)", "customers", CUSTOMERS),
        _over("CDNOW", "cents by order", "sum(total_cents)", "orders", 250_031_563),
        _over("CDNOW", "cents by customer", "sum(spent_cents)", "customers", 250_031_563),
        _over("CDNOW", "CDs by order", "sum(items)", "orders", 167_881),
        _over("CDNOW", "CDs by customer", "sum(items)", "customers", 167_881),
        _over("CDNOW", "orders of customer 07592", "orders", "customers", 201, busiest),
        _over("CDNOW", "cents of customer 07592", "spent_cents", "customers", 1_399_093, busiest),
        _returning("CDNOW", RETURNING),
    ]


def of_made_up(totals: Totals) -> list[Question]:
    """What the made-up order lives come to, as their maker added it up; none if there are none."""
    if not totals.events:
        return []
    count = "coalesce(sum({}), 0)".format
    return [
        _over("made up", "orders", "count(*)", "orders", totals.orders),
        *(_in_status(status, totals) for status in ("placed", "paid", "shipped", "cancelled")),
        _over("made up", "customers", "count(*)", "customers", len(totals.orders_of)),
        _over("made up", "cents by order", count("total_cents"), "orders", totals.cents),
        _over("made up", "items by order", count("items"), "orders", totals.items),
        _over(
            "made up",
            "cents by customer, not cancelled",
            count("spent_cents"),
            "customers",
            totals.kept_cents,
        ),
        _over(
            "made up",
            "items by customer, not cancelled",
            count("items"),
            "customers",
            totals.kept_items,
        ),
        _returning("made up", totals.returning),
    ]


def of_new_column(totals: Totals) -> list[Question]:
    """Who has more than one order has a value in the column that the second definition adds."""
    name, number = "customers with second_order_at", "count(second_order_at)"
    found = [_over("CDNOW", name, number, "customers", RETURNING)]
    if totals.events:
        found.append(_over("made up", name, number, "customers", totals.returning))
    return found


def of_way_back(totals: Totals) -> list[Question]:
    """After both rollbacks: the old columns, all the rows, and the newer build still at hand."""
    column = """SELECT count(*) FROM information_schema.columns WHERE table_schema = 'public'
                AND table_name = '{}' AND column_name = '{}'""".format
    kept = """SELECT count(*) FROM migrator.build
              JOIN pg_tables ON schemaname = 'migrator_build_' || build
              WHERE projection = 'customers' AND state = 'archived'"""
    customers = CUSTOMERS + len(totals.orders_of)
    return [
        Question("way back", name, query, expected)
        for name, query, expected in (
            ("customers", "SELECT count(*) FROM customers", customers),
            ("columns customers.second_order_at", column("customers", "second_order_at"), 0),
            ("archived builds of customers", kept, 1),
            ("columns order_requests.note", column("order_requests", "note"), 0),
        )
    ]


def _returning(source: Source, expected: int) -> Question:
    name = "customers with more than one order"
    return _over(source, name, "count(*)", "customers", expected, " AND orders > 1")


def _in_status(status: str, totals: Totals) -> Question:
    name, where = f"orders {status}", f" AND status = '{status}'"
    return _over("made up", name, "count(*)", "orders", totals.statuses[status], where)


def _over(
    source: Source, name: str, number: str, table: str, expected: int, where: str = ""
) -> Question:
    """Ask for a number over the rows of one source."""
    query = f"SELECT {number} FROM {table} WHERE {OF[source]}{where}"  # noqa: S608 - our own words
    return Question(source, name, query, expected)
