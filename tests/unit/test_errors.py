"""Errors: found, expected, next; and whole after a process boundary."""

from __future__ import annotations

import pickle

from migrator.errors import MigratorError, Refused, UsageError


def test_a_message_says_found_expected_and_next():
    error = Refused("two heads", expected="one", next_step="merge them", heads=["a", "b"])
    assert str(error) == "two heads\nexpected: one\nnext: merge them"


def test_an_error_keeps_its_kind_and_data_over_a_process_boundary():
    error = Refused("x", expected="y", next_step="z", offset=7)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is Refused
    assert again.as_json() == error.as_json()


def test_the_nearest_names_are_offered_and_else_all_of_them():
    assert UsageError.unknown("revision", "0013", ["0012", "9999"]).expected == "did you mean 0012?"
    assert UsageError.unknown("topic", "zzz", ["b", "a"]).expected == "one of: a, b"
    assert "no topic at all" in UsageError.unknown("topic", "zzz", []).expected


def test_every_kind_has_an_exit_code_of_its_own_documented_meaning():
    def kinds(cls):
        return {cls} | {k for sub in cls.__subclasses__() for k in kinds(sub)}

    assert {kind.exit_code for kind in kinds(MigratorError)} == {1, 2, 3, 4, 5, 7, 8}
