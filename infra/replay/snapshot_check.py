"""Whether snapshots say what a fresh fold of the log says: each one's position, version, hash and state.

A snapshot is only a cache, but dispatch believes it: a wrong one would decide commands. Those of another release's
shape are passed over, as dispatch does.
"""

from typing import Any

import msgspec
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from domain.aggregates import AGGREGATES
from domain.decider import Decider
from domain.message import payload_hash
from infra.dispatch import fingerprint_of
from infra.events.codec import Codec, UnknownEventError, decode_recorded
from infra.events.jetstream import JetStreamLog
from infra.events.port import UnreadableMessageError
from infra.events.snapshots import Snapshot, SnapshotStore
from infra.events.streams import EVENTS, SNAPSHOTS
from infra.replay.findings import Findings
from infra.replay.history import MissingVersionError, as_json, fold_until
from infra.replay.stored import stored_messages, stream_info
from infra.replay.watch import Watch


async def check_snapshots(nc: Client, codec: Codec, findings: Findings, *, most: int | None, watch: Watch) -> int:
    """Checks every snapshot, or `most` of them spread evenly; returns how many were compared."""
    info = await stream_info(nc, SNAPSHOTS)
    if info is None or not info[1].messages:
        return 0
    state = info[1]
    every = 1 if most is None else -(-state.messages // most)
    deciders = {decider.aggregate: decider for decider in AGGREGATES}
    seen = compared = 0
    with watch("Snapshots", state.messages) as advance:
        async with stored_messages(nc, SNAPSHOTS, until=state.last_seq) as batches:
            async for messages in batches:
                for message in messages:
                    seen += 1
                    _, aggregate, aggregate_id = message.subject.split(".", 2)
                    decider = deciders.get(aggregate)
                    if seen % every == 0 and decider is not None:
                        compared += await _check(nc, codec, findings, decider, aggregate_id)
                advance(len(messages))
    return compared


async def _check(
    nc: Client, codec: Codec, findings: Findings, decider: Decider[Any, Any, Any], aggregate_id: str
) -> bool:
    """False when there is none of this shape."""
    fingerprint = fingerprint_of(decider)
    snapshot = await SnapshotStore(nc).load(decider.aggregate, aggregate_id, schema_fingerprint=fingerprint)
    if snapshot is None:
        return False
    try:
        wrong = await _difference(nc, codec, decider, aggregate_id, snapshot)
    except (MissingVersionError, UnknownEventError, UnreadableMessageError, msgspec.DecodeError) as error:
        wrong = f"it cannot be compared: {error}"
    if wrong:
        subject = f"snap.{decider.aggregate}.{aggregate_id}"
        findings.damage("snapshot", wrong, position=snapshot.position, subject=subject)
    return True


async def _difference(
    nc: Client, codec: Codec, decider: Decider[Any, Any, Any], aggregate_id: str, snapshot: Snapshot
) -> str:
    try:
        stored = await nc.jetstream().get_msg(EVENTS, seq=snapshot.position)
    except NotFoundError:
        return f"it stands at position {snapshot.position:,}, which the log does not have"
    event = decode_recorded(snapshot.position, stored.subject or "", stored.data or b"")
    envelope = event.envelope
    if (envelope.aggregate, envelope.id, envelope.version) != (decider.aggregate, aggregate_id, snapshot.version):
        return f"position {snapshot.position:,} holds {envelope.aggregate}/{envelope.id} version {envelope.version}"
    if payload_hash(event.payload) != snapshot.previous_hash:
        return f"its hash is not that of position {snapshot.position:,}"
    history = await JetStreamLog(nc).read(event.subject)
    fresh = fold_until(decider, codec.decode_event, history, snapshot.position)
    if as_json(fresh.state) != as_json(msgspec.json.decode(snapshot.state, type=decider.state_type)):
        return "its state is not what the events fold to"
    return ""
