"""Settings: who wins, and what is said when they are wrong."""

from __future__ import annotations

import pickle

import pytest

from migrator.errors import SettingsError
from migrator.settings import load

URL = "postgresql://u:secret@h/d"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(tmp_path, text, name="migrator.toml"):
    (tmp_path / name).write_text(text)


@pytest.mark.parametrize(
    "name", ["MIGRATOR_DATABASE_URL", "MIGRATOR_DATABASE__URL", "DATABASE_URL"]
)
def test_the_database_may_come_from_any_of_these_variables(monkeypatch, name):
    monkeypatch.setenv(name, URL)
    assert load().conninfo == URL


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path, monkeypatch):
    write(tmp_path, '[database]\nurl = "postgresql://file/d"\nlock_timeout_ms = 7')
    assert load().conninfo == "postgresql://file/d"
    monkeypatch.setenv("DATABASE_URL", "postgresql://plain/d")
    assert load().conninfo == "postgresql://plain/d"
    monkeypatch.setenv("MIGRATOR_DATABASE_URL", "postgresql://own/d")
    assert load().conninfo == "postgresql://own/d"
    flagged = load(overrides={"database": {"url": "postgresql://flag/d"}})
    assert flagged.conninfo == "postgresql://flag/d"
    assert flagged.database.lock_timeout_ms == 7


def test_settings_may_live_in_pyproject(tmp_path):
    write(tmp_path, '[tool.migrator.projections]\nschema = "app"', "pyproject.toml")
    assert load().projections.schema_ == "app"


def test_a_pyproject_without_our_table_is_nobodys(tmp_path):
    write(tmp_path, '[project]\nname = "x"', "pyproject.toml")
    assert load().projections.schema_ == "public"


def test_paths_are_relative_to_the_settings_file(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    write(tmp_path, "", "sub/migrator.toml")
    assert load(config=tmp_path / "sub" / "migrator.toml").migrations_dir == (
        tmp_path / "sub" / "migrations"
    )


def test_a_secret_may_lie_in_a_file(tmp_path, monkeypatch):
    write(tmp_path, URL + "\n", "secret")
    monkeypatch.setenv("MIGRATOR_DATABASE_URL_FILE", str(tmp_path / "secret"))
    assert load().conninfo == URL


def test_a_secret_file_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("MIGRATOR_DATABASE_URL_FILE", "/nowhere")
    with pytest.raises(SettingsError, match="/nowhere"):
        load()


def test_kafka_takes_any_property(tmp_path, monkeypatch):
    write(tmp_path, '[kafka]\n"bootstrap.servers" = "f:1"\n"sasl.mechanism" = "PLAIN"')
    monkeypatch.setenv("MIGRATOR_KAFKA_BOOTSTRAP_SERVERS", "e:1")
    monkeypatch.setenv("MIGRATOR_KAFKA__SASL_PASSWORD", "p")
    assert load().kafka_config == {
        "bootstrap.servers": "e:1",
        "sasl.mechanism": "PLAIN",
        "sasl.password": "p",
    }


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+psycopg2", "postgres"])
def test_a_url_of_another_spelling_is_understood(monkeypatch, driver):
    monkeypatch.setenv("DATABASE_URL", f"{driver}://h/d")
    assert load().conninfo.endswith("://h/d")
    assert "+" not in load().conninfo


def test_every_wrong_setting_is_in_the_one_error(tmp_path, monkeypatch):
    write(tmp_path, '[database]\nlock_timeout_ms = 0\n[projections]\nshema = "x"\n[topic]\n')
    monkeypatch.setenv("MIGRATOR_PROJECTIONS_WORKERS", "many")
    with pytest.raises(SettingsError) as caught:
        load()
    said = str(caught.value)
    assert "4 settings are wrong" in said
    assert "database.lock_timeout_ms" in said
    assert "did you mean schema?" in said
    assert "did you mean topics?" in said
    assert "projections.workers (from the environment)" in said


def test_a_malformed_url_is_refused_without_showing_its_password(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@h/d?nonsense=1")
    with pytest.raises(SettingsError) as caught:
        load()
    assert "secret" not in str(caught.value)


def test_no_representation_shows_a_secret(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("MIGRATOR_KAFKA_SASL_PASSWORD", "secret")
    assert "secret" not in repr(load())


def test_a_file_that_is_no_toml_is_named(tmp_path):
    write(tmp_path, "[database")
    with pytest.raises(SettingsError, match="is no TOML"):
        load()


def test_a_named_file_must_be_there(tmp_path):
    with pytest.raises(SettingsError, match="there is no file"):
        load(config=tmp_path / "x.toml")


def test_a_missing_database_or_broker_says_where_it_may_be_named():
    with pytest.raises(SettingsError, match="no database is named"):
        load().conninfo  # noqa: B018
    with pytest.raises(SettingsError, match="no Kafka broker is named"):
        load().kafka_config  # noqa: B018


def test_libpqs_own_variables_name_a_database(monkeypatch):
    monkeypatch.setenv("PGHOST", "somewhere")
    assert load().conninfo == ""


def test_settings_reach_a_worker_process(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", URL)
    assert pickle.loads(pickle.dumps(load())).conninfo == URL


@pytest.mark.parametrize(
    "name", ["MIGRATOR_NEON_API_KEY", "MIGRATOR_NEON__API_KEY", "NEON_API_KEY"]
)
def test_the_key_of_neon_may_come_from_any_of_these_variables(monkeypatch, name):
    monkeypatch.setenv(name, "napi_x")
    assert load().neon.api_key.get_secret_value() == "napi_x"
    assert "napi_x" not in repr(load())


def test_the_key_of_neon_may_come_from_a_file(tmp_path, monkeypatch):
    (tmp_path / "key").write_text("napi_x\n")
    monkeypatch.setenv("MIGRATOR_NEON_API_KEY_FILE", str(tmp_path / "key"))
    assert load().neon.api_key.get_secret_value() == "napi_x"


def test_a_settings_file_that_holds_the_key_of_neon_is_refused(tmp_path):
    write(tmp_path, '[neon]\napi_key = "napi_x"')
    with pytest.raises(SettingsError, match="holds the API key") as caught:
        load()
    assert "napi_x" not in str(caught.value)


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(monkeypatch):
    monkeypatch.setenv("MIGRATOR_NEON_API_KEY", "napi_x\u00e9 y")
    with pytest.raises(SettingsError, match="one word of ASCII") as caught:
        load()
    assert "napi_x" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://console.neon.tech/api/v2", "ftp://x", "http://127.0.0.1.evil.example:1"]
)
def test_the_key_of_neon_is_sent_over_tls_alone(monkeypatch, url):
    monkeypatch.setenv("MIGRATOR_NEON_BASE_URL", url)
    with pytest.raises(SettingsError, match="https"):
        load()
