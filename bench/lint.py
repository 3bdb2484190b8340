"""make bench-lint: the combined linter against the verdicts of other linters' test suites.

Each case of ../shared/data/lint is a migration with a verdict for one rule of squawk,
postgres-language-server or eugene: unsafe, or safe, which means that this one rule stays silent.
Prints a table for each category and lists what does not agree. The bar is for the categories lock,
transaction, timeout and compat: 95 % agree, and no safe case is an error by the rule it is labelled for.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from migrator.migrations.lint import linter
from migrator.migrations.lint.model import Finding, Surroundings
from migrator.migrations.lint.source import Source, from_sql

DATA = Path(__file__).parents[1].parent / "shared" / "data" / "lint"
BAR = 0.95
COUNTED = ("lock", "transaction", "timeout", "compat")
# A file of eugene's holds several migrations, each under a line that names it.
PARTS = re.compile(r"^-- \d+\.sql$", re.MULTILINE)

# Their rule -> ours that say the same. Without an entry, ours has squawk's own name.
TIMEOUTS = ("missing-lock-timeout", "missing-statement-timeout")
SAME = {
    # squawk
    "adding-serial-primary-key-field": ("adding-serial-primary-key-field",),
    "constraint-missing-not-valid": (
        "constraint-missing-not-valid",
        "validate-in-same-transaction",
        "adding-foreign-key-constraint",
    ),
    # Squawk asks for REPACK from 19 on. These cases do not say for which release they are, and two
    # of them are the same statement with contrary verdicts.
    "prefer-repack": ("prefer-repack",),
    "require-concurrent-index-deletion": ("require-concurrent-index-deletion",),
    "require-lock-timeout": ("missing-lock-timeout",),
    "require-statement-timeout": ("missing-statement-timeout",),
    "require-timeout-settings": TIMEOUTS,
    "transaction-nesting": ("transaction-nesting", "transaction-control"),
    "ban-uncommitted-transaction": ("ban-uncommitted-transaction", "transaction-control"),
    "changing-column-type": ("changing-column-type", "table-rewritten"),
    "adding-field-with-default": ("adding-field-with-default", "table-rewritten"),
    # postgres-language-server
    "addSerialColumn": ("serial-column-added", "adding-field-with-default", "table-rewritten"),
    "addingFieldWithDefault": ("adding-field-with-default", "table-rewritten"),
    "addingNotNullField": ("adding-not-nullable-field",),
    "addingPrimaryKeyConstraint": ("adding-serial-primary-key-field",),
    "addingRequiredField": ("adding-required-field",),
    "avoidAlterEnumAddValue": ("enum-value-used-at-once", "require-enum-value-ordering"),
    "avoidCreateTrigger": ("trigger-created",),
    "avoidEnableDisableTrigger": ("trigger-switched", "ban-disable-trigger"),
    "avoidWideLockWindow": ("several-tables-locked", "work-after-access-exclusive"),
    "banCharField": ("ban-char-field",),
    "banConcurrentIndexCreationInTransaction": ("ban-concurrent-index-creation-in-transaction",),
    "banDropTrigger": ("ban-drop-trigger",),
    "banTruncateCascade": ("ban-truncate-cascade",),
    "banVacuumFull": ("table-rewritten", "prefer-repack"),
    "changingColumnType": ("changing-column-type", "table-rewritten"),
    "constraintMissingNotValid": ("constraint-missing-not-valid",),
    "creatingEnum": (),
    "lockTimeoutWarning": ("missing-lock-timeout",),
    "multipleAlterTable": ("multiple-alter-table",),
    "renamingTable": ("renaming-table",),
    "requireConcurrentDetachPartition": ("require-concurrent-partition-detach",),
    "requireConcurrentRefreshMatview": ("refresh-not-concurrent",),
    "requireConcurrentReindex": ("require-concurrent-reindex",),
    "requireSeparateConstraintValidation": (
        "validate-in-same-transaction",
        "constraint-missing-not-valid",
    ),
    "requireStatementTimeout": ("missing-statement-timeout",),
    "runningStatementWhileHoldingAccessExclusive": ("work-after-access-exclusive",),
    "transactionNesting": ("transaction-nesting", "transaction-control"),
    # eugene
    "E3": ("json-column",),
    "E4": ("work-after-access-exclusive",),
    "E5": ("changing-column-type", "table-rewritten"),
    "E6": ("require-concurrent-index-creation",),
    "E9": ("missing-lock-timeout",),
    "E10": ("several-tables-locked", "work-after-access-exclusive"),
    "E11": ("serial-column-added",),
}


@dataclass(frozen=True)
class Case:
    file: str
    tool: str
    rule: str
    unsafe: bool
    category: str
    pg_version: str | None
    in_transaction: bool

    @property
    def ours(self) -> tuple[str, ...]:
        return SAME.get(self.rule, (self.rule,))


@dataclass(frozen=True)
class Verdict:
    case: Case
    found: tuple[Finding, ...]
    others: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        return bool(self.found) == self.case.unsafe

    @property
    def is_false_error(self) -> bool:
        return not self.case.unsafe and any(each.severity == "error" for each in self.found)


def cases(folder: Path) -> list[Case]:
    with (folder / "cases.tsv").open(encoding="utf-8", newline="") as file:
        return [
            Case(
                row["file"],
                row["tool"],
                row["expected_rule"],
                row["verdict"] == "unsafe",
                row["category"],
                row["pg_version"] or None,
                row["assume_in_txn"] == "1",
            )
            for row in csv.DictReader(file, delimiter="\t")
        ]


def sources(folder: Path, case: Case) -> Iterator[Source]:
    """Each migration of the case; whether it is one transaction is the case's to say."""
    sql = (folder / "sql" / case.file).read_text(encoding="utf-8")
    for part in PARTS.split(sql):
        text = part if case.in_transaction else f"-- migrator: autocommit\n{part}"
        yield from_sql(text, case.file)


