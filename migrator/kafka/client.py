"""What every client of ours is told, and how its errors read."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from migrator.errors import CannotConnect

PREFETCH_KIB = 131_072
# What librdkafka needs for a message beside its bytes, none of which its own limit counts: 335 seen.
MESSAGE_BYTES = 350
FEWEST_MESSAGES = 2000


def consumer_config(
    kafka: Mapping[str, object], *, prefetch_kib: int = PREFETCH_KIB
) -> dict[str, Any]:
    """The properties of a reader that reads exactly what it is told to.

    `prefetch_kib` bounds the memory of what it holds ready, half of it for the messages' bytes and half
    for what each needs beside them; a fetch under way may pass it by a quarter, 8 MiB, or a batch.
    """
    half = prefetch_kib * 1024 // 2
    return {
        "fetch.wait.max.ms": 10,
        "fetch.queue.backoff.ms": 10,
        "queued.min.messages": max(half // MESSAGE_BYTES, FEWEST_MESSAGES),
        "queued.max.messages.kbytes": half // 1024,
        "fetch.message.max.bytes": min(8_388_608, half // 2),
        "socket.receive.buffer.bytes": 4_194_304,
        # A replay that met a restarting broker should go on soon after it is back.
        "reconnect.backoff.max.ms": 2_000,
        **kafka,
        # A group id is demanded even where no group is joined; nothing is ever committed to it.
        "group.id": f"migrator-{uuid.uuid4()}",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
    }


def quiet(kafka: Mapping[str, str]) -> dict[str, object]:
    """The properties, without librdkafka's own lines on stderr: its errors reach us as exceptions."""
    return {"log_level": 0, **kafka}


def reason(exc: KafkaException) -> str:
    error = exc.args[0]
    return str(error.str()) if isinstance(error, KafkaError) else str(error)


def cannot_connect(kafka: Mapping[str, str], exc: KafkaException) -> CannotConnect:
    where = kafka.get("bootstrap.servers", "")
    return CannotConnect(
        f"no Kafka broker answers ({where}): {reason(exc)}",
        next_step="start it or correct MIGRATOR_KAFKA_BOOTSTRAP_SERVERS; to try migrator without "
        "one: migrator sandbox up",
        brokers=where,
    )
