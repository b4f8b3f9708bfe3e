"""The ledger of deeds: its rows in both homes, and what it does after each way of being cut off."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from handlers.cloud_ports import CloudRefusedError
from handlers.ports import Effect, Happened, MailRefusedError
from infra.effect_tables import EffectTables, effects_of, list_effects
from infra.effects import EffectLedger, EffectRows, EffectsUnavailableError, EffectUnsettledError, MemoryEffectRows
from infra.postgres import connect
from projections.projection import Connection

MAIL = Effect(reaction="send_mail", event_id="event-1", name="send", key="invitation-1", subject="evt.acme.x.1")
TIMEOUT_S = 1.0


@pytest.fixture(params=["memory", "postgres"])
async def rows(request: pytest.FixtureRequest, postgres_url: str) -> AsyncIterator[EffectRows]:
    if request.param == "memory":
        yield MemoryEffectRows(lambda: datetime.now(UTC))
        return
    async with EffectTables(postgres_url) as tables:
        yield tables


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[Connection]:
    async with await connect(postgres_url, "test", autocommit=True) as opened:
        yield opened


async def test_a_first_intent_is_written_and_a_second_finds_it(rows: EffectRows) -> None:
    assert await rows.intend(MAIL) is None
    found = await rows.intend(MAIL)
    assert found is not None
    assert (found.effect, found.state, found.attempts, found.ended_at) == (MAIL, "intended", 1, None)
    assert 0 <= found.age_s < 60


async def test_effects_differ_by_reaction_event_name_and_key(rows: EffectRows) -> None:
    assert await rows.intend(MAIL) is None
    for field in ("reaction", "event_id", "name", "key"):
        other = Effect(**{**{name: getattr(MAIL, name) for name in MAIL.__struct_fields__}, field: "other"})
        assert await rows.intend(other) is None, field


async def test_of_two_who_try_again_one_does(rows: EffectRows) -> None:
    await rows.intend(MAIL)
    found = await rows.intend(MAIL)
    assert found is not None
    assert [await rows.intend_again(found), await rows.intend_again(found)] == [True, False]
    again = await rows.intend(MAIL)
    assert again is not None
    assert again.attempts == 2


async def test_what_is_done_meanwhile_is_not_intended_again(rows: EffectRows) -> None:
    await rows.intend(MAIL)
    found = await rows.intend(MAIL)
    assert found is not None
    await rows.end(MAIL, "done", "")
    assert not await rows.intend_again(found)


async def test_how_it_ended_is_kept(rows: EffectRows) -> None:
    await rows.intend(MAIL)
    await rows.end(MAIL, "refused", "OUT_OF_STOCK")
    found = await rows.intend(MAIL)
    assert found is not None
    assert (found.state, found.detail) == ("refused", "OUT_OF_STOCK")
    assert found.ended_at is not None


async def test_a_deed_asked_for_twice_is_done_once(rows: EffectRows) -> None:
    post = Post()
    for _ in range(2):
        await post.send(EffectLedger(rows))
    assert post.sent == 1
    assert post.asked == 0, "a deed that is on record as done needs no question"


async def test_a_recorded_deed_is_done_as_often_as_it_is_asked_for(rows: EffectRows) -> None:
    post, ledger = Post(), EffectLedger(rows)
    for _ in range(2):
        await ledger.record(MAIL, post.act)
    found = await rows.intend(MAIL)
    assert post.sent == 2
    assert found is not None
    assert (found.state, found.attempts) == ("done", 2)


async def test_a_refused_deed_and_a_failed_one_are_told_apart(rows: EffectRows) -> None:
    for error, state, detail in (
        (CloudRefusedError("OUT_OF_STOCK", "none left"), "refused", "OUT_OF_STOCK"),
        (ConnectionError("the address of somebody"), "unknown", "ConnectionError"),
    ):
        with pytest.raises(type(error)):
            await EffectLedger(rows).record(MAIL, Post(fails=error).act)
        found = await rows.intend(MAIL)
        assert found is not None
        assert (found.state, found.detail) == (state, detail), "a code, never the words"


class Post:
    """A world that sends a letter for each time it is told to."""

    def __init__(self, *, fails: Exception | None = None, answer: Happened = "unknown") -> None:
        self.fails = fails
        self.answer = answer
        self.sent = self.asked = 0

    async def act(self) -> None:
        if self.fails is not None:
            raise self.fails
        self.sent += 1

    async def ask(self) -> Happened:
        self.asked += 1
        return self.answer

    async def send(self, ledger: EffectLedger) -> None:
        await ledger.once(MAIL, act=self.act, ask=self.ask, timeout_s=TIMEOUT_S)


class Clock:
    """A clock that is moved by hand, with rows on it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 12, tzinfo=UTC)
        self.rows = MemoryEffectRows(lambda: self.now)
        self.ledger = EffectLedger(self.rows)

    async def cut_off(self) -> None:
        """A process wrote its intent, and was killed."""
        await self.rows.intend(MAIL)

    def later(self) -> None:
        self.now += timedelta(seconds=2 * TIMEOUT_S)


