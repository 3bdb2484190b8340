"""Start a sandbox and hold it: what the demo and the tests call."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from migrator.sandbox import launch, parts
from migrator.sandbox.cache import Say

DEFAULT_MAJOR = "18"


def _silent(_line: str) -> None:
    pass


class Sandbox:
    """Running servers. Leaving the block, or the end of this process, stops and removes them."""

    def __init__(self, keeper: launch.Keeper) -> None:
        self._keeper = keeper
        addresses = keeper.ready.addresses
        self.database_url = addresses.database_url
        self.bootstrap_servers = addresses.bootstrap_servers
        self.postgres_pid = addresses.postgres_pid
        self.kafka_pid = addresses.kafka_pid
        self.keeper_pid = keeper.ready.keeper_pid
        self.log_dir = keeper.ready.log_dir
        self.kind = keeper.ready.plan.kind

    def environment(self) -> dict[str, str]:
        """Give the variables that point migrator at the servers."""
        return environment(self.database_url, self.bootstrap_servers)

    def stop(self) -> None:
        """Stop the servers; return when no process and no folder of theirs is left."""
        self._keeper.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def environment(database_url: str, bootstrap_servers: str) -> dict[str, str]:
    variables = {"MIGRATOR_DATABASE_URL": database_url}
    if bootstrap_servers:
        variables["MIGRATOR_KAFKA_BOOTSTRAP_SERVERS"] = bootstrap_servers
    return variables


def start_sandbox(
    *,
    postgres: str = DEFAULT_MAJOR,
    kafka: bool = True,
    kind: parts.Kind = "auto",
    say: Say = _silent,
) -> Sandbox:
    """Start PostgreSQL and, unless `kafka` is false, Kafka; return when both answer.

    Args:
        postgres: the major version, 15 to 18.
        kafka: whether a broker is wanted, too.
        kind: `embedded`, `docker`, or `auto`: containers only where an engine answers.
        say: called with one plain line before each slow step.

    Raises:
        UsageError: what it needs is not installed.
        MigratorError: a server does not start; its log is kept and named.
    """
    plan = parts.make_plan(postgres, kind, say, with_kafka=kafka)
    return Sandbox(launch.start_keeper(plan))
