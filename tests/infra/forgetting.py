"""A platform's stores with two people in them, and a search for what can still be read of a person in any of them.

found(house, words) ──> streams and their files, tables, kept replies, exports, the data folder
                        every sealed text in all of that is opened with the vault, as a thief of everything would do
"""

import io
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
from nats.aio.client import Client
from psycopg import sql
from uuid_utils import uuid7

from domain.aggregates import AGGREGATES
from domain.api_key import API_KEY
from domain.decider import Decider
from domain.ids import PLATFORM, ApiKeyId, InvitationId, OrganizationId, SessionId, UserId
from domain.message import Context, subject_of
from domain.organization import ORGANIZATION
from domain.organization_commands import AcceptInvitation, AddMember, CreateOrganization, InviteMember
from domain.session import SESSION, OpenSession
from domain.user import USER, CreateUser, UpdateProfile
from domain.values import Sealed
from handlers.ports import Doors, Trigger
from handlers.send_invitation_on_member_invited import send_invitation_on_member_invited
from infra.doors import Tables, doors_of, utc_now
from infra.effects import EffectLedger, MemoryEffectRows
from infra.embedded.nats import EmbeddedNats
from infra.environment import Environment
from infra.events.codec import Codec
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.streams import STREAMS
from infra.idempotency import PostgresIdempotency
from infra.master_key import read_master_key
from infra.passwords import Passwords
from infra.postgres import Pool, ReadModels
from infra.projecting import EventSource
from infra.replay.stored import stored_messages, stream_info
from infra.replay.transfer import Wanted, export_events
from infra.session_uses import SessionUses
from infra.sign_in_tables import create_sign_in_tables
from infra.vault import OneTimeTokens, Vault
from infra.vault_tables import create_vault, vault_pool
from infra.wrapping import KeyRing
from projections.projection import EVERYTHING
from tests.examples import key_to_issue
from tests.handlers.fake_cloud import FakeCloud
from tests.handlers.world import Effects
from tests.web.world import _projected
from web.services import Claimed, KeptReply

BOB = UserId("01890000-0000-7000-8000-000000000b0b")
ALICE = UserId("01890000-0000-7000-8000-00000000a11c")
ACME = OrganizationId("01890000-0000-7000-8000-00000000acbe")
GLOBEX = OrganizationId("01890000-0000-7000-8000-0000000610be")
ADMIN = Context(actor="user:admin", correlation="01890000-0000-7000-8000-0000000000c0")
SNAPSHOT_AFTER = 100
"""Events of one aggregate, so that a snapshot of it is taken; see infra/dispatch.py."""

PERSONAL: Mapping[UserId, Mapping[str, str]] = {
    BOB: {
        "username": "bob-zaphod",
        "email": "bob.zaphod@beeblebrox.example",
        "first_name": "Zaphodbob",
        "last_name": "Beeblebroxbob",
        "ip": "203.0.113.77",
        "user_agent": "Browser-of-Bob/7.7",
    },
    ALICE: {
        "username": "alice-trillian",
        "email": "alice.trillian@mcmillan.example",
        "first_name": "Trillianalice",
        "last_name": "McMillanalice",
        "ip": "198.51.100.88",
        "user_agent": "Browser-of-Alice/8.8",
    },
}
_SEALED = re.compile(rb"v1\.[\w-]+\.\w+\.[\w=-]+")
_HEX = re.compile(rb"\\\\x([0-9a-f]{2,})|\\x([0-9a-f]{2,})")


@dataclass
class House:
    """Everything a test may look into."""

    environment: Environment
    nats: EmbeddedNats
    nc: Client
    pool: Pool
    vault: Vault
    passwords: Passwords
    idempotency: PostgresIdempotency
    source: EventSource
    doors: Doors
    read: ReadModels

    async def dispatch(self, decider: Decider[Any, Any, Any], organization: str, id: str, command: object) -> None:  # noqa: A002 - the port's word
        await self.doors.dispatch(decider, organization, id, command, ADMIN)

    async def tell(self, react: Any, decider: Decider[Any, Any, Any], organization: str, aggregate_id: str) -> object:
        """One look of a reaction at an aggregate."""
        log = JetStreamLog(self.nc)
        newest = (await log.read(subject_of(organization, decider.aggregate, aggregate_id)))[-1].envelope
        trigger = Trigger(
            organization=newest.organization,
            aggregate=newest.aggregate,
            id=newest.id,
            cause=newest.event_id,
            correlation=newest.correlation,
            version=newest.version,
        )
        outcome: object = await react(trigger, self.doors)
        return outcome

    async def seal_audit_log(self) -> None:
        """Once the tree has all that is in the log."""
        async with self.read("audit_tree", "audit_log", position=await self.source.head()):
            pass
        await self.doors.sealer.seal((await self.doors.sealer.standing()).entries, utc_now())


