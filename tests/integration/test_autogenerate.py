from __future__ import annotations

import json
import sys
import textwrap

import pytest

from migrator.deploy import rollback
from migrator.errors import Refused, UsageError
from migrator.migrations import autogenerate, scaffold, up
from migrator.settings import Settings

HEAD = """
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
metadata = sa.MetaData()
"""
EMPTY = ""
ORDERS = """
orders = sa.Table("orders", metadata,
    sa.Column("order_id", sa.BigInteger, primary_key=True),
    sa.Column("customer", sa.Text, nullable=False))
"""
SHOP = """
colour = sa.Enum("red", "it's", name="colour")
customers = sa.Table("customers", metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("name", sa.String(40), nullable=False, unique=True),
    sa.Column("favourite", colour), sa.Column("other", colour),
    sa.CheckConstraint("name <> ''", name="customers_named"),
    comment="who buys")
orders = sa.Table("orders", metadata,
    sa.Column("order_id", sa.BigInteger, primary_key=True),
    sa.Column("customer", sa.Text, nullable=False),
    sa.Column("customer_id", sa.ForeignKey("customers.id"), index=True),
    sa.Column("note", sa.Text, comment="free text"),
    sa.Column("colour", colour),
    sa.Column("weight", sa.Numeric(10, 2), nullable=False),
    sa.Column("placed_at", sa.DateTime(True), server_default=sa.text("now()"), nullable=False),
    sa.Index("orders_by_customer_place", "customer", sa.text("placed_at DESC")),
    sa.UniqueConstraint("customer", "placed_at"),
    sa.CheckConstraint("weight > 0", name="orders_weigh"))
sa.Table("lines", metadata,
    sa.Column("order_id", sa.ForeignKey("orders.order_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("line", sa.Integer, primary_key=True),
    sa.Column("tags", postgresql.ARRAY(sa.Text), index=True))
sa.Table("things", metadata, sa.Column("id", postgresql.UUID, primary_key=True), schema="other")
"""


@pytest.fixture
def project(tmp_path, make_settings, monkeypatch):
    """`project(source)` writes models.py with that metadata and returns the settings."""
    settings = make_settings(tmp_path, migrations={"metadata": "shop_models:metadata"})
    monkeypatch.setenv("MIGRATOR_MIGRATIONS_METADATA", "shop_models:metadata")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "migrations/versions").mkdir(parents=True)

    def write(source: str) -> Settings:
        (tmp_path / "shop_models.py").write_text(HEAD + textwrap.dedent(source))
        sys.modules.pop("shop_models", None)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        return settings

    yield write
    sys.modules.pop("shop_models", None)


def draft(settings, *, phase="expand", ask=None):
    return autogenerate.draft(settings, "change it", phase=phase, ask=ask)


def apply(settings, **asked):
    """Draft, write, and let `up` apply it as it is."""
    drafted = draft(settings, **asked)
    scaffold.write(*drafted.drafts)
    up.up(settings)
    return drafted


CATALOG = """
SELECT 'column', table_schema || '.' || table_name, column_name, format('%s %s %s %s %s', data_type,
       character_maximum_length, is_nullable, column_default, udt_name)
FROM information_schema.columns WHERE table_schema IN ('public', 'other')
UNION ALL SELECT 'index', schemaname || '.' || tablename, indexname, indexdef FROM pg_indexes
WHERE schemaname IN ('public', 'other')
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname,
       format('%s %s', convalidated, pg_get_constraintdef(oid)) FROM pg_constraint
WHERE conrelid <> 0 AND connamespace::regnamespace::text IN ('public', 'other') AND contype <> 'n'
UNION ALL SELECT 'comment', c.oid::regclass::text, (SELECT a.attname FROM pg_attribute AS a
           WHERE a.attrelid = c.oid AND a.attnum = d.objsubid), d.description
FROM pg_description d JOIN pg_class c ON c.oid = d.objoid AND d.classoid = 'pg_class'::regclass
WHERE c.relnamespace::regnamespace::text IN ('public', 'other')
UNION ALL SELECT 'type', typname, '', '' FROM pg_type WHERE typtype = 'e'
ORDER BY 1, 2, 3, 4
"""


