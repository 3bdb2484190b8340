"""The client of Neon's API against the fake: once is once, whatever the network does."""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stderr
from datetime import UTC, datetime, timedelta

import pytest

from migrator import logs
from migrator.errors import Busy, CannotConnect, MigratorError, Refused, SettingsError
from migrator.neon import client as api
from migrator.neon import transport
from migrator.neon.client import Child
from migrator.settings import load
from tests.fake_neon.faults import FAULTS
from tests.fake_neon.server import KEY

SOON = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def neon(fake_neon):
    return fake_neon()


@pytest.fixture
def opened(neon):
    with api.opened(load().neon) as client:
        yield client


@pytest.fixture
def hasty(neon, monkeypatch):
    """A client that gives up at once."""
    monkeypatch.setenv("MIGRATOR_NEON_RETRY_S", "0")
    monkeypatch.setenv("MIGRATOR_NEON_WAIT_S", "0")
    with api.opened(load().neon) as client:
        yield client


def child(neon, name="copy", **said) -> Child:
    return Child(name, neon.project.named("main").id, {"migrator/kind": "test"}, **said)


def posts(neon, path: str) -> int:
    return sum(1 for verb, asked, _ in neon.requests if verb == "POST" and asked.endswith(path))


def test_a_branch_is_made_with_its_annotation_and_expiry_and_without_a_compute(neon, opened):
    made = opened.create_branch(child(neon, expires_at=SOON))
    assert neon.project.named("copy").annotation == {"migrator/kind": "test"}
    assert made.expires_at == SOON.replace(microsecond=0)
    assert opened.endpoints(made.id) == []


def test_a_branch_of_that_name_is_not_made_twice(neon, opened):
    first = opened.create_branch(child(neon))
    assert opened.create_branch(child(neon)).id == first.id
    assert posts(neon, "/branches") == 1


def test_a_name_that_is_another_ones_is_refused(neon, opened):
    neon.project.add("copy", annotation={"migrator/kind": "another"})
    with pytest.raises(Refused, match="another's"):
        opened.create_branch(child(neon))


def test_a_branch_of_another_parent_is_refused(neon, opened):
    neon.project.add("other")
    neon.project.add("copy", parent="other")
    with pytest.raises(Refused, match="is a child of"):
        opened.create_branch(child(neon))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_whatever_happens_to_a_request_is_done_once(neon, monkeypatch, fault, method):
    monkeypatch.setenv("MIGRATOR_NEON_TIMEOUT_S", "0.25")
    neon.slow_s = 0.5
    with api.opened(load().neon) as opened:
        neon.faults.ask(fault, method, "branches")
        made = opened.create_branch(child(neon, has_compute=True))
        assert list(neon.project.names()) == ["copy", "main"]
        assert list(neon.project.endpoints.values()).count(made.id) == 1
        assert opened.delete_branch(made.id)
    assert list(neon.project.names()) == ["main"]
    assert [met for met, _ in neon.faults.met] == [fault]


@pytest.mark.parametrize("fault", ["lost", "failed_after", "page"])
def test_after_a_lost_answer_it_is_looked_up_and_not_sent_again(neon, opened, fault):
    neon.faults.ask(fault, "POST", "branches")
    opened.create_branch(child(neon))
    assert posts(neon, "/branches") == 1


@pytest.mark.parametrize("moves", [True, False])
@pytest.mark.parametrize("fault", ["lost", "cut", "failed", "failed_after", "locked", None])
def test_a_restore_whose_answer_is_lost_happens_once(neon, opened, fault, moves):
    neon.project.restore_moves_compute = moves
    made = opened.create_branch(child(neon))
    main = neon.project.named("main").id
    if fault:
        neon.faults.ask(fault, "POST", "restore")
    after = opened.restore(main, source_id=made.id, preserve_as="main-before")
    assert list(neon.project.names()) == ["copy", "main", "main-before"]
    assert after.id == neon.project.named("main").id
    assert (after.id != main) == moves


