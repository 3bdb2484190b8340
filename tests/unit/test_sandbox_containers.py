"""When containers are chosen, and how the broker's container is told where it is."""

import re
from pathlib import Path

import pytest

from migrator.errors import CannotConnect, UsageError
from migrator.sandbox import containers


@pytest.fixture
def engine(monkeypatch):
    """Set whether an engine answers and whether testcontainers is installed."""

    def make(*, answers, installed=True):
        monkeypatch.setattr(containers, "engine_answers", lambda: answers)
        monkeypatch.setattr(
            containers.importlib.util, "find_spec", lambda _name: object() if installed else None
        )

    return make


@pytest.mark.parametrize(
    ("kind", "answers", "installed", "chosen"),
    [
        ("auto", True, True, True),
        ("auto", True, False, False),
        ("auto", False, True, False),
        ("docker", True, True, True),
        ("embedded", True, True, False),
    ],
)
def test_containers_need_an_engine_that_answers_and_the_package(
    engine, kind, answers, installed, chosen
):
    engine(answers=answers, installed=installed)

    assert containers.is_chosen(kind) is chosen


def test_docker_asked_for_without_an_engine_is_an_error(engine):
    engine(answers=False)

    with pytest.raises(CannotConnect, match="no Docker engine answers") as failed:
        containers.is_chosen("docker")

    assert "start Docker" in failed.value.next_step


def test_docker_asked_for_without_its_package_is_an_error(engine):
    engine(answers=True, installed=False)

    with pytest.raises(UsageError) as failed:
        containers.is_chosen("docker")

    assert "pip install '.[docker]'" in failed.value.next_step


def test_a_docker_address_where_nobody_listens_is_no_engine(monkeypatch):
    pytest.importorskip("testcontainers")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")

    assert containers.engine_answers() is False


def test_the_images_have_the_versions_asked_for():
    assert containers.images("16", with_kafka=True).names == ["postgres:16", "apache/kafka:4.3.1"]
    assert containers.images("16", with_kafka=False).names == ["postgres:16"]


def test_the_broker_announces_the_port_on_this_machine():
    script = containers.start_script("127.0.0.1:32768")

    assert "KAFKA_ADVERTISED_LISTENERS='PLAINTEXT://127.0.0.1:32768,BROKER://" in script
    assert script.endswith("exec /etc/kafka/docker/run\n")


def test_each_listener_of_the_broker_has_a_protocol():
    settings = dict(re.findall(r"export KAFKA_(\w+)='(.*)'", containers.start_script("h:1")))
    listeners = {each.split("://")[0] for each in settings["LISTENERS"].split(",")}

    assert listeners == set(re.findall(r"(\w+):\w+", settings["LISTENER_SECURITY_PROTOCOL_MAP"]))
    assert settings["INTER_BROKER_LISTENER_NAME"] in listeners
    assert settings["CONTROLLER_LISTENER_NAMES"] in listeners


def test_compose_starts_the_same_versions_on_loopback_only():
    text = (Path(__file__).parents[2] / "compose.yaml").read_text()

    images = re.findall(r"^ {4}image: (\S+)$", text, re.MULTILINE)
    assert images[:2] == containers.images("18", with_kafka=True).names
    assert all(re.search(r":\d", image) for image in images)
    published = re.findall(r'^ {6}- "(\S+)"$', text, re.MULTILINE)
    assert len(published) == len(images)
    assert all(port.startswith("127.0.0.1:") for port in published)
