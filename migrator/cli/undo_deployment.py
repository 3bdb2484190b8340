"""What `migrator rollback` prints and asks where it undoes a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from migrator.cli import rollback, swaps
from migrator.cli.context import App

if TYPE_CHECKING:
    from migrator.deploy.undo import Plan, Undone


def run(
    app: App,
    number: int,
    *,
    accept_loss: bool,
    instant: bool,
    reason: str | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Show what undoing the deployment does, ask, and do it."""
    from migrator.deploy import rollback as plain
    from migrator.deploy import undo

    planned = undo.plan(app.settings, number, accept_loss=accept_loss)
    if dry_run:
        text = "\n".join(
            [*_lines(planned, instant=instant), "", *planned.statements, "", "Nothing was changed."]
        )
        app.emit({"plan": _document(planned) | {"statements": planned.statements}}, text)
        return
    for line in _lines(planned, instant=instant):
        app.say(line)
    if planned.swap_back and not instant:
        plain.refuse_unknown(planned.swap_back)
    reason = rollback.asked_reason(app, reason)
    app.confirm("Undo this?", yes=yes)
    done = undo.undo(
        app.settings,
        planned,
        reason=reason,
        instant=instant,
        progress=lambda step: rollback.say(app, step),
    )
    app.emit(_document(planned) | {"state": done.deployment.state, "reason": reason}, _text(done))


def _lines(planned: Plan, *, instant: bool) -> list[str]:
    row = planned.deployment
    began = f"{row.began_at:%Y-%m-%d %H:%M} UTC, by {row.client}"
    lines = [f"Deployment {row.deployment} of {began}, is {row.state}.  This will be undone:"]
    unknown = planned.swap_back.unknown if planned.swap_back else {}
    for entry in planned.entries:
        lines.append(f"  {rollback.named(entry)}")
        behind = planned.behind.get(entry.subject, 0) if entry.act == "cut-over" else 0
        if behind:
            lines.append(
                f"    build {entry.replaced_build} lacks the {behind:,} newest events; "
                + rollback.when(known=entry.subject not in unknown, instant=instant)
            )
        lines += [f"    loses {what}" for what in planned.losses.get(entry.subject, ())]
    if not planned.entries:
        lines.append("  nothing: the deployment has changed nothing that still stands")
    return [*lines, *(f"  stays: {each.why}" for each in planned.stays)]


def _document(planned: Plan) -> dict[str, Any]:
    return {
        "deployment": planned.deployment.deployment,
        "entries": [
            {"entry": e.entry, "act": e.act, "subject": e.subject} for e in planned.entries
        ],
        "stays": [{"entry": s.entry.entry, "why": s.why} for s in planned.stays],
        "losses": {name: list(what) for name, what in planned.losses.items()},
        "behind": planned.behind,
    }


def _text(done: Undone) -> str:
    number = done.deployment.deployment
    lines = [f"Deployment {number} is rolled back."]
    if done.swapped is not None:
        live = ", ".join(
            f"{m.incoming.projection} build {m.incoming.build}" for m in done.swapped.moves
        )
        lines += [f"Live again: {live}; {swaps.told(done.swapped)}."]
        lines += [*swaps.applied(done.swapped), *swaps.notes(done.swapped)]
    undone = [entry.subject for entry in done.undone if entry.act == "up"]
    if undone:
        lines.append(f"Undone: {', '.join(undone)}.")
    return "\n".join(lines)
