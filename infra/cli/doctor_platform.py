"""The half of `inventiv doctor` that looks at a running platform: roles, streams, projections' lag, parked work.

Each check asks the thing itself (the port, the server, the table), so one that is ill does not hide the others.
"""

import asyncio
from collections.abc import Mapping

import nats
import psycopg

from infra.cli.checks import Check, verdict
from infra.client import Api, ApiError, NoCredentialsError, UnreachableError
from infra.environment import Environment
from infra.events import reads
from infra.events.replicas import replica_findings, unreadable_replicas
from infra.events.streams import EVENTS, USAGE, UnfitServerError, verify_server
from infra.processes.roles import answers
from infra.processes.running import Platform
from projections.checkpoint import list_checkpoints
from projections.registry import PROJECTIONS

MOST_LAG_EVENTS = 1000
CONNECT_TIMEOUT_S = 5


def platform_checks(environment: Environment, platform: Platform) -> list[Check]:
    return [*_processes(platform), *asyncio.run(_inside(platform)), _parked_work(environment)]


def _processes(platform: Platform) -> list[Check]:
    cure = f"It is restarted by itself; its log is in {platform.data_dir}/logs."
    views = {**platform.servers, **platform.roles}
    return [
        verdict(name, fine=view.state == "running", found=f"{view.state}, restarted {view.restarts} times", cure=cure)
        for name, view in views.items()
    ]


async def _inside(platform: Platform) -> list[Check]:
    checks = [await _answers("API", platform.api_url), await _answers("gateway", platform.gateway_url)]
    try:
        heads = await _heads(platform)
    except (OSError, nats.errors.Error) as error:
        cure = "It is restarted by itself; see `inventiv status`."
        return [*checks, Check(name="streams", result="failed", found=f"NATS does not answer: {error}", cure=cure)]
    except UnfitServerError as error:
        return [*checks, Check(name="streams", result="failed", found=str(error), cure="See the list.")]
    checks.append(Check(name="streams", result="ok", found=f"as they must be; {heads[EVENTS]} events"))
    return [*checks, await _copies(platform), await _lag(platform, heads)]


async def _answers(name: str, url: str) -> Check:
    host, port = url.removeprefix("http://").split(":")
    fine = await answers(host, int(port), "/readyz")
    found = f"{url} is ready" if fine else f"{url} is not ready"
    return verdict(f"{name} answers", fine=fine, found=found, cure="Wait a moment; then see its log.")


async def _heads(platform: Platform) -> dict[str, int]:
    """Last position of each followed stream, after checking all streams' settings."""
    connection = await nats.connect(
        platform.nats_url.split(","), connect_timeout=CONNECT_TIMEOUT_S, allow_reconnect=False
    )
    try:
        await verify_server(connection, platform.nats_monitor_url, replicas=platform.nats_replicas)
        manager = connection.jsm()
        return {name: (await manager.stream_info(name)).state.last_seq for name in (EVENTS, USAGE)}
    finally:
        await connection.close()


async def _copies(platform: Platform) -> Check:
    """Each copy of what is kept for ever: whole by its figures, and readable where it was looked at."""
    connection = await nats.connect(
        platform.nats_url.split(","), connect_timeout=CONNECT_TIMEOUT_S, allow_reconnect=False
    )
    try:
        findings = await replica_findings(platform.nats_monitor_url) + await unreadable_replicas(connection)
    except (OSError, reads.ApiError, nats.errors.Error) as error:
        return Check(name="copies", result="warning", found=f"could not be checked: {error!r}", cure="Try again.")
    finally:
        await connection.close()
    if not findings:
        return Check(name="copies", result="ok", found=f"{platform.nats_replicas} of each stream, whole")
    damaged = [finding for finding in findings if finding.kind == "damaged"]
    worst = (damaged or findings)[0]
    found = f"{worst.stream or 'everything'} on {worst.node}: {worst.fact} ({len(findings)} findings)"
    return verdict("copies", fine=False, found=found, cure=worst.cure, optional=not damaged)


async def _lag(platform: Platform, heads: Mapping[str, int]) -> Check:
    try:
        async with await psycopg.AsyncConnection.connect(
            platform.postgres_url, connect_timeout=CONNECT_TIMEOUT_S
        ) as connection:
            checkpoints = {(c.name, c.version): c.position for c in await list_checkpoints(connection)}
    except psycopg.Error as error:
        cure = "Postgres is restarted by itself; see `inventiv status`."
        return Check(name="projections", result="failed", found=f"Postgres: {error}", cure=cure)
    lags = {p.name: heads[p.stream] - checkpoints.get((p.name, p.version), 0) for p in PROJECTIONS}
    worst = max(lags, key=lambda name: lags[name])
    found = f"{len(lags)} read models, at most {lags[worst]} events behind ({worst})"
    cure = "They catch up by themselves; one that does not says why in the log of projections."
    return verdict("projections", fine=lags[worst] <= MOST_LAG_EVENTS, found=found, cure=cure)


def _parked_work(environment: Environment) -> Check:
    try:
        with Api(environment) as api:
            parked = api.get("/parked")
    except (ApiError, UnreachableError, NoCredentialsError) as error:
        return Check(name="parked work", result="warning", found=f"cannot be listed: {error}", cure="See above.")
    cure = "`inventiv events parked` shows why; then retry or skip it."
    return verdict("parked work", fine=not parked, found=f"{len(parked)} parked", cure=cure, optional=True)
