"""What a host's name means: its addresses, none, or nobody can say now."""

import asyncio
import socket
from typing import Any

import pytest

from infra import resolving
from infra.resolving import resolve


def answering(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> None:
    async def look(*_: object, **__: object) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look)


async def test_a_number_is_its_own_address() -> None:
    assert await resolve("127.0.0.1", 443) == ("127.0.0.1",)
    assert await resolve("::1", 443) == ("::1",)


async def test_each_address_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(0, 0, 0, "", (address, 443)) for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1")]
    answering(monkeypatch, found)
    assert await resolve("api.example.com", 443) == ("192.0.2.1", "192.0.2.2")


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_NONAME, "no"), UnicodeError("label too long")])
async def test_a_host_that_does_not_exist_has_none(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    answering(monkeypatch, error)
    assert await resolve("nowhere.example.com", 443) == ()


async def test_a_name_service_that_is_away_is_the_worlds_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, socket.gaierror(socket.EAI_AGAIN, "try again"))
    with pytest.raises(OSError, match="try again"):
        await resolve("api.example.com", 443)


async def test_nobody_waits_for_a_slow_name_service(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    monkeypatch.setattr(resolving, "RESOLVE_TIMEOUT_S", 0.01)
    with pytest.raises(TimeoutError):
        await resolve("api.example.com", 443)
