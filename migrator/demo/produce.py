"""Write records to a new topic, fast and each once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from migrator.demo.records import Record
from migrator.errors import MigratorError, Refused
from migrator.kafka.topics import quiet, reason

TIMEOUT_S = 60.0
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
        MigratorError: the broker did not acknowledge every one.
    """
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            refused.append(error)

    producer = Producer({**quiet(kafka), **_WRITER, "on_delivery": delivered})
    count = 0
    for record in records:
        count += 1
        _send(producer, topic, record)
    left = producer.flush(TIMEOUT_S)
    if refused or left:
        why = refused[0].str() if refused else f"no answer within {TIMEOUT_S:.0f} s"
        raise MigratorError(
            f"{len(refused) + left} of {count} events did not reach topic {topic}: {why}"
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
