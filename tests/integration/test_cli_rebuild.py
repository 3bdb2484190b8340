"""What rebuild-projections prints: results on stdout, progress on stderr, one document as JSON."""

from __future__ import annotations

import json

from tests.projects import placed


def test_the_result_is_told_on_stdout_and_the_steps_on_stderr(cli, project, produce):
    produce(project.topic, [placed(n) for n in range(3)])
    first = cli("rebuild-projections", "--projection", "orders")
    assert first.exit_code == 0
    assert "orders: build 1, 3 rows from 3 events" in first.stdout
    assert "passed: totals are positive (no row)" in first.stdout
    assert "kept for rollback" not in first.stdout
    # A replay of more than five seconds, on a busy machine, tells of each partition, too.
    told = [line for line in first.stderr.splitlines() if not line.startswith(" ")]
    steps = list(dict.fromkeys(line.partition(":")[0] for line in told))
    assert steps == ["preflight", "prepare", "replay", "load", "verify", "cut-over"]
    assert "kept for rollback: build 1" in cli("rebuild-projections", "--all").stdout


def test_json_is_one_document_and_nothing_else(cli, project, produce):
    produce(project.topic, [placed(n) for n in range(3)])
    document = json.loads(cli("--json", "rebuild-projections", "--all").stdout)
    (rebuilt,) = document["projections"]
    assert (rebuilt["projection"], rebuilt["rows"], rebuilt["events"]) == ("orders", 3, 3)
    assert {result["verdict"] for result in rebuilt["results"]} == {"passed", "skipped"}
    assert document["cut_over"]["live"] == [1]
    assert set(document["seconds"]) >= {"replay", "load", "cut-over"}


def test_a_dry_run_prints_what_would_be_done(cli, project, produce, db):
    produce(project.topic, [placed(1)])
    result = cli("rebuild-projections", "--all", "--dry-run")
    assert "orders: makes a new build from up to 1 events" in result.stdout
    assert "ADD CONSTRAINT orders_pkey PRIMARY KEY (order_id);" in result.stdout
    assert result.stdout.endswith("Nothing was changed.\n")
    assert db.execute("SELECT to_regnamespace('migrator')").fetchone() == (None,)


def test_without_cut_over_it_says_what_is_left_to_do(cli, project, produce):
    produce(project.topic, [placed(1)])
    result = cli("rebuild-projections", "--all", "--no-cut-over")
    assert "Not cut over" in result.stdout
    assert "makes a new build" not in cli("rebuild-projections", "--all", "--dry-run").stdout


def test_naming_and_all_exclude_each_other(cli, project):
    assert cli("rebuild-projections", "--all", "--projection", "orders").exit_code == 2
