"""The role `web` as a process: serves on real NATS and Postgres, survives a killed nats-server, stops cleanly."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import nats
import pytest

from infra.embedded.nats import EmbeddedNats
from infra.environment import Environment
from infra.processes.roles import variables_of
from tests.conftest import some_port
from web.tokens import COOKIE

WAIT_S = 60.0


@pytest.fixture
def environment(nats_server: EmbeddedNats, postgres_url: str, tmp_path: Path) -> Environment:
    port = some_port()
    return Environment(
        data_dir=tmp_path,
        secrets_dir=tmp_path / "secrets",
        make_secrets=True,
        nats_url=nats_server.url,
        nats_monitor_url=nats_server.monitor_url,
        postgres_url=postgres_url,
        api_port=port,
        api_url=f"http://127.0.0.1:{port}",
    )


class Running:
    """`inventiv serve <role>`; its log goes to a file, which a pipe that nobody reads would not survive."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def output(self) -> str:
        return self._log.read_text()

    async def ends(self, within_s: float = WAIT_S) -> int:
        return await asyncio.wait_for(self._process.wait(), within_s)

    async def stops(self, within_s: float = WAIT_S) -> int:
        self._process.terminate()
        return await self.ends(within_s)


@asynccontextmanager
async def role(name: str, environment: Environment) -> AsyncIterator[Running]:
    variables = {"PATH": os.environ["PATH"], **variables_of(environment)}
    path = environment.data_dir / f"{name}.log"
    with path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "infra.cli.main", "serve", name, env=variables, stderr=log
        )
    try:
        yield Running(process, path)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def until_it_answers(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> httpx.Response:
    async with asyncio.timeout(WAIT_S):
        while True:
            with suppress(httpx.TransportError):
                reply = await client.request(method, path, **request)
                if reply.status_code < 500:
                    return reply
            await asyncio.sleep(0.05)


async def test_a_fresh_platform_is_signed_in_to_and_stops_cleanly(environment: Environment) -> None:
    async with (
        role("projections", environment),
        role("web", environment) as web,
        httpx.AsyncClient(base_url=environment.api_url) as client,
    ):
        assert (await until_it_answers(client, "GET", "/healthz")).status_code == 200
        password = (environment.secrets_dir / "admin_password").read_text()
        login = {"email": environment.admin_username, "password": password}
        async with asyncio.timeout(WAIT_S):
            while (reply := await client.post("/auth/login", json=login)).status_code != 200:
                assert reply.status_code in {401, 503}  # the read models are still being built
                await asyncio.sleep(0.05)
        client.headers["authorization"] = f"Bearer {reply.cookies[COOKIE]}"
        client.cookies.clear()
        made = await client.post("/deployments", json={"model": "mock-echo-model"})
        assert made.status_code == 202
        shown = await client.get(f"/deployments/{made.json()['deployment_id']}", headers=_after(made))
        assert shown.json()["status"] == "starting"
        async with client.stream("GET", "/events/stream?all=true&after=0") as stream:
            async for line in stream.aiter_lines():
                if line == "event: DeploymentRequested":
                    break
            assert await web.stops(within_s=3) == 0, web.output
        assert password not in web.output


async def test_starting_again_changes_nothing(environment: Environment, nats_server: EmbeddedNats) -> None:
    heads = []
    for _ in range(2):
        async with role("web", environment) as web, httpx.AsyncClient(base_url=environment.api_url) as client:
            await until_it_answers(client, "GET", "/healthz")
            assert await web.stops() == 0
        heads.append(await _head(nats_server))
    assert heads[0] == heads[1] > 0


async def test_nats_may_come_and_go(environment: Environment, nats_server: EmbeddedNats) -> None:
    async with (
        role("projections", environment),  # who makes the roles of Postgres that reading needs
        role("web", environment),
        httpx.AsyncClient(base_url=environment.api_url) as client,
    ):
        await until_it_answers(client, "GET", "/readyz")
        await nats_server.kill()
        async with asyncio.timeout(WAIT_S):
            while (reply := await client.get("/readyz")).status_code != 503:  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.05)
        assert reply.json()["checks"]["event_log"] == "unavailable"
        await nats_server.start()
        assert (await until_it_answers(client, "GET", "/readyz")).json()["ready"]


@pytest.mark.parametrize(
    ("broken", "cure"),
    [
        ({"postgres_url": ""}, "INVENTIV_POSTGRES_URL"),
        ({"nats_monitor_url": ""}, "INVENTIV_NATS_MONITOR_URL"),
        ({"admin_password_file": Path("/nowhere/password")}, "INVENTIV_ADMIN_PASSWORD_FILE"),
        ({"make_secrets": False}, "INVENTIV_MAKE_SECRETS=1"),
    ],
)
async def test_an_unfit_environment_is_named_with_its_cure(
    environment: Environment, broken: dict[str, Any], cure: str
) -> None:
    fields = {name: getattr(environment, name) for name in Environment.__struct_fields__}
    async with role("web", Environment(**{**fields, **broken})) as web:
        assert await web.ends() == 78, web.output
        assert cure in web.output


@pytest.mark.parametrize("name", ["web", "handlers"])
async def test_a_lost_master_key_is_not_replaced_by_a_new_one(environment: Environment, name: str) -> None:
    async with role(name, msgspec.structs.replace(environment, make_secrets=False)) as started:
        assert await started.ends() == 78, started.output
        assert "restore it from its backup" in started.output
    assert not environment.secrets_dir.exists()


def _after(reply: httpx.Response) -> dict[str, str]:
    return {"event-position": reply.headers["event-position"]}


async def _head(server: EmbeddedNats) -> int:
    connection = await nats.connect(server.admin_url)
    info = await connection.jetstream().stream_info("EVENTS")
    await connection.close()
    return int(info.state.last_seq)
