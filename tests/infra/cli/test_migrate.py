"""`inventiv migrate` on a real server: what is missing is created once, what is unfit is said."""

import json

import pytest

from infra.cli import migrate
from infra.embedded.nats import EmbeddedNats
from infra.events import streams
from tests.infra.cli.conftest import Inventiv


@pytest.fixture
def admin(bare_nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch) -> EmbeddedNats:
    monkeypatch.setenv("INVENTIV_NATS_URL", bare_nats.admin_url)
    monkeypatch.setenv("INVENTIV_NATS_MONITOR_URL", bare_nats.monitor_url)
    return bare_nats


def test_missing_streams_are_created_once(
    admin: EmbeddedNats, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("migrate", "--json") == 0
    assert json.loads(capsys.readouterr().out)["created"] == list(streams.STREAMS)
    assert inventiv("migrate", "--json") == 0
    assert json.loads(capsys.readouterr().out)["created"] == []


def test_a_service_may_not_migrate(
    admin: EmbeddedNats, inventiv: Inventiv, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INVENTIV_NATS_URL", admin.url)
    monkeypatch.setattr(streams, "API_TIMEOUT_S", 0.5)
    assert inventiv("migrate") == 1
    assert "permission" in capsys.readouterr().err


def test_a_server_that_nobody_vouches_for_is_unfit(
    admin: EmbeddedNats, inventiv: Inventiv, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("INVENTIV_NATS_MONITOR_URL")
    assert inventiv("migrate") == 1
    assert "INVENTIV_NATS_MONITOR_URL" in capsys.readouterr().err


def test_without_a_server_it_says_so(
    inventiv: Inventiv, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INVENTIV_NATS_URL", "nats://127.0.0.1:1")
    monkeypatch.setattr(migrate, "CONNECT_TIMEOUT_S", 0.5)
    assert inventiv("migrate") == 8
    assert "INVENTIV_NATS_URL" in capsys.readouterr().err
