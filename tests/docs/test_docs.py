"""The docs are complete and true: whatever a user may type, set or meet has its place in them."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from confluent_kafka.admin import AdminClient
from pydantic import BaseModel

import migrator
from migrator.cli.root import COMMANDS, root
from migrator.errors import MigratorError
from migrator.migrations.lint import registry
from migrator.migrations.lint.squawk_rules import RULES
from migrator.settings import Settings, load

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
LEDGER_SQL = ROOT / "migrator" / "postgres" / "sql" / "ledger.sql"
GLOBAL = "[GLOBAL OPTIONS]"


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    """What stands between `## heading` and the next one."""
    parts = re.split(r"^## (.+)$", text(page), flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    return found.get(heading, "")


def blocks(page: Path, language: str) -> list[str]:
    """The page's code blocks of a language; one in a list is indented."""
    source = page.read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", source, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in found]


# Commands


def commands() -> dict[str, click.Command]:
    """Every command that can be typed, groups resolved: `sandbox up`."""
    found: dict[str, click.Command] = {}
    context = click.Context(root)
    for name in COMMANDS:
        command = root.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= {f"{name} {sub}": each for sub, each in command.commands.items()}
        else:
            found[name] = command
    return found


def options(command: click.Command) -> list[str]:
    return [
        name
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    ]


ALL_COMMANDS = commands()
ALL_OPTIONS = [(name, option) for name, each in ALL_COMMANDS.items() for option in options(each)]


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_every_command_has_its_section(name):
    assert f"`migrator {name}" in section("docs/commands.md", name)


@pytest.mark.parametrize(("name", "option"), ALL_OPTIONS)
def test_every_option_of_a_command_has_its_row(name, option):
    assert re.search(rf"^\| `{option}[ `]", section("docs/commands.md", name), re.MULTILINE)


@pytest.mark.parametrize("option", options(root))
def test_every_global_option_has_its_row(option):
    head = text("docs/commands.md").partition("\n## ")[0]
    assert re.search(rf"^\| .*`{option}[ `]", head, re.MULTILINE)


def test_no_section_is_of_a_command_that_is_not_there():
    sections = re.findall(r"^## (.+)$", text("docs/commands.md"), re.MULTILINE)
    assert set(sections) == set(ALL_COMMANDS)


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_no_row_is_of_an_option_that_is_not_there(name):
    rows = re.findall(r"^\| `(--[a-z-]+)", section("docs/commands.md", name), re.MULTILINE)
    assert set(rows) <= set(options(ALL_COMMANDS[name]))


