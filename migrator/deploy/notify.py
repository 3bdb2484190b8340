"""Tell people of a deployment: by Slack, email, or whatever else apprise can reach."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

from migrator.deploy.secrets import masked
from migrator.logs import logger

if TYPE_CHECKING:
    from migrator.settings import Alert, Settings

_TYPES = {"started": "info", "done": "success", "failed": "failure", "rolled-back": "warning"}


def notify(settings: Settings, kind: Alert, title: str, body: str) -> None:
    """Send an alert to every URL of [notify] that is to hear of this kind.

    It never raises: an alert that does not arrive is a warning in the log, and the deployment goes
    on. Neither the alert nor the log holds a secret of the settings.
    """
    if not settings.notify.urls or kind not in settings.notify.on:
        return
    for number, url in enumerate(settings.notify.urls, 1):
        try:
            arrived = _send(
                url.get_secret_value(), kind, masked(settings, title), masked(settings, body)
            )
        except Exception as exc:  # noqa: BLE001 - whatever a plugin raises
            arrived = type(exc).__name__
        if arrived is not None:
            logger().warning("alert not sent", url=f"[notify] urls, number {number}", cause=arrived)


def _send(url: str, kind: Alert, title: str, body: str) -> str | None:
    """Send one alert; why it did not arrive, or None."""
    # It imports all its plugins, whose deprecations are not ours to tell.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        import apprise

        # Its own log lines may hold parts of a URL.
        log = logging.getLogger("apprise")
        log.handlers, log.propagate = [logging.NullHandler()], False
        sender = apprise.Apprise()
        if not sender.add(url):
            return "apprise does not know such a URL"
        sent = sender.notify(body=body, title=title, notify_type=_TYPES[kind], body_format="text")
    return None if sent else "it was not taken"
