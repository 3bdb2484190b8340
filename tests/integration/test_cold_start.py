"""What keeps a connection from being made and passes by itself is waited for; nothing else is."""

from __future__ import annotations

import socket
import struct
import threading

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migrator.errors import CannotConnect
from migrator.postgres.connect import as_url, connect
from migrator.settings import load


@pytest.fixture
def answering(database_url, monkeypatch, tmp_path):
    """`answering([message, ...])`: a host that refuses so often, with these words, and then is the server."""
    monkeypatch.chdir(tmp_path)
    where = conninfo_to_dict(database_url)
    listening = socket.create_server(("127.0.0.1", 0))
    met: list[str] = []
    threads = []

    def refuse(client: socket.socket, message: str) -> None:
        (size,) = struct.unpack("!I", client.recv(4))
        client.recv(size - 4)
        said = b"SFATAL\0VFATAL\0CXX000\0M" + message.encode() + b"\0\0"
        client.sendall(b"E" + struct.pack("!I", len(said) + 4) + said)
        client.close()

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def serve(messages: list[str]) -> None:
        for message in messages:
            client, _ = listening.accept()
            met.append(message)
            refuse(client, message)
        client, _ = listening.accept()
        with client, socket.create_connection((str(where["host"]), int(where["port"]))) as server:
            back = threading.Thread(target=pump, args=(server, client), daemon=True)
            back.start()
            pump(client, server)
            back.join(10)

    def start(messages: list[str]) -> list[str]:
        thread = threading.Thread(target=serve, args=(messages,), daemon=True)
        thread.start()
        threads.append(thread)
        port = listening.getsockname()[1]
        url = make_conninfo(
            database_url, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable"
        )
        monkeypatch.setenv("MIGRATOR_DATABASE_URL", as_url(url))
        return met

    yield start
    listening.close()


@pytest.mark.parametrize(
    "message",
    [
        "the database system is starting up",
        "Couldn't connect to compute node",
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
    ],
)
def test_what_passes_by_itself_is_waited_for(answering, message):
    met = answering([message, message])
    with connect(load(), "test") as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    assert met == [message, message]


@pytest.mark.parametrize(
    "message",
    [
        'password authentication failed for user "deployer"',
        "Your account or project has exceeded the compute time quota",
        'database "shop" does not exist',
    ],
)
def test_what_does_not_pass_is_told_at_once(answering, message):
    met = answering([message])
    with pytest.raises(CannotConnect):
        connect(load(), "test")
    assert met == [message]


def test_it_is_waited_for_no_longer_than_the_settings_say(answering, monkeypatch):
    monkeypatch.setenv("MIGRATOR_DATABASE_CONNECT_RETRY_S", "0")
    met = answering(["the database system is starting up"] * 3)
    with pytest.raises(CannotConnect, match="starting up"):
        connect(load(), "test")
    assert len(met) == 1


@pytest.mark.parametrize(
    ("conninfo", "url"),
    [
        ("postgresql://u:p@h/d?sslmode=require", "postgresql://u:p@h/d?sslmode=require"),
        ("host=h port=5 user=u password='p@ :/' dbname=d", "postgresql://u:p%40%20%3A%2F@h:5/d"),
        ("host=/run/pg dbname=d user=u", "postgresql://u@/d?host=%2Frun%2Fpg"),
        ("dbname=d", "postgresql:///d"),
        ("host=::1 dbname='odd name'", "postgresql://[::1]/odd%20name"),
        ("host=h dbname=d options='-c a=b'", "postgresql://h/d?options=-c%20a%3Db"),
    ],
)
def test_a_conninfo_of_any_form_is_a_url_that_says_the_same(conninfo, url):
    assert as_url(conninfo) == url
    assert conninfo_to_dict(as_url(conninfo)) == conninfo_to_dict(conninfo)