def catalog(db):
    """Everything about the tables but the order of their columns."""
    found = db.execute(CATALOG).fetchall()
    return [row for row in found if "alembic_version" not in row[1]]


def undo_to(settings, revision):
    rollback.rollback(settings, rollback.plan(settings, to=revision), reason="test")


def test_what_was_drafted_is_applied_as_it_is_and_then_there_is_nothing_to_do(project, db):
    db.execute("CREATE SCHEMA other")
    apply(project(ORDERS))
    settings = project(SHOP)
    apply(settings)
    assert draft(settings).drafts == ()
    apply(settings, phase="contract")
    left = draft(settings, phase="contract")
    assert (left.drafts, left.held, left.open) == ((), (), ())


def test_undone_the_catalog_is_what_it_was(project, db):
    db.execute("CREATE SCHEMA other")
    apply(project(ORDERS))
    before = catalog(db)
    settings = project(SHOP)
    apply(settings, phase="contract")
    assert catalog(db) != before
    undo_to(settings, "0001")
    assert catalog(db) == before


def test_removals_undone_bring_the_catalog_back(project, db):
    db.execute("CREATE SCHEMA other")
    apply(project(ORDERS))
    settings = project(SHOP)
    apply(settings, phase="contract")
    before, version = catalog(db), up.up(settings).version
    apply(project(ORDERS), phase="contract")
    assert [row for row in catalog(db) if row[1] == "public.lines"] == []
    undo_to(settings, version)
    # A required column comes back without its NOT NULL, and says so.
    required = "numeric  YES  numeric"
    assert [row for row in before if row not in catalog(db)] == [
        ("column", "public.orders", "weight", "numeric  NO  numeric")
    ]
    assert [row[3] for row in catalog(db) if row not in before] == [required]


def test_an_index_on_a_table_that_is_there_has_a_concurrent_revision_of_its_own(project):
    apply(project(ORDERS))
    source = ORDERS[: ORDERS.rindex(")")] + ', sa.Column("note", sa.Text, index=True))'
    first, second = draft(project(source)).drafts
    assert "op.add_column" in first.source
    assert "create_index" not in first.source
    assert "with op.get_context().autocommit_block():" in second.source
    assert "postgresql_concurrently=True" in second.source
    assert second.rollback_script == (
        "-- migrator: autocommit\nDROP INDEX CONCURRENTLY IF EXISTS ix_orders_note;\n"
    )
    assert second.revises == first.id


def test_a_required_column_is_added_nullable_and_made_required_in_contract(project, db):
    apply(project(ORDERS))
    db.execute("INSERT INTO orders VALUES (1, 'ada')")
    source = ORDERS[: ORDERS.rindex(")")] + ', sa.Column("n", sa.Integer, nullable=False))'
    expand = apply(project(source))
    assert len(expand.drafts) == 1
    assert "nullable=True" in expand.drafts[0].source
    assert "# contract: op.execute('ALTER TABLE orders ADD CONSTRAINT" in expand.drafts[0].source
    db.execute("UPDATE orders SET n = 1")
    add, validate = apply(project(source), phase="contract").drafts
    assert "CHECK (n IS NOT NULL) NOT VALID" in add.source
    assert "VALIDATE CONSTRAINT" in validate.source
    assert "nullable=False" in validate.source


def test_a_foreign_key_and_a_check_are_added_not_valid_and_then_validated(project):
    apply(project(ORDERS))
    settings = project(
        ORDERS[: ORDERS.rindex(")")]
        + ', sa.ForeignKeyConstraint(["order_id"], ["orders.order_id"], name="self"),'
        'sa.CheckConstraint("order_id > 0", name="positive"))'
    )
    assert draft(settings).drafts == ()
    add, validate = draft(settings, phase="contract").drafts
    assert add.source.count("postgresql_not_valid=True") == 2
    assert validate.source.count("VALIDATE CONSTRAINT") == 2