@asynccontextmanager
async def open_house(nats: EmbeddedNats, postgres_url: str, folder: Path) -> AsyncIterator[House]:
    environment = Environment(
        data_dir=folder, secrets_dir=folder / "secrets", make_secrets=True, nats_url=nats.url, postgres_url=postgres_url
    )
    key = read_master_key(environment.secrets_dir, make=True)
    async with AsyncExitStack() as stack:
        reader = await connect_reader(nats.url, "reader")
        stack.push_async_callback(disconnect, reader)
        nc = await connect_writer(nats.url, "writer")
        stack.push_async_callback(disconnect, nc)
        pool = await stack.enter_async_context(vault_pool(postgres_url))
        await create_vault(pool, key)
        await create_sign_in_tables(pool)
        log, codec = JetStreamLog(reader), Codec(AGGREGATES)
        await stack.enter_async_context(_projected(log, codec, postgres_url))  # type: ignore[arg-type] # any log will do
        read = await stack.enter_async_context(ReadModels(postgres_url, scope=EVERYTHING))
        tables = Tables(read=read, effects=EffectLedger(MemoryEffectRows(utc_now)), vault=pool)
        doors = doors_of(environment, nc, tables, FakeCloud(Effects(), utc_now), key)
        passwords = Passwords(pool)
        stack.callback(passwords.close)
        yield House(
            environment=environment,
            nats=nats,
            nc=nc,
            pool=pool,
            vault=Vault(pool, key, KeyRing(key, environment.secrets_dir)),
            passwords=passwords,
            idempotency=PostgresIdempotency(pool, key),
            source=EventSource(log, codec),
            doors=doors,
            read=read,
        )


async def lives(house: House) -> None:
    """Two people sign up, sign in, join, are invited, get mails, and leave replies and snapshots behind."""
    await house.dispatch(
        ORGANIZATION, ACME, ACME, CreateOrganization(name="Acme", owner=UserId("owner"), fallback_slug="acme")
    )
    await house.dispatch(
        ORGANIZATION, GLOBEX, GLOBEX, CreateOrganization(name="Globex", owner=UserId("owner"), fallback_slug="globex")
    )
    for person in (BOB, ALICE):
        await _invited(house, ACME, person, accepted=True)
        await _signed_up(house, person)
        await house.dispatch(ORGANIZATION, ACME, ACME, AddMember(user_id=person, role="user"))
        await house.dispatch(API_KEY, ACME, ApiKeyId(f"key-of-{person}"), key_to_issue("own", person, person * 2))
        await _signed_in(house, person)
        await _invited(house, GLOBEX, person, accepted=False)
        await _replied(house, f"user:{person}", "own", person)
        await _replied(house, "user:admin", f"created-{person}", person)
    for organization in (ACME, GLOBEX):
        await house.tell(send_invitation_on_member_invited, ORGANIZATION, organization, organization)


async def _signed_up(house: House, person: UserId) -> None:
    clear = PERSONAL[person]
    fields = ("username", "email", "first_name", "last_name")
    digests: dict[str, Any] = {
        "username_digest": house.vault.digest("username", clear["username"]),
        "email_digest": house.vault.digest("email", clear["email"]),
    }
    sealed: dict[str, Any] = {name: await house.vault.seal(person, name, clear[name]) for name in fields}
    await house.dispatch(USER, PLATFORM, person, CreateUser(**sealed, **digests))
    await house.passwords.set_password(person, f"the password of {clear['username']}")
    for _ in range(SNAPSHOT_AFTER):
        await house.dispatch(USER, PLATFORM, person, UpdateProfile(**sealed, **digests))


async def _signed_in(house: House, person: UserId) -> None:
    clear = PERSONAL[person]
    session_id = SessionId(f"session-of-{person}")
    opened = OpenSession(
        user_id=person,
        organization_id=ACME,
        token_sha256=sha256(person.encode()).hexdigest(),
        expires_at=utc_now() + timedelta(hours=1),
        ip=await house.vault.seal(person, "ip", clear["ip"]),
        user_agent=await house.vault.seal(person, "user_agent", clear["user_agent"]),
    )
    await house.dispatch(SESSION, PLATFORM, session_id, opened)
    uses = SessionUses(house.pool)
    uses.note(session_id, person, utc_now())
    await uses.flush()
    async with house.pool.connection() as connection:
        await connection.execute(
            "INSERT INTO vault.sign_in_tallies (key, user_id, failures, in_a_row, expires_at) "
            "VALUES (%s, %s, 1, 1, now() + interval '1 day')",
            [person.encode(), person],
        )


