"""`migrator demo`: the whole story on real servers with real orders."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.demo.facts import Fact
    from migrator.demo.story import Outcome, Wishes
    from migrator.demo.telling import Change, Chapter, Facts, Line, Typed
    from migrator.sandbox.parts import Kind


@click.command("demo")
@click.option(
    "--events",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Add N made-up events to the real ones: orders placed, paid, shipped and cancelled.",
)
@click.option(
    "--sandbox",
    type=click.Choice(["auto", "embedded", "docker"]),
    default="auto",
    show_default=True,
    help="auto: containers if Docker answers and testcontainers is installed, else embedded.",
)
@click.option(
    "--postgres",
    type=click.Choice(["15", "16", "17", "18"]),
    default="18",
    show_default=True,
    help="PostgreSQL's major version.",
)
@click.option("--keep", is_flag=True, help="Leave the servers and the project standing afterwards.")
@pass_app
def command(app: App, events: int, sandbox: Kind, postgres: str, keep: bool) -> None:
    """Run the whole story on real servers with real orders.

    It starts a PostgreSQL and a Kafka of its own, writes 69,659 real purchases to a topic, applies
    migrations, rebuilds two projections, changes one and cuts over under a hammering reader, goes
    back, and checks the facts by SQL.  It needs no setting and touches nothing of yours.

    The first run downloads about 60 MB.  Exit code 1 if any fact differs or the reader saw an error.
    """
    from migrator.demo import story

    _refuse_database_url(app)
    wishes = story.Wishes(events=events, postgres=postgres, sandbox=sandbox, keep=keep)
    with _clean_end():
        outcome = story.run(wishes, _Teller(app).tell)
    app.emit(_document(outcome), _text(outcome, wishes))
    if not outcome.ok:
        raise SystemExit(1)


def _refuse_database_url(app: App) -> None:
    from migrator.errors import UsageError

    if app.database_url is not None:
        raise UsageError(
            "the demo has a database of its own and takes no --database-url",
            next_step="migrator demo",
        )


@contextmanager
def _clean_end() -> Iterator[None]:
    """Let SIGTERM leave as little behind as Ctrl-C does."""

    def end(*_: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Teller:
    """Renders the story for a person; in JSON mode on stderr."""

    def __init__(self, app: App) -> None:
        self._app = app

    def tell(self, said: Chapter | Typed | Line | Change | Facts) -> None:
        from migrator.demo.telling import Change, Chapter, Facts, Line, Typed

        match said:
            case Chapter():
                self._print(f"\n{said.number}. {said.title}", "bold")
                self._print(said.text, "dim")
            case Typed():
                self._print(f"$ {said.command}", "bold cyan")
            case Line():
                self._print(f"  {said.text}")
            case Change():
                for line in said.diff.splitlines():
                    self._print(f"  {line}", {"+": "green", "-": "red"}.get(line[:1], ""))
            case Facts():
                for line, style in _table(said.facts):
                    self._print(line, style)

    def _print(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._app.console.print(Text(text.rstrip(), style))


def _table(facts: tuple[Fact, ...]) -> list[tuple[str, str]]:
    """Each fact as an aligned line with its style."""
    rows = [("", "expected", "found", "")]
    rows += [
        (
            f"{f.source}: {f.name}",
            f"{f.expected:,}",
            _shown(f.found),
            "ok" if f.ok else "DIFFERS",
        )
        for f in facts
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        (f"  {name:<{widths[0]}}  {expected:>{widths[1]}}  {found:>{widths[2]}}  {verdict}", style)
        for name, expected, found, verdict in rows
        for style in [{"": "dim", "ok": "green"}.get(verdict, "bold red")]
    ]


def _shown(found: int | None) -> str:
    return "nothing" if found is None else f"{found:,}"


def _text(outcome: Outcome, wishes: Wishes) -> str:
    return "\n".join(["", *_verdict(outcome), *(_kept(outcome) or _next(wishes))])


def _verdict(outcome: Outcome) -> list[str]:
    seconds = outcome.seconds["all"]
    wrong = [f for f in outcome.facts if not f.ok]
    errors = sum(r.errors for r in outcome.readers)
    if outcome.ok:
        count = len(outcome.facts)
        return [
            f"All {count} facts hold, and no reader met an error. The demo took {seconds:.1f} s."
        ]
    return [
        *(f"differs: {f.source}, {f.name}: {_shown(f.found)}, not {f.expected:,}" for f in wrong),
        *([f"readers met {errors} errors"] if errors else []),
        f"The demo failed after {seconds:.1f} s.",
    ]


def _next(wishes: Wishes) -> list[str]:
    more = (
        ["  migrator demo --events 1000000  the same with a million more events"]
        if not wishes.events
        else []
    )
    return [
        "Next:",
        "  migrator demo --keep            leave servers and project standing, to try things on",
        *more,
        "  docs/demo.md                    what each chapter does",
    ]


def _kept(outcome: Outcome) -> list[str]:
    if outcome.folder is None:
        return []
    return [
        "The servers are up and the project is kept. To go on where the story ended:",
        f"  cd {outcome.folder}",
        '  eval "$(migrator sandbox up)"    # sets the variables below',
        *(f"    {name}={value}" for name, value in outcome.environment.items()),
        "  migrator status",
        "  migrator rebuild-projections --projection customers",
        "  migrator sandbox down           # and remove the folder",
    ]


def _document(outcome: Outcome) -> dict[str, Any]:
    return {
        "ok": outcome.ok,
        "events": outcome.events,
        "facts": [{**asdict(fact), "ok": fact.ok} for fact in outcome.facts],
        "readers": [asdict(reader) for reader in outcome.readers],
        "rebuilds": [asdict(each) for each in outcome.rebuilds],
        "seconds": outcome.seconds,
        "servers": outcome.servers.kind,
        "kept": None
        if outcome.folder is None
        else {"folder": str(outcome.folder), "environment": outcome.environment},
    }
