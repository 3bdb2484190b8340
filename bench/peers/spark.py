"""Spark: batch over the whole topic, grouped by order, written by JDBC."""

from __future__ import annotations

from bench import log
from bench.peers.model import ENGINES, HERE, PARALLEL, Peer, jars, java_home, jdbc_url, user


def peer(brokers: str, database_url: str, memory: str) -> Peer:
    python = str(ENGINES / "spark" / "bin" / "python")
    name, password = user(database_url)
    job = [
        str(HERE / "spark_job.py"),
        f"--brokers={brokers}",
        f"--topic={log.TOPIC}",
        f"--url={jdbc_url(database_url)}",
        f"--user={name}",
        f"--password={password}",
        "--table=by_spark",
        f"--memory={memory}",
        f"--parallel={PARALLEL}",
        f"--jars={','.join(map(str, jars('spark.lock')))}",
    ]
    environment = {
        "JAVA_HOME": str(java_home()),
        "PYSPARK_PYTHON": python,
        "SPARK_LOCAL_IP": "127.0.0.1",
        # What is set for ours is not for its Python.
        "PYTHONPATH": "",
    }
    return Peer("Spark batch", "by_spark", [python, *job], environment)
