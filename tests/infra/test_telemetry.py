import json
from collections.abc import Iterator

import pytest
import structlog

from infra.telemetry import configure_command_logging, configure_logging


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_a_line_names_its_role_and_hides_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("web", "json")
    structlog.get_logger().info("login", user="alice", password="hunter2")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["role"], line["user"]) == ("login", "web", "alice")
    assert line["password"] == "[hidden]"


def test_text_lines_are_key_and_value(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("gateway")
    structlog.get_logger().warning("upstream_failed", instance="i-1")
    line = capsys.readouterr().err
    assert "event=upstream_failed" in line
    assert "role=gateway" in line


def test_a_command_says_what_went_wrong_beside_its_answer(capsys: pytest.CaptureFixture[str]) -> None:
    configure_command_logging()
    structlog.get_logger().info("nats_reconnected")
    structlog.get_logger().warning("nats_disconnected", password="hunter2")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "level=warning event=nats_disconnected password=[hidden]\n"
