"""Read the settings: flags over environment over files; report every bad one at once.

Order of precedence: command-line flags, `MIGRATOR_*` environment variables (`MIGRATOR_DATABASE__URL`,
short `MIGRATOR_DATABASE_URL`), `DATABASE_URL`, libpq's `PG*`, `*_FILE` variants of the secrets, then
`migrator.toml` or `[tool.migrator]` in `pyproject.toml`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from migrator.errors import SettingsError

PREFIX = "MIGRATOR_"
SETTINGS_FILE = "migrator.toml"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _conninfo(value: Any) -> Any:
    """Take a URL of any common spelling, or a libpq key=value string, and prove that it parses."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        return value
    for driver in ("postgresql+psycopg://", "postgresql+psycopg2://", "postgresql+asyncpg://"):
        if text.startswith(driver):
            text = "postgresql://" + text.removeprefix(driver)
    try:
        conninfo_to_dict(text)
    except ProgrammingError:
        # libpq's own message repeats the value, and with it the password.
        raise ValueError("expected postgresql://user:password@host/database") from None
    return text


class Database(_Section):
    """Where PostgreSQL is, and how long one statement may wait or run there."""

    url: Annotated[SecretStr | None, BeforeValidator(_conninfo)] = None
    connect_timeout_s: int = Field(10, ge=1)
    connect_retry_s: float = Field(30, ge=0)
    lock_timeout_ms: int = Field(500, ge=1)
    statement_timeout_ms: int = Field(60_000, ge=1)
    long_statement_timeout_ms: int = Field(0, ge=0)
    long_transaction_s: float = Field(5, gt=0)
    deadline_s: float = Field(600, gt=0, description="total time to wait for locks")


class Migrations(_Section):
    directory: Path = Path("migrations")
    version_locations: list[Path] = Field(default_factory=list)
    recursive: bool = False
    version_table: str = Field("alembic_version", min_length=1)
    version_table_schema: str | None = Field(None, min_length=1)
    metadata: str | None = Field(None, pattern=r"^[\w.]+:[\w.]+$")
    import_: list[str] = Field(default_factory=list, alias="import")
    rules_from: str | None = Field(None, min_length=1)
    append_only: list[str] = Field(default_factory=list)


def _session_name(value: str) -> str:
    """A part of an application_name, which PostgreSQL keeps in printable ASCII."""
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("expected letters, digits and signs of ASCII, without blanks")
    return value


