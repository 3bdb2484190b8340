"""`migrator rehearse`: the pending deployment on a throw-away copy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.deploy.copies import By
    from migrator.deploy.rehearse import Rehearsal, Replay
    from migrator.migrations.rehearse import Rehearsed
    from migrator.migrations.revision import Phase
    from migrator.migrations.stand import Act


@click.command("rehearse")
@click.option(
    "--phase",
    type=click.Choice(["expand", "contract"]),
    default="expand",
    help="Which deployment: its revisions, and with expand the changed projections.  [default: expand]",
)
@click.option(
    "--copy",
    "by",
    type=click.Choice(["branch", "template", "dump", "schema"]),
    help="How the copy is made: a Neon branch; by PostgreSQL itself, while nobody is connected; by "
    "pg_dump, beside traffic; or of the schema alone.  [default: branch on Neon, elsewhere template]",
)
@click.option("--keep", is_flag=True, help="Leave the copy, to look at; drop it yourself.")
@click.option(
    "--allow",
    metavar="RULE",
    multiple=True,
    help="As in up and rebuild-projections: go on although this rule forbids it.  May be repeated.",
)
@click.option(
    "--accept-diff",
    metavar="REASON",
    help="As in rebuild-projections: make the build live although its rows are not those of live.",
)
@click.option(
    "--max-lock-ms",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MS",
    help="The longest that a lock may keep readers or writers out.  [default: [rehearsal] max_lock_ms]",
)
@click.option(
    "--max-rebuild-s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="The longest that the rebuild may take.  [default: [rehearsal] max_rebuild_s, or no limit]",
)
@click.option(
    "--report",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write the report to FILE, as Markdown.",
)
@pass_app
def command(
    app: App,
    phase: Phase,
    by: By | None,
    keep: bool,
    allow: tuple[str, ...],
    accept_diff: str | None,
    max_lock_ms: float | None,
    max_rebuild_s: float | None,
    file: Path | None,
) -> None:
    """Run the pending deployment on a throw-away copy of the database, and say what to expect.

    Each revision is applied, undone by its rollback script, compared with what was before, and applied
    again; changed projections are rebuilt from the real topics, checked and cut over.  The copy is
    dropped at the end.  The database itself gets one row with the outcome.

    The exit code is 3 where production would meet a problem.
    """
    from migrator.deploy import copies, rehearse
    from migrator.errors import Refused

    options = rehearse.Options(
        phase=phase,
        keep=keep,
        allow=frozenset(allow),
        max_lock_ms=max_lock_ms,
        max_rebuild_s=max_rebuild_s,
        accept_diff=accept_diff,
    )
    not_recorded: BaseException | None = None
    try:
        with copies.opened(app.settings, by, keep=keep) as maker:
            done = rehearse.rehearse(app.settings, maker, options, say=app.say)
    except rehearse.NotRecorded as exc:
        done, not_recorded = exc.rehearsal, exc.__cause__
    text = "\n".join(_lines(done))
    if file is not None:
        file.write_text(f"```\n{text}\n```\n", encoding="utf-8")
    recorded: dict[str, Any] = {"rehearsal": done.number}
    if not_recorded is not None:
        recorded["not_recorded"] = str(not_recorded)
    app.emit(done.as_json() | recorded, text)
    if not_recorded is not None:
        app.say("The outcome could not be recorded:")
        raise not_recorded
    if not done.passed:
        raise SystemExit(Refused.exit_code)


def _lines(done: Rehearsal) -> list[str]:
    if done.copy is None:
        return ["Nothing is pending: there is nothing to rehearse."]
    lines = [f"Rehearsed on {done.copy.how}, in {done.seconds:.1f} s", ""]
    for each in done.revisions:
        lines += _revision(each)
    if done.not_reached:
        lines.append(f"not reached: {', '.join(done.not_reached)}")
    if done.replay is not None:
        lines += _replay(done.replay)
    for problem in done.problems:
        first, *rest = problem.found.splitlines()
        lines += [
            "",
            f"problem ({problem.kind}): {first}",
            *rest,
            f"  expected: {problem.expected}",
            f"  next: {problem.next_step}",
        ]
    lines += ["", "A copy cannot tell:", *(f"  {each}" for each in done.cannot_tell), ""]
    if done.kept:
        lines.append(f"The copy is kept; when you have looked: {done.copy.to_drop}")
    count = len(done.problems)
    verdict = f"{count} problem{'' if count == 1 else 's'} found" if count else "No problem found"
    return [*lines, f"{verdict}; plan {done.plan.hash[:12]}."]


def _revision(each: Rehearsed) -> list[str]:
    lines = [str(each.revision)]
    if each.up is None:
        return [*lines, "  failed"]
    lines += [f"  {line}" for line in _act("up", each.up)]
    lines.append(f"  rollback script: {each.proof}")
    if each.rollback is not None:
        lines += [f"  {line}" for line in _act("rollback", each.rollback)]
    return lines


def _act(name: str, act: Act) -> list[str]:
    from migrator.projections.preflight import size_of

    measured = act.measured
    strongest = (
        f"strongest lock {measured.strongest}" if measured.strongest else "locks nothing of before"
    )
    lines = [f"{name}: {measured.took_ms:,.0f} ms, {strongest}, WAL {size_of(act.wal_bytes)}"]
    lines += [
        f"  {held.mode} on {held.kind} {held.relation}, at most {held.held_ms:,.0f} ms"
        f"{_KNOWN[held.known_by]}"
        for held in measured.locks
        if held.mode.name != "ACCESS_SHARE"
    ]
    lines += [f"  rewrites {each.name}, {size_of(each.bytes)}" for each in act.rewritten]
    return lines + [
        f"  passed over, as it acts on the whole server: {s}" for s in measured.passed_over
    ]


_KNOWN = {"read": "", "seen": " (seen)", "documented": " (as documented)"}


def _replay(replay: Replay) -> list[str]:
    from migrator.projections.preflight import size_of

    lines = []
    for each in replay.projections:
        lines.append(f"{each.projection}: {each.rows:,} rows from {each.events:,} events")
        lines += [f"  {result.verdict}: {result.check} ({result.found})" for result in each.results]
    took = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in replay.steps.items())
    lines.append(
        f"rebuild: {replay.seconds:.1f} s{f' ({took})' if took else ''}, WAL {size_of(replay.wal_bytes)}"
    )
    if replay.held_ms is not None:
        lines.append(f"  cut-over: tables locked for {replay.held_ms:.0f} ms")
        lines.append(f"  swap back: {replay.went_back}")
    return lines
