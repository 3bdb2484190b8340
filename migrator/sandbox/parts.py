"""Gather what a sandbox runs on: programs from the cache, or images for Docker."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from migrator.errors import UsageError
from migrator.sandbox import aot, artifacts, containers, java, kafka, machine, postgres
from migrator.sandbox.cache import Say
from migrator.sandbox.plan import KafkaPlan, Plan, PostgresPlan

Kind = Literal["auto", "embedded", "docker"]


def make_plan(major: str, kind: Kind, say: Say, *, with_kafka: bool, standing: str = "") -> Plan:
    """Download and prepare what is not in the cache yet.

    Raises:
        UsageError: an unknown version, a missing package, no Docker engine.
        MigratorError: a download fails, or this platform has no embedded servers.
    """
    if major not in postgres.MAJORS:
        raise UsageError.unknown("PostgreSQL version", major, postgres.MAJORS)
    if containers.is_chosen(kind):
        wanted = containers.images(major, with_kafka=with_kafka)
        say(f"Starting {' and '.join(wanted.names)} (the first time pulls them) ...")
        return Plan(
            postgres_major=major,
            images=wanted,
            parent_pid=None if standing else os.getpid(),
            standing=standing,
        )
    artifacts.require_packages("filelock", "jgo")
    machine.platform_name()
    with ThreadPoolExecutor(2) as pool:
        home = pool.submit(postgres.install, major, say)
        broker = _broker(say) if with_kafka else None
    return Plan(
        postgres_major=major,
        postgres=PostgresPlan(str(home.result())),
        kafka=broker,
        parent_pid=None if standing else os.getpid(),
        standing=standing,
    )


def _broker(say: Say) -> KafkaPlan:
    runtime = java.find_java(say)
    plan = KafkaPlan(java=str(runtime.program), jars=str(kafka.install(say)))
    return aot.with_cache(plan, runtime, say)
