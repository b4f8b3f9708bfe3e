"""A lost log comes back from the audit log, byte for byte; a lost Postgres from the log; nothing comes back wrong."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from domain.api_key import ApiKeyRenamed
from infra.embedded.nats import EmbeddedNats
from infra.embedded.nats_cluster import EmbeddedNatsCluster
from infra.events.connection import connect_writer, disconnect
from infra.events.snapshots import Snapshot, SnapshotStore
from infra.events.streams import EVENTS, USAGE, UnfitServerError
from infra.gate import Gate, Standing
from infra.postgres import ReadModelUnavailableError
from infra.replay import refill as refilling
from infra.replay.behind import log_is_behind, require_whole_log
from infra.replay.refill import DifferentLogError
from infra.replay.restore import DamagedTableError, Plan, Restored, plan_restore, restore
from infra.replay.stored import Message
from infra.replay.verify import verify
from projections.instances import INSTANCES
from projections.users import USERS
from tests.infra.replay.stores import (
    a_story,
    administrator,
    changed,
    execute,
    fold,
    messages_of,
    publish,
    stored,
    table_hashes,
    used,
    watch,
    wipe,
)

STORY = a_story()
WHOLE = messages_of(STORY)
RECORDS = used(7)
HALF = len(WHOLE) // 2


async def restored(server: EmbeddedNats, postgres_url: str) -> tuple[Plan, Restored]:
    async with administrator(server) as nc:
        plan = await plan_restore(nc, postgres_url)
        return plan, await restore(nc, postgres_url, plan, watch=watch())


@pytest.mark.parametrize("left", [0, 1, HALF, len(WHOLE) - 1])
async def test_a_lost_or_shortened_log_comes_back_as_it_was(
    bare_nats: EmbeddedNats, postgres_url: str, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refilling, "BATCH_MESSAGES_MAX", 7)
    async with administrator(bare_nats) as nc:
        await publish(nc, [*WHOLE, *RECORDS])
        before = await stored(nc)
        await fold(postgres_url, WHOLE, RECORDS)
        hashes = await table_hashes(postgres_url)
        await wipe(nc, EVENTS)
    async with administrator(bare_nats) as nc:
        await publish(nc, WHOLE[:left])
    plan, done = await restored(bare_nats, postgres_url)
    assert (plan.events_missing, plan.events_lost, plan.ahead) == (len(WHOLE) - left, 0, ())
    assert (done.events_restored, done.events) == (len(WHOLE) - left, len(WHOLE))
    async with administrator(bare_nats) as nc:
        assert await stored(nc) == before
        report = await verify(nc, postgres_url, monitor_url=bare_nats.monitor_url, watch=watch())
        assert not report.damaged
        assert (await plan_restore(nc, postgres_url)).nothing_to_do
    assert await table_hashes(postgres_url) == hashes


async def test_the_restored_log_goes_on_where_it_ended(bare_nats: EmbeddedNats, postgres_url: str) -> None:
    await fold(postgres_url, WHOLE)
    await restored(bare_nats, postgres_url)
    longer = a_story()
    key = next(m.subject for m in WHOLE if ".api_key." in m.subject).split(".")
    longer.happened(key[1], key[3], ApiKeyRenamed(name="after the fire"))
    async with administrator(bare_nats) as nc:
        await publish(nc, messages_of(longer)[len(WHOLE) :])
        assert await stored(nc) == messages_of(longer)


async def test_a_log_that_is_another_one_is_refused_by_position(bare_nats: EmbeddedNats, postgres_url: str) -> None:
    await fold(postgres_url, WHOLE)
    async with administrator(bare_nats) as nc:
        await publish(nc, [*WHOLE[:4], changed(WHOLE[4], actor="user:mallory")])
        with pytest.raises(DifferentLogError, match="position 5: another payload"):
            await restored(bare_nats, postgres_url)
        assert len(await stored(nc)) == 5


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE audit_log_v3.audit_log SET actor = 'user:mallory' WHERE position = 9", "9: the row differs in actor"),
        ("DELETE FROM audit_log_v3.audit_log WHERE position = 9", "10: 1 messages are missing"),
        ("DELETE FROM audit_log_v3.audit_log WHERE position > 20", "21: the rows end at 20"),
        ("UPDATE audit_log_v3.audit_log SET payload = '\\x7b7d' WHERE position = 9", "9: the payload is no envelope"),
    ],
)
async def test_a_damaged_audit_log_is_not_believed(
    bare_nats: EmbeddedNats, postgres_url: str, statement: str, found: str
) -> None:
    await fold(postgres_url, WHOLE)
    await execute(postgres_url, statement)
    with pytest.raises(DamagedTableError, match=found):
        await restored(bare_nats, postgres_url)


async def test_readers_ahead_of_what_comes_back_are_built_again(bare_nats: EmbeddedNats, postgres_url: str) -> None:
    """Events younger than the audit log are lost: no read model, reaction or snapshot may remember them."""
    await fold(postgres_url, WHOLE[:-2])
    expected = await table_hashes(postgres_url)
    await fold(postgres_url, WHOLE, only=["users", "instances"])
    lost = WHOLE[-1].subject.split(".", 3)
    async with Gate(postgres_url) as gate:
        for version in (1, 10_000):
            async with gate.hold(f"react-{version}", lost[2], lost[3]) as held:
                assert held is not None
                await held.settle(Standing(version=version))
    plan, done = await restored(bare_nats, postgres_url)
    assert (plan.events_lost, set(plan.ahead)) == (2, {USERS.schema, INSTANCES.schema})
    assert done.reactions_forgotten == 1
    async with administrator(bare_nats) as nc:
        assert await stored(nc) == WHOLE[:-2]
        assert await log_is_behind(nc, postgres_url) is None
    await fold(postgres_url, WHOLE[:-2])
    assert await table_hashes(postgres_url) == expected


async def test_snapshots_of_a_lost_log_are_dropped(bare_nats: EmbeddedNats, postgres_url: str) -> None:
    snapshot = Snapshot(
        position=10**6, version=5, previous_hash="", correlation="", schema_fingerprint="x", state=b"{}"
    )
    await fold(postgres_url, WHOLE)
    async with administrator(bare_nats) as nc:
        assert await SnapshotStore(nc).save("api_key", "k", snapshot)
        _, done = await restored(bare_nats, postgres_url)
        assert done.snapshots_purged
        assert await SnapshotStore(nc).load("api_key", "k", schema_fingerprint="x") is None


async def test_lost_usage_comes_back_record_for_record_at_its_positions(
    bare_nats: EmbeddedNats, postgres_url: str
) -> None:
    await fold(postgres_url, [], RECORDS)
    hashes = await table_hashes(postgres_url)
    plan, done = await restored(bare_nats, postgres_url)
    assert (plan.usage_missing, done.usage_restored) == (len(RECORDS), len(RECORDS))
    async with administrator(bare_nats) as nc:
        again = await stored(nc, USAGE)
    assert [(m.position, m.subject, m.payload) for m in again] == [(m.position, m.subject, m.payload) for m in RECORDS]
    await execute(postgres_url, "DROP SCHEMA platform CASCADE")
    await fold(postgres_url, [], again)
    assert await table_hashes(postgres_url) == hashes


async def test_a_lost_postgres_is_built_again_from_the_streams(bare_nats: EmbeddedNats, postgres_url: str) -> None:
    await fold(postgres_url, WHOLE, RECORDS)
    hashes = await table_hashes(postgres_url)
    async with administrator(bare_nats) as nc:
        await publish(nc, [*WHOLE, *RECORDS])
        await execute(postgres_url, "DROP SCHEMA platform CASCADE")
        plan = await plan_restore(nc, postgres_url)
        assert (plan.tables_lost, plan.nothing_to_do) == (True, True)
        await fold(postgres_url, await stored(nc), await stored(nc, USAGE))
    assert await table_hashes(postgres_url) == hashes


async def test_a_lost_answer_is_resolved_by_looking(
    bare_nats: EmbeddedNats, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch is stored, and its acknowledgement is lost: it is not stored again."""
    publish_batch = refilling._publish
    lost: list[object] = []

    async def forgetful(*arguments: object) -> object:
        ack = await publish_batch(*arguments)  # type: ignore[arg-type] # handed on as they came
        if not lost:
            lost.append(ack)
            raise TimeoutError
        return ack

    monkeypatch.setattr(refilling, "_publish", forgetful)
    await fold(postgres_url, WHOLE)
    _, done = await restored(bare_nats, postgres_url)
    assert (done.events_restored, len(lost)) == (len(WHOLE), 1)
    async with administrator(bare_nats) as nc:
        assert await stored(nc) == WHOLE