class Release(_Section):
    """How the sessions of the application name themselves: NAME/VERSION."""

    application: Annotated[str, AfterValidator(_session_name)] | None = None
    version: Annotated[str, AfterValidator(_session_name)] | None = None
    watch_s: float = Field(2.0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Release:
        name = f"{self.application}/{self.version}"
        if self.application and self.version and len(name) > 63:
            raise ValueError(f"{name} has {len(name)} characters; PostgreSQL keeps 63 of them")
        return self


def _max_diff(value: Any) -> Any:
    """A number of keys, or a percentage of those compared: 0, "25", "0.5%"."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]+|[0-9]+(\.[0-9]+)?%", value.strip()):
        return value.strip()
    if value is None:
        return None
    raise ValueError('expected a number of keys or a percentage of them: 0, 25, "0.5%"')


class Projections(_Section):
    directory: Path = Path("projections")
    executor: Literal["local", "ray"] = "local"
    schema_: str = Field("public", alias="schema")
    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    memory_mb: int = Field(1024, ge=16)
    no_progress_s: float = Field(120, gt=0)
    sample_events: int = Field(4000, ge=0)
    hanging_transaction_s: float = Field(5, ge=0)
    swap_lock_timeout_ms: int = Field(100, ge=1)
    swap_deadline_s: float = Field(30, gt=0)
    max_diff: Annotated[str | None, BeforeValidator(_max_diff)] = None
    diff_shown: int = Field(20, ge=0)
    diff_max_touched: int = Field(100_000, ge=0)
    diff_join_rows: int = Field(1_000_000, ge=0)


class Follow(_Section):
    """How `migrator follow` keeps tables current."""

    group: str = Field("migrator", min_length=1)
    batch_events: int = Field(5000, ge=1)
    batch_ms: int = Field(50, ge=0)
    memory_mb: int = Field(64, ge=1)
    quarantine: int = Field(1000, ge=0)
    ready_lag_events: int = Field(10_000, ge=0)
    keep_hot_s: float = Field(5, gt=0)


class Rehearsal(_Section):
    """What a rehearsal takes for too long."""

    max_lock_ms: float = Field(1000, gt=0)
    max_rebuild_s: float | None = Field(None, gt=0)


class Deploy(_Section):
    """What a deployment does beside its plan."""

    checkpoint: bool = True
    checkpoint_days: float = Field(7, gt=0, le=30)
    require_rehearsal_h: float | None = Field(None, gt=0)


Alert = Literal["started", "done", "failed", "rolled-back"]


class Notify(_Section):
    """Where alerts of deployments go, as apprise's URLs."""

    urls: list[SecretStr] = Field(default_factory=list)
    on: list[Alert] = Field(default_factory=lambda: list(get_args(Alert)))


class Metrics(_Section):
    """Where the numbers of a deployment go when it ends."""

    textfile: Path | None = None
    pushgateway: SecretStr | None = None
    job: str = Field("migrator", min_length=1)
    timeout_s: float = Field(5, gt=0)


class HealthCheck(_Section):
    """One question to the application: a URL, a command or an SQL statement."""

    name: str = Field(pattern=r"^[\w.-]+$")
    url: SecretStr | None = None
    status: int = Field(200, ge=100, le=599)
    fields: dict[str, str | bool | int | float] = Field(default_factory=dict)
    latency_ms: int | None = Field(None, ge=1)
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    command: list[str] | None = Field(None, min_length=1)
    sql: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _asks_one_thing(self) -> HealthCheck:
        given = [name for name in ("url", "command", "sql") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'nothing'} is given: expected one of url, command, sql"
            )
        if self.url and not self.url.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("expected a url that begins with http:// or https://")
        return self


class Health(_Section):
    """What tells after a cut-over whether the application is well."""

    window_s: float = Field(30, ge=0)
    interval_s: float = Field(2, gt=0)
    timeout_s: float = Field(5, gt=0)
    failures: int = Field(2, ge=0)
    checks: list[HealthCheck] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names_differ(self) -> Health:
        names = [check.name for check in self.checks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two checks are named {' and '.join(twice)}")
        return self


def _without_our_own(value: dict[str, Any]) -> dict[str, Any]:
    if "working_dir" in value:
        raise ValueError("working_dir is migrator's own: include names what projections import")
    return value


def _of_a_node(value: str) -> str:
    if value.startswith("ray://"):
        raise ValueError("expected host:port: migrator runs on a node, not behind Ray's proxy")
    return value


class Ray(_Section):
    """The Ray cluster that replays, where `[projections] executor` is ray."""

    address: Annotated[str, AfterValidator(_of_a_node)] | None = Field(None, min_length=1)
    cpus_per_worker: float = Field(1, gt=0)
    memory_mb_per_worker: int | None = Field(None, ge=1)
    include: list[Path] = Field(default_factory=list)
    runtime_env: Annotated[dict[str, Any], AfterValidator(_without_our_own)] = Field(
        default_factory=dict, repr=False
    )
    retries: int = Field(3, ge=0)
    wait_s: float = Field(600, gt=0)


def _sendable(value: SecretStr | None) -> SecretStr | None:
    """A key that a header can hold; it is never shown, not even where it is wrong."""
    text = value.get_secret_value() if value else "none"
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("expected one word of ASCII, as Neon's console shows it")
    return value


def _over_tls(value: str) -> str:
    here = ("http://127.0.0.1:", "http://localhost:")
    if not value.startswith(("https://", *here)):
        raise ValueError("expected https://: the API key goes there")
    return value


NeonId = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,60}$")]


