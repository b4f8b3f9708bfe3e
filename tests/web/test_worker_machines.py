"""What a machine gets before its agent runs, who is told how its set-up went, and which agents may report at all."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import httpx
import msgspec
import pytest

from agent.protocol import (
    AGENT_PATH,
    AUTHORIZE_PATH,
    BOOTSTRAP_PATH,
    MAX_OUTPUT_LENGTH,
    ROTATE_PATH,
    AgentInfo,
    AuthorizeRequest,
    BootstrapReport,
    HeartbeatReply,
    RotateReply,
    RotateRequest,
)
from domain.instance_commands import RecordServerGone, RequestReinstall, RequestTermination
from domain.instance_events import BootstrapFailed
from tests.web.test_sign_in import refusal
from tests.web.test_workers import ADDRESSED, READY_NOW, Host, a_host
from tests.web.world import World
from web.agent_release import AgentRelease
from web.draw import Draw
from web.services import Settings
from web.worker_tokens import is_old, new_token

pytestmark = pytest.mark.asyncio(loop_scope="module")

ARCHIVE = b"PK" + b"agent" * 1000
TODAY = AgentRelease(
    version="1.1.0", sha256=sha256(ARCHIVE).hexdigest(), archive=ARCHIVE, versions_allowed=frozenset({"1.0.0"})
)
TODAYS = AgentInfo(version="1.1.0", build_date="2026-11-21", checksum=TODAY.sha256)


class Office:
    """The control plane's settings, as a test changes them."""

    def __init__(self, world: World) -> None:
        self._world = world

    def set(self, **changes: Any) -> None:
        settings: Settings = replace(self._world.services.settings, **changes)
        self._world.app.state.services = replace(self._world.services, settings=settings)


@pytest.fixture
def office(world: World) -> Iterator[Office]:
    yield Office(world)
    world.app.state.services = world.services


async def report(host: Host, phase: str, *, token: str = "", **other: Any) -> httpx.Response:
    body = BootstrapReport(**{"instance_id": host.instance_id, "phase": phase, "ok": True, **other})
    headers = {"authorization": f"Bearer {token or host.bootstrap_token}"}
    return await host.client.post(BOOTSTRAP_PATH, content=msgspec.json.encode(body), headers=headers)


async def rotated(host: Host, token: str) -> httpx.Response:
    return await host._post(ROTATE_PATH, RotateRequest(instance_id=host.instance_id, worker_id="w-1"), token)


async def authorized(host: Host, token: str) -> httpx.Response:
    return await host._post(AUTHORIZE_PATH, AuthorizeRequest(instance_id=host.instance_id), token)


def wants_rotation(reply: httpx.Response) -> bool:
    assert reply.status_code == 200, reply.text
    return msgspec.json.decode(reply.content, type=HeartbeatReply).rotate_token


async def registered(host: Host, info: AgentInfo) -> str:
    reply = await host.register(agent_info=info)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["worker_token"])


# ---- the set-up


async def test_phases_are_recorded_until_the_worker_starts(world: World) -> None:
    host = await a_host(world)
    for phase in ("start", "docker_install", "agent_download"):
        assert (await report(host, phase)).status_code == 200
        state = await host.state()
        assert (state.status, state.bootstrap_phase) == ("installing", phase)
    assert (await report(host, "done")).status_code == 200
    assert (await host.state()).status == "starting"


async def test_a_phase_told_twice_is_recorded_once(world: World) -> None:
    host = await a_host(world)
    await report(host, "start")
    head = await world.log.head()
    assert (await report(host, "start")).status_code == 200
    assert await world.log.head() == head


async def test_a_failed_phase_says_what_its_machine_said_and_no_secret(world: World) -> None:
    host = await a_host(world)
    output = f"x{'y' * 9000}\r\ncurl: \x1b[31mdenied\x1b[0m wb_1_{'0' * 64} hf_abcdefghijkl wk_1234567890\n"
    assert (await report(host, "agent_download", ok=False, output=output)).status_code == 200
    history = await world.log.read(f"evt.0192aaaa-0000-7000-8000-000000000001.instance.{host.instance_id}")
    failed = [recorded.envelope for recorded in history if recorded.envelope.type == BootstrapFailed.__name__]
    assert len(failed) == 1
    message = msgspec.json.decode(failed[0].data, type=BootstrapFailed).message
    assert message.endswith("curl: [31mdenied[0m wb_... hf_... wk_...\n")
    assert len(message) == MAX_OUTPUT_LENGTH
    assert b"0" * 64 not in world.everything_written()


async def test_the_last_words_of_a_set_up_are_welcome_after_the_worker_reported(world: World) -> None:
    host = await a_host(world)
    await host.heartbeat(await host.token(), **READY_NOW)
    head = await world.log.head()
    assert (await report(host, "done")).status_code == 200
    assert (await host.state()).status == "ready"
    assert await world.log.head() == head