async def test_what_was_cut_off_is_not_asked_about_while_it_may_still_be_on_its_way() -> None:
    clock, post = Clock(), Post(answer="not_happened")
    await clock.cut_off()
    with pytest.raises(EffectUnsettledError, match="on its way"):
        await post.send(clock.ledger)
    assert (post.sent, post.asked) == (0, 0)


@pytest.mark.parametrize(("answer", "sent"), [("happened", 0), ("not_happened", 1)])
async def test_what_was_cut_off_is_asked_about_and_then_done_if_need_be(answer: Happened, sent: int) -> None:
    clock, post = Clock(), Post(answer=answer)
    await clock.cut_off()
    clock.later()
    await post.send(clock.ledger)
    await post.send(clock.ledger)
    assert (post.sent, post.asked) == (sent, 1)
    assert [row.state for row in clock.rows.rows] == ["done"]


async def test_what_nobody_knows_is_neither_repeated_nor_forgotten() -> None:
    clock, post = Clock(), Post(answer="unknown")
    await clock.cut_off()
    for _ in range(3):
        clock.later()
        with pytest.raises(EffectUnsettledError, match="does not tell"):
            await post.send(clock.ledger)
    assert (post.sent, post.asked) == (0, 3)
    post.answer = "happened"
    await post.send(clock.ledger)
    assert [row.state for row in clock.rows.rows] == ["done"]


async def test_a_deed_that_failed_is_unknown_until_it_is_asked_about() -> None:
    clock, post = Clock(), Post(fails=ValueError("bug"), answer="not_happened")
    with pytest.raises(ValueError, match="bug"):
        await post.send(clock.ledger)
    assert [(row.state, row.detail) for row in clock.rows.rows] == [("unknown", "ValueError")]
    post.fails = None
    clock.later()
    await post.send(clock.ledger)
    assert (post.sent, post.asked) == (1, 1)


async def test_a_deed_that_was_refused_for_good_is_told_once_and_never_tried_again() -> None:
    clock, post = Clock(), Post(fails=MailRefusedError("smtp_550"))
    with pytest.raises(MailRefusedError):
        await post.send(clock.ledger)
    assert [(row.state, row.detail) for row in clock.rows.rows] == [("refused", "smtp_550")]
    post.fails = None
    clock.later()
    await post.send(clock.ledger)
    assert (post.sent, post.asked) == (0, 0)


async def test_a_deed_that_takes_too_long_is_given_up_and_asked_about() -> None:
    clock = Clock()

    async def hang() -> None:
        await never.wait()

    never = asyncio.Event()
    with pytest.raises(TimeoutError):
        await clock.ledger.once(MAIL, act=hang, ask=Post().ask, timeout_s=0.01)
    assert [row.state for row in clock.rows.rows] == ["unknown"]


async def test_the_key_for_the_receiver_is_the_same_at_every_try() -> None:
    assert MAIL.idempotency_key == "event-1/send_mail/send/invitation-1"


async def test_deeds_are_found_by_their_event_and_by_what_is_unfinished(
    postgres_url: str, connection: Connection
) -> None:
    assert await effects_of(connection, ["event-1"]) == [], "no ledger yet"
    async with EffectTables(postgres_url) as rows:
        other = Effect(reaction="send_mail", event_id="event-2", name="send")
        for effect in (MAIL, other):
            await rows.intend(effect)
        await rows.end(MAIL, "done", "")
        assert [row.effect for row in await effects_of(connection, ["event-1"])] == [MAIL]
        assert [row.effect for row in await list_effects(connection, unfinished=True)] == [other]
        assert [row.effect for row in await list_effects(connection)] == [other, MAIL]


async def test_rows_wait_for_the_disk(postgres_url: str) -> None:
    async with EffectTables(postgres_url) as rows, rows._connection() as connection:
        cursor = await connection.execute("SHOW synchronous_commit")
        assert await cursor.fetchone() == ("on",)


async def test_a_ledger_whose_postgres_was_wiped_begins_anew(postgres_url: str, connection: Connection) -> None:
    async with EffectTables(postgres_url) as rows:
        await rows.intend(MAIL)
        await connection.execute("DROP SCHEMA platform CASCADE")
        with pytest.raises(EffectsUnavailableError):
            await rows.intend(MAIL)
        assert await rows.intend(MAIL) is None


async def test_a_ledger_without_postgres_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.postgres.POOL_WAIT_S", 0.2)
    async with EffectTables("postgresql://nobody@127.0.0.1:9/none") as rows:
        with pytest.raises(EffectsUnavailableError):
            await rows.intend(MAIL)


async def test_two_that_create_the_table_together_both_succeed(postgres_url: str) -> None:
    async with EffectTables(postgres_url) as ours, EffectTables(postgres_url) as theirs:
        found = await asyncio.gather(ours.intend(MAIL), theirs.intend(MAIL))
        assert [row is None for row in sorted(found, key=lambda row: row is not None)] == [True, False]
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        cursor = await connection.execute("SELECT count(*) FROM platform.effects")
        assert await cursor.fetchone() == (1,)
