"""Upcasters: an older payload reaches its class through a chain, and a broken chain is said."""

from __future__ import annotations

import json
import textwrap
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from migrator import Event, upcast
from migrator.errors import UsageError
from migrator.kafka.decode import Opener
from migrator.kafka.envelope import NoEnvelope, Versioned
from migrator.projections import registry
from migrator.projections.events import DefinitionError, check_upcasters, upcasters_of
from migrator.projections.payload import payload_decoder
from migrator.settings import Topic


class Shipped(Event, version=3):
    carrier: str
    parcels: int
    weight: Decimal = Decimal(0)


@upcast(Shipped, from_version=1)
def add_carrier(payload):
    return {**payload, "carrier": "unknown"}


@upcast(Shipped, from_version=2)
def count_parcels(payload):
    payload["parcels"] = len(payload.pop("ids", [1]))
    return payload


class Cancelled(Event, version=3):
    reason: str


@upcast(Cancelled, from_version=2)
def explain(payload):
    return {"reason": payload["why"]}


def fold(event: type, record: dict[str, Any], topic: Topic | None = None, headers=None) -> Any:
    """Open a record and decode its payload, as a worker does."""
    opener = Opener(topic or Topic(), [event])
    envelope = opener.open(json.dumps(record).encode(), lambda: headers)
    return payload_decoder(event)(envelope.payload)


def shipped(**record):
    return fold(Shipped, {"type": "Shipped", **record})


@pytest.mark.parametrize(
    ("version", "data", "expected"),
    [
        ({"version": 1}, {}, Shipped(carrier="unknown", parcels=1)),
        ({}, {"ids": [4, 5]}, Shipped(carrier="unknown", parcels=2)),
        ({"version": None}, {}, Shipped(carrier="unknown", parcels=1)),
        ({"version": "2"}, {"carrier": "dhl"}, Shipped(carrier="dhl", parcels=1)),
        ({"version": 3}, {"carrier": "dhl", "parcels": 7}, Shipped(carrier="dhl", parcels=7)),
    ],
)
def test_a_payload_is_lifted_from_its_version_to_that_of_its_class(version, data, expected):
    assert shipped(**version, data=data) == expected


def test_a_decimal_of_the_current_version_keeps_every_digit():
    value = b'{"type": "Shipped", "version": 3, "data": '
    value += b'{"carrier": "a", "parcels": 1, "weight": 0.12345678901234567890}}'
    envelope = Opener(Topic(), [Shipped]).open(value, lambda: None)
    event = payload_decoder(Shipped)(envelope.payload)
    assert event.weight == Decimal("0.12345678901234567890")


def test_the_version_may_lie_in_a_header():
    topic = Topic(version="header:v")
    record = {"type": "Shipped", "data": {"carrier": "dhl"}}
    assert fold(Shipped, record, topic, [("v", b"2")]).parcels == 1


def test_a_document_that_two_classes_share_is_not_changed_by_an_upcaster():
    document = {"ids": [1, 2], "carrier": "dhl"}
    assert payload_decoder(Shipped)(Versioned(document, 2)).parcels == 2
    assert document == {"ids": [1, 2], "carrier": "dhl"}


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (4, "version 4, and Shipped is of version 3"),
        (0, "version is no version: 0"),
        (-1, "version is no version: -1"),
        ("two", "version is no version: 'two'"),
        ("", "version is no version: ''"),
        ("²", "version is no version"),
        (1.5, "Expected `int | str | null`, got `float`"),
        ([], "got `array`"),
    ],
)
def test_a_version_that_cannot_be_is_said(version, said):
    with pytest.raises(NoEnvelope) as caught:
        shipped(version=version, data={"carrier": "a", "parcels": 1})
    assert said in str(caught.value)


def test_a_record_older_than_the_chain_is_said_with_what_to_write():
    with pytest.raises(NoEnvelope, match="no upcaster of Cancelled takes version 1") as caught:
        fold(Cancelled, {"type": "Cancelled", "version": 1, "data": {}})
    assert caught.value.next_step == "write one: @upcast(Cancelled, from_version=1)"


def test_an_upcaster_that_fails_is_named():
    with pytest.raises(NoEnvelope, match=r"from version 2, explain, failed: KeyError: 'why'"):
        fold(Cancelled, {"type": "Cancelled", "version": 2, "data": {}})


def test_an_upcaster_that_returns_nothing_is_named(monkeypatch):
    monkeypatch.setitem(upcasters_of(Cancelled), 2, count_nothing)
    with pytest.raises(NoEnvelope, match="count_nothing, returned None, expected a dict"):
        fold(Cancelled, {"type": "Cancelled", "version": 2, "data": {}})


def count_nothing(payload):
    """As an upcaster that changes its payload and forgets to return it."""


def test_a_payload_that_is_no_object_reaches_no_upcaster():
    with pytest.raises(NoEnvelope, match=r"a payload of version 1 is no object: \[1\]"):
        shipped(data=[1])


def test_a_lifted_payload_that_does_not_fit_names_its_field():
    with pytest.raises(
        msgspec.ValidationError, match=r"Expected `str`, got `int` - at `\$.carrier`"
    ):
        shipped(version=2, data={"carrier": 7})


