"""The newest snapshot of each aggregate: a cache that spares the reader old events, and may vanish at any time.

    snap.<aggregate>.<id>: headers say up to where it reaches and of which shape it is; the body is the encoded state

The surprising rule: nothing here raises for the network. A snapshot that cannot be read is absent, one that cannot be
written is skipped; the events are the truth.
"""

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client

from infra.events.streams import SNAPSHOTS

_log = structlog.get_logger(__name__)

TIMEOUT_S = 1.0
"""Folding a thousand events takes less; whoever waits longer for a cache does it wrong."""
SAVE_ATTEMPTS = 3
_WRONG_LAST_SEQUENCE = 10071
_ANOTHER_WRITE_IN_FLIGHT = 10164


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """An aggregate's state after its event at `position`.

    Attributes:
        position: in the event stream; fold what comes after it.
        version: the aggregate's version there.
        correlation: the story that the aggregate was in.
        previous_hash: SHA-256 (hex) of the envelope at that version, which the next envelope names as its previous.
        schema_fingerprint: of the state's type; another shape is as good as no snapshot.
        state: encoded.
    """

    position: int
    version: int
    previous_hash: str
    correlation: str
    schema_fingerprint: str
    state: bytes


class _Ack(msgspec.Struct):
    class Fault(msgspec.Struct):
        err_code: int = 0
        description: str = ""

    error: Fault | None = None


class SnapshotStore:
    """Reads and writes snapshots.

    Args:
        nc: from connect_writer.
    """

    def __init__(self, nc: Client, stream: str = SNAPSHOTS) -> None:
        self._nc = nc
        self._read_api = f"$JS.API.DIRECT.GET.{stream}"

    async def save(self, aggregate: str, aggregate_id: str, snapshot: Snapshot) -> bool:
        """Stores the snapshot unless one as new is there; an older one never replaces a newer one.

        Returns:
            Whether it is stored now; False also when the stream cannot be reached.
        """
        subject = _subject(aggregate, aggregate_id)
        try:
            for _ in range(SAVE_ATTEMPTS):
                stored, sequence = await self._stored(subject)
                if stored is not None and not _replaces(snapshot, stored):
                    return False
                if await self._write(subject, snapshot, sequence):
                    return True
        except (nats.errors.Error, OSError) as error:
            _log.warning("snapshot_not_saved", subject=subject, error=repr(error))
        return False

    async def load(self, aggregate: str, aggregate_id: str, *, schema_fingerprint: str) -> Snapshot | None:
        """The newest snapshot of this shape; None when there is none or it cannot be read."""
        subject = _subject(aggregate, aggregate_id)
        try:
            stored, _ = await self._stored(subject)
        except (nats.errors.Error, OSError) as error:
            _log.warning("snapshot_not_loaded", subject=subject, error=repr(error))
            return None
        return stored if stored is not None and stored.schema_fingerprint == schema_fingerprint else None

    async def _stored(self, subject: str) -> tuple[Snapshot | None, int]:
        """(snapshot, its sequence in the stream); (None, 0) when there is none."""
        reply = await self._nc.request(f"{self._read_api}.{subject}", timeout=TIMEOUT_S)
        headers = reply.headers or {}
        if "Status" in headers:
            return None, 0
        sequence = int(headers["Nats-Sequence"])
        try:
            snapshot = Snapshot(
                position=int(headers["Snap-Position"]),
                version=int(headers["Snap-Version"]),
                previous_hash=headers["Snap-Previous"],
                correlation=headers["Snap-Correlation"],
                schema_fingerprint=headers["Snap-Schema"],
                state=reply.data,
            )
        except (KeyError, ValueError):  # of a release that wrote it otherwise: to be replaced
            return None, sequence
        return snapshot, sequence

    async def _write(self, subject: str, snapshot: Snapshot, sequence: int) -> bool:
        """False when another writer was first: look again."""
        headers = {
            "Snap-Position": str(snapshot.position),
            "Snap-Version": str(snapshot.version),
            "Snap-Previous": snapshot.previous_hash,
            "Snap-Correlation": snapshot.correlation,
            "Snap-Schema": snapshot.schema_fingerprint,
            "Nats-Expected-Last-Subject-Sequence": str(sequence),
        }
        reply = await self._nc.request(subject, snapshot.state, headers=headers, timeout=TIMEOUT_S)
        ack = msgspec.json.decode(reply.data, type=_Ack)
        if ack.error is None:
            return True
        if ack.error.err_code not in {_WRONG_LAST_SEQUENCE, _ANOTHER_WRITE_IN_FLIGHT}:
            _log.warning("snapshot_refused", subject=subject, error=ack.error.description)
        return False


def _replaces(new: Snapshot, stored: Snapshot) -> bool:
    if new.position == stored.position:  # the same state in another shape: the newer release writes its own
        return new.schema_fingerprint != stored.schema_fingerprint
    return new.position > stored.position


def _subject(aggregate: str, aggregate_id: str) -> str:
    return f"snap.{aggregate}.{aggregate_id}"
