"""`migrator rebuild-projections`: replay the topics into fresh tables, check them, cut over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from migrator.cli import swaps
from migrator.cli.context import App, pass_app

if TYPE_CHECKING:
    from rich.console import Console

    from migrator.projections.changes import Change
    from migrator.projections.preflight import Preflight
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
@click.option(
    "--changed",
    is_flag=True,
    help="Rebuild those whose definition is not that of their live build, or that have none.",
)
@click.option("--no-cut-over", is_flag=True, help="Stop when the new tables are built and checked.")
@click.option("--restart", is_flag=True, help="Start over instead of resuming an unfinished build.")
@click.option(
    "--allow",
    metavar="NAME",
    multiple=True,
    help="Go on although the preflight refuses this; it is kept in the build.  May be repeated.",
)
@click.option(
    "--max-mb-per-s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MB",
    help="Read at most so many megabytes a second, over all workers.",
)
@click.option(
    "--quarantine",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Put up to N events that cannot be folded aside, with their bytes.  [default: stop at one]",
)
@click.option(
    "--max-diff",
    metavar="N|P%",
    help="Let at most so many keys differ from live; more fail the check.  [default: none where the "
    "definition is the same, any where it has changed]",
)
@click.option(
    "--accept-diff",
    metavar="REASON",
    help="Go live although rows differ from live's; the reason is kept in the build and the ledger.",
)
@click.option(
    "--map",
    "renamed",
    metavar="OLD=NEW",
    multiple=True,
    help="Compare column OLD of live with column NEW of the new build.  May be repeated.",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    help="Where the workers run: this machine, or the Ray cluster of [ray].",
)
@click.option(
    "--report",
    "report_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Write checks, differences and steps as one HTML file, whether it succeeds or not.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan with its SQL and change nothing.")
@pass_app
def command(
    app: App,
    names: tuple[str, ...],
    all_of_them: bool,
    changed: bool,
    no_cut_over: bool,
    restart: bool,
    allow: tuple[str, ...],
    max_mb_per_s: float | None,
    quarantine: int,
    max_diff: str | None,
    accept_diff: str | None,
    renamed: tuple[str, ...],
    executor: str | None,
    report_file: Path | None,
    dry_run: bool,
) -> None:
    """Replay topics into fresh tables, check them, and make them live at one instant.

    The live tables serve readers all along; they are not touched before the cut-over, which takes
    milliseconds and moves all named projections together.  What was live is kept for
    `migrator rollback`.

    Interrupted, even by kill -9, the same command goes on where it stopped.
    """
    given = {"executor": executor, "max_diff": max_diff}
    app.overrides["projections"] = {name: said for name, said in given.items() if said is not None}
    if not dry_run and executor != "ray":
        from migrator.executors import local

        local.warm_up("migrator.projections.replay")
    from migrator.errors import Refused
    from migrator.projections import rebuild

    if report_file is not None:
        from migrator.report import html

        html.refuse_unwritable(report_file)
    chosen, changes = _chosen(app, names, all_of_them=all_of_them, changed=changed)
    if not chosen:
        _write_report(report_file, NO_DOCUMENT)
        app.emit({"projections": [], "changes": []}, NOTHING_CHANGED)
        return
    options = rebuild.Options(
        cut_over=not no_cut_over,
        restart=restart,
        allow=frozenset(allow),
        max_mb_per_s=max_mb_per_s,
        quarantine=quarantine,
        accept_diff=diff_reason(accept_diff),
        renamed=tuple(_pair(each) for each in renamed),
    )
    if dry_run:
        planned, seen = rebuild.plan(app.settings, chosen, options)
        document = {
            "plan": [asdict(p) for p in planned],
            "changes": [asdict(c) for c in changes],
            "preflight": {
                "findings": [asdict(f) for f in seen.findings],
                "estimates": [asdict(e) for e in seen.estimates],
            },
        }
        text = [*_changed_text(changes), preflight_text(seen), plan_text(planned)]
        app.emit(document, "\n".join(text))
        if seen.refused:
            raise SystemExit(Refused.exit_code)
        return
    from migrator.cli.progress import replay_progress

    as_json = app.json or app.log_format == "json"
    with _reported(report_file), replay_progress(as_json=as_json) as listener:
        for line in _changed_text(changes):
            listener(rebuild.Step("changed", line))
        report = rebuild.rebuild(app.settings, chosen, options, listener=listener)
    document = _document(report) | {"changes": [asdict(c) for c in changes]}
    _write_report(report_file, document)
    app.emit(document, _text(report, app.console))


@contextmanager
def _reported(file: Path | None) -> Iterator[None]:
    """Write the report of a rebuild that fails, too."""
    from migrator.errors import MigratorError

    try:
        yield
    except Exception as exc:
        # An error of a driver is explained only where the command ends.
        error = exc if isinstance(exc, MigratorError) else MigratorError(str(exc).strip())
        _write_report(file, NO_DOCUMENT, error.as_json())
        raise


def _write_report(
    file: Path | None, document: dict[str, Any], error: dict[str, Any] | None = None
) -> None:
    if file is not None:
        from migrator.report import html

        html.write(file, html.rebuild(document, error))


def diff_reason(said: str | None) -> str | None:
    """What stands after --accept-diff, which must say why."""
    from migrator.errors import UsageError

    if said is not None and not said.strip():
        raise UsageError("--accept-diff is without a reason", expected='--accept-diff "why"')
    return said


def _pair(said: str) -> tuple[str, str]:
    from migrator.errors import UsageError

    old, _, new = said.partition("=")
    if not old or not new:
        raise UsageError(f"--map {said} names no two columns", expected="--map OLD=NEW")
    return old, new


NO_DOCUMENT: dict[str, Any] = {"projections": [], "seconds": {}, "cut_over": None}
NOTHING_CHANGED = "Nothing has changed: every projection is live under its present definition."


def _chosen(
    app: App, names: tuple[str, ...], *, all_of_them: bool, changed: bool
) -> tuple[list[str], list[Change]]:
    """The projections to rebuild, and with --changed why each of them."""
    from migrator.errors import UsageError
    from migrator.projections import changes, registry

    given = {"--projection": bool(names), "--all": all_of_them, "--changed": changed}
    if sum(given.values()) != 1:
        asked = " and ".join(flag for flag, is_given in given.items() if is_given)
        raise UsageError(
            f"{asked} are given together" if asked else "no projection is named",
            expected="one of --projection NAME (repeatable), --all, --changed",
        )
    if changed:
        found = changes.find(app.settings)
        return [each.projection for each in found], found
    return list(names) or sorted(registry.load(app.settings.projections_dir)), []


def _changed_text(changes: list[Change]) -> list[str]:
    return [f"{each.projection}: {each.why}" for each in changes]


def preflight_text(seen: Preflight) -> str:
    """What a preflight estimates and finds, for a person."""
    from migrator.projections.preflight import size_of, span

    lines = []
    for each in seen.estimates:
        rows = f"about {each.rows:,}" if each.rows_low != each.rows_high else f"{each.rows:,}"
        if each.rows_low != each.rows_high:
            rows += f" (between {each.rows_low:,} and {each.rows_high:,})"
        free = each.disk_free_bytes
        lines += [
            f"{each.projection} from topic {each.topic}, of which {each.sampled:,} events were looked at:",
            f"  {each.events:,} events, {size_of(each.bytes)} before compression"
            + (f", give or take {size_of(each.bytes_off)}" if each.bytes_off else ""),
            f"  {rows} rows ({each.rows_from}), {size_of(each.disk_bytes)} of disk"
            + (f", {size_of(free)} free" if free is not None else ""),
            f"  {size_of(each.memory_bytes)} of memory, {span(each.seconds)}; both are rough",
        ]
    for found in seen.findings:
        name = "warning" if found.verdict == "warning" else f"{found.verdict} ({found.rule})"
        lines += [
            f"{name}: {found.found}",
            *([f"  expected: {found.expected}"] if found.expected else []),
            *([f"  next: {found.next_step}"] if found.next_step else []),
        ]
    return "\n".join([*lines, ""])


def plan_text(planned: Sequence[Planned]) -> str:
    """What a rebuild would do, with its SQL, for a person."""
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
    return {
        "run": str(report.run),
        "projections": [asdict(p) for p in report.projections],
        "cut_over": swaps.document(report.swapped) if report.swapped else None,
        "seconds": report.seconds,
    }


def _text(report: Report, console: Console) -> str:
    from migrator.cli import check_results

    lines = []
    for each in report.projections:
        lines.append(
            f"{each.projection}: build {each.build}, {each.rows:,} rows from {each.events:,} events"
        )
        lines += (
            check_results.table(each.results, console)
            if each.results and console.is_terminal
            else check_results.lines(each.results)
        )
        if each.quarantined:
            lines.append(
                f"  {each.quarantined:,} events are in quarantine and not in the table: "
                f"migrator quarantine list --build {each.build}"
            )
        if each.lag_events:
            lines.append(
                f"  {each.lag_events:,} events have come since: migrator follow applies them"
            )
    if report.swapped is None:
        numbers = [each.build for each in report.projections]
        schemas = ", ".join(f"migrator_build_{number}" for number in numbers)
        return "\n".join(
            [
                *lines,
                f"Not cut over; to make it live: migrator cut-over {' '.join(map(str, numbers))}",
                f"Until then it is read beside the live one with search_path = {schemas}, public",
            ]
        )
    lines += swaps.text(report.swapped)
    took = ", ".join(f"{step} {s:.1f} s" for step, s in report.seconds.items() if s >= 0.05)
    return "\n".join([*lines, f"It took: {took}."])