async def test_only_the_present_attempts_token_may_tell(world: World) -> None:
    host, neighbour = await a_host(world), await a_host(world)
    worker_token = await neighbour.token()
    replies = [
        await report(host, "start", token="wb_1_" + "0" * 64),
        await report(host, "start", token=neighbour.bootstrap_token),
        await report(host, "start", token=world.worker_tokens.bootstrap_token(host.instance_id, 2)),
        await report(neighbour, "start", token=worker_token),
    ]
    assert {refusal(reply) for reply in replies} == {(401, "unauthorized")}
    assert (await host.state()).bootstrap_phase == ""


async def test_a_machine_of_an_instance_that_ends_is_told_so(world: World) -> None:
    host = await a_host(world)
    await host.tell(RequestTermination(reason="test"))
    assert refusal(await report(host, "start")) == (410, "instance_gone")


@pytest.mark.parametrize("phase", ["", "a b", "UPPER", "x" * 41, "../etc", "start\n"])
async def test_a_phase_out_of_form_is_refused(world: World, phase: str) -> None:
    assert refusal(await report(await a_host(world), phase)) == (400, "invalid_request")


# ---- the agent itself


async def test_anybody_gets_the_agent_and_asks_cheaply_whether_it_changed(world: World, office: Office) -> None:
    office.set(agent=TODAY)
    async with world.client() as machine:
        first = await machine.get(AGENT_PATH)
        assert (first.status_code, first.content) == (200, ARCHIVE)
        assert first.headers["etag"] == f'"{sha256(first.content).hexdigest()}"'
        assert first.headers["x-agent-version"] == "1.1.0"
        for tag in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
            again = await machine.get(AGENT_PATH, headers={"if-none-match": tag})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        changed = await machine.get(AGENT_PATH, headers={"if-none-match": '"other"'})
        assert changed.status_code == 200


async def test_a_control_plane_without_an_agent_says_so(world: World) -> None:
    async with world.client() as machine:
        assert refusal(await machine.get(AGENT_PATH)) == (404, "not_found")


# ---- which agents may report


@pytest.mark.parametrize(
    ("info", "status"),
    [
        (TODAYS, "ready"),
        (AgentInfo("1.1.0", "", "b" * 64), "startup_failed"),
        (AgentInfo("1.0.0", "", "b" * 64), "ready"),
        (AgentInfo("0.9.0", "", "b" * 64), "startup_failed"),
        (AgentInfo("1.2.0", "", "b" * 64), "startup_failed"),
        (AgentInfo("", "", ""), "startup_failed"),
    ],
)
async def test_today_has_todays_bytes_and_an_allowed_version_any(
    world: World, office: Office, info: AgentInfo, status: str
) -> None:
    office.set(agent=TODAY)
    host = await a_host(world)
    await host.heartbeat(await registered(host, info), **READY_NOW, agent_info=info)
    state = await host.state()
    assert state.status == status
    assert (state.error_code == "AGENT_CHECKSUM_FAILED") == (status == "startup_failed")


async def test_an_upgrade_of_the_control_plane_ends_no_worker_that_it_had_accepted(
    world: World, office: Office
) -> None:
    office.set(agent=TODAY)
    host, late = await a_host(world), await a_host(world)
    token, late_token = await registered(host, TODAYS), await registered(late, TODAYS)
    await host.heartbeat(token, agent_info=TODAYS)
    office.set(agent=AgentRelease(version="3.0.0", sha256="c" * 64, archive=b"c", versions_allowed=frozenset({"2"})))
    await host.heartbeat(token, **READY_NOW, agent_info=TODAYS)
    await late.heartbeat(late_token, **READY_NOW, agent_info=TODAYS)
    assert (await host.state()).status == "ready"
    assert (await late.state()).error_code == "AGENT_CHECKSUM_FAILED", "it had not been accepted yet"


async def test_bytes_that_change_under_an_accepted_worker_are_found(world: World, office: Office) -> None:
    office.set(agent=TODAY)
    host = await a_host(world)
    token = await registered(host, TODAYS)
    await host.heartbeat(token, agent_info=TODAYS)
    await host.heartbeat(token, **READY_NOW, agent_info=AgentInfo("1.1.0", "", "b" * 64))
    assert (await host.state()).error_code == "AGENT_CHECKSUM_FAILED"


async def test_a_reinstalled_worker_is_judged_anew(world: World, office: Office) -> None:
    host, wrong = await a_host(world), AgentInfo("1.1.0", "", "b" * 64)
    token = await registered(host, wrong)
    await host.heartbeat(token, agent_info=wrong)
    office.set(agent=TODAY)
    await host.heartbeat(token, **READY_NOW, agent_info=wrong)
    assert (await host.state()).status == "ready", "it was accepted before"
    await host.tell(RequestReinstall())
    await host.heartbeat(await registered(host, wrong), **READY_NOW, agent_info=wrong)
    assert (await host.state()).error_code == "AGENT_CHECKSUM_FAILED"


