"""Take the settings' secrets out of a text that others will read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretStr

if TYPE_CHECKING:
    from migrator.settings import Settings

MASK = "***"
SHORTEST = 4
_USERINFO = re.compile(r"(?<=://)[^/\s@]*@")
_SECRET_NAME = re.compile(
    r"password|secret|token|credential|api.?key|basic.auth|private", re.IGNORECASE
)


def masked(settings: Settings, text: str) -> str:
    """The text with *** for each secret that the settings hold, and for what stands before @ in a URL."""
    for secret in sorted(set(_secrets(settings)), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _USERINFO.sub(f"{MASK}@", text)


def _secrets(settings: Settings) -> Iterator[str]:
    for name in type(settings).model_fields:
        yield from _of(getattr(settings, name))
    if settings.database.url is not None:
        from psycopg.conninfo import conninfo_to_dict

        yield from _long(
            [conninfo_to_dict(settings.database.url.get_secret_value()).get("password")]
        )


def _of(value: Any, name: str = "") -> Iterator[str]:
    match value:
        case SecretStr():
            yield from _long(_parts(value.get_secret_value()))
        case BaseModel():
            for field in type(value).model_fields:
                yield from _of(getattr(value, field), field)
        case dict():
            for key, each in value.items():
                yield from _of(each, str(key))
        case list() | tuple():
            for each in value:
                yield from _of(each, name)
        case str() if _SECRET_NAME.search(name):
            yield from _long([value])
        case _:
            pass


def _parts(secret: str) -> list[Any]:
    """The whole, and what is secret by itself: a URL's password, the token after Bearer."""
    try:
        password = urlsplit(secret).password
    except ValueError:
        password = None
    return [secret, password, unquote(password or ""), *secret.split()[1:]]


def _long(values: list[Any]) -> Iterator[str]:
    """A secret of a letter or two would take words apart."""
    yield from (str(v) for v in values if v is not None and len(str(v)) >= SHORTEST)