def test_a_duplicate_that_appears_meanwhile_is_taken_for_ours_only_if_it_is(neon, opened):
    """Two pipelines create the same name at once: the second is answered with 409."""
    asked = child(neon)
    neon.change = lambda _m, path, answer: (
        {**answer, "branches": []}
        if path.endswith("/branches")
        and not posts(neon, "/branches")
        and "branches" in (answer or {})
        else answer
    )
    neon.project.add("copy", annotation={"migrator/kind": "test"})
    assert opened.create_branch(asked).name == "copy"
    assert posts(neon, "/branches") == 1


@pytest.mark.parametrize(
    "says",
    [
        {"id": "br-somebody-elses-1"},
        {"project_id": "another-project-1"},
        {"name": "main"},
        {"parent_id": "br-another-1"},
    ],
)
def test_an_answer_about_another_branch_is_refused(neon, opened, says):
    neon.change = lambda method, path, answer: (
        {**answer, "branch": {**answer["branch"], **says}}
        if method == "POST" and path.endswith("/branches")
        else answer
    )
    with pytest.raises(MigratorError, match=r"nothing was written|not there"):
        opened.create_branch(child(neon))


def test_operations_are_waited_for(neon, opened):
    neon.project.operation_s = 0.05
    made = opened.create_branch(child(neon, has_compute=True))
    assert all(o.is_over for o in neon.project.operations if o.branch_id == made.id)


def test_an_operation_that_fails_says_which(neon, opened):
    neon.project.operation_s = 0.02
    neon.project.next_outcome = "error"
    with pytest.raises(MigratorError, match="create_branch ended as error: the fake was told"):
        opened.create_branch(child(neon))


def test_an_operation_that_lasts_too_long_is_busy(neon, hasty):
    neon.project.operation_s = 60
    with pytest.raises(Busy, match="create_branch is running"):
        hasty.create_branch(child(neon))


def test_a_status_that_nobody_knows_yet_is_waited_for(neon, opened):
    neon.contract = None  # the description has no such status, and the client must bear it
    told = []

    def change(_method, path, answer):
        if path.endswith("/operations") and len(told) < 3:
            told.append([o.update(status="contemplating") for o in answer["operations"]])
        return answer

    neon.change = change
    opened.create_branch(child(neon))
    assert len(told) == 3


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("locked", Busy, "another operation runs in the project"),
        ("rate_limited", Busy, "too many requests"),
        ("unavailable", CannotConnect, "does not answer"),
        ("cut", CannotConnect, "does not answer"),
        ("failed", CannotConnect, "does not answer"),
    ],
)
def test_spent_patience_says_what_stood_in_the_way_with_the_request_id(
    neon, hasty, fault, error, says
):
    neon.faults.ask(fault, times=50)
    with pytest.raises(error, match=says) as caught:
        hasty.project()
    assert "request id " in caught.value.found
    assert fault == "cut" or neon.served[-1] in caught.value.found


def test_another_key_is_refused_and_none_is_shown(neon, monkeypatch):
    monkeypatch.setenv("MIGRATOR_NEON_API_KEY", "napi_not_the_key")
    with (
        api.opened(load().neon) as client,
        pytest.raises(CannotConnect, match="does not accept the API key") as caught,
    ):
        client.project()
    assert "napi_not_the_key" not in str(caught.value)


def test_the_key_is_in_no_log_line_no_error_and_no_repr(neon, opened, caplog):
    logs.configure(verbosity=2, log_format="json")
    caplog.set_level(logging.DEBUG)
    neon.faults.ask("failed", times=2)
    neon.faults.ask("lost", "POST", "branches")
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            made = opened.create_branch(child(neon, has_compute=True))
            uri = opened.connection_uri(made.id, database=neon.project.logical, role="postgres")
    finally:
        logs.configure()
    shown = told.getvalue() + caplog.text + repr(load()) + repr(vars(opened)) + repr(uri)
    assert "Neon answered" in told.getvalue()
    assert KEY not in shown
    assert "secret-of" not in shown
    assert "secret-of" in uri.get_secret_value()