# ---- the next token


async def test_a_token_is_renewed_when_it_is_old_and_the_old_one_ends_with_the_first_use(
    world: World, office: Office
) -> None:
    office.set(worker_token_ttl_s=3600)
    host = await a_host(world)
    first = await host.token()
    assert not wants_rotation(await host.heartbeat(first, **READY_NOW))
    office.set(worker_token_ttl_s=1)
    world.clock.ahead += timedelta(seconds=2)
    assert wants_rotation(await host.heartbeat(first, **READY_NOW))
    second = msgspec.json.decode((await rotated(host, first)).content, type=RotateReply).worker_token
    assert second != first
    assert wants_rotation(await host.heartbeat(first, **READY_NOW)), "it was not used yet, so nothing has changed"
    assert (await authorized(host, second)).status_code == 200
    assert not wants_rotation(await host.heartbeat(second, **READY_NOW))
    assert refusal(await host.heartbeat(first, **READY_NOW)) == (401, "unauthorized")
    assert refusal(await rotated(host, first)) == (401, "unauthorized")
    written = world.everything_written()
    assert second[12:].encode() not in written


async def test_a_rotation_whose_reply_was_lost_is_made_again(world: World) -> None:
    host = await a_host(world)
    first = await host.token()
    await host.heartbeat(first)
    lost, kept = [(await rotated(host, first)).json()["worker_token"] for _ in range(2)]
    assert refusal(await host.heartbeat(lost)) == (401, "unauthorized")
    assert (await host.heartbeat(first)).status_code == 200
    assert (await host.heartbeat(kept)).status_code == 200
    assert refusal(await host.heartbeat(first)) == (401, "unauthorized")


async def test_a_token_that_was_not_used_gets_no_next_one(world: World) -> None:
    """Else an agent that kept it, and dies before it keeps the next, would be left with none."""
    host = await a_host(world)
    first = await host.token()
    assert refusal(await rotated(host, first)) == (409, "token_not_confirmed")
    await host.heartbeat(first)
    second = (await rotated(host, first)).json()["worker_token"]
    assert refusal(await rotated(host, second)) == (409, "token_not_confirmed")
    await host.heartbeat(second)
    assert (await rotated(host, second)).status_code == 200


async def test_a_token_without_a_time_in_it_counts_as_old() -> None:
    now, day = datetime(2026, 11, 21, tzinfo=UTC), timedelta(days=1)
    of_before = "wk_00000000-0000-4000-8000-000000000000_00000000-0000-4000-8000-000000000000"
    assert is_old(of_before, now=now, ttl=day)
    assert is_old("wk_a_b", now=now, ttl=day)
    made = new_token(Draw(seed=b"s" * 32, at=now))
    assert not is_old(made, now=now + day - timedelta(seconds=1), ttl=day)
    assert is_old(made, now=now + day, ttl=day)


# ---- tunnels


async def test_a_tunnelled_workers_addresses_are_our_relays_whatever_it_says(world: World, office: Office) -> None:
    office.set(tunnel_url="http://127.0.0.1:8005/")
    host = await a_host(world)
    reply = await host.register(tunnel=True, base_url="http://169.254.169.254:80", agent_url="http://evil.example:1")
    assert reply.status_code == 200
    state = await host.state()
    assert state.engine_url == f"http://127.0.0.1:8005/t/{host.instance_id}/engine/v1"
    assert state.agent_url == f"http://127.0.0.1:8005/t/{host.instance_id}/agent"


async def test_without_a_relay_a_tunnelled_worker_is_told_so(world: World) -> None:
    assert refusal(await (await a_host(world)).register(tunnel=True)) == (409, "tunnel_not_offered")


async def test_a_tunnelled_worker_waits_for_its_address_like_any_other(world: World, office: Office) -> None:
    office.set(tunnel_url="http://127.0.0.1:8005")
    host = await a_host(world, ADDRESSED[:4])
    assert refusal(await host.register(tunnel=True)) == (409, "instance_not_addressed")


async def test_the_relay_is_told_which_tokens_are_good(world: World) -> None:
    host, neighbour = await a_host(world), await a_host(world)
    token = await host.token()
    assert (await authorized(host, token)).json() == {"status": "ok"}
    head = await world.log.head()
    assert refusal(await authorized(neighbour, token)) == (401, "unauthorized")
    assert refusal(await authorized(host, host.bootstrap_token)) == (401, "unauthorized")
    assert refusal(await authorized(host, "")) == (401, "unauthorized")
    assert await world.log.head() == head
    await host.tell(RequestTermination(reason="test"))
    await host.tell(RecordServerGone())
    world.clock.ahead += timedelta(seconds=5)
    await host.tell(RecordServerGone())
    assert refusal(await authorized(host, token)) == (410, "instance_gone")
