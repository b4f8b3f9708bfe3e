"""The gate: one process looks at an aggregate at a time, and what it settled stays settled."""

import asyncio

import psycopg
import pytest

from infra.gate import Gate, GateUnavailableError

WAIT_S = 60.0


async def test_the_gate_lets_one_process_in_and_tells_the_other(postgres_url: str) -> None:
    async with Gate(postgres_url) as ours, Gate(postgres_url) as theirs:
        async with ours.hold("r", "a", "1") as held, theirs.hold("r", "a", "1") as refused:
            assert held is not None
            assert refused is None
            async with theirs.hold("r", "a", "2") as other:
                assert other is not None, "another aggregate is free"
        async with theirs.hold("r", "a", "1") as held_now:
            assert held_now is not None, "what was let go is free"


async def look_while_the_session_ends(gate: Gate, postgres_url: str) -> None:
    async with gate.hold("r", "a", "1"):
        async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as admin:
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
            )
        await asyncio.sleep(WAIT_S)


async def test_a_lost_session_interrupts_what_runs_behind_it(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.gate.CHECK_EVERY_S", 0.05)
    async with Gate(postgres_url) as gate:
        with pytest.raises(TimeoutError):
            await look_while_the_session_ends(gate, postgres_url)
        async with gate.hold("r", "a", "1") as again:
            assert again is not None, "a new session begins anew"


async def test_a_gate_without_postgres_says_so() -> None:
    async with Gate("postgresql://nobody@127.0.0.1:9/none") as gate:
        with pytest.raises(GateUnavailableError):
            async with gate.hold("r", "a", "1"):
                raise AssertionError("nobody may look")


async def test_a_version_never_falls(postgres_url: str) -> None:
    async with Gate(postgres_url) as gate:
        for version in (5, 3):
            async with gate.hold("r", "a", "1") as held:
                assert held is not None
                await held.settle(type(held.standing)(version=version))
        async with gate.hold("r", "a", "1") as held:
            assert held is not None
            assert held.standing.version == 5
