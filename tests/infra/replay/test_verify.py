"""`verify` against real stores: a whole log gives no finding, and each kind of damage gives its own."""

from collections.abc import Callable, Sequence

import msgspec
import pytest
from msgspec.structs import replace
from nats.aio.client import Client

from domain.api_key import API_KEY
from domain.message import payload_hash
from infra.dispatch import fingerprint_of
from infra.embedded.nats import EmbeddedNats
from infra.events.snapshots import Snapshot, SnapshotStore
from infra.events.streams import EVENTS
from infra.replay import findings as findings_module
from infra.replay import verify as verifying
from infra.replay.findings import Findings
from infra.replay.history import fold_until
from infra.replay.stored import Message
from infra.replay.verify import Report, verify
from tests.infra.replay.stores import (
    a_story,
    administrator,
    changed,
    execute,
    fold,
    messages_of,
    publish,
    used,
    watch,
)
from tests.infra.replay.test_history import DECODE, placed

Damage = Callable[[list[Message]], Sequence[Message]]

STORY = a_story()
WHOLE = messages_of(STORY)
KEY = next(n for n, m in enumerate(WHOLE) if ".api_key." in m.subject)
"""Index of the first event of an API key; the key's next one follows it."""


def checks(report: Report, severity: str = "damage") -> set[str]:
    return {finding.check for finding in report.findings if finding.severity == severity}


async def verified(nc: Client, server: EmbeddedNats, postgres_url: str, *, full: bool = False) -> Report:
    return await verify(nc, postgres_url, monitor_url=server.monitor_url, full=full, watch=watch())


async def test_a_whole_log_has_no_finding(bare_nats: EmbeddedNats, postgres_url: str) -> None:
    async with administrator(bare_nats) as nc:
        usage = used(5)
        await publish(nc, [*WHOLE, *usage])
        await fold(postgres_url, WHOLE, usage)
        report = await verified(nc, bare_nats, postgres_url)
    assert [f for f in report.findings if "deny_delete" not in f.found] == []
    assert (report.damaged, report.checked.events, report.checked.audit_rows) == (False, len(WHOLE), len(WHOLE))
    assert report.checked.aggregates == len({message.subject for message in WHOLE})


async def test_an_empty_platform_has_no_damage(bare_nats: EmbeddedNats, postgres_url: str) -> None:
    async with administrator(bare_nats) as nc:
        report = await verified(nc, bare_nats, postgres_url)
    assert (report.damaged, report.checked.events) == (False, 0)


def _forged(messages: list[Message]) -> Sequence[Message]:
    return [*messages[:KEY], changed(messages[KEY], actor="user:mallory"), *messages[KEY + 1 :]]


def _left_out(messages: list[Message]) -> Sequence[Message]:
    return [*messages[:KEY], *messages[KEY + 1 :]]


def _no_envelope(messages: list[Message]) -> Sequence[Message]:
    return [*messages, Message(0, "evt.acme.api_key.k", "x", b'{"hello": "world"}')]


def _elsewhere(messages: list[Message]) -> Sequence[Message]:
    return [*messages, replace(changed(WHOLE[KEY], event_id="fresh"), subject="evt.acme.api_key.z", message_id="fresh")]


def _other_id(messages: list[Message]) -> Sequence[Message]:
    return [*messages[:KEY], replace(messages[KEY], message_id="another"), *messages[KEY + 1 :]]


def _misfit(messages: list[Message]) -> Sequence[Message]:
    return [*messages[:KEY], changed(messages[KEY], data=msgspec.Raw(b'{"name": 5}')), *messages[KEY + 1 :]]


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (_forged, {"previous", "audit_log"}),
        (_left_out, {"version", "audit_log"}),
        (_no_envelope, {"envelope"}),
        (_elsewhere, {"subject"}),
        (_other_id, {"message_id"}),
        (_misfit, {"event_data", "audit_log"}),
    ],
)
async def test_damage_of_the_log_is_found_by_its_own_check(
    bare_nats: EmbeddedNats, postgres_url: str, damage: Damage, found: set[str]
) -> None:
    async with administrator(bare_nats) as nc:
        await publish(nc, damage(WHOLE))
        await fold(postgres_url, WHOLE)
        report = await verified(nc, bare_nats, postgres_url)
    assert report.damaged
    assert found <= checks(report)
    assert all(finding.cure for finding in report.findings)