def test_rows_are_read_before_the_lock_that_blocks_readers_is_taken(project, db):
    apply(project(ORDERS))
    settings = project(
        ORDERS[: ORDERS.rindex(")")]
        + ', sa.Column("n", sa.Integer, nullable=False), sa.Column("m", sa.Integer, nullable=False),'
        'sa.UniqueConstraint("n"), sa.CheckConstraint("n > 0", name="positive"))'
    )
    apply(settings)
    last = apply(settings, phase="contract").drafts[-1].source
    assert last.count("VALIDATE") == 3
    assert last.rindex("VALIDATE") < min(last.index("nullable=False"), last.index("USING INDEX"))


def test_a_removal_is_a_comment_in_an_expand_revision(project, db):
    apply(project(ORDERS))
    db.execute("ALTER TABLE orders ADD old int; CREATE TABLE lost (a int)")
    source = ORDERS[: ORDERS.rindex(")")] + ', sa.Column("note", sa.Text))'
    drafted = apply(project(source))
    (one,) = drafted.drafts
    assert "    # contract: op.drop_column('orders', 'old')" in one.source
    assert "    # contract: op.drop_table('lost')" in one.source
    assert set(drafted.held) == {"op.drop_column('orders', 'old')", "op.drop_table('lost')"}
    assert db.execute("SELECT count(old) FROM orders, lost").fetchone() == (0,)


def test_only_removals_write_nothing_and_say_what_waits(project, db, cli):
    apply(project(ORDERS))
    db.execute("CREATE TABLE lost (a int)")
    result = cli("new", "--autogenerate", "more")
    assert result.exit_code == 0
    assert "nothing to add: what is left removes or restricts" in result.stdout
    assert "op.drop_table('lost')" in result.stdout


def test_what_loses_data_is_marked_in_the_rollback_script(project):
    (first,) = draft(project(ORDERS)).drafts
    assert "-- loses: the rows of orders\nDROP TABLE orders;" in first.rollback_script
    apply(project(ORDERS))
    source = ORDERS[: ORDERS.rindex(")")] + ', sa.Column("note", sa.Text))'
    (second,) = draft(project(source)).drafts
    assert "-- loses: the values of orders.note\nALTER TABLE orders DROP" in second.rollback_script


RENAMED = ORDERS.replace('"customer"', '"buyer"')


def test_a_rename_that_is_confirmed_keeps_the_values_and_can_be_undone(project, db):
    apply(project(ORDERS))
    db.execute("INSERT INTO orders VALUES (1, 'ada')")
    asked = []
    settings = project(RENAMED)
    drafted = apply(settings, ask=lambda rename: asked.append(str(rename)) or True)
    assert asked == ["rename column of orders, customer to buyer?"]
    assert [each.phase for each in drafted.drafts] == ["contract"]
    assert db.execute("SELECT buyer FROM orders").fetchone() == ("ada",)
    undo_to(settings, "0001")
    assert db.execute("SELECT customer FROM orders").fetchone() == ("ada",)


def test_a_rename_that_is_declined_is_an_addition_and_a_removal(project):
    apply(project(ORDERS))
    drafted = draft(project(RENAMED), ask=lambda _rename: False)
    assert "op.add_column" in drafted.drafts[0].source
    assert "op.drop_column('orders', 'customer')" in drafted.held


def test_without_anybody_to_ask_a_rename_is_drafted_as_a_choice(project, cli):
    apply(project(ORDERS))
    project(RENAMED)
    result = cli("new", "--autogenerate", "buyer")
    assert result.exit_code == 0
    assert "rename column of orders, customer to buyer?" in result.stdout
    refused = cli("up")
    assert refused.exit_code == 3
    assert "holds no statement yet" in refused.stderr


def test_the_choice_shows_both_readings(project):
    apply(project(ORDERS))
    (only,) = draft(project(RENAMED)).drafts
    assert "# op.alter_column('orders', 'customer', new_column_name='buyer')" in only.source
    assert "# op.add_column('orders'" in only.source
    assert "# op.drop_column('orders', 'customer')" in only.source