def test_the_readme_lists_the_commands():
    table = section("README.md", "Commands")
    missing = [
        name for name in COMMANDS if not re.search(rf"^\| `migrator {name}\b", table, re.MULTILINE)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_in_a_typed_command_exists(page):
    """A `migrator ...` line of a shell block or of inline code names only flags that exist."""
    shell = "\n".join([*blocks(page, "sh"), *blocks(page, "")])
    typed = re.findall(r"^(?:\$ )?migrator .*$", shell, re.MULTILINE)
    typed += re.findall(r"`(migrator [^`]+)`", page.read_text(encoding="utf-8"))
    known_globally = {*options(root), "--help"}
    for line in typed:
        words = line.removeprefix("$ ").split("#")[0].split()[1:]
        names = [n for n in ALL_COMMANDS if words[: len(n.split())] == n.split()]
        known = known_globally | {o for n in names for o in options(ALL_COMMANDS[n])}
        flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", " ".join(words)))
        assert flags <= known, line


# Settings, exit codes, errors, the ledger


def settings() -> list[tuple[str, str, str]]:
    """(section of the page, setting, its environment variable or nothing)."""
    found = []
    for table, field in Settings.model_fields.items():
        model = field.annotation
        if table == "topics":
            model = model.__args__[1]
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        for name, each in model.model_fields.items():
            said = each.alias or name
            variable = "" if table == "topics" else f"MIGRATOR_{table}_{said}".upper()
            found.append((f"[{table}]", said, variable))
    return found


@pytest.mark.parametrize(("table", "name", "variable"), settings())
def test_every_setting_has_its_row(table, name, variable):
    rows = re.findall(rf"^\| `{name}` \|.*$", section("docs/settings.md", table), re.MULTILINE)
    assert rows
    assert f"`{variable}`" in rows[0] if variable else True


@pytest.mark.parametrize("table", list(Settings.model_fields))
def test_every_table_of_settings_has_its_section(table):
    assert section("docs/settings.md", table if table == "root" else f"[{table}]")


@pytest.mark.parametrize(("table", "name", "variable"), settings())
def test_every_default_is_the_real_one(table, name, variable):
    model = Settings.model_fields[table.strip("[]")].annotation
    model = model.__args__[1] if table == "[topics]" else model
    field = next(f for n, f in model.model_fields.items() if (f.alias or n) == name)
    if field.default_factory is not None:
        return
    default = "none" if field.default is None else f"`{field.default}`"
    row = re.search(rf"^\| `{name}` \|.*$", section("docs/settings.md", table), re.MULTILINE)
    assert f"| {default} |" in row[0]


def test_the_settings_example_loads_and_names_every_setting(tmp_path):
    (example,) = re.findall(
        r"<!-- settings -->\n```toml\n(.*?)```", text("docs/settings.md"), re.DOTALL
    )
    file = tmp_path / "migrator.toml"
    file.write_text(example)
    loaded = load(config=file)
    assert loaded.topic("billing.payments").payload == "."
    assert [
        name
        for _, name, _ in settings()
        # A comment says where a secret is that no file may hold.
        if not re.search(rf"^{name} = |^# {name}: ", example, re.MULTILINE)
    ] == []


def errors() -> list[type[MigratorError]]:
    """Every error class of the package; a subclass is known once its module is imported."""
    for module in pkgutil.walk_packages(migrator.__path__, "migrator."):
        if not module.name.startswith(("migrator.__main__", "migrator.sandbox.keeper")):
            importlib.import_module(module.name)
    found, todo = [], [MigratorError]
    while todo:
        found.append(each := todo.pop())
        todo += each.__subclasses__()
    return [each for each in found if each.__module__.startswith("migrator.")]


@pytest.mark.parametrize("error", errors(), ids=lambda error: error.__name__)
def test_every_error_has_its_row(error):
    row = f"| `{error.__name__}` | `{error.code}` | {error.exit_code} |"
    assert row in text("docs/exit-codes.md")


def test_every_exit_code_is_explained():
    table = text("docs/exit-codes.md").partition("## ")[0]
    codes = {0, 6, *(error.exit_code for error in errors())}
    assert codes == {int(code) for code in re.findall(r"^\| (\d) \|", table, re.MULTILINE)}


def ledger() -> list[tuple[str, str]]:
    """Every (table, column) of ledger.sql."""
    found = []
    for name, body in re.findall(
        r"^CREATE TABLE IF NOT EXISTS (migrator\.\w+) \((.*?)\);$",
        LEDGER_SQL.read_text(),
        re.DOTALL | re.MULTILINE,
    ):
        columns = re.findall(r"^ *(\w+) +[a-z]", body, re.MULTILINE)
        found += [(name, column) for column in columns]
    return found


def described(table: str) -> str:
    """The first cells of the rows that follow the table's name, in a heading or on a line alone."""
    page = re.split(
        rf"^(?:## |`){table}`?$", text("docs/ledger.md"), maxsplit=1, flags=re.MULTILINE
    )
    rows = re.search(r"(?:^\|.*\n)+", page[1], re.MULTILINE) if len(page) > 1 else None
    return "\n".join(row.split("|")[1] for row in rows[0].splitlines()) if rows else ""


@pytest.mark.parametrize(("table", "column"), ledger())
def test_every_column_of_the_ledger_is_described(table, column):
    if table == "migrator.format":  # one number, told in prose
        assert f"`{table}`" in text("docs/ledger.md")
    else:
        assert f"`{column}`" in described(table)


# Links, code, names


def links() -> list[tuple[Path, str]]:
    found = []
    for page in PAGES:
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        found += [(page, target) for target in re.findall(r"\]\(([^)\s]+)\)", prose)]
    return [(page, target) for page, target in found if "://" not in target]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize(
    ("page", "target"), links(), ids=lambda part: getattr(part, "name", str(part))
)
def test_every_link_leads_somewhere(page, target):
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    assert file.exists()
    if anchor:
        assert anchor in anchors(file)


def test_every_page_is_reached_from_the_readme():
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached:
            continue
        reached.add(page)
        for source, target in links():
            file = (source.parent / target.partition("#")[0]).resolve()
            if source == page and file.suffix == ".md":
                todo.append(file)
            elif source == page and file.is_dir():
                todo += file.glob("*.md")
    assert set(PAGES) - reached == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_docs_parses(page):
    for block in blocks(page, "python"):
        ast.parse(block)


@pytest.mark.parametrize("page", sorted((DOCS / "adr").glob("*.md")), ids=lambda page: page.name)
def test_a_decision_is_short_and_has_its_four_parts(page):
    source = page.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 40
    headings = re.findall(r"^## (.+)$", source, re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences", "Alternatives"]


def test_the_projection_in_the_docs_can_be_defined(tmp_path):
    from migrator.projections import registry

    source = blocks(DOCS / "projections.md", "python")[0]
    (tmp_path / "documented").mkdir()
    (tmp_path / "documented" / "orders.py").write_text(source)
    definition = registry.load(tmp_path / "documented")["orders"].definition
    assert set(definition.handlers) == {"OrderPlaced", "OrderShipped", "OrderDeleted"}


def test_the_changelog_has_this_version():
    assert f"## [{version('migrator')}]" in text("CHANGELOG.md")


# Spelled apart, so that this file does not name them.
HOSTS = [
    "pypi" + ".org",
    "files.python" + "hosted.org",
    "repo1.maven" + ".org",
    "repo.maven.apache" + ".org",
    "registry.npm" + "js.org",
    "proxy.golang" + ".org",
    "deb.debian" + ".org",
    "static.crates" + ".io",
]


def test_no_file_names_a_registrys_host():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    files = [ROOT / name for name in listed.split("\0") if name]
    found = [
        (file.name, host)
        for file in files
        if file.is_file()
        for host in HOSTS
        if host.encode() in file.read_bytes()
    ]
    assert found == []


# The tour


def tour() -> str:
    """The README's tour as one script; the servers are the test's own."""
    marked = re.findall(r"<!-- tour -->\n```sh\n(.*?)```", text("README.md"), re.DOTALL)
    lines = "".join(marked).splitlines()
    kept = [line for line in lines if "migrator sandbox" not in line]
    assert len(lines) - len(kept) == 2
    return "\n".join(kept)


@pytest.fixture
def _tour_topic(brokers):
    """The tour names its topic: it is taken away again."""
    admin = AdminClient({"bootstrap.servers": brokers})
    yield
    admin.delete_topics(["shop.orders"])["shop.orders"].result(30)


@pytest.mark.usefixtures("_tour_topic")
def test_the_readmes_tour_works(tmp_path, database_url, brokers, db):
    """Line by line in an empty folder, as a new user types it."""
    environment = {
        **os.environ,
        "MIGRATOR_DATABASE_URL": database_url,
        "MIGRATOR_KAFKA_BOOTSTRAP_SERVERS": brokers,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", tour()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "pending: its definition has changed" in ran.stdout
    assert db.execute("SELECT count(*) FROM orders").fetchone() == (1000,)
    assert db.execute("SELECT count(*) FROM order_requests").fetchone() == (0,)
    acts = db.execute("SELECT act FROM migrator.ledger ORDER BY entry").fetchall()
    assert acts == [("up",), ("cut-over",), ("cut-over",), ("swap-back",)]


# Lint rules

OWN_RULES = sorted(registry.own())


def test_every_rule_of_squawk_has_its_row():
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (\w+) \|$", text("docs/lint.md"), re.MULTILINE)
    assert rows == [
        (name, known.category, known.severity)
        for name, known in sorted(RULES.items(), key=lambda item: (item[1].category, item[0]))
    ]


@pytest.mark.parametrize("rule", OWN_RULES)
def test_every_own_rule_has_its_page(rule):
    page = DOCS / "lint" / f"{rule}.md"
    assert page.is_file()


@pytest.mark.parametrize("rule", OWN_RULES)
def test_every_own_rule_has_its_module_and_its_tests(rule):
    name = rule.replace("-", "_")
    assert (ROOT / "migrator" / "migrations" / "lint" / "rules" / f"{name}.py").is_file()
    assert (ROOT / "tests" / "unit" / "lint" / f"test_{name}.py").is_file()


def test_no_page_is_of_a_rule_that_is_not_there():
    assert {page.stem for page in (DOCS / "lint").glob("*.md")} <= {*OWN_RULES}
