"""What a run may apply: expand revisions that are proven, contract revisions when the old is gone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from migrator.errors import Refused, UsageError
from migrator.migrations import backfill, phase, release, render, scripts
from migrator.migrations.hazards import HAZARDS, OLD_RELEASE
from migrator.migrations.history import History
from migrator.migrations.lint import parse
from migrator.migrations.lint.model import Script, Statement
from migrator.migrations.phase import Found
from migrator.migrations.plan import Plan
from migrator.migrations.release import Seen
from migrator.migrations.revision import Revision
from migrator.postgres.connect import Connection, connect
from migrator.settings import Settings

ALLOWED = sorted([OLD_RELEASE, *(hazard.id for hazard in HAZARDS.values() if hazard.breaks)])
UNCHECKED = (
    "whether a release that needs what contract revisions remove is still connected was not "
    "checked: [release] application is not set (docs/phases.md)"
)


@dataclass(frozen=True)
class Warned:
    """Something that does not stop the run, and that a person should know."""

    text: str


@dataclass
class Permits:
    """What was allowed, revision by revision, for the ledger; and the gate before contract."""

    settings: Settings
    allow: frozenset[str]
    used: dict[str, frozenset[str]]
    warn: Callable[[Warned], Any] = lambda _warned: None
    glanced: bool = False
    _old_release: frozenset[str] | None = field(default=None, init=False)

    def of(self, revision: Revision) -> list[str]:
        """The rules that the revision needed and was allowed."""
        used = self.used.get(revision.id, frozenset())
        if revision.phase == "contract":
            used |= self._old_release or frozenset()
        return sorted(used)

    def glance(self, revisions: Iterable[Revision]) -> None:
        """Look once, before anything is applied, where contract revisions are among these.

        Raises:
            Refused, SettingsError: as `before`.
        """
        contract = next((r for r in revisions if _contracts(r)), None)
        if contract is None or OLD_RELEASE in self.allow:
            return
        seen = glance(self.settings)
        if seen is not None and not seen.is_clear:
            raise _still_connected(seen, f"nothing was applied: {contract.id} is of phase contract")

    def before(self, revision: Revision) -> None:
        """Look for the old release before the run's first contract revision.

        Raises:
            Refused: it is connected, and not allowed.
            SettingsError: an application is set, and no version.
        """
        if _contracts(revision) and self._old_release is None:
            self._old_release = self._watch(revision)

    def _watch(self, revision: Revision) -> frozenset[str]:
        if self.settings.release.application is None:
            self.warn(Warned(UNCHECKED))
            return frozenset()
        with looking(self.settings) as conn:
            seen = release.watch(conn, self.settings.release)
        if seen.is_clear:
            return frozenset()
        if OLD_RELEASE not in self.allow:
            raise _still_connected(seen, f"revision {revision.id} was not applied")
        self.warn(Warned(f"--allow {OLD_RELEASE}: {seen}"))
        return frozenset([OLD_RELEASE])


def _contracts(revision: Revision) -> bool:
    return revision.phase == "contract" and not revision.exempt


def refuse_bad_flags(allow: Collection[str], reason: str | None) -> None:
    """Check --allow and --reason by themselves.

    Raises:
        UsageError: there is no such rule, or no reason beside it.
    """
    for rule in allow:
        if rule not in ALLOWED:
            raise UsageError.unknown(
                "rule", rule, ALLOWED, next_step="docs/phases.md lists the rules"
            )
    if allow and not (reason or "").strip():
        raise UsageError(
            f"--allow {min(allow)} has no reason",
            expected='--reason "TEXT": the ledger keeps both',
            next_step="say why the running release is not hurt",
        )


def prove(
    settings: Settings,
    files: History,
    found: Plan,
    *,
    allow: Collection[str] = (),
    reason: str | None = None,
    warn: Callable[[Warned], Any] = lambda _warned: None,
) -> Permits:
    """Prove every expand revision asked for; return what this run may do. Read-only.

    On a database that no revision was applied to and that holds no table, no release
    can be running: nothing is refused there.

    Raises:
        UsageError: as `refuse_bad_flags`.
        Refused: expand revisions break the running release; all statements of all are named.
    """
    refuse_bad_flags(allow, reason)
    allowed = frozenset(allow)
    unused = _holds_nothing(settings, found)
    breaking = {} if unused else {r.id: breaks(files, r) for r in found.asked}
    used = {name: frozenset(f.hazard.id for f in each) for name, each in breaking.items()}
    if any(each - allowed for each in used.values()):
        raise _refused(files, breaking, allowed)
    return Permits(settings, allowed, used, warn)


def glance(settings: Settings) -> Seen | None:
    """One look at the releases that are connected; None where no application is set. Read-only."""
    if settings.release.application is None:
        return None
    with looking(settings) as conn:
        return release.look(conn, settings.release)


def notes(settings: Settings, files: History, revision: Revision, permits: Permits) -> list[str]:
    """What a dry run says beside the revision's SQL: what is allowed or worth a notice."""
    if _contracts(revision):
        if permits.glanced:
            return []
        permits.glanced = True
        seen = glance(settings)
        if seen is None:
            return [f"warning: {UNCHECKED}"]
        return [] if seen.is_clear else [f"would be refused now: {seen}"]
    if revision.exempt or revision.phase != "expand":
        return []
    allowed = permits.of(revision)
    return [
        f"allowed: {found.hazard.id}, {found.subject}"
        if found.hazard.breaks
        else f"notice: {found.hazard.id}, {found.subject}: {found.hazard.why}"
        for found in phase.found(script(files, revision))
        if found.hazard.id in allowed or not found.hazard.breaks
    ]


