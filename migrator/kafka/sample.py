"""Read a few stretches of every partition, to know a topic without reading all of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from migrator.errors import MigratorError
from migrator.kafka import lost
from migrator.kafka.client import consumer_config, reason
from migrator.kafka.log import END_OF_PARTITION, Slice
from migrator.kafka.topics import TopicRange

ROUNDS = 8
POLL_S = 0.1
QUIET_S = 30.0
_CONFIG: dict[str, object] = {
    # A stretch is small: what is fetched beyond it is thrown away.
    "fetch.message.max.bytes": 65_536,
    # A smaller queue is soon full of what precedes a stretch in its batch; each pause costs 10 ms.
    "queued.min.messages": 100_000,
    "fetch.queue.backoff.ms": 1,
}


def plan(topic: TopicRange, events: int) -> list[list[Slice]]:
    """Choose about `events` offsets in rounds, each with at most one stretch of every partition.

    The first round has the partitions' beginnings, the last their ends, the others lie evenly
    between. A partition that holds no more than its share is taken whole. Pure.
    """
    if events == 0:
        return []
    filled = [p for p in topic.partitions if p.end > p.low]
    rounds: list[list[Slice]] = [[] for _ in range(ROUNDS)]
    share = max(events // max(len(filled), 1), ROUNDS)
    size = share // ROUNDS
    for part in filled:
        span = part.end - part.low
        if span <= share:
            rounds[0].append(Slice(part.partition, part.low, part.end))
            continue
        for number, stretch in enumerate(rounds):
            start = part.low + number * (span - size) // (ROUNDS - 1)
            stretch.append(Slice(part.partition, start, start + size))
    return [each for each in rounds if each]


def read(
    kafka: Mapping[str, object], topic: TopicRange, rounds: Sequence[Sequence[Slice]]
) -> Iterator[tuple[Slice, list[Message]]]:
    """Yield each stretch with the committed records in it, by one client.

    Raises:
        MigratorError: a partition cannot be read.
    """
    if not rounds:
        return
    consumer = Consumer({**consumer_config(kafka, prefetch_kib=4096), **_CONFIG})
    try:
        for parts in rounds:
            yield from _round(consumer, kafka, topic, parts)
    except KafkaException as exc:
        raise MigratorError(
            f"topic {topic.name} cannot be read: {reason(exc)}", topic=topic.name
        ) from exc
    finally:
        consumer.close()


def _round(
    consumer: Consumer, kafka: Mapping[str, object], topic: TopicRange, parts: Sequence[Slice]
) -> Iterator[tuple[Slice, list[Message]]]:
    consumer.assign([TopicPartition(topic.name, p.partition, p.start) for p in parts])
    open_parts = {p.partition: p for p in parts}
    held: dict[int, list[Message]] = {p.partition: [] for p in parts}
    heard_at = time.monotonic()
    while open_parts:
        # One by one: for a batch, librdkafka would wait until it is full.
        message = consumer.poll(POLL_S)
        if message is not None:
            heard_at = time.monotonic()
            part = open_parts.get(message.partition() or 0)
            if part is not None and _ends(message, part, held[part.partition], kafka, topic):
                del open_parts[part.partition]
        elif time.monotonic() - heard_at > QUIET_S:
            raise MigratorError(
                f"nothing came from partitions {sorted(open_parts)} of topic {topic.name} "
                f"for {QUIET_S:.0f} s",
                next_step="look at the brokers, then run the same command again",
                topic=topic.name,
            )
    for part in parts:
        yield part, held[part.partition]


def _ends(
    message: Message,
    part: Slice,
    held: list[Message],
    kafka: Mapping[str, object],
    topic: TopicRange,
) -> bool:
    """Keep a record of the stretch; True where nothing more of the stretch can come."""
    error, offset = message.error(), message.offset() or 0
    if error is not None:
        if error.code() == END_OF_PARTITION:
            return True
        raise lost.explain(kafka, topic.name, part.partition, part.start, error, topic_id=topic.id)
    if part.start <= offset < part.end:
        held.append(message)
    return offset >= part.end - 1
