"""Announce how a deployment begins and ends: alerts to people, numbers to Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from migrator.deploy import deployment as deployments
from migrator.deploy import metrics
from migrator.deploy.notify import notify
from migrator.deploy.steps import Began
from migrator.errors import DeployRolledBack, MigratorError
from migrator.logs import logger
from migrator.postgres.connect import connect, shown

if TYPE_CHECKING:
    from migrator.settings import Alert, Settings


@contextmanager
def announced(settings: Settings, began: Began) -> Iterator[None]:
    """Announce the deployment that the block carries out. Nothing here makes it fail."""
    row = began.deployment
    where = f"deployment {row.deployment} on {shown(settings.conninfo) or 'PG*'}"
    plan = [f"revision {each.revision} {each.message}".rstrip() for each in row.plan.revisions]
    plan += [f"projection {each.projection}: {each.why}" for each in row.plan.projections]
    goes = f"goes on at {row.step}" if began.resumed else "begins"
    notify(settings, "started", f"{where} {goes}", "\n".join([f"by {row.client}", *plan]))
    try:
        yield
    except MigratorError as exc:
        kind: Alert = "rolled-back" if isinstance(exc, DeployRolledBack) else "failed"
        did = "was rolled back" if kind == "rolled-back" else "failed"
        _ended(settings, row.deployment, exc.exit_code)
        notify(settings, kind, f"{where} {did} (exit code {exc.exit_code})", str(exc))
        raise
    except Exception as exc:
        _ended(settings, row.deployment, MigratorError.exit_code)
        notify(settings, "failed", f"{where} failed", type(exc).__name__)
        raise
    state = _ended(settings, row.deployment, 0)
    did = "stops as asked" if state == "stopped" else "is done"
    notify(settings, "done", f"{where} {did}", "\n".join(plan))


def _ended(settings: Settings, number: int, exit_code: int) -> str | None:
    """Publish the numbers; the state it is in, or None where the database does not tell."""
    try:
        with connect(settings, "deploy", autocommit=True) as conn:
            row = deployments.numbered(conn, number)
            steps = deployments.steps(conn, number).values()
    except Exception as exc:  # noqa: BLE001 - what ended the deployment is what must be told
        logger().warning("how the deployment ended cannot be read", cause=type(exc).__name__)
        return None
    metrics.publish(settings, row, steps, exit_code)
    return row.state
