"""Flink SQL: batch over the whole topic, in Flink's own SQL client with a cluster within its process.

The jars are those of Flink's Python package, whose Python is not needed.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench import log
from bench.peers.model import ENGINES, HERE, PARALLEL, Peer, jars, java_home, jdbc_url, user

# What Flink's own start scripts open for a Java of 17 or newer.
OPENED = ("lang", "net", "io", "nio", "lang.reflect", "text", "time", "util", "util.concurrent")


def peer(brokers: str, database_url: str, memory: str, scratch: Path) -> Peer:
    """Its SQL and settings are written to the folder `scratch`, which must outlive the runs."""
    (flink,) = (ENGINES / "flink").glob("lib/python3*/site-packages/pyflink")
    own = [*flink.glob("lib/*.jar"), *flink.glob("opt/*.jar")]
    name, password = user(database_url)
    values = {
        "brokers": brokers,
        "topic": log.TOPIC,
        "url": jdbc_url(database_url),
        "user": name,
        "password": password,
        "table": "by_flink",
        "parallel": PARALLEL,
    }
    for source, file in (("flink.sql", "job.sql"), ("flink.yaml", "config.yaml")):
        text = (HERE / source).read_text(encoding="utf-8").format(**values)
        (scratch / file).write_text(text, encoding="utf-8")
    command = [
        str(java_home() / "bin" / "java"),
        f"-Xmx{memory}",
        *(f"--add-opens=java.base/java.{each}=ALL-UNNAMED" for each in OPENED),
        "-cp",
        os.pathsep.join(map(str, [*own, *jars("flink.lock")])),
        "org.apache.flink.table.client.SqlClient",
        "--file",
        str(scratch / "job.sql"),
    ]
    environment = {"FLINK_CONF_DIR": str(scratch)}
    return Peer("Flink SQL batch", "by_flink", command, environment, key_first=True)