def test_a_table_of_the_same_shape_may_be_a_rename(project, db):
    apply(project(ORDERS))
    db.execute("INSERT INTO orders VALUES (1, 'ada')")
    settings = project(ORDERS.replace('"orders"', '"purchases"'))
    apply(settings, ask=lambda rename: str(rename) == "rename table, orders to purchases?")
    assert db.execute("SELECT customer FROM purchases").fetchone() == ("ada",)
    undo_to(settings, "0001")
    assert db.execute("SELECT customer FROM orders").fetchone() == ("ada",)


def test_columns_of_different_types_are_no_rename(project):
    apply(project(ORDERS))
    source = ORDERS.replace('"customer", sa.Text', '"buyer", sa.Integer')
    assert draft(project(source)).open == ()


def test_what_is_not_the_migrations_is_left_alone(project, db):
    apply(project(ORDERS))
    db.execute(
        """CREATE TABLE projected (a int);
           INSERT INTO migrator.build (projection, state, definition_hash, target_schema, table_name)
           VALUES ('p', 'live', '', 'public', 'projected');
           CREATE SCHEMA migrator_build_7; CREATE TABLE migrator_build_7.projected (a int);
           CREATE TABLE split (a int) PARTITION BY LIST (a);
           CREATE TABLE split_1 PARTITION OF split FOR VALUES IN (1)"""
    )
    other = 'sa.Table("x", metadata, sa.Column("a", sa.Integer), schema="migrator_build_7")'
    held = draft(project(ORDERS + other)).held
    assert held == ("op.drop_table('split')",)


def test_nothing_to_do_says_so_and_writes_nothing(project, cli, tmp_path):
    apply(project(ORDERS))
    before = sorted(tmp_path.rglob("migrations/*/*"))
    result = cli("new", "--autogenerate", "nothing")
    assert (result.exit_code, result.stdout) == (
        0,
        "nothing to do: the database has what the metadata declares\n",
    )
    assert sorted(tmp_path.rglob("migrations/*/*")) == before


def test_a_dry_run_prints_the_files_and_writes_none(project, cli, tmp_path):
    project(ORDERS)
    result = cli("new", "--autogenerate", "--dry-run", "first")
    assert "op.create_table('orders'" in result.stdout
    assert "DROP TABLE orders;" in result.stdout
    assert list(tmp_path.rglob("migrations/versions/*")) == []


def test_json_names_the_revisions_and_what_was_held_back(project, cli, db):
    db.execute("CREATE TABLE lost (a int)")
    project(ORDERS)
    document = json.loads(cli("--json", "new", "--autogenerate", "first").stdout)
    assert [each["revision"] for each in document["revisions"]] == ["0001"]
    assert document["held"] == ["op.drop_table('lost')"]


def test_pending_revisions_are_applied_first(project):
    settings = project(ORDERS)
    scaffold.write(*draft(settings).drafts)
    with pytest.raises(Refused, match="0001 is pending"):
        draft(settings)


def test_without_metadata_the_setting_is_named(tmp_path, make_settings):
    with pytest.raises(UsageError, match=r"\[migrations\] metadata is not set"):
        draft(make_settings(tmp_path))


def test_a_type_of_the_projects_own_is_imported(project, tmp_path):
    (tmp_path / "shop_types.py").write_text(
        "import sqlalchemy as sa\nclass Money(sa.types.UserDefinedType):\n"
        "    cache_ok = True\n    def get_col_spec(self, **kw): return 'numeric(12,2)'\n"
    )
    source = "from shop_types import Money\n" + ORDERS.replace("sa.Text", "Money()")
    drafted = apply(project(source))
    assert "import shop_types" in drafted.drafts[0].source


def test_several_tables_that_are_altered_have_a_revision_each(project):
    two = ORDERS + ORDERS.replace("orders", "returns")
    apply(project(two))
    settings = project(two.replace("nullable=False)", 'nullable=False), sa.Column("n", sa.Text)'))
    assert len(apply(settings).drafts) == 2
    assert draft(settings).drafts == ()
