"""The numbers of a deployment for Prometheus, when it ends: in a textfile, or pushed to a gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from migrator.logs import logger

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from migrator.deploy.deployment import Deployment, StepRow
    from migrator.settings import Settings


def publish(settings: Settings, row: Deployment, steps: Iterable[StepRow], exit_code: int) -> None:
    """Write and push what [metrics] asks for.

    It never raises: what cannot be written or pushed is a warning in the log.
    """
    asked = settings.metrics
    if asked.textfile is None and asked.pushgateway is None:
        return
    registry = collected(row, steps, exit_code)
    if asked.textfile is not None:
        try:
            _write(settings, registry)
        except Exception as exc:  # noqa: BLE001 - a deployment must not fail by its metrics
            _warn("[metrics] textfile", exc)
    if asked.pushgateway is not None:
        try:
            _push(settings, asked.pushgateway.get_secret_value(), registry)
        except Exception as exc:  # noqa: BLE001 - as above
            _warn("[metrics] pushgateway", exc)


def collected(row: Deployment, steps: Iterable[StepRow], exit_code: int) -> CollectorRegistry:
    """The metrics of one deployment; docs/deploy.md describes each."""
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()

    def gauge(name: str, said: str, value: float, **labels: str) -> None:
        known = made.get(name) or Gauge(name, said, list(labels), registry=registry)
        made[name] = known
        (known.labels(**labels) if labels else known).set(value)

    made: dict[str, Gauge] = {}
    ended = row.ended_at or row.changed_at
    gauge("migrator_deployment_number", "The deployment", row.deployment)
    gauge("migrator_deployment_exit_code", "Exit code of migrator deploy", exit_code)
    gauge("migrator_deployment_began_timestamp_seconds", "When it began", row.began_at.timestamp())
    gauge("migrator_deployment_last_timestamp_seconds", "When it ended", ended.timestamp())
    took = (ended - row.began_at).total_seconds()
    gauge("migrator_deployment_duration_seconds", "How long it took", took)
    gauge("migrator_deployment_state", "1 for its state", 1, state=row.state, phase=row.phase)
    gauge("migrator_deployment_revisions", "Revisions of its plan", len(row.plan.revisions))
    for step in steps:
        seconds = step.seconds
        if seconds is not None:
            name = "migrator_deployment_step_duration_seconds"
            gauge(name, "How long a step took", seconds, step=step.step, outcome=step.outcome or "")
        detail = step.detail or {}
        if step.step == "cut-over" and "stall_ms" in detail:
            name = "migrator_deployment_stall_seconds"
            gauge(name, "The longest wait for the cut-over", detail["stall_ms"] / 1000)
        if step.step == "rebuild":
            for projection, rows in detail.get("rows", {}).items():
                name = "migrator_deployment_rebuilt_rows"
                gauge(name, "Rows of a rebuilt projection", rows, projection=projection)
    return registry


def _write(settings: Settings, registry: CollectorRegistry) -> None:
    from prometheus_client import write_to_textfile

    assert settings.metrics.textfile is not None
    write_to_textfile(str(settings.root / settings.metrics.textfile), registry)


def _push(settings: Settings, url: str, registry: CollectorRegistry) -> None:
    from prometheus_client import exposition

    parts = urlsplit(url)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def handler(
        url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        if parts.username is None:
            return exposition.default_handler(url, method, timeout, headers, data)
        user, password = unquote(parts.username), unquote(parts.password or "")
        return exposition.basic_auth_handler(url, method, timeout, headers, data, user, password)

    asked = settings.metrics
    exposition.push_to_gateway(
        bare, job=asked.job, registry=registry, timeout=asked.timeout_s, handler=handler
    )


def _warn(what: str, exc: Exception) -> None:
    # Its own words may hold the URL.
    logger().warning("metrics not published", where=what, cause=type(exc).__name__)
