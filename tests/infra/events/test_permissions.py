"""The table of permissions, cell by cell, on a real server with a key for each identity.

allowed   the server answers (whatever it answers)          refused   its word reaches the connection
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import nats
import nats.errors
import pytest
from nats.aio.client import Client

from infra.embedded.nats import EmbeddedNats
from infra.environment import NatsLogin
from infra.events.connection import connect_reader, connect_writer, disconnect, refusal_since
from infra.events.jetstream import JetStreamLog
from infra.events.nkeys import UserKey, new_seed
from infra.events.permissions import PERMISSIONS, configuration, durables
from infra.events.port import LogUnavailableError
from infra.events.streams import EVENTS, SNAPSHOTS, STREAMS, ensure_streams
from infra.secret_files import secret_file
from tests.conftest import some_port, started
from tests.infra.events.envelopes import append_of

ANSWER_WAIT_S = 5
ALL = frozenset(PERMISSIONS)
ROLES = frozenset({"web", "gateway", "handlers", "projections"})
REACTION = durables()[EVENTS][0]
EPHEMERAL = {"config": {"ack_policy": "none", "deliver_policy": "all", "mem_storage": True}}

CELLS: Mapping[str, tuple[str, object, frozenset[str]]] = {
    "append an event": ("evt.acme.instance.1", {}, frozenset({"web", "handlers", "operator"})),
    "reserve a name": ("uniq.email.1", {}, frozenset({"web", "handlers", "operator"})),
    "record usage": ("use.acme.1", {}, frozenset({"gateway", "operator"})),
    "tell other gateways the counts": ("gw.counts", {}, frozenset({"gateway", "operator"})),
    "report a heartbeat": ("tel.acme.1.heartbeat", {}, frozenset({"web", "operator"})),
    "store a snapshot": ("snap.instance.1", {}, frozenset({"web", "handlers", "operator"})),
    "park": ("park.reaction.instance.1", {}, frozenset({"web", "handlers", "operator"})),
    "seal": ("seal.audit", {}, frozenset({"handlers", "operator"})),
    "pretend that a timer fired": ("due.instance.1", {}, frozenset({"operator"})),
    "cancel a timer": ("$JS.API.STREAM.PURGE.TIMERS", {"filter": "timer.1"}, frozenset({"handlers", "operator"})),
    "remove what was parked": (
        "$JS.API.STREAM.PURGE.PARKED",
        {"filter": "park.1"},
        frozenset({"handlers", "operator"}),
    ),
    "look at a stream": ("$JS.API.STREAM.INFO.EVENTS", None, ALL),
    "list streams": ("$JS.API.STREAM.NAMES", None, frozenset({"tools", "migration", "operator"})),
    "read an event, from any copy": (
        "$JS.API.DIRECT.GET.EVENTS",
        {"seq": 1},
        frozenset({"web", "handlers", "projections", "tools", "operator"}),
    ),
    "read an event, through the leader": (
        "$JS.API.STREAM.MSG.GET.EVENTS",
        {"seq": 1},
        frozenset({"web", "handlers", "projections", "tools", "operator"}),
    ),
    "read usage": ("$JS.API.DIRECT.GET.USAGE", {"seq": 1}, frozenset({"projections", "tools", "operator"})),
    "read a seal": (
        "$JS.API.DIRECT.GET.SEALS",
        {"seq": 1},
        frozenset({"web", "handlers", "projections", "tools", "operator"}),
    ),
    "read a snapshot": (
        "$JS.API.DIRECT.GET.SNAPSHOTS.snap.instance.1",
        None,
        frozenset({"web", "handlers", "tools", "operator"}),
    ),
    "read what is parked": (
        "$JS.API.DIRECT.GET.PARKED",
        {"seq": 1},
        frozenset({"web", "handlers", "tools", "operator"}),
    ),
    "follow events": (
        "$JS.API.CONSUMER.CREATE.EVENTS",
        {"stream_name": "EVENTS", **EPHEMERAL},
        frozenset({"web", "gateway", "projections", "tools", "operator"}),
    ),
    "follow usage": (
        "$JS.API.CONSUMER.CREATE.USAGE",
        {"stream_name": "USAGE", **EPHEMERAL},
        frozenset({"gateway", "projections", "tools", "operator"}),
    ),
    "pull as a follower": (
        "$JS.API.CONSUMER.MSG.NEXT.EVENTS.x",
        {"no_wait": True},
        frozenset({"web", "gateway", "projections", "tools", "operator"}),
    ),
    "create a reaction's consumer": (
        f"$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.{REACTION}",
        {"stream_name": "EVENTS", "config": {"durable_name": REACTION, "ack_policy": "explicit"}},
        frozenset({"handlers", "operator"}),
    ),
    "create some other durable consumer": (
        "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.mine",
        {"stream_name": "EVENTS", "config": {"durable_name": "mine", "ack_policy": "explicit"}},
        frozenset({"operator"}),
    ),
    "pull a reaction's work": (
        f"$JS.API.CONSUMER.MSG.NEXT.EVENTS.{REACTION}",
        {"no_wait": True},
        frozenset({"handlers", "operator"}),
    ),
    "delete a reaction's consumer": (f"$JS.API.CONSUMER.DELETE.EVENTS.{REACTION}", None, frozenset({"operator"})),
    "acknowledge a reaction's work": (f"$JS.ACK.EVENTS.{REACTION}.1.1.1.1.1", {}, frozenset({"handlers", "operator"})),
    "acknowledge it in the second form": (
        f"$JS.ACK._.account.EVENTS.{REACTION}.1.1.1.1.1.x",
        {},
        frozenset({"handlers", "operator"}),
    ),
    "create a stream": ("$JS.API.STREAM.CREATE.NEW", {}, frozenset({"migration", "operator"})),
    "change a stream": ("$JS.API.STREAM.UPDATE.EVENTS", {}, frozenset({"migration", "operator"})),
    "delete a stream": ("$JS.API.STREAM.DELETE.NONE", None, frozenset({"operator"})),
    "empty a stream": ("$JS.API.STREAM.PURGE.EVENTS", {}, frozenset({"operator"})),
    "empty usage": ("$JS.API.STREAM.PURGE.USAGE", {}, frozenset({"operator"})),
    "empty seals": ("$JS.API.STREAM.PURGE.SEALS", {}, frozenset({"operator"})),
    "delete an event": ("$JS.API.STREAM.MSG.DELETE.EVENTS", {"seq": 1}, frozenset({"operator"})),
    "copy a whole stream": ("$JS.API.STREAM.SNAPSHOT.EVENTS", {}, frozenset({"operator"})),
    "restore a stream": ("$JS.API.STREAM.RESTORE.NONE", {}, frozenset({"operator"})),
    "move a leader": ("$JS.API.STREAM.LEADER.STEPDOWN.EVENTS", None, frozenset({"operator"})),
}
"""What is done -> (subject, body, who may). Written by hand, not derived from the table that it tests."""


@pytest.fixture
async def guarded(server_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EmbeddedNats]:
    """A server that knows each identity by its key; the seeds lie in its data folder as `<identity>.nk`."""

    def make() -> EmbeddedNats:
        server = EmbeddedNats(server_dir / "nats", some_port())
        plain = server._configuration()
        users = "".join(
            f"{{ nkey: {UserKey(seed_of(server, name)).public}, permissions: {configuration(permissions)} }}\n"
            for name, permissions in PERMISSIONS.items()
        )
        keyed = plain.replace("users: [\n", f"users: [\n{users}", 1)
        monkeypatch.setattr(server, "_configuration", lambda: keyed)
        return server

    server = await started(make)
    admin = await nats.connect(server.admin_url)
    await ensure_streams(admin)
    await admin.jetstream().publish("evt.acme.instance.0", b"the first")
    await admin.close()
    yield server
    await server.stop()


def seed_of(server: EmbeddedNats, identity: str) -> str:
    return secret_file(server.data_dir / f"{identity}.nk", new_seed).decode()


def login_of(server: EmbeddedNats, identity: str) -> NatsLogin:
    seed_of(server, identity)
    return NatsLogin(nkey_file=server.data_dir / f"{identity}.nk")


def address(server: EmbeddedNats) -> str:
    return f"nats://127.0.0.1:{server.port}"


async def outcome(connection: Client, subject: str, body: object) -> str:
    """ "allowed" or "refused", by what the server does; a request that nobody answers is followed by a round trip."""
    since_s = asyncio.get_running_loop().time()
    payload = b"" if body is None else msgspec.json.encode(body)
    inbox = connection.new_inbox()
    subscription = await connection.subscribe(inbox)
    await connection.publish(subject, payload, reply=inbox)
    await round_trip(connection)
    await subscription.unsubscribe()
    return "refused" if refusal_since(connection, since_s) else "allowed"


async def round_trip(connection: Client) -> None:
    """A refusal of what was sent before comes before this answer (before the answer to a flush it need not: nats-py
    sends that ahead of what waits)."""
    await connection.request("$JS.API.STREAM.INFO.EVENTS", timeout=ANSWER_WAIT_S)


async def test_each_identity_may_do_what_the_table_says_and_nothing_else(guarded: EmbeddedNats) -> None:
    wrong = []
    async with AsyncExitStack() as stack:
        for identity in sorted(PERMISSIONS):
            connection = await connect_reader(address(guarded), identity, login_of(guarded, identity))
            stack.push_async_callback(disconnect, connection)
            for name, (subject, body, allowed) in CELLS.items():
                found = await outcome(connection, subject, body)
                if found != ("allowed" if identity in allowed else "refused"):
                    wrong.append((identity, name, found))
    assert wrong == []


async def test_nobody_hears_what_is_not_for_him(guarded: EmbeddedNats) -> None:
    heard: list[str] = []
    async with AsyncExitStack() as stack:
        for identity in sorted(ALL - {"operator"}):
            connection = await connect_reader(address(guarded), identity, login_of(guarded, identity))
            stack.push_async_callback(disconnect, connection)
            for subject in ("evt.>", "use.>", "seal.>", "tel.>", "gw.counts", "_INBOX_operator.>", "$JS.API.>", ">"):
                since_s = asyncio.get_running_loop().time()
                await connection.subscribe(subject)
                await round_trip(connection)
                if not refusal_since(connection, since_s):
                    heard.append(f"{identity} {subject}")
    assert heard == ["gateway tel.>", "gateway gw.counts", "handlers tel.>"]


async def test_a_stranger_is_not_let_in(guarded: EmbeddedNats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.events.connection.CONNECT_BUDGET_S", 0.5)
    secret_file(tmp_path / "stranger.nk", new_seed)
    for login in (None, NatsLogin(nkey_file=tmp_path / "stranger.nk")):
        with pytest.raises(LogUnavailableError, match="let us in"):
            await connect_reader(address(guarded), "web", login)


async def test_a_key_file_that_is_none_is_said_at_once(guarded: EmbeddedNats, tmp_path: Path) -> None:
    (tmp_path / "web.nk").write_text("hello")
    with pytest.raises(LogUnavailableError, match="INVENTIV_NATS_NKEY_FILE"):
        await connect_reader(address(guarded), "web", NatsLogin(nkey_file=tmp_path / "web.nk"))


async def test_an_append_without_permission_says_so_long_before_the_retries_are_spent(guarded: EmbeddedNats) -> None:
    connection = await connect_writer(address(guarded), "gateway", login_of(guarded, "gateway"))
    log = JetStreamLog(connection, reply_timeout_s=0.2, retry_budget_s=60.0)
    with pytest.raises(LogUnavailableError, match="permissions violation for publish to"):
        await log.append([append_of("evt.acme.instance.1", "one", expected=0)])
    await disconnect(connection)


async def test_a_follower_cannot_make_itself_a_durable_consumer(guarded: EmbeddedNats) -> None:
    """The subject of an ephemeral one is open to it; the server refuses the durable name inside."""
    connection = await connect_reader(address(guarded), "web", login_of(guarded, "web"))
    body = {"stream_name": EVENTS, "config": {"durable_name": REACTION, "ack_policy": "none"}}
    reply = await connection.request(f"$JS.API.CONSUMER.CREATE.{EVENTS}", msgspec.json.encode(body))
    assert "error" in msgspec.json.decode(reply.data)
    await disconnect(connection)


def test_every_stream_that_is_kept_for_ever_is_out_of_reach_for_roles() -> None:
    for identity in ROLES:
        for stream in set(STREAMS) - {"TIMERS", "PARKED"}:
            assert f"$JS.API.STREAM.PURGE.{stream}" not in PERMISSIONS[identity].publish
        assert not [s for s in PERMISSIONS[identity].publish if s in {">", "$JS.API.>", "$JS.>"}]
        assert SNAPSHOTS in STREAMS