def test_without_a_version_anywhere_the_quick_way_is_taken():
    class Plain(Event):
        pass

    assert Opener(Topic(), [Plain]).plain is not None
    assert Opener(Topic(), [Plain, Shipped]).plain is None


# What is refused when classes and upcasters are defined


@pytest.mark.parametrize("version", [0, -1, True, "2", 1.0, None])
def test_a_version_of_a_class_is_a_whole_number_from_1(version):
    with pytest.raises(DefinitionError, match="event Odd says version="):
        type(Event)("Odd", (Event,), {}, version=version)


@pytest.mark.parametrize("version", [0, 3, 4, True, "1", None])
def test_an_upcaster_lifts_from_an_older_version(version):
    with pytest.raises(DefinitionError, match="an older version: 1 to 2"):
        upcast(Shipped, from_version=version)


def test_a_class_without_a_version_has_no_upcasters():
    class Plain(Event):
        pass

    with pytest.raises(DefinitionError, match="the class has no version="):
        upcast(Plain, from_version=1)


@pytest.mark.parametrize("event", [dict, "Shipped", None])
def test_only_events_have_upcasters(event):
    with pytest.raises(DefinitionError, match="is no event"):
        upcast(event, from_version=1)


def test_one_upcaster_a_version():
    with pytest.raises(DefinitionError, match="two upcasters from version 1: add_carrier and expl"):
        upcast(Shipped, from_version=1)(explain)


def takes_two(payload, meta):
    return payload


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda payload: payload, "a function of a module"),
        (dict, "a function of a module"),
        (takes_two, "does not take one parameter"),
    ],
)
def test_an_upcaster_is_a_function_of_a_module_with_one_parameter(function, said):
    with pytest.raises(DefinitionError) as caught:
        upcast(Shipped, from_version=1)(function)
    assert said in str(caught.value)


def test_a_gap_in_a_chain_is_refused_with_the_missing_upcaster():
    class Gapped(Event, version=5):
        pass

    for version in (1, 3):
        upcast(Gapped, from_version=version)(add_carrier)
    with pytest.raises(DefinitionError, match="none takes version 2, 4") as caught:
        check_upcasters([Gapped])
    assert "@upcast(Gapped, from_version=2)" in caught.value.expected


def test_a_chain_may_begin_late_or_not_at_all():
    class Bare(Event, version=3):
        pass

    check_upcasters([Cancelled, Bare, Shipped])


# The folder

FILE = """
    from migrator import Event, Projection, on, upcast
    from sqlalchemy.orm import Mapped, mapped_column

    class Placed(Event, version=2):
        total: int

    class Order(Projection, topic="orders"):
        __tablename__ = "orders"
        order_id: Mapped[str] = mapped_column(primary_key=True)
        total: Mapped[int]

        @on(Placed)
        def placed(self, event: Placed) -> None:
            self.total = event.total
"""
UPCASTERS = """
    from migrator import upcast
    from projections.orders import Placed

    RATE = 100

    @upcast(Placed, from_version=1)
    def in_cents(payload: dict) -> dict:
        return {"total": payload["amount"] * RATE}
"""


@pytest.fixture
def load(tmp_path):
    """`load(**files)`: the hash of `orders` as the files, without their ending, define it."""
    folder = tmp_path / "projections"

    def loaded(**files):
        folder.mkdir(exist_ok=True)
        for name, source in files.items():
            (folder / f"{name}.py").write_text(textwrap.dedent(source))
        return registry.load(folder)["orders"].hash

    return loaded


def test_an_upcaster_is_part_of_the_hash_wherever_it_is_written(load):
    alone = load(orders=FILE)
    lifted = load(orders=FILE, upcasters=UPCASTERS)
    assert alone != lifted
    assert load(upcasters=UPCASTERS.replace("* RATE", "* 10")) != lifted
    assert load(upcasters=UPCASTERS.replace("RATE = 100", "RATE = 10")) != lifted
    assert load(upcasters=UPCASTERS.replace("return", "# lift it\n        return")) == lifted
    # A file that is read before the event's own one counts the same.
    load(upcasters="")
    assert load(a_first=UPCASTERS) != alone


def test_the_version_of_an_event_is_part_of_the_hash(load):
    assert load(orders=FILE) != load(orders=FILE.replace("version=2", "version=3"))


def test_a_folder_with_a_gap_in_a_chain_does_not_load(load):
    source = FILE.replace("version=2", "version=3") + UPCASTERS.split("Placed\n", 1)[1]
    with pytest.raises(UsageError, match="none takes version 2"):
        load(orders=source)


def test_a_folder_can_be_read_twice_over_events_that_stay(load):
    source = UPCASTERS.replace(
        "projections.orders import Placed", "tests.unit.test_upcast import X"
    )
    source = source.replace("Placed", "Stays").replace("import X", "import Stays")
    assert load(orders=FILE, upcasters=source) == load(orders=FILE, upcasters=source)


class Stays(Event, version=2):
    pass
