"""Client and fake keep to Neon's published description; a key that is not in it is a failure."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest

from migrator.neon import client as api
from migrator.neon.client import Child
from migrator.settings import load
from tests.fake_neon import openapi


@pytest.fixture(scope="session")
def contract():
    try:
        return openapi.contract()
    except openapi.Unavailable as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"Neon's description of its API cannot be had: {exc}")


@pytest.fixture
def neon(fake_neon):
    return fake_neon()


def test_every_call_of_the_client_is_held_to_the_description(contract, neon):
    """What the fixture's end asserts: no exchange has broken it."""
    main = neon.project.named("main").id
    soon = datetime.now(UTC) + timedelta(days=1)
    with api.opened(load().neon) as client:
        made = client.create_branch(
            Child("copy", main, {"migrator/kind": "test"}, expires_at=soon, has_compute=True)
        )
        client.set_expiry(made.id, None)
        client.start(client.compute(made.id))
        client.connection_uri(made.id, database=neon.project.logical, role="postgres")
        client.compare_schema(made.id, main, database=neon.project.logical)
        bare = client.create_branch(Child("bare", main, {}))
        client.compute(bare.id)
        client.databases(bare.id)
        client.project()
        snapshot = client.create_snapshot(main, "one")
        client.delete_snapshot(snapshot.id)
        client.restore(main, source_id=made.id, preserve_as="before", source_lsn="0/1")
        client.delete_branch(bare.id)
    used = {route.removeprefix("/projects/{project_id}") for _, route in contract.used}
    assert neon.contract is contract
    assert used >= {
        "",
        "/branches",
        "/branches/{branch_id}",
        "/branches/{branch_id}/restore",
        "/branches/{branch_id}/endpoints",
        "/branches/{branch_id}/databases",
        "/branches/{branch_id}/compare_schema",
        "/branches/{branch_id}/snapshot",
        "/snapshots",
        "/snapshots/{snapshot_id}",
        "/endpoints",
        "/endpoints/{endpoint_id}/start",
        "/operations",
        "/connection_uri",
    }


HEADERS = {"Authorization": "Bearer x", "Content-Type": "application/json"}
BRANCHES = "/projects/p-1/branches"


@pytest.mark.parametrize(
    ("query", "body", "says"),
    [
        ({}, b'{"branch": {"name": "a", "expire_at": "2026-11-24T10:00:00Z"}}', "expire_at"),
        ({}, b'{"branch": {"name": ""}}', "too short|non-empty"),
        ({}, b'{"endpoints": [{"type": "read_only", "min_cu": 1}]}', "min_cu"),
        ({}, b'{"annotation": {}}', "annotation"),
        ({}, b'{"branch": {"expires_at": "tomorrow"}}', "date-time"),
        ({"name": "a"}, b"{}", "name is not described"),
    ],
)
def test_a_key_that_is_not_described_breaks_the_contract(contract, query, body, says):
    (wrong,) = contract.request("POST", BRANCHES, query, HEADERS, body)
    assert any(each in wrong for each in says.split("|"))


def test_an_answer_without_a_field_that_is_promised_breaks_the_contract(contract):
    wrong = contract.response("GET", f"{BRANCHES}/br-1", 200, {"branch": {"id": "br-1"}})
    assert any("'project_id' is a required property" in each for each in wrong)


def test_a_status_that_is_not_described_breaks_the_contract(contract):
    assert contract.response("POST", BRANCHES, 200, {}) != []
