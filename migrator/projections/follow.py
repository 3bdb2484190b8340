"""Follow projections: a projector each, in a thread of its own, until all end or one fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING

from migrator.kafka import topics
from migrator.kafka.group import Place
from migrator.postgres import ledger
from migrator.postgres.connect import connect
from migrator.projections import build as builds
from migrator.projections import registry
from migrator.projections.catch_up import lag
from migrator.projections.health import served
from migrator.projections.keep_hot import keep_hot
from migrator.projections.projector import Projector
from migrator.projections.registry import Registered
from migrator.projections.vitals import Listener, Metrics, Vitals

if TYPE_CHECKING:
    from migrator.settings import Settings

LOOK_S = 0.2


@dataclass(frozen=True)
class Options:
    """What the command line may ask for beside the names; `port` 0 is any that is free."""

    waits: bool = False
    until_caught_up: bool = False
    keep_hot: bool = False
    host: str = "0.0.0.0"  # noqa: S104 - probes come from outside
    port: int | None = None


def follow(
    settings: Settings,
    names: Sequence[str],
    options: Options,
    stop: Event,
    *,
    listener: Listener = lambda _said: None,
) -> dict[str, int]:
    """Keep the named projections current, all of the folder where none is named.

    Until `stop` is set: then each finishes its batch, and leaves its group. Returns how many events
    were applied, by projection.

    Raises:
        UsageError: an unknown projection, or a port that cannot be had.
        Fenced: a build of another definition is live, and it shall not wait.
        MigratorError: an event, a topic or a table stops a projector; the others are stopped, too.
    """
    known = registry.load(settings.projections_dir)
    chosen = registry.choose(known, tuple(names or sorted(known)))
    metrics = Metrics()
    vitals = {
        each.name: Vitals(each.name, metrics, settings.follow.ready_lag_events, listener)
        for each in chosen
    }
    until = _ends(settings, chosen) if options.until_caught_up else None
    with ExitStack() as stack:
        if options.port is not None:
            port = stack.enter_context(
                served(options.host, options.port, metrics, list(vitals.values()))
            )
            listener({"event": "serving", "host": options.host, "port": port})
        projectors = [
            Projector(
                settings,
                each,
                vitals[each.name],
                stop,
                # Whose build is archived feeds it on, when that is what it is there for.
                waits=options.waits or options.keep_hot,
                until=until,
            )
            for each in chosen
        ]
        hot = [
            lambda each=each: keep_hot(settings, each, vitals[each.name], stop)
            for each in chosen
            if options.keep_hot
        ]
        _run([projector.run for projector in projectors], hot, stop)
    return {each.name: vitals[each.name].events for each in chosen}


@dataclass(frozen=True)
class Foreseen:
    """What a projector would find: the live build, and why it would not follow it, if so."""

    projection: str
    build: int | None
    is_ours: bool
    lag_events: int


def foresee(settings: Settings, names: Sequence[str]) -> list[Foreseen]:
    """Say what `follow` would begin with; read-only.

    Raises:
        UsageError: an unknown projection or topic.
        CannotConnect: PostgreSQL or Kafka does not answer.
    """
    known = registry.load(settings.projections_dir)
    chosen = registry.choose(known, tuple(names or sorted(known)))
    ends = _ends(settings, chosen)
    found = []
    with connect(settings, "plan") as conn:
        conn.read_only = True
        has_ledger = ledger.exists(conn)
        for each in chosen:
            live = builds.find(conn, each.name, ["live"]) if has_ledger else []
            build = next(iter(live), None)
            behind = lag(conn, build, ends) if build else 0
            is_ours = build is not None and build.definition_hash == each.hash
            found.append(Foreseen(each.name, build.build if build else None, is_ours, behind))
    return found


def _ends(settings: Settings, chosen: Sequence[Registered]) -> dict[Place, int]:
    names = dict.fromkeys(name for each in chosen for name in each.definition.topics)
    return {
        (name, part.partition): part.end
        for name in names
        for part in topics.describe(settings.kafka_config, name).partitions
    }


def _run(
    foreground: Sequence[Callable[[], None]], background: Sequence[Callable[[], None]], stop: Event
) -> None:
    """Run all at a time; the first that fails stops the others, and the last of the foreground all."""
    failed: list[BaseException] = []

    def guarded(run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as exc:  # noqa: BLE001 - it is raised by the main thread
            failed.append(exc)
            stop.set()

    def started(runs: Sequence[Callable[[], None]]) -> list[Thread]:
        threads = [Thread(target=guarded, args=(run,)) for run in runs]
        for thread in threads:
            thread.start()
        return threads

    behind, before = started(background), started(foreground)
    for thread in before:
        while thread.is_alive():
            thread.join(LOOK_S)  # in turns, so that signals are heard
    stop.set()
    for thread in behind:
        thread.join()
    if failed:
        raise failed[0]
