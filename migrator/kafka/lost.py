"""Say why an offset cannot be read any more: the topic was cut, made anew, deleted, or lost its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError

from migrator.errors import MigratorError, UsageError
from migrator.kafka import topics
from migrator.kafka.topics import TopicRange

ASK_S = 5.0
KEPT = "what was committed is kept, and live is untouched"


def explain(
    kafka: Mapping[str, Any],
    topic: str,
    partition: int,
    offset: int,
    error: KafkaError,
    *,
    topic_id: str | None,
) -> MigratorError:
    """Say what has become of `offset`, which librdkafka could not read for `error`."""
    return change(kafka, topic, partition, offset, topic_id=topic_id) or MigratorError(
        f"partition {partition} of topic {topic} cannot be read at offset {offset}: {error.str()}",
        expected=f"every record from the build's start to its captured end; {KEPT}",
        next_step="look at the topic and the client's rights; the same command goes on",
        topic=topic,
        partition=partition,
        offset=offset,
    )


def change(
    kafka: Mapping[str, Any],
    topic: str,
    partition: int,
    offset: int,
    *,
    topic_id: str | None = None,
) -> MigratorError | None:
    """What has happened to the topic that makes `offset` unreadable; None where nothing is seen."""
    data = {"topic": topic, "partition": partition, "offset": offset}
    try:
        now = topics.describe(kafka, topic, timeout_s=ASK_S)
    except UsageError:
        return MigratorError(
            f"topic {topic} was deleted while it was read, at offset {offset} of partition {partition}",
            expected=f"the topic to stay; {KEPT}",
            next_step="produce it anew, then migrator rebuild-projections --restart",
            **data,
        )
    except MigratorError:
        return None
    if topic_id is not None and now.id != topic_id:
        return MigratorError(
            f"topic {topic} was deleted and made anew while it was read",
            expected=f"topic id {topic_id}, found {now.id}: offsets of one say nothing of the other; "
            f"{KEPT}",
            next_step="migrator rebuild-projections --restart reads the new one from its start",
            **data,
            topic_id=now.id,
        )
    return _moved(now, data)


def _moved(now: TopicRange, data: dict[str, Any]) -> MigratorError | None:
    offset, partition = data["offset"], data["partition"]
    place = f"partition {partition} of topic {now.name}"
    found = next((p for p in now.partitions if p.partition == partition), None)
    if found is not None and found.low > offset:
        return MigratorError(
            f"{place} has been cut: offset {offset} is gone, the log now begins at {found.low}",
            expected="retention and delete-records to leave alone what is still to be read; "
            + KEPT,
            next_step="lengthen retention.ms and retention.bytes; then --restart "
            "--allow truncated, if the projection does not need what is gone",
            **data,
            low=found.low,
        )
    if found is not None and found.end < offset:
        return MigratorError(
            f"{place} has lost its end: it now ends at {found.end}, before offset {offset}",
            expected="no log to become shorter; an unclean leader election does that; " + KEPT,
            next_step="migrator rebuild-projections --restart reads what is left from its start",
            **data,
            end=found.end,
        )
    return None
