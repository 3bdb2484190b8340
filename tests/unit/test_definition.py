"""A projection's class: what it says, and what it must not say."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from migrator import Event, Meta, Projection, Tombstone, check, on
from migrator.projections.events import DefinitionError
from migrator.projections.shadow import create_statements, load_statements


class Placed(Event):
    total: int


class Renamed(Event, type="Order Renamed"):
    name: str


def define(**members):
    """Define `Order` with some members in place of the usual ones."""
    options = members.pop("options", {"topic": "orders"})
    body = {
        "__tablename__": "orders",
        "__annotations__": {"order_id": Mapped[str]} | members.pop("columns", {}),
        "__module__": __name__,
        "order_id": mapped_column(primary_key=True),
        "placed": on(Placed)(lambda self, event: None),
    } | members
    body = {name: member for name, member in body.items() if member is not None}
    return type("Order", (Projection,), body, **options).__definition__


def test_the_table_name_is_the_projections_name():
    assert define().name == "orders"


def test_an_events_type_is_its_classs_name_unless_it_says_another():
    rename = on(Renamed)(lambda self, event: None)
    assert set(define(renamed=rename).handlers) == {"Placed", "Order Renamed"}


def test_one_method_may_fold_several_events():
    both = on(Placed, Renamed)(lambda self, event: None)
    assert set(define(placed=both).handlers) == {"Placed", "Order Renamed"}


def test_a_handler_with_three_parameters_takes_the_meta():
    with_meta = on(Placed)(lambda self, event, meta: None)
    assert define(placed=with_meta).handlers["Placed"].takes_meta


def test_ignores_takes_classes_and_names():
    assert define(ignores=(Renamed, "Seen", Tombstone)).ignores == {
        "Order Renamed",
        "Seen",
        "Tombstone",
    }


def test_handlers_and_checks_of_a_mixin_count():
    class Totals:
        @on(Renamed)
        def renamed(self, event):
            pass

        @check
        def holds(cls):
            return sa.select(cls)

        @check
        @classmethod
        def is_typed(cls):
            return sa.select(cls)

    class Order(Totals, Projection, topic="orders"):
        __tablename__ = "orders"
        order_id: Mapped[str] = mapped_column(primary_key=True)

    assert set(Order.__definition__.handlers) == {"Order Renamed"}
    assert [c.name for c in Order.__definition__.checks] == ["holds", "is_typed"]


def test_an_event_of_several_types_is_folded_and_ignored_by_each():
    class Saved(Event, type=("orders.c", "orders.u")):
        pass

    assert {"orders.c", "orders.u"} <= set(define(saved=on(Saved)(lambda s, e: None)).handlers)
    assert define(ignores=(Saved,)).ignores == {"orders.c", "orders.u"}


def test_two_classes_of_one_name_and_table_can_coexist():
    assert define().table is not define().table


@pytest.mark.parametrize(("python", "key"), [(str, "a"), (int, 7), (UUID, UUID(int=7))])
def test_the_records_key_becomes_the_primary_keys_type(python, key):
    definition = define(columns={"order_id": Mapped[python]})
    assert definition.parse_key(str(key)) == key


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"options": {}}, "names no topic"),
        ({"options": {"topic": ("a", "")}}, "names no topic"),
        ({"options": {"topic": ("a", "b", "a")}}, "names a topic twice: a, b, a"),
        ({"placed": None}, "folds no event"),
        ({"placed": on(Tombstone)(lambda self, event: None)}, "folds no event"),
        ({"again": on(Placed)(lambda self, event: None)}, "folds Placed twice"),
        ({"placed": on(str)(lambda self, event: None)}, "is no event"),
        ({"placed": on(Placed)(lambda self: None)}, "takes 1 parameters"),
        ({"order_id": mapped_column()}, "primary key"),
        ({"__tablename__": None}, "__tablename__"),
        ({"__table_args__": {"schema": "app"}}, 'schema="app"'),
        ({"columns": {"order_id": Mapped[datetime]}}, "cannot fill the primary key"),
        ({"options": {"topic": "t", "key": lambda e: e.x}}, "co_partitioned=True"),
        ({"line": mapped_column(sa.ForeignKey("lines.id"))}, "foreign key"),
        ({"tags": mapped_column(sa.ARRAY(sa.Text), default=[])}, "all rows would share"),
        ({"at": mapped_column(sa.DateTime, default=sa.func.now())}, "a default that is SQL"),
        ({"at": mapped_column(sa.DateTime, server_default="now()")}, "filled by the database"),
        ({"n": mapped_column(sa.BigInteger, sa.Identity())}, "filled by the database"),
        ({"n": mapped_column(sa.BigInteger, sa.Computed("1"))}, "filled by the database"),
        ({"columns": {"odd": Mapped[object]}, "odd": mapped_column()}, "object"),
    ],
)
def test_a_wrong_definition_says_what_is_wrong(members, said):
    with pytest.raises(DefinitionError) as caught:
        define(**members)
    assert said in str(caught.value)


def test_an_abstract_base_is_no_projection():
    class Base(Projection):
        __abstract__ = True

    assert not hasattr(Base, "__definition__")


class Everything(Projection, topic="t"):
    __tablename__ = 'Or"der s'
    __table_args__ = (
        sa.UniqueConstraint("a", "b"),
        sa.CheckConstraint("a like 'x%'", name="a_ok"),
        sa.Index("by_b", "b", postgresql_where=sa.text("b > 0")),
        {"comment": "it's 100%"},
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[str]
    b: Mapped[int] = mapped_column(sa.BigInteger, comment="don't")

    @on(Placed)
    def placed(self, event: Placed, meta: Meta) -> None: ...


def test_the_bare_table_has_columns_and_comments_alone():
    create, *comments = create_statements(Everything.__definition__.table, "b1")
    assert " ".join(create.split()) == (
        'CREATE TABLE b1."Or""der s" ( id INTEGER NOT NULL, a TEXT NOT NULL, b BIGINT NOT NULL )'
    )
    assert comments == [
        """COMMENT ON TABLE b1."Or""der s" IS 'it''s 100%'""",
        """COMMENT ON COLUMN b1."Or""der s".b IS 'don''t'""",
    ]


def test_constraints_and_indexes_come_after_the_primary_key_first():
    assert load_statements(Everything.__definition__.table, "b1") == [
        'ALTER TABLE b1."Or""der s" ADD CONSTRAINT "Or""der s_pkey" PRIMARY KEY (id)',
        'ALTER TABLE b1."Or""der s" ADD CONSTRAINT "Or""der s_a_b_key" UNIQUE (a, b)',
        """ALTER TABLE b1."Or""der s" ADD CONSTRAINT "Or""der s_a_ok_check" CHECK (a like 'x%')""",
        'CREATE INDEX by_b ON b1."Or""der s" (b) WHERE b > 0',
    ]