class Neon(_Section):
    """The Neon project that the database is in; without `project_id` it is plain PostgreSQL."""

    api_key: Annotated[SecretStr | None, AfterValidator(_sendable)] = None
    project_id: NeonId | None = None
    branch: str | None = Field(None, min_length=1)
    database: str | None = Field(None, min_length=1)
    role: str | None = Field(None, min_length=1)
    base_url: Annotated[str, AfterValidator(_over_tls)] = "https://console.neon.tech/api/v2"
    timeout_s: float = Field(30, gt=0)
    retry_s: float = Field(60, ge=0)
    wait_s: float = Field(600, ge=0)


def _property_names(value: Any) -> Any:
    """An environment variable cannot hold librdkafka's dots: BOOTSTRAP_SERVERS is bootstrap.servers."""
    return {k.replace("_", "."): v for k, v in value.items()} if isinstance(value, dict) else value


def _lies_in(value: str) -> str:
    """Where a part of an event lies: a field of the envelope, or `header:NAME`."""
    if not value or value == "header:":
        raise ValueError("expected the name of a field, or header:NAME")
    if value.startswith("schema:"):
        raise ValueError(f"only a type lies in a schema, as {SCHEMA_NAME} or {SCHEMA_FULL_NAME}")
    return value


def _type_lies_in(value: str) -> str:
    return value if value in (SCHEMA_NAME, SCHEMA_FULL_NAME) else _lies_in(value)


WHOLE = "."
SCHEMA_NAME = "schema:name"
SCHEMA_FULL_NAME = "schema:fullname"
REGISTRY_FORMATS = ("avro", "protobuf", "jsonschema")
Place = Annotated[str, AfterValidator(_lies_in)]
TypePlace = Annotated[str, AfterValidator(_type_lies_in)]
KeyFormat = Literal["text", "json", "avro", "protobuf", "jsonschema"]


class Topic(_Section):
    """How one topic's records are read: their format, their envelope, and where its parts lie."""

    format: Literal["json", "avro", "protobuf", "jsonschema"] = "json"
    envelope: Literal["plain", "cloudevents", "debezium"] = "plain"
    type: TypePlace = "type"
    id: Place = "id"
    time: Place | None = None
    version: Place = "version"
    payload: str = Field("data", min_length=1)
    key: KeyFormat = "text"
    key_field: str | None = Field(None, min_length=1)
    schema_registry: Annotated[dict[str, str], BeforeValidator(_property_names)] = Field(
        default_factory=dict, repr=False
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, said: Any) -> Any:
        """What is usual for the envelope and the format, where the topic says nothing."""
        if not isinstance(said, dict):
            return said
        envelope, form = said.get("envelope", "plain"), said.get("format", "json")
        own = sorted(said.keys() & {"type", "id", "time", "payload"})
        if envelope in ("cloudevents", "debezium") and own:
            raise ValueError(f"{envelope} itself says where {', '.join(own)} lies: take it out")
        usual: dict[str, Any] = {}
        if envelope == "cloudevents":
            usual = {"time": "time"}
        elif envelope == "debezium":
            usual = {"time": "source.ts_ms", "key": form}
        elif form in REGISTRY_FORMATS:
            usual = {"type": SCHEMA_NAME, "id": "header:id", "payload": WHOLE}
        return {**usual, **said}

    @model_validator(mode="after")
    def _fits(self) -> Topic:
        if self.format == "json" and self.type.startswith("schema:"):
            raise ValueError(f"type lies in {self.type}, and json has no schema")
        return self


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="forbid",
        frozen=True,
    )

    database: Database = Database()
    kafka: Annotated[dict[str, str], BeforeValidator(_property_names)] = Field(
        default_factory=dict, repr=False
    )
    schema_registry: Annotated[dict[str, str], BeforeValidator(_property_names)] = Field(
        default_factory=dict, repr=False
    )
    migrations: Migrations = Migrations()
    release: Release = Release()
    projections: Projections = Projections()
    follow: Follow = Follow()
    rehearsal: Rehearsal = Rehearsal()
    ray: Ray = Ray()
    neon: Neon = Neon()
    deploy: Deploy = Deploy()
    health: Health = Health()
    notify: Notify = Notify()
    metrics: Metrics = Metrics()
    topics: dict[str, Topic] = Field(default_factory=dict)
    root: Path = Field(
        default_factory=Path.cwd, description="the folder that paths are relative to"
    )

    def topic(self, name: str) -> Topic:
        """How a topic's records are read, and with which schema registry."""
        topic = self.topics.get(name, Topic())
        own = topic.schema_registry or self.schema_registry
        return topic.model_copy(update={"schema_registry": own})

    @property
    def migrations_dir(self) -> Path:
        return self.root / self.migrations.directory

    @property
    def version_locations(self) -> list[Path]:
        """The folders that hold revision files."""
        named = [self.root / folder for folder in self.migrations.version_locations]
        return named or [self.migrations_dir / "versions"]

    @property
    def projections_dir(self) -> Path:
        return self.root / self.projections.directory

    @property
    def names_a_database(self) -> bool:
        """Whether any place names a database."""
        try:
            return self.conninfo is not None
        except SettingsError:
            return False

    @property
    def conninfo(self) -> str:
        """The database's conninfo with its password; libpq fills what it lacks from PG*.

        Raises:
            SettingsError: no database is named anywhere.
        """
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        if any(
            os.environ.get(name) for name in ("PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE")
        ):
            return ""
        raise SettingsError(
            "no database is named",
            expected="--database-url, MIGRATOR_DATABASE_URL, DATABASE_URL, PGHOST ..., "
            f"or [database] url in {SETTINGS_FILE}",
            next_step="to try migrator without a server of your own: migrator sandbox up",
        )

    @property
    def kafka_config(self) -> dict[str, str]:
        """The properties that librdkafka is given.

        Raises:
            SettingsError: no broker is named.
        """
        if not self.kafka.get("bootstrap.servers"):
            raise SettingsError(
                "no Kafka broker is named",
                expected='MIGRATOR_KAFKA_BOOTSTRAP_SERVERS, or [kafka] "bootstrap.servers" '
                f"in {SETTINGS_FILE}",
                next_step="to try migrator without a broker of your own: migrator sandbox up",
            )
        return dict(self.kafka)


