"""A projector of your own, without migrator: the SQL contract of docs/follow.md in Python.

It folds payments into public.accounts, exactly once, and shares the partitions with other processes of
its group, those of `migrator follow` among them. It takes its settings from the environment:

    DATABASE_URL, KAFKA_BOOTSTRAP_SERVERS, KAFKA_GROUP, TOPIC,
    DEFINITION_HASH   of the definition whose rows it makes: migrator status --json shows it
"""

import json
import os
import signal
import sys
import time

import psycopg
from confluent_kafka import Consumer, KafkaError, TopicPartition

PROJECTION = "accounts"
TOPIC, HASH = os.environ["TOPIC"], os.environ["DEFINITION_HASH"]
FENCED, NOT_LIVE, OVERTAKEN = "MG001", "MG002", "MG003"

PAID = """
    INSERT INTO public.accounts AS a (account_id, balance, payments, last_cents)
    VALUES (%(key)s, %(cents)s, 1, %(cents)s)
    ON CONFLICT (account_id) DO UPDATE SET balance = a.balance + excluded.balance,
        payments = a.payments + 1, last_cents = excluded.last_cents
"""
CLOSED = "DELETE FROM public.accounts WHERE account_id = %(key)s"


class Projector:
    def __init__(self):
        self.assigned, self.has_changed, self.is_stopped = [], True, False
        self.consumer = Consumer(
            {
                "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
                "group.id": os.environ["KAFKA_GROUP"],
                # As those of migrator: all members of a group must agree.
                "partition.assignment.strategy": "range",
                "session.timeout.ms": int(os.environ.get("KAFKA_SESSION_TIMEOUT_MS", "10000")),
                "heartbeat.interval.ms": int(os.environ.get("KAFKA_HEARTBEAT_MS", "3000")),
                # Where we stand is in PostgreSQL, never in Kafka.
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
            }
        )
        self.consumer.subscribe(
            [TOPIC], on_assign=self.given, on_revoke=self.taken, on_lost=self.taken
        )

    def given(self, consumer, partitions):
        self.assigned, self.has_changed = partitions, True
        consumer.assign([])  # nothing is read until `begin` has said from where

    def taken(self, consumer, _partitions):
        self.assigned, self.has_changed = [], True
        consumer.unassign()

    def run(self):
        while not self.is_stopped:
            try:
                with psycopg.connect(
                    os.environ["DATABASE_URL"],
                    autocommit=True,
                    application_name=f"{PROJECTION} projector",
                ) as conn:
                    self.follow(conn)
            except psycopg.OperationalError:  # the connection is lost: what was committed is there
                time.sleep(0.2)
        self.consumer.close()

    def follow(self, conn):
        self.has_changed = True
        while not self.is_stopped:
            if self.has_changed:
                build, next_offsets = self.begin(conn)
            messages = self.consumer.consume(500, 0.05)
            if self.has_changed:
                continue  # what was gathered may be somebody else's by now
            records = [message for message in messages if message.error() is None]
            for message in messages:
                error = message.error()
                if error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 - librdkafka's own name
                    sys.exit(f"an offset is gone: {error.str()}")
            if records and not self.commit(conn, build, next_offsets, records):
                self.has_changed = True

    def begin(self, conn):
        """Read where the live build's partitions stand, and have Kafka give us what follows."""
        with conn.transaction():
            build = self.assert_writer(conn)
            held = conn.execute(
                "SELECT partition, next_offset FROM migrator.position WHERE build = %s AND topic = %s",
                (build, TOPIC),
            ).fetchall()
        next_offsets = dict(held)
        if self.assigned:
            self.consumer.assign(
                [
                    TopicPartition(TOPIC, part.partition, next_offsets[part.partition])
                    for part in self.assigned
                ]
            )
        self.has_changed = False
        return build, next_offsets

    def commit(self, conn, build, next_offsets, records):
        """Write rows and positions in one transaction; False where we must begin anew."""
        reached = {record.partition(): record.offset() + 1 for record in records}
        try:
            with conn.transaction():
                if self.assert_writer(conn) != build:
                    return False  # a swap: go on from the positions of the build that is live now
                for partition, offset in sorted(reached.items()):
                    events = sum(record.partition() == partition for record in records)
                    conn.execute(
                        "SELECT migrator.advance(%s, %s, %s, %s, %s, %s)",
                        (build, TOPIC, partition, next_offsets[partition], offset, events),
                    )
                for record in records:
                    self.fold(conn, record)
        except psycopg.Error as exc:
            if exc.sqlstate != OVERTAKEN:
                raise
            return False  # somebody else has these partitions now, or had them a moment ago
        next_offsets.update(reached)
        return True

    @staticmethod
    def assert_writer(conn):
        """First in every transaction that writes: which build is live, if it is ours to write."""
        try:
            return conn.execute(
                "SELECT migrator.assert_writer(%s, %s)", (PROJECTION, HASH)
            ).fetchone()[0]
        except psycopg.Error as exc:
            if exc.sqlstate in (FENCED, NOT_LIVE):
                sys.exit(f"fenced: {exc.diag.message_primary}")
            raise

    @staticmethod
    def fold(conn, record):
        event, key = json.loads(record.value()), record.key().decode()
        if event["type"] == "Paid":
            conn.execute(PAID, {"key": key, "cents": event["data"]["cents"]})
        elif event["type"] == "Closed":
            conn.execute(CLOSED, {"key": key})
        else:
            sys.exit(f"no fold for {event['type']}")

    def stop(self, *_):
        self.is_stopped = True


if __name__ == "__main__":
    projector = Projector()
    signal.signal(signal.SIGTERM, projector.stop)
    signal.signal(signal.SIGINT, projector.stop)
    projector.run()
