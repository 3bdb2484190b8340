"""Write what `migrator rollback` would do as scripts, for when only psql is left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from migrator.deploy import rollback
from migrator.errors import Refused
from migrator.migrations import export as revisions
from migrator.migrations.export import Script
from migrator.postgres import ledger
from migrator.postgres.connect import Connection, connect
from migrator.projections import swap_script, tail
from migrator.projections.swap_script import SwapBack
from migrator.settings import Settings

INDEX = "index.md"


@dataclass(frozen=True)
class Export:
    """The scripts of revisions, in the order they are to be run in, and of projections, which have none.

    `ends` says why the former end where they end, `without` why a cut-over has no script.
    """

    scripts: tuple[Script, ...]
    ends: str
    swap_backs: tuple[SwapBack, ...]
    without: tuple[str, ...]
    index: str

    @property
    def files(self) -> dict[str, str]:
        """Every script's text, by the name of its file."""
        files = {script.file: script.text for script in self.scripts}
        return files | {script.file: script.text for script in self.swap_backs}


def plan(settings: Settings) -> Export:
    """Write the texts: for each applied revision, and for each projection's last cut-over; read-only.

    Raises:
        Refused: there is nothing that could be undone, or version table and ledger disagree.
    """
    with connect(settings, "export") as conn:
        conn.read_only = True
        ledger.refuse_older(conn)
        made, ends = revisions.scripts_of(conn, settings)
        swap_backs, without = _swap_backs(conn, settings)
    if not made and not swap_backs:
        raise Refused(
            f"there is no script to export: {'; '.join([ends, *without])}",
            expected="an applied revision with a rollback script in the ledger, or a projection "
            "with an archived build",
            next_step="migrator history shows what was done",
        )
    index = _index(made, ends, swap_backs, without)
    return Export(made, ends, tuple(swap_backs), tuple(without), index)


def _swap_backs(conn: Connection, settings: Settings) -> tuple[list[SwapBack], list[str]]:
    made: list[SwapBack] = []
    without: list[str] = []
    for entry in rollback.last_cut_overs(conn):
        try:
            move = rollback.move_back(conn, entry)
        except Refused as exc:
            without.append(exc.found)
            continue
        made.append(swap_script.script(settings, entry, move, tail.behind(conn, move)))
    return made, without


def write(export: Export, folder: Path) -> list[Path]:
    """Write the scripts and their index into a folder that is new or empty; returns the files.

    Raises:
        Refused: the folder holds something, which might be an older export.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(
            f"{folder} is not empty",
            expected="a new or empty folder: an older export's scripts must not stand among these",
            next_step="name another folder, or empty this one",
        )
    folder.mkdir(parents=True, exist_ok=True)
    written = {**export.files, INDEX: export.index}
    for name, text in written.items():
        (folder / name).write_bytes(text.encode())
    return [folder / name for name in written]


def _index(
    made: tuple[Script, ...], ends: str, swap_backs: list[SwapBack], without: list[str]
) -> str:
    first = (made or swap_backs)[0].file
    parts = [_INTRO.format(file=first)]
    if made:
        rows = "".join(
            f"| {number} | `{script.file}` | {script.revision} | {script.message} "
            f"| {revisions.named(script.leaves)} |\n"
            for number, script in enumerate(made, 1)
        )
        parts.append(_REVISIONS.format(rows=rows, ends=ends))
    if swap_backs or without:
        rows = "".join(
            f"| `{s.file}` | {s.projection} | {s.incoming} | {s.outgoing} | {s.behind:,} |\n"
            for s in swap_backs
        )
        table = _PROJECTIONS.format(rows=rows) if swap_backs else "## Projections\n"
        parts.append(table + "".join(f"\nNo script: {why}.\n" for why in without))
    return "\n".join([*parts, _GUARDS])


_INTRO = """# Rollback scripts for psql

    psql -X -v reason='why' -f {file} "$MIGRATOR_DATABASE_URL"
"""
_REVISIONS = """## Revisions

Run them in this order, newest first, as many as are needed and each once:

| order | file | undoes | message | the database is then at |
|---|---|---|---|---|
{rows}
After the last: {ends}.
"""
_PROJECTIONS = """## Projections

Each by itself, in any order. If the old release reads tables that a revision has changed, undo the revision as well.

| file | projection | live again: build | archived: build | events that readers lose sight of, when this was written |
|---|---|---|---|---|
{rows}"""
_GUARDS = """Each refuses to run on another database, out of order, twice, while migrator runs, or where the script
or the ledger was tampered with; psql then exits with 3 and nothing has changed. A lock wait ends it in the
same way: run it again. Each writes its entry into the ledger; `migrator verify` and `migrator history` show it.

They fit this one state of the database: after the next `migrator up` or `migrator rebuild-projections`, export them anew.
"""