async def _invited(house: House, organization: OrganizationId, person: UserId, *, accepted: bool) -> None:
    invitation_id = InvitationId(str(uuid7()))
    email, digest = PERSONAL[person]["email"], house.vault.digest("email", PERSONAL[person]["email"])
    tokens = house.doors.tokens
    assert isinstance(tokens, OneTimeTokens)
    invite = InviteMember(
        by=UserId("owner"),
        invitation_id=invitation_id,
        email=await house.vault.seal(invitation_id, "email", email),
        email_digest=digest,
        role="user",
        token_sha256=sha256(tokens.token("invitation", invitation_id).encode()).hexdigest(),
        expires_at=utc_now() + timedelta(days=7),
    )
    await house.dispatch(ORGANIZATION, organization, organization, invite)
    if accepted:
        accept = AcceptInvitation(invitation_id=invitation_id, user_id=person, email_digest=digest)
        await house.dispatch(ORGANIZATION, organization, organization, accept)


async def _replied(house: House, principal: str, key: str, person: UserId) -> None:
    """A kept reply that holds the person's address, to them or to somebody else."""
    claimed = await house.idempotency.claim(principal, key, b"digest", datetime.now(UTC))
    assert isinstance(claimed, Claimed)
    body = f'{{"email": "{PERSONAL[person]["email"].upper()}", "name": "{PERSONAL[person]["first_name"]}"}}'
    await house.idempotency.finish(principal, key, KeptReply(status=201, headers=(), body=body.encode()))


async def found(house: House, person: UserId) -> set[str]:
    """Which of the person's data can be read by whoever has everything there is, master key and vault included."""
    everything = [chunk async for chunk in _everything(house)]
    sealed = sorted({one.decode() for chunk in everything for one in _SEALED.findall(chunk)})
    opened = await house.vault.open_all([Sealed(one) for one in sealed])
    readable = [chunk.lower() for chunk in everything] + [text.lower().encode() for text in opened if text]
    return {
        name for name, text in PERSONAL[person].items() if any(text.lower().encode() in chunk for chunk in readable)
    }


async def _everything(house: House) -> AsyncIterator[bytes]:
    for stream in STREAMS:
        info = await stream_info(house.nc, stream)
        assert info is not None
        _, state = info
        async with stored_messages(house.nc, stream, until=state.last_seq) as batches:
            async for messages in batches:
                for message in messages:
                    yield message.subject.encode() + b" " + message.payload
    for path in _files(house.nats.data_dir, house.environment.data_dir):
        yield path.read_bytes()
    async for row in _rows(house.environment.postgres_url):
        yield row
        for escaped, plain in _HEX.findall(row):
            yield bytes.fromhex((escaped or plain).decode()[: 2 * (len(escaped or plain) // 2)])
    async for reply in _kept_replies(house):
        yield reply
    exported = io.BytesIO()
    await export_events(house.nc, exported, Wanted(), advance=lambda _n: None)
    yield exported.getvalue()


def _files(*folders: Path) -> Iterable[Path]:
    return (path for folder in folders for path in folder.rglob("*") if path.is_file())


async def _rows(postgres_url: str) -> AsyncIterator[bytes]:
    """Every row of every table of ours, as text."""
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        listing = "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT LIKE ALL (ARRAY['pg_%', 'inform%'])"
        for schema, table in await (await connection.execute(listing)).fetchall():
            query = sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(schema, table))
            for (text,) in await (await connection.execute(query)).fetchall():
                yield text.encode()


async def _kept_replies(house: House) -> AsyncIterator[bytes]:
    async with house.pool.connection() as connection:
        query = "SELECT principal, key, reply FROM vault.idempotency WHERE reply IS NOT NULL"
        rows = await (await connection.execute(query)).fetchall()
    for principal, key, reply in rows:
        yield house.idempotency._opened(bytes(reply), principal, key)


async def data_key_in_files(postgres_url: str, wrapped: bytes) -> bool:
    """Whether a person's wrapped data key is still in some file of this database (not in Postgres' write-ahead log)."""
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await connection.execute("CHECKPOINT")
        query = "SELECT current_setting('data_directory'), pg_relation_filepath('vault.person_keys')"
        row = await (await connection.execute(query)).fetchone()
    assert row is not None
    folder = (Path(row[0]) / row[1]).parent
    return any(wrapped in path.read_bytes() for path in _files(folder))


async def wrapped_key(pool: Pool, person_id: str) -> bytes:
    async with pool.connection() as connection:
        query = "SELECT wrapped FROM vault.person_keys WHERE person_id = %s"
        row = await (await connection.execute(query, [person_id])).fetchone()
    assert row is not None
    return bytes(row[0])
