"""Make events of payloads: older ones are lifted to the version of their class first."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec

from migrator.kafka.envelope import NoEnvelope, Versioned
from migrator.projections.events import Upcaster, upcasters_of, version_of

Decode = Callable[[Any], Any]


def payload_decoder(event: type, *, is_plain: bool = False) -> Decode:
    """Make the function that decodes the payload of an envelope into `event`.

    `is_plain` promises that all of them are JSON text without a version, as `Opener.plain` gives
    them. The function raises msgspec.ValidationError, which names the field, or NoEnvelope.
    """
    text: Decode = msgspec.json.Decoder(event).decode
    if is_plain:
        return text

    def decode(payload: Any) -> Any:
        if isinstance(payload, Versioned):
            payload = _lifted(event, payload)
        if isinstance(payload, bytes | msgspec.Raw):
            return text(payload)
        return msgspec.convert(payload, event, str_keys=True)

    return decode


def _lifted(event: type, versioned: Versioned) -> Any:
    """The payload as of the version of the class; the older one is not changed."""
    payload, version = versioned
    current, upcasters = version_of(event), upcasters_of(event)
    if version > current:
        raise NoEnvelope(
            f"version {version}, and {event.__name__} is of version {current}",
            next_step=f"say version={version} in the class of {event.__name__}, "
            "with upcasters from the older ones",
        )
    if version == current:
        return payload
    if isinstance(payload, bytes | msgspec.Raw):
        lifted = msgspec.json.decode(payload)
    else:
        lifted = copy.deepcopy(payload)
    for each in range(version, current):
        if each not in upcasters:
            raise NoEnvelope(
                f"version {version}, and no upcaster of {event.__name__} takes version {each}",
                next_step=f"write one: @upcast({event.__name__}, from_version={each})",
            )
        lifted = _upcast(event, each, upcasters[each], lifted)
    return lifted


def _upcast(event: type, version: int, upcaster: Upcaster, payload: Any) -> Any:
    name = f"the upcaster of {event.__name__} from version {version}, {upcaster.__name__}"
    if not isinstance(payload, dict):
        raise NoEnvelope(f"a payload of version {version} is no object: {payload!r:.80}")
    try:
        lifted = upcaster(payload)
    except Exception as exc:
        raise NoEnvelope(
            f"{name}, failed: {type(exc).__name__}: {exc}", next_step="correct the upcaster"
        ) from exc
    if not isinstance(lifted, dict):
        raise NoEnvelope(
            f"{name}, returned {lifted!r:.80}, expected a dict", next_step="correct the upcaster"
        )
    return lifted