async def test_a_deleted_message_is_missed_by_position_and_by_the_streams_own_figures(
    bare_nats: EmbeddedNats, postgres_url: str
) -> None:
    async with administrator(bare_nats) as nc:
        await publish(nc, WHOLE)
        await fold(postgres_url, WHOLE)
        await nc.jetstream().delete_msg(EVENTS, 7)
        report = await verified(nc, bare_nats, postgres_url)
    assert {"position", "stream"} <= checks(report)
    assert {f.position for f in report.findings if f.check == "position"} == {8}


async def test_a_lost_tail_is_found_by_the_checkpoints(bare_nats: EmbeddedNats, postgres_url: str) -> None:
    async with administrator(bare_nats) as nc:
        await publish(nc, WHOLE[:-3])
        await fold(postgres_url, WHOLE)
        report = await verified(nc, bare_nats, postgres_url)
    assert checks(report) == {"checkpoint"}


async def test_an_event_of_tomorrow_is_a_warning(bare_nats: EmbeddedNats, postgres_url: str) -> None:
    unknown = changed(WHOLE[-1], type="KeyCelebrated")
    async with administrator(bare_nats) as nc:
        await publish(nc, [*WHOLE[:-1], unknown])
        await fold(postgres_url, [*WHOLE[:-1], unknown], only=["audit_log"])
        report = await verified(nc, bare_nats, postgres_url)
    assert not report.damaged
    assert "event_type" in checks(report, "warning")


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE audit_log_v3.audit_log SET actor = 'user:mallory' WHERE position = 3", "audit_log"),
        ("UPDATE audit_log_v3.audit_log SET payload = '\\x7b7d' WHERE position = 3", "audit_log"),
        ("DELETE FROM audit_log_v3.audit_log WHERE position = 3", "audit_log"),
        ("UPDATE audit_log_v3.audit_log SET position = -3 WHERE position = 3", "audit_log"),
        ("UPDATE audit_log_v3.audit_heads SET version = version + 1", "audit_heads"),
        ("DELETE FROM audit_log_v3.audit_heads", "audit_heads"),
        ("UPDATE platform.checkpoints SET position = position + 100 WHERE name = 'users'", "checkpoint"),
    ],
)
async def test_damage_of_the_tables_is_found(
    bare_nats: EmbeddedNats, postgres_url: str, statement: str, found: str
) -> None:
    async with administrator(bare_nats) as nc:
        await publish(nc, WHOLE)
        await fold(postgres_url, WHOLE)
        await execute(postgres_url, statement)
        report = await verified(nc, bare_nats, postgres_url)
    assert checks(report) == {found}


async def test_a_reader_far_behind_is_a_warning(
    bare_nats: EmbeddedNats, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "FAR_BEHIND_MESSAGES", 10)
    async with administrator(bare_nats) as nc:
        await publish(nc, WHOLE)
        await fold(postgres_url, WHOLE[:5])
        report = await verified(nc, bare_nats, postgres_url)
    assert not report.damaged
    assert "lag" in checks(report, "warning")


def _snapshot(**other: object) -> Snapshot:
    subject = WHOLE[KEY].subject
    moment = fold_until(API_KEY, DECODE, [event for event in placed(STORY) if event.envelope.id == _key_id()], KEY + 1)
    assert subject.endswith(_key_id())
    whole = Snapshot(
        position=KEY + 1,
        version=1,
        previous_hash=payload_hash(WHOLE[KEY].payload),
        correlation="",
        schema_fingerprint=fingerprint_of(API_KEY),
        state=msgspec.json.encode(moment.state),
    )
    return replace(whole, **other)


def _key_id() -> str:
    return WHOLE[KEY].subject.split(".", 3)[3]


@pytest.mark.parametrize(
    ("other", "damaged"),
    [
        ({}, False),
        ({"state": b'{"name": "forged"}'}, True),
        ({"version": 2}, True),
        ({"position": 10**6}, True),
        ({"position": KEY}, True),
        ({"previous_hash": "0" * 64}, True),
    ],
)
async def test_a_snapshot_is_what_the_events_fold_to(
    bare_nats: EmbeddedNats, postgres_url: str, other: dict[str, object], damaged: bool
) -> None:
    async with administrator(bare_nats) as nc:
        await publish(nc, WHOLE)
        await fold(postgres_url, WHOLE)
        assert await SnapshotStore(nc).save("api_key", _key_id(), _snapshot(**other))
        report = await verified(nc, bare_nats, postgres_url, full=True)
    assert report.checked.snapshots == 1
    assert checks(report) == ({"snapshot"} if damaged else set())


def test_findings_are_counted_beyond_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings_module, "MAX_FINDINGS", 2)
    findings = Findings()
    for position in range(5):
        findings.warn("lag", "late", position=position)
    assert ([f.position for f in findings.kept], findings.left_out, findings.damaged) == ([0, 1], 3, False)
