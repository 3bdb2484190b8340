"""The same servers as containers, where a Docker engine answers."""

from __future__ import annotations

from migrator.sandbox.plan import Addresses, ImagesPlan, Plan


def is_chosen(kind: str) -> bool:
    return kind == "docker"


def images(major: str, *, with_kafka: bool) -> ImagesPlan:
    return ImagesPlan(f"postgres:{major}", "apache/kafka:4.3.1" if with_kafka else "")


class Containers:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def start(self) -> Addresses:
        raise NotImplementedError

    def stop(self) -> None:
        pass