async def test_three_replicas_are_filled_although_their_leader_dies(
    nats_cluster: EmbeddedNatsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refilling, "BATCH_MESSAGES_MAX", 10)
    leader = await nats_cluster.leader(EVENTS)

    async def source() -> AsyncIterator[list[Message]]:
        yield WHOLE[:HALF]
        await leader.kill()
        yield WHOLE[HALF:]

    nc = await connect_writer(nats_cluster.admin_url, "test")
    try:
        assert await refilling.refill(nc, EVENTS, source(), advance=lambda _: None) == (0, len(WHOLE))
        assert await stored(nc) == WHOLE
    finally:
        await leader.start()
        await disconnect(nc)


async def test_somebody_who_writes_meanwhile_is_noticed(
    bare_nats: EmbeddedNats, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_batch = refilling._publish
    monkeypatch.setattr(refilling, "BATCH_MESSAGES_MAX", 10)
    await fold(postgres_url, WHOLE)
    async with administrator(bare_nats) as nc:

        async def interrupted(client: object, batch: list[Message]) -> object:
            if batch[0].position == 11:
                await publish(nc, [replace(WHOLE[0], subject="evt.x.y.z", message_id="intruder")])
            return await publish_batch(client, batch)  # type: ignore[arg-type] # handed on as it came

        monkeypatch.setattr(refilling, "_publish", interrupted)
        with pytest.raises(refilling.RefillError, match="somebody else writes"):
            await restored(bare_nats, postgres_url)
        assert (await stored(nc))[:10] == WHOLE[:10]


async def test_no_role_may_start_on_a_log_that_was_read_further(bare_nats: EmbeddedNats, postgres_url: str) -> None:
    async with administrator(bare_nats) as nc:
        assert await log_is_behind(nc, postgres_url) is None
        await publish(nc, WHOLE[:HALF])
        assert await log_is_behind(nc, postgres_url) is None
        await fold(postgres_url, WHOLE[:HALF])
        assert await log_is_behind(nc, postgres_url) is None
        await fold(postgres_url, WHOLE)
        finding = await log_is_behind(nc, postgres_url)
        assert finding is not None
        assert f"ends at {HALF:,}" in finding.found
        assert "inventiv events restore" in finding.cure
        with pytest.raises(UnfitServerError, match="inventiv events restore"):
            await require_whole_log(nc, postgres_url)


async def test_without_postgres_nobody_knows_whether_the_log_is_whole(bare_nats: EmbeddedNats) -> None:
    async with administrator(bare_nats) as nc:
        with pytest.raises(ReadModelUnavailableError):
            await log_is_behind(nc, "postgresql://nobody@127.0.0.1:1/nothing")


async def test_a_log_of_the_same_length_may_be_another_one(bare_nats: EmbeddedNats, postgres_url: str) -> None:
    async with administrator(bare_nats) as nc:
        await publish(nc, [changed(message, actor="user:other") for message in WHOLE])
        await fold(postgres_url, WHOLE)
        finding = await log_is_behind(nc, postgres_url)
    assert finding is not None
    assert "another event" in finding.found


async def test_lost_usage_keeps_the_roles_from_starting_too(bare_nats: EmbeddedNats, postgres_url: str) -> None:
    await fold(postgres_url, [], RECORDS)
    async with administrator(bare_nats) as nc:
        finding = await log_is_behind(nc, postgres_url)
        assert finding is not None
        assert finding.subject == USAGE
        await restored(bare_nats, postgres_url)
        assert await log_is_behind(nc, postgres_url) is None
