"""Java's AOT cache (JEP 514) for the broker: what lets it answer about a second after its start."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec

from migrator.errors import MigratorError
from migrator.sandbox import artifacts, cache, launch, machine
from migrator.sandbox.java import Java
from migrator.sandbox.plan import KafkaPlan, Plan

_FILE = "kafka.aot"
_DUMP_DEADLINE_S = 120.0
_EXERCISE_S = 30.0


def with_cache(kafka: KafkaPlan, java: Java, say: cache.Say) -> KafkaPlan:
    """Add the cache to the plan, made in a warm-up run the first time.

    Without a Java that can have one the plan stays as it is, and likewise if none came of the
    warm-up: the broker then starts in some seconds.
    """
    if not java.has_aot_cache:
        return kafka

    def build(folder: Path) -> None:
        say("Preparing Kafka for quick starts, once (about 10 s) ...")
        _warm_up(kafka, folder)

    key = f"{java.version}-{machine.platform_name()}-{artifacts.lock_digest('kafka.lock')}"
    try:
        file = cache.fill(f"kafka-aot-{key}", build, say) / _FILE
    except MigratorError as exc:
        # The start without the cache either works or tells better what is wrong.
        if "log" in exc.data:
            shutil.rmtree(Path(exc.data["log"]).parent.parent, ignore_errors=True)
        return kafka
    return msgspec.structs.replace(kafka, aot_cache=str(file)) if file.exists() else kafka


def _warm_up(kafka: KafkaPlan, folder: Path) -> None:
    machine.hand_over(folder)
    plan = Plan(
        kafka=msgspec.structs.replace(kafka, aot_output=str(folder / _FILE)),
        parent_pid=os.getpid(),
        stop_deadline_s=_DUMP_DEADLINE_S,
    )
    keeper = launch.start_keeper(plan)
    try:
        _exercise(keeper.ready.addresses.bootstrap_servers)
    finally:
        keeper.stop()


def _exercise(bootstrap_servers: str) -> None:
    """Use the broker once the way migrator does, so that the cache holds those classes."""
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    client: dict[str, Any] = {"bootstrap.servers": bootstrap_servers, "log_level": 0}
    admin = AdminClient(client)
    admin.create_topics([NewTopic("warm-up", 3, 1)])["warm-up"].result(_EXERCISE_S)
    producer = Producer({**client, "transactional.id": "warm-up"})
    producer.init_transactions(_EXERCISE_S)
    producer.begin_transaction()
    producer.produce("warm-up", b"value")
    producer.commit_transaction(_EXERCISE_S)
    consumer = Consumer({**client, "group.id": "warm-up", "auto.offset.reset": "earliest"})
    consumer.subscribe(["warm-up"])
    deadline = time.monotonic() + _EXERCISE_S
    while consumer.poll(0.1) is None and time.monotonic() < deadline:
        pass
    consumer.close()