def test_a_branch_that_matters_is_not_deleted(neon, opened):
    neon.project.add("safe", protected=True)
    neon.project.add("parent")
    neon.project.add("below", parent="parent")
    for name, why in [("main", "default"), ("safe", "protected"), ("parent", "children")]:
        with pytest.raises(Refused, match=why):
            opened.delete_branch(neon.project.named(name).id)
    assert not any(verb == "DELETE" for verb, _, _ in neon.requests)


def test_deleting_what_is_gone_is_no_error(opened):
    assert opened.delete_branch("br-gone-1") is False


def test_every_page_of_branches_is_read(neon, opened):
    for number in range(4):
        neon.project.add(f"b{number}")
    neon.page_size = 2
    assert sorted(b.name for b in opened.branches()) == ["b0", "b1", "b2", "b3", "main"]


def test_an_expiry_can_be_set_and_lifted(neon, opened):
    made = opened.create_branch(child(neon))
    opened.set_expiry(made.id, SOON)
    assert opened.branch(made.id).expires_at == SOON.replace(microsecond=0)
    opened.set_expiry(made.id, None)
    assert opened.branch(made.id).expires_at is None


def test_a_snapshot_whose_answer_is_lost_is_made_once(neon, opened):
    neon.faults.ask("lost", "POST", "snapshot")
    made = opened.create_snapshot(neon.project.named("main").id, "before")
    assert [s.id for s in opened.snapshots()] == [made.id]
    opened.delete_snapshot(made.id)
    assert opened.snapshots() == []


def test_the_rest_of_the_calls_are_understood(neon, opened):
    made = opened.create_branch(child(neon))
    endpoint = opened.compute(made.id)
    opened.start(endpoint)
    assert opened.compute(made.id).id == endpoint.id
    assert opened.compare_schema(made.id, made.parent_id, database=neon.project.logical) == ""
    assert [d.name for d in opened.databases(made.id)] == [neon.project.logical]
    assert opened.project().pg_version == 17
    assert opened.branch("br-none-1") is None


def test_an_answer_that_is_no_branch_says_which_field(neon, opened):
    neon.change = lambda _m, path, answer: {"branch": {"id": 7}} if "/branches/" in path else answer
    neon.contract = None
    with pytest.raises(MigratorError, match=r"no branch that migrator knows: .*name"):
        opened.branch(neon.project.named("main").id)


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        (None, None, None),
        ("7", None, 7.0),
        ("Tue, 24 Nov 2026 10:00:09 GMT", "Tue, 24 Nov 2026 10:00:00 GMT", 9.0),
        ("Tue, 24 Nov 2026 09:00:00 GMT", "Tue, 24 Nov 2026 10:00:00 GMT", 0.0),
        ("soon", None, None),
    ],
)
def test_retry_after_is_read_in_both_forms(value, date, seconds):
    assert transport.retry_after_s(value, date) == seconds


def test_a_longer_retry_after_than_the_patience_is_not_waited_for(neon, hasty, monkeypatch):
    monkeypatch.setattr(transport.time, "sleep", lambda _s: pytest.fail("it waited"))
    neon.faults.ask("rate_limited")
    with pytest.raises(Busy):
        hasty.project()


def test_a_branch_that_becomes_ready_later_is_waited_for(neon, opened):
    told = []

    def change(_method, path, answer):
        if "/branches/" in path and len(told) < 3:
            told.append(answer["branch"].update(current_state="init"))
        return answer

    neon.change = change
    assert opened.create_branch(child(neon)).current_state == "ready"


def test_without_a_project_or_a_key_the_error_says_what_to_set(neon, monkeypatch):
    monkeypatch.delenv("MIGRATOR_NEON_API_KEY")
    with pytest.raises(SettingsError, match="MIGRATOR_NEON_API_KEY"), api.opened(load().neon):
        pass
    monkeypatch.delenv("MIGRATOR_NEON_PROJECT_ID")
    with pytest.raises(SettingsError, match="project_id"), api.opened(load().neon):
        pass