def load(*, config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Merge files, environment and flags into one validated Settings; read-only.

    Raises:
        SettingsError: the file is missing or no TOML, or any setting is unknown or malformed;
            all bad settings are in the one error.
    """
    file = config or _settings_file(Path.cwd())
    if file is not None and not file.is_file():
        raise SettingsError(f"there is no file {file}", expected="a TOML file after --config")
    sources = _sources(file, dict(overrides or {}))

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls, *_: object, **__: object
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(source for _, source in sources)

    try:
        loaded = Layered()
    except ValidationError as exc:
        raise _explain(exc, sources) from None
    # A plain Settings, which unlike the local class can be sent to a worker process.
    return Settings.model_construct(
        **{name: getattr(loaded, name) for name in Settings.model_fields}
    )


Sources = list[tuple[str, PydanticBaseSettingsSource]]


def _sources(file: Path | None, overrides: dict[str, Any]) -> Sources:
    """Every place a setting may come from, the strongest first."""
    place = {"root": (file.parent if file else Path.cwd()).resolve()}
    sources: Sources = [
        ("the command line", InitSettingsSource(Settings, overrides)),
        ("the environment", EnvSettingsSource(Settings, env_nested_delimiter="__")),
        ("the environment", _ShortNames(Settings)),
        ("the environment", InitSettingsSource(Settings, _secret_files())),
        ("DATABASE_URL", InitSettingsSource(Settings, _database_url())),
        ("NEON_API_KEY", InitSettingsSource(Settings, _neon_api_key())),
    ]
    if file is not None:
        try:
            if file.name == "pyproject.toml":
                tables: TomlConfigSettingsSource = PyprojectTomlConfigSettingsSource(
                    _InPyproject, file
                )
            else:
                tables = TomlConfigSettingsSource(Settings, file)
            _refuse_key_in(file, tables)
            sources.append((str(file), tables))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
            raise SettingsError(f"{file} is no TOML: {exc}", next_step=f"correct {file}") from None
    return [*sources, ("the folder", InitSettingsSource(Settings, place))]


class _InPyproject(Settings):
    model_config = SettingsConfigDict(pyproject_toml_table_header=("tool", "migrator"))


class _ShortNames(EnvSettingsSource):
    """MIGRATOR_DATABASE_URL, short for MIGRATOR_DATABASE__URL."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls, env_nested_delimiter="_", env_nested_max_split=1)
        self.env_vars = {
            name: value
            for name, value in self.env_vars.items()
            if "__" not in name and not name.endswith("_file")
        }


def _secret_files() -> dict[str, Any]:
    """MIGRATOR_DATABASE_URL_FILE and MIGRATOR_KAFKA_<PROPERTY>_FILE name a file with the value."""
    found: dict[str, dict[str, str]] = {}
    for name, path in os.environ.items():
        if name.startswith(PREFIX) and name.endswith("_FILE"):
            section, key = _section_and_key(name.removeprefix(PREFIX).removesuffix("_FILE"))
            try:
                value = Path(path).read_text(encoding="utf-8").strip()
            except OSError as exc:
                raise SettingsError(
                    f"{name} names {path}, which cannot be read: {exc.strerror}"
                ) from None
            found.setdefault(section.lower(), {})[key.strip("_").lower()] = value
    return found


def _section_and_key(name: str) -> tuple[str, str]:
    """SCHEMA_REGISTRY_URL is url of schema_registry, whose own name has an underscore."""
    for section in Settings.model_fields:
        if name.lower().startswith(f"{section}_"):
            return section, name[len(section) + 1 :]
    section, _, key = name.partition("_")
    return section, key


def _database_url() -> dict[str, Any]:
    url = os.environ.get("DATABASE_URL")
    return {"database": {"url": url}} if url else {}


def _neon_api_key() -> dict[str, Any]:
    key = os.environ.get("NEON_API_KEY")
    return {"neon": {"api_key": key}} if key else {}


def _refuse_key_in(file: Path, tables: PydanticBaseSettingsSource) -> None:
    """A key for a whole project must not lie in a file that is committed."""
    table = tables().get("neon")
    if isinstance(table, dict) and "api_key" in table:
        raise SettingsError(
            f"{file} holds the API key of Neon",
            expected="it in MIGRATOR_NEON_API_KEY, MIGRATOR_NEON_API_KEY_FILE or NEON_API_KEY",
            next_step=f"take api_key out of {file}, and make a new key if the file was committed",
        )


def _settings_file(folder: Path) -> Path | None:
    own, project = folder / SETTINGS_FILE, folder / "pyproject.toml"
    if own.is_file():
        return own
    try:
        tables = tomllib.loads(project.read_text(encoding="utf-8")) if project.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SettingsError(
            f"{project} is no TOML: {exc}", next_step=f"correct {project}"
        ) from None
    return project if "migrator" in tables.get("tool", {}) else None


def _explain(exc: ValidationError, sources: Sources) -> SettingsError:
    problems = []
    for error in exc.errors(include_url=False, include_context=False, include_input=False):
        where = [str(part) for part in error["loc"]]
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            near = difflib.get_close_matches(where[-1], _names(where[:-1]), n=1)
            message = "there is no such setting" + (f"; did you mean {near[0]}?" if near else "")
        origin = next((name for name, source in sources if _holds(source(), where)), "default")
        problems.append({"setting": ".".join(where), "from": origin, "problem": message})
    lines = "".join(f"\n  {p['setting']} (from {p['from']}): {p['problem']}" for p in problems)
    many = f"{len(problems)} settings are" if len(problems) > 1 else "a setting is"
    return SettingsError(
        f"{many} wrong:{lines}", next_step="docs/settings.md lists every setting", problems=problems
    )


def _holds(tables: Any, path: list[str]) -> bool:
    for key in path:
        if not isinstance(tables, dict) or key not in tables:
            return False
        tables = tables[key]
    return True


def _names(section: list[str]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "database": Database,
        "migrations": Migrations,
        "release": Release,
        "projections": Projections,
        "rehearsal": Rehearsal,
        "deploy": Deploy,
        "health": Health,
        "notify": Notify,
        "metrics": Metrics,
        "ray": Ray,
        "neon": Neon,
        "topics": Topic,
    }
    model = sections.get(section[0], Settings) if section else Settings
    return [field.alias or name for name, field in model.model_fields.items() if name != "root"]
