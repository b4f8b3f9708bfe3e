"""What the store remembers of the originators is a help, never a reason: no version is rejected on it."""

from collections.abc import Sequence

import pytest
from eventsourcing.persistence import IntegrityError, OperationalError, StoredEvent

from infra.events import eventsourcing_store
from infra.events.eventsourcing_store import StreamStore
from infra.events.port import Append, Conflict
from infra.events.reads import Stored


class Log:
    """In memory, as far as StreamStore asks; `losing` makes every append lose to another writer."""

    def __init__(self, *, losing: bool = False) -> None:
        self.messages: list[Stored] = []
        self.losing = losing
        self.asked = 0

    async def append(self, appends: Sequence[Append]) -> int:
        if self.losing or any(each.expected != self._position(each.subject) for each in appends):
            raise Conflict([each.subject for each in appends])
        for each in appends:
            for _, payload in each.messages:
                self.messages.append(Stored(len(self.messages) + 1, each.subject, payload))
        return len(self.messages)

    async def last_stored(self, subject: str) -> Stored | None:
        self.asked += 1
        return next((each for each in reversed(self.messages) if each.subject == subject), None)

    async def read_stored(self, subject: str, *, after: int = 0, limit: int | None = None) -> list[Stored]:
        return [each for each in self.messages if each.subject == subject and each.position > after][:limit]

    def _position(self, subject: str) -> int:
        return next((each.position for each in reversed(self.messages) if each.subject == subject), 0)


def event(originator_id: str, version: int) -> StoredEvent:
    return StoredEvent(originator_id, version, "test:Event", b"")


async def test_a_remembered_head_spares_the_question_and_a_forgotten_one_only_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(eventsourcing_store, "HEADS_MAX", 2)
    log = Log()
    store = StreamStore(log, "S")
    for originator_id in ("a", "b"):
        await store.insert([event(originator_id, 1)])
    assert log.asked == 2
    await store.insert([event("a", 2)])
    assert log.asked == 2
    await store.insert([event("c", 1)])
    await store.insert([event("b", 2)])
    assert log.asked == 4, "b was forgotten for c"


async def test_no_version_is_rejected_from_memory_alone() -> None:
    log = Log()
    store = StreamStore(log, "S")
    await store.insert([event("a", 1), event("a", 2)])
    log.messages.clear()  # what no stream of ours does; so one can see who was asked
    assert await store.insert([event("a", 1)]) == [1]
    with pytest.raises(IntegrityError, match="version 1 of a"):
        await store.insert([event("a", 1)])


async def test_a_writer_who_always_loses_gives_up() -> None:
    store = StreamStore(Log(losing=True), "S")
    with pytest.raises(OperationalError, match="100 times in a row"):
        await store.insert([event("a", 1)])
