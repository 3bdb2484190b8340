from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from migrator.migrations.lookout import Lookout
from migrator.migrations.retry import Exhausted, Patience, Trying
from migrator.settings import Settings


class Flaky:
    """Fails as told, then returns."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    def __call__(self, _effort) -> str:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"


def run(flaky, *, left_s=600.0, heard=None):
    waited = []
    patience = Patience(left_s, pause=waited.append)
    heard = [] if heard is None else heard
    result, effort = Trying(flaky, "0001", patience, heard.append, Lookout(Settings())).patiently()
    return (result, effort.retries), waited, patience


@pytest.mark.parametrize(
    "failure", [errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure]
)
def test_a_lock_wait_a_deadlock_and_a_serialisation_failure_are_tried_again(failure):
    heard = []
    (result, retries), waited, _ = run(Flaky(failure("x"), failure("x")), heard=heard)
    assert (result, retries, len(waited)) == ("done", 2, 2)
    assert [retry.attempt for retry in heard] == [1, 2]


@pytest.mark.parametrize(
    "failure", [errors.UniqueViolation("x"), errors.QueryCanceled("x"), KeyError("x")]
)
def test_nothing_else_is_tried_again(failure):
    flaky = Flaky(failure)
    with pytest.raises(type(failure)):
        run(flaky)
    assert flaky.calls == 1


def test_it_gives_up_when_the_deadline_is_spent_and_says_how_often_it_tried():
    with pytest.raises(Exhausted, match="lock") as caught:
        run(Flaky(*[errors.LockNotAvailable("lock")] * 1000), left_s=10)
    assert 2 < caught.value.attempts < 100
    assert isinstance(caught.value.__cause__, psycopg.Error)


def test_pauses_grow_with_jitter_and_never_exceed_what_is_left():
    _, waited, patience = run(Flaky(*[errors.LockNotAvailable("x")] * 6), left_s=9)
    for attempt, pause in enumerate(waited[:5]):
        assert 0.05 * 2**attempt <= pause <= 0.1 * 2**attempt
    assert sum(waited) <= 9
    assert patience.left_s < 9


def test_the_deadline_is_one_for_all_revisions_of_a_run():
    patience = Patience(1.0, pause=lambda _s: None)
    flaky = Flaky(errors.LockNotAvailable("x"))
    Trying(flaky, "0001", patience, lambda _r: None, Lookout(Settings())).patiently()
    assert patience.left_s < 0.96
