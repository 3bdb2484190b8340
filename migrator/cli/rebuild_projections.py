"""`migrator rebuild-projections`: replay the topics into fresh tables, check them, cut over."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from migrator.projections.rebuild import Planned, Report


@click.command("rebuild-projections")
@click.option(
    "--projection",
    "names",
    multiple=True,
    metavar="NAME",
    help="Rebuild this projection; repeat it to rebuild several in one pass over their topic.",
)
@click.option("--all", "all_of_them", is_flag=True, help="Rebuild every projection of the folder.")
@click.option("--no-cut-over", is_flag=True, help="Stop when the new tables are built and checked.")
@click.option("--restart", is_flag=True, help="Start over instead of resuming an unfinished build.")
@click.option("--allow-empty", is_flag=True, help="Accept a topic without events.")
@click.option("--allow-truncated", is_flag=True, help="Accept a topic whose beginning is deleted.")
@click.option(
    "--max-mb-per-s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MB",
    help="Read at most so many megabytes a second, over all workers.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan with its SQL and change nothing.")
@pass_app
def command(
    app: App,
    names: tuple[str, ...],
    all_of_them: bool,
    no_cut_over: bool,
    restart: bool,
    allow_empty: bool,
    allow_truncated: bool,
    max_mb_per_s: float | None,
    dry_run: bool,
) -> None:
    """Replay topics into fresh tables, check them, and make them live at one instant.

    The live tables serve readers all along; they are not touched before the cut-over, which takes
    milliseconds and moves all named projections together.  What was live is kept for
    `migrator rollback`.

    Interrupted, even by kill -9, the same command goes on where it stopped.
    """
    if not dry_run:
        from migrator.executors import local

        local.warm_up("migrator.projections.replay")
    from migrator.projections import rebuild

    chosen = _chosen(app, names, all_of_them=all_of_them)
    options = rebuild.Options(
        cut_over=not no_cut_over,
        restart=restart,
        allow_empty=allow_empty,
        allow_truncated=allow_truncated,
        max_mb_per_s=max_mb_per_s,
    )
    if dry_run:
        planned = rebuild.plan(app.settings, chosen, options)
        app.emit({"plan": [asdict(p) for p in planned]}, _plan_text(planned))
        return
    from migrator.cli.progress import replay_progress

    with replay_progress() as listener:
        report = rebuild.rebuild(app.settings, chosen, options, listener=listener)
    app.emit(_document(report), _text(report))


def _chosen(app: App, names: tuple[str, ...], *, all_of_them: bool) -> list[str]:
    from migrator.errors import UsageError
    from migrator.projections import registry

    if bool(names) == all_of_them:
        raise UsageError(
            "no projection is named" if not names else "both --projection and --all are given",
            expected="--projection NAME (repeatable), or --all",
        )
    return list(names) or sorted(registry.load(app.settings.projections_dir))


def _plan_text(planned: list[Planned]) -> str:
    lines = []
    for each in planned:
        how = f"resumes build {each.resumes}" if each.resumes else "makes a new build"
        what = f"and replaces build {each.replaces}" if each.replaces else "and is the first"
        lines += [
            f"{each.projection}: {how} from up to {each.events:,} events of topic {each.topic}, {what}",
            *(
                f"  {line}"
                for statement in each.statements
                for line in f"{statement};".splitlines()
            ),
            "",
        ]
    return "\n".join([*lines, "Nothing was changed."])


def _document(report: Report) -> dict[str, Any]:
    swapped = report.swapped
    return {
        "run": str(report.run),
        "projections": [asdict(p) for p in report.projections],
        "cut_over": None
        if swapped is None
        else {
            "held_ms": round(swapped.held_ms, 1),
            "attempts": swapped.attempts,
            "live": [m.incoming.build for m in swapped.moves],
            "archived": [m.outgoing.build for m in swapped.moves if m.outgoing],
        },
        "seconds": report.seconds,
    }


def _text(report: Report) -> str:
    lines = []
    for each in report.projections:
        lines.append(
            f"{each.projection}: build {each.build}, {each.rows:,} rows from {each.events:,} events"
        )
        lines += [f"  passed: {r.check} ({r.found})" for r in each.results]
        if each.lag_events:
            lines.append(f"  {each.lag_events:,} events have come since; a rebuild takes them in")
    if report.swapped is None:
        return "\n".join([*lines, "Not cut over: run the same command without --no-cut-over."])
    archived = [str(m.outgoing.build) for m in report.swapped.moves if m.outgoing]
    kept = f"; kept for rollback: build {', '.join(archived)}" if archived else ""
    tries = f" in {report.swapped.attempts} attempts" if report.swapped.attempts > 1 else ""
    lines.append(
        f"Live now{tries}; the tables were locked for {report.swapped.held_ms:.0f} ms{kept}."
    )
    took = ", ".join(f"{step} {s:.1f} s" for step, s in report.seconds.items() if s >= 0.05)
    return "\n".join([*lines, f"It took: {took}."])
