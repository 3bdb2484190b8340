"""Write records to a new topic, fast and each once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from migrator.demo.records import Record
from migrator.errors import MigratorError, Refused
from migrator.kafka import topics
from migrator.kafka.client import quiet, reason

TIMEOUT_S = 60.0
FLUSH_S = 0.5  # Ctrl-C waits so long at most
TOPIC_ALREADY_EXISTS = KafkaError.TOPIC_ALREADY_EXISTS


def make_topic(kafka: Mapping[str, str], name: str, *, partitions: int) -> None:
    """Make an empty topic that keeps everything.

    Raises:
        Refused: it is there already, so that nothing can be written to it twice.
    """
    new = NewTopic(name, partitions, 1, config={"retention.ms": "-1"})
    admin = AdminClient(quiet(kafka))
    try:
        admin.create_topics([new])[name].result(TIMEOUT_S)
    except KafkaException as exc:
        if exc.args[0].code() == TOPIC_ALREADY_EXISTS:
            raise Refused(
                f"a topic {name} is there already",
                expected="a broker without it: the demo writes each of its events once",
                next_step="migrator demo without --keep starts servers of its own",
                topic=name,
            ) from exc
        raise MigratorError(f"topic {name} cannot be made: {reason(exc)}", topic=name) from exc


def produce(kafka: Mapping[str, str], topic: str, records: Iterable[Record]) -> int:
    """Write the records in their order, each key to one partition; return how many there are.

    Raises:
        MigratorError: the broker did not take every one, once.
    """
    producer = Producer({**quiet(kafka), **_WRITER})
    count = 0
    for record in records:
        count += 1
        _send(producer, topic, record)
    _flush(producer)
    # Asked of the topic: a callback for each event is slow, and loses a Ctrl-C that falls into it.
    written = topics.describe(kafka, topic).events
    if written != count:
        raise MigratorError(
            f"topic {topic} holds {written:,} events after {count:,} were sent",
            expected="each of them, once",
            next_step="run the same command again",
            topic=topic,
        )
    return count


_WRITER = {
    "enable.idempotence": True,
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 500_000,
    "partitioner": "murmur2_random",  # as Kafka's own clients spread keys
}


def _send(producer: Producer, topic: str, record: Record) -> None:
    while True:
        try:
            producer.produce(topic, record.value, record.key)
        except BufferError:
            producer.poll(0.1)
        else:
            producer.poll(0)
            return


def _flush(producer: Producer) -> None:
    limit = time.monotonic() + TIMEOUT_S
    while producer.flush(FLUSH_S) and time.monotonic() < limit:
        pass
