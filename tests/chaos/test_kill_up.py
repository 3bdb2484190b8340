"""kill -9 of `up` at random moments of a real history: the same command goes on to the same schema."""

from __future__ import annotations

import random
import signal
import subprocess

import pytest

from tests import chains
from tests.integration.test_chains import other_database, subjects  # noqa: F401 - a fixture

pytestmark = pytest.mark.chaos

KILLS = 12


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("chain", [chains.PREFECT, chains.PHOENIX], ids=lambda chain: chain.wheel)
def test_killed_at_random_moments_a_real_history_loses_no_revision_and_applies_none_twice(
    tmp_path,
    database_url,
    other_database,  # noqa: F811
    db,
    chain,
    seed,
):
    moments = random.Random(seed)
    project = chains.project(chain, tmp_path)
    for _ in range(KILLS):
        with project.run(database_url, "migrator", "up") as running:
            # Not a synchronisation: wherever it falls, the claim must hold.
            try:
                running.communicate(timeout=moments.uniform(0.5, 8.0))
            except subprocess.TimeoutExpired:
                running.send_signal(signal.SIGKILL)
                running.communicate()
            else:
                assert running.returncode == 0
    project.finish(database_url, "migrator", "up")
    project.finish(other_database, "alembic", "upgrade", "head")
    assert chains.schema(database_url) == chains.schema(other_database)
    assert len(subjects(db)) == len(set(subjects(db)))
    assert db.execute("SELECT count(*) FROM migrator.committed").fetchone() == (0,)