def breaks(files: History, revision: Revision) -> tuple[Found, ...]:
    """What in an expand revision breaks the running release; nothing for contract and exempt ones."""
    if revision.phase != "expand" or revision.exempt:
        return ()
    return tuple(f for f in phase.found(script(files, revision)) if f.hazard.breaks)


def script(files: History, revision: Revision) -> Script:
    """The revision's SQL as the rules are given it; not analysable where it cannot be known."""
    known: dict[str, Any] = {
        "revision": revision.id,
        "path": str(revision.path),
        "phase": revision.phase,
    }
    try:
        if revision.backfills:
            declared = backfill.of(files, revision)
            shown = declared.shown()
            statements = tuple(Statement(node, shown, 1) for node in declared.parsed())
            return Script(statements, in_transaction=False, **known)
        return parse.parse(
            render.render(files, revision), in_transaction=revision.transactional, **known
        )
    except (render.NotRenderable, ValueError) as exc:
        return replace(Script((), **known), analysable=False, why_not=str(exc))


def _refused(
    files: History, breaking: dict[str, tuple[Found, ...]], allowed: frozenset[str]
) -> Refused:
    lines, problems = [], []
    for name, each in breaking.items():
        refused = [found for found in each if found.hazard.id not in allowed]
        lines += [f"  {files[name]}"] if refused else []
        for found in refused:
            lines += _explained(found)
            problems.append(_problem(files[name], found))
    rules = dict.fromkeys(problem["rule"] for problem in problems)
    flags = " ".join(f"--allow {rule}" for rule in rules)
    many = f"{len(problems)} changes" if len(problems) > 1 else "one change"
    return Refused(
        f"nothing was applied: {many} in expand revisions would break the running release:\n"
        + "\n".join(lines),
        expected="expand revisions that the running release can live with",
        next_step="do it the safe way, or in a contract revision, which is applied when the old "
        f'release is gone; where you know better: migrator up {flags} --reason "..."',
        problems=problems,
    )


def _explained(found: Found) -> Iterable[str]:
    yield f"    {found.hazard.id}: {found.subject}"
    if found.statement is not None:
        yield f"      {scripts.first_line(found.statement.text)}"
    yield f"      why: {found.hazard.why}"
    yield f"      instead: {found.hazard.way}"


def _problem(revision: Revision, found: Found) -> dict[str, Any]:
    return {
        "revision": revision.id,
        "file": str(revision.path),
        "rule": found.hazard.id,
        "subject": found.subject,
        "statement": found.statement.text if found.statement else None,
        "why": found.hazard.why,
        "instead": found.hazard.way,
    }


def _still_connected(seen: Seen, what: str) -> Refused:
    return Refused(
        f"{what}, and the old release may still need what it removes\n{seen}",
        expected=f"no session of {seen.application} but those of {seen.deployed}"
        if seen.old
        else "to see the application_name of every session: a role in pg_read_all_stats does",
        next_step="finish the roll-out, then run this again (migrator up --phase expand applies "
        f"what does not have to wait); where you know better: --allow {OLD_RELEASE} "
        '--reason "..."',
        old=[
            {
                "pid": session.pid,
                "version": session.version,
                "role": session.role,
                "client": session.client,
                "state": session.state,
            }
            for session in seen.old
        ],
        hidden=seen.hidden,
    )


def looking(settings: Settings) -> Connection:
    """A session in autocommit: within one transaction pg_stat_activity goes on answering the same."""
    return connect(settings, "release", autocommit=True)


_ANY_TABLE = """
SELECT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname <> %s
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'migrator')
      AND n.nspname !~ '^pg_(toast|temp)'
      AND NOT EXISTS (SELECT FROM pg_depend d
                      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                        AND d.deptype = 'e'))
"""


def _holds_nothing(settings: Settings, found: Plan) -> bool:
    """Whether no release can be running on this database: nothing applied, no table in it."""
    if found.applied or found.unknown:
        return False
    with connect(settings, "plan", autocommit=True) as conn:
        row = conn.execute(_ANY_TABLE, (settings.migrations.version_table,)).fetchone()
    return row is not None and not row[0]