def judge(folder: Path, case: Case) -> Verdict:
    """Lint the case as an SQL file that somebody else sends: with no timeouts but its own."""
    found = [
        finding
        for source in sources(folder, case)
        for finding in linter.lint(source, Surroundings(), pg_version=case.pg_version).findings
    ]
    ours = tuple(each for each in found if each.rule in case.ours)
    return Verdict(case, ours, tuple(sorted({each.rule for each in found} - set(case.ours))))


def table(verdicts: list[Verdict]) -> str:
    lines = [
        f"{'category':<14}{'cases':>7}{'agree':>7}{'':>8}  unsafe missed  safe flagged  as error"
    ]
    categories = [*COUNTED, *sorted({v.case.category for v in verdicts} - set(COUNTED))]
    lines += [_row(name, [v for v in verdicts if v.case.category == name]) for name in categories]
    lines.append(_row("the bar's", counted(verdicts)))
    return "\n".join(lines)


def counted(verdicts: list[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.case.category in COUNTED]


def share(verdicts: list[Verdict]) -> float:
    return sum(verdict.agrees for verdict in verdicts) / max(len(verdicts), 1)


def _row(name: str, of: list[Verdict]) -> str:
    missed = sum(v.case.unsafe and not v.agrees for v in of)
    flagged = sum(not v.case.unsafe and not v.agrees for v in of)
    errors = sum(v.is_false_error for v in of)
    agree = sum(v.agrees for v in of)
    return f"{name:<14}{len(of):>7}{agree:>7}{share(of):>8.1%}{missed:>15}{flagged:>14}{errors:>10}"


def _disagreement(verdict: Verdict) -> str:
    case = verdict.case
    said = "unsafe" if case.unsafe else "safe"
    found = ", ".join(f"{each.rule} ({each.severity})" for each in verdict.found) or "nothing"
    others = ", ".join(verdict.others) or "nothing"
    return f"  {case.file}: {said} by {case.rule}; here: {found}; by other rules: {others}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    folder = parser.parse_args().data
    if not (folder / "cases.tsv").is_file():
        print(f"skipped: there is no {folder / 'cases.tsv'}, which holds the cases")
        return 0
    verdicts = [judge(folder, case) for case in cases(folder)]
    print(table(verdicts))
    disagreeing = [verdict for verdict in verdicts if not verdict.agrees]
    if disagreeing:
        print("\nWhere the linter does not agree:")
        print("\n".join(_disagreement(verdict) for verdict in disagreeing))
    bar = counted(verdicts)
    errors = sum(verdict.is_false_error for verdict in bar)
    reached = share(bar) >= BAR and not errors
    print(
        f"\n{'reached' if reached else 'NOT reached'}: {share(bar):.1%} of {len(bar)} verdicts agree "
        f"(the bar is {BAR:.0%}); {errors} safe cases are an error by their own rule (the bar is 0)"
    )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
