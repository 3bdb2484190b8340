"""Compare the ledger with itself and with the files: the chain, the stored scripts, the revisions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from migrator.errors import MigratorError
from migrator.migrations import normalise, scripts
from migrator.migrations.findings import Checked, Finding, Outcome, State
from migrator.migrations.revision import Revision
from migrator.postgres import ledger
from migrator.postgres.ledger import Entry


def accepted_hash(entries: tuple[Entry, ...], entry: Entry) -> str | None:
    """The hash that the revision's file must have: the newest repair's, else the one applied."""
    repaired = [
        e.source_hash
        for e in entries
        if e.act == "repair" and e.subject == entry.subject and e.entry > entry.entry
    ]
    return repaired[-1] if repaired else entry.source_hash


def chain(state: State) -> Outcome:
    """Check every link of the ledger's chain. Pure."""
    count = len(state.entries)
    if not count:
        return Checked("chain", "the ledger is empty"), []
    said = f"{count} entries, the last link is {state.entries[-1].entry_hash}"
    return Checked("chain", said), [_broken(b) for b in ledger.broken_links(state.entries)]


def _broken(link: ledger.BrokenLink) -> Finding:
    entry = link.entry
    name = f"entry {entry.entry} ({entry.act} {entry.subject})"
    if link.is_edited:
        found = f"{name} is tampered: it does not say what its hash was made of"
        expected = f"an entry whose hash is {entry.entry_hash}"
    else:
        found = f"the entry before {name} is missing, or another stands in its place"
        expected = f"one whose hash is {entry.previous_hash or 'empty: this was the first'}"
    return Finding(
        check="chain",
        subject=str(entry.entry),
        found=found,
        expected=expected,
        next_step="find out who wrote to migrator.ledger; compare it with a backup or an earlier "
        "verify's last link",
    )


def rollback_scripts(state: State) -> Outcome:
    """Compare the scripts that applied revisions keep with their hashes. Pure."""
    standing = [e for e in state.applied.standing if e.rollback_script or e.rollback_hash]
    found = [
        Finding(
            check="rollback scripts",
            subject=entry.subject,
            revision=entry.subject,
            found=f"the rollback script of {entry.subject} in the ledger (entry {entry.entry}) "
            "is tampered: its hash differs",
            expected=f"the script whose SHA-256 is {entry.rollback_hash}",
            next_step="restore migrator.ledger.rollback_script of that entry from "
            f"rollback/{entry.subject}.sql in the release's checkout; rollback refuses it until then",
        )
        for entry in standing
        if scripts.script_hash(entry.rollback_script or "") != entry.rollback_hash
    ]
    return Checked("rollback scripts", f"{len(standing)} kept for applied revisions"), found


def files(state: State) -> Outcome:
    """Compare the revisions' files with what the ledger says was applied. Pure, but for reading files that make no chain."""
    found = list(_files_findings(state))
    if state.files is None:
        return Checked("files", "they make no chain"), found
    known = {revision.id for revision in state.files.revisions}
    compared = [e for e in state.applied.standing if e.source_hash and e.subject in known]
    said = f"{len(compared)} applied revisions compared with the ledger"
    return Checked("files", said), found


def _files_findings(state: State) -> Iterator[Finding]:
    if state.version_problem is not None:
        yield _as_finding(state.version_problem, "version table")
    if state.files is None:
        assert state.files_problem is not None
        yield _as_finding(state.files_problem, "files")
        there = _ids_in(state.settings.version_locations)
        yield from (_gone(e) for e in state.applied.standing if e.subject not in there)
        return
    known = {revision.id: revision for revision in state.files.revisions}
    for entry in state.applied.standing:
        revision = known.get(entry.subject)
        if revision is None:
            yield _gone(entry)
            continue
        accepted = accepted_hash(state.entries, entry)
        if accepted is not None and accepted != revision.source_hash:
            yield _edited(entry, revision, accepted)
        yield from _other_script(entry, revision)


def _as_finding(exc: MigratorError, subject: str) -> Finding:
    return Finding(
        check="files",
        subject=subject,
        found=exc.found,
        expected=exc.expected,
        next_step=exc.next_step,
    )


def _gone(entry: Entry) -> Finding:
    return Finding(
        check="files",
        subject=entry.subject,
        revision=entry.subject,
        found=f"no file here has revision {entry.subject}, which the database holds since "
        f"{entry.applied_at:%Y-%m-%d %H:%M} UTC, by {entry.client}",
        expected="a file for every applied revision; an older checkout than the database's has not",
        next_step=f"take the checkout that it was deployed from ({entry.git_sha or 'commit unknown'}), "
        "or restore the file from there",
    )


def _edited(entry: Entry, revision: Revision, accepted: str) -> Finding:
    changed = [
        f"{name} was {was or 'none'} and is {now or 'none'}"
        for name, was, now in (
            ("phase", entry.phase, revision.phase),
            ("down_revision", entry.revises, revision.revises),
        )
        if was != now
    ]
    what = f" ({'; '.join(changed)})" if changed else ""
    return Finding(
        check="files",
        subject=revision.path.name,
        revision=entry.subject,
        found=f"{revision.path.name} was edited after {entry.subject} was applied{what}: "
        f"its source_hash is {revision.source_hash}",
        expected=f"{accepted}, as the ledger has it; comments and layout do not count",
        next_step=f"restore the file from {entry.git_sha or 'the release it was deployed with'}; "
        f'if the edit is meant: migrator repair {entry.subject} --reason "why"',
    )


def _other_script(entry: Entry, revision: Revision) -> Iterator[Finding]:
    stored, here = entry.rollback_script, revision.rollback_script
    if entry.act != "up" or normalise.normalised(stored or "") == normalise.normalised(here or ""):
        return
    yield Finding(
        check="files",
        subject=f"rollback/{revision.rollback_path.name}",
        revision=entry.subject,
        found=f"rollback/{revision.rollback_path.name} is not the script that was stored when "
        f"{entry.subject} was applied",
        expected="the same; migrator rollback runs the stored one",
        next_step="restore the file, or leave it: it counts again when the revision is next applied",
        is_problem=False,
    )


def _ids_in(folders: list[Path]) -> set[str]:
    """The ids that files declare, where they make no chain that could be loaded."""
    found = set()
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            continue
        for node in tree.body:
            match node:
                case (
                    ast.Assign(
                        targets=[ast.Name(id="revision")], value=ast.Constant(value=str(name))
                    )
                    | ast.AnnAssign(
                        target=ast.Name(id="revision"), value=ast.Constant(value=str(name))
                    )
                ):
                    found.add(name)
    return found
