"""The swap-back as a script that psql alone can run: the recipe of swap.py, with its guards in SQL."""

from __future__ import annotations

from dataclasses import dataclass

from migrator.postgres import ledger, psqlscript
from migrator.postgres.ledger import Entry, NewEntry
from migrator.projections import swap_sql
from migrator.projections.move import Move
from migrator.settings import Settings


@dataclass(frozen=True)
class SwapBack:
    """One file: it makes build `incoming` of the projection live again in place of `outgoing`.

    `behind` is how many events the former lacked that the latter had, when it was written.
    """

    file: str
    projection: str
    incoming: int
    outgoing: int
    behind: int
    text: str


def script(settings: Settings, entry: Entry, move: Move, behind: int) -> SwapBack:
    """Write the script that undoes a cut-over; pure.

    It runs in one transaction, refuses where the builds, the ledger or the database are others than
    now, and appends the swap-back to the ledger.
    """
    incoming, outgoing = move.incoming, move.outgoing
    assert outgoing is not None
    file = psqlscript.file_name("swap_back", entry.subject)
    parts = [
        _ABOUT.format(
            file=file, name=entry.subject, behind=behind, new=incoming.build, old=outgoing.build
        ),
        psqlscript.head(file),
        psqlscript.noted(),
        _swap(settings, entry, move, file),
        psqlscript.recorded(
            NewEntry(
                act="swap-back",
                subject=entry.subject,
                run=entry.run,
                duration_ms=0,
                source_hash=incoming.definition_hash,
                build=incoming.build,
                replaced_build=outgoing.build,
                undoes=entry.entry,
            )
        ),
        _VALIDATED,
        f"\\echo 'live again: build {incoming.build}, swapped back by {file}'",
    ]
    text = "\n".join(parts) + "\n"
    return SwapBack(file, entry.subject, incoming.build, outgoing.build, behind, text)


_ABOUT = """\
-- Swap projection {name} back: build {new} live again, build {old} archived.
-- Run: psql -X -v reason='why' -f {file}   on the database it was exported from.
-- One transaction: everything, or nothing. Refused or failed, psql exits with 3.
-- When this was written, build {new} lacked {behind} events that build {old} had: readers will not see
-- them until the projector of that build's release (migrator follow) has applied them.
-- docs/cut-over.md, going back by psql alone, says what the guards check."""


# After the commit, while readers and writers go on; what fails is told, and the swap stands.
_VALIDATED = r"""\set ON_ERROR_STOP off
SELECT jsonb_array_elements_text(current_setting('migrator.validate')::jsonb) \gexec
\set ON_ERROR_STOP on"""


def _swap(settings: Settings, entry: Entry, move: Move, file: str) -> str:
    incoming, outgoing = move.incoming, move.outgoing
    assert outgoing is not None
    live = psqlscript.identifier(incoming.target_schema, incoming.table_name)
    archived = psqlscript.identifier(incoming.schema, incoming.table_name)
    projections = settings.projections
    parked = psqlscript.literal(outgoing.schema)
    carried = {
        "from": "m_live",
        "to": "m_archived",
        "schema": psqlscript.literal(incoming.schema),
        "columns": "m_columns",
    }
    limit_ms = round(projections.swap_deadline_s * 1000) + settings.database.statement_timeout_ms
    return psqlscript.filled(
        "export_swap_back",
        file=file,
        format=str(ledger.FORMAT),
        projection=psqlscript.literal(entry.subject),
        entry=str(entry.entry),
        entry_hash=psqlscript.literal(entry.entry_hash),
        incoming=str(incoming.build),
        incoming_hash=psqlscript.literal(incoming.definition_hash),
        outgoing=str(outgoing.build),
        outgoing_hash=psqlscript.literal(outgoing.definition_hash),
        live_name=live,
        live_table=psqlscript.literal(live),
        live_said=psqlscript.literal(f"{incoming.target_schema}.{incoming.table_name}"),
        archived_said=psqlscript.literal(f"{incoming.schema}.{incoming.table_name}"),
        archived_name=archived,
        archived_table=psqlscript.literal(archived),
        outgoing_said=psqlscript.literal(psqlscript.identifier(outgoing.schema)),
        uncarried=psqlscript.inlined("uncarried", table="m_live"),
        misfits=psqlscript.inlined(
            "misfits", table="m_live", columns="m_columns", types="m_types", made="m_made"
        ),
        before=psqlscript.inlined("carried_before", **carried, made="m_made"),
        during=psqlscript.inlined("carried_during", **carried, parked=parked),
        parked=psqlscript.literal(swap_sql.set_schema(incoming.target, outgoing.schema)),
        brought=psqlscript.literal(swap_sql.set_schema(incoming.table, incoming.target_schema)),
        grants=psqlscript.inlined("grants", **{"from": "m_live", "to": "m_archived"}),
        statement_timeout=psqlscript.literal(f"{limit_ms}ms"),
        lock_timeout=psqlscript.literal(f"{projections.swap_lock_timeout_ms}ms"),
        autovacuum_timeout=psqlscript.literal(swap_sql.AUTOVACUUM_TIMEOUT),
        deadline=psqlscript.literal(f"{projections.swap_deadline_s} seconds"),
        deadline_said=f"{projections.swap_deadline_s:g} s",
    )
