"""compose.yaml and the Dockerfile fit each other and the command line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from recurra.cli import main
from recurra.connectors.kafka import parse_address

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return document


def test_what_is_named_is_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        assert "image" in service
        for other, depends in service.get("depends_on", {}).items():
            assert other in services
            if depends["condition"] == "service_healthy":
                assert "healthcheck" in services[other]
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"]
        for port in service.get("ports", []):
            # nothing is open to other machines unless it is opened
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


def test_kafkas_listeners_fit_each_other(compose: dict[str, Any]) -> None:
    kafka = compose["services"]["kafka"]["environment"]
    listeners = dict(entry.split("://") for entry in kafka["KAFKA_LISTENERS"].split(","))
    advertised = dict(entry.split("://") for entry in kafka["KAFKA_ADVERTISED_LISTENERS"].split(","))
    protocols = dict(entry.split(":") for entry in kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert listeners.keys() == protocols.keys()
    assert advertised.keys() == listeners.keys() - {kafka["KAFKA_CONTROLLER_LISTENER_NAMES"]}
    assert kafka["KAFKA_INTER_BROKER_LISTENER_NAME"] in advertised
    assert all(advertised[name].endswith(listeners[name]) for name in advertised)
    assert kafka["KAFKA_CONTROLLER_QUORUM_VOTERS"] == "1@kafka" + listeners["CONTROLLER"]
    assert compose["services"]["kafka"]["ports"] == [
        "127.0.0.1:" + advertised["OUTSIDE"].split(":")[1] + listeners["OUTSIDE"]
    ]


def test_recurra_reads_the_topic_that_is_made(compose: dict[str, Any]) -> None:
    command = compose["services"]["recurra"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    address = parse_address(options["--source"])
    made = compose["services"]["topics"]["command"]
    assert made[made.index("--topic") + 1] == address.topic
    assert made[made.index("--bootstrap-server") + 1] == address.brokers
    assert compose["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].startswith(
        f"INSIDE://{address.brokers},"
    )
    assert compose["services"]["recurra"]["volumes"] == [f"recurra-data:{options['--data']}"]
    assert compose["services"]["recurra"]["ports"][0].endswith(options["--api"].split(":")[1])


def test_the_image_runs_the_command(compose: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    parts = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line.startswith(("ENTRYPOINT", "CMD"))}
    assert json.loads(parts["ENTRYPOINT"]) == ["recurra"]
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]}
    assert all((ROOT / name).exists() for name in copied)
    for command in (json.loads(parts["CMD"]), compose["services"]["recurra"]["command"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert all(flag in text for flag in command if flag.startswith("--"))
