"""What our code asks of an event log. Two implementations, one conformance suite: jetstream.py and memory.py.

A log is one totally ordered stream of messages with contiguous positions (1, 2, 3 ...). Each message has one literal
subject; the position of a subject's last message is what writers check against.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from domain.message import Recorded

BATCH_MESSAGES_MAX = 1000
"""JetStream's limit of an atomic batch."""
FOLLOWS = -1
"""`expected` of a subject that stands earlier in the same append: it goes on there, after others in between."""


class Append(msgspec.Struct, frozen=True):
    """New messages for one subject.

    Attributes:
        subject: literal, never a wildcard.
        expected: position of the subject's last message; 0 when it must be empty; or FOLLOWS.
        messages: (event id, payload) each; the id is what a retry is recognised by.
    """

    subject: str
    expected: int
    messages: tuple[tuple[str, bytes], ...]


class Conflict(Exception):  # noqa: N818 - an answer of the log, not a fault
    """Another message came first on one of the subjects; nothing was stored. Load again and decide again."""

    def __init__(self, subjects: Sequence[str]) -> None:
        super().__init__(f"another writer was first on {', '.join(subjects)}")
        self.subjects = tuple(subjects)


class LogUnavailableError(OSError):
    """The log cannot be reached, or an append's outcome stayed unknown; the message names operation and subject."""


class AppendRefusedError(ValueError):
    """The log will never take this append (too large, no subject of its stream); nothing was stored, do not retry."""


class GapError(RuntimeError):
    """Messages are missing, or the log ends before a position that a reader has seen: stop, and tell a person."""


class UnreadableMessageError(RuntimeError):
    """A stored message is no envelope; the message says at which position."""


def check_appends(appends: Sequence[Append]) -> None:
    """What no log can store.

    Raises:
        AppendRefusedError: nothing to append, a subject twice (but with FOLLOWS) or with a wildcard, or more than
            BATCH_MESSAGES_MAX.
    """
    subjects = [append.subject for append in appends]
    if not appends or not all(append.messages for append in appends):
        raise AppendRefusedError("an append needs at least one message for each of its subjects")
    begun: set[str] = set()
    for append in appends:
        if (append.subject in begun) != (append.expected == FOLLOWS):
            raise AppendRefusedError(f"a subject stands twice in one append, or follows nothing: {append.subject}")
        begun.add(append.subject)
    if wild := [subject for subject in subjects if set(subject) & set("*> \t\r\n") or "" in subject.split(".")]:
        raise AppendRefusedError(f"not a literal subject: {', '.join(map(repr, wild))}")
    if sum(len(append.messages) for append in appends) > BATCH_MESSAGES_MAX:
        raise AppendRefusedError(f"more than {BATCH_MESSAGES_MAX} messages in one append")


class EventLog(Protocol):
    async def append(self, appends: Sequence[Append]) -> int:
        """Stores all messages or none, contiguously; returns the position of the last one.

        Raises:
            Conflict: a subject's last position differs, and the messages there are not our own from a lost reply.
            LogUnavailableError: unreachable or unknown within the retry budget.
            AppendRefusedError: it can never be stored.
        """
        ...

    async def read(self, subject: str, *, after: int = 0) -> list[Recorded]:
        """All messages of a literal subject with position > after, in order."""
        ...

    async def last(self, subject: str) -> Recorded | None:
        """The subject's newest message, read through the leader (never stale)."""
        ...

    async def head(self) -> int:
        """Position of the newest message; 0 when empty."""
        ...

    def follow(
        self, *, after: int, subjects: Sequence[str] = (), batch: int = 500
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Recorded]]]:
        """Endless non-empty batches with position > after, in order, live at the end; survives reconnects.

        Args:
            after: position already known.
            subjects: server-side filters (wildcards allowed); empty means everything.
            batch: most messages in one batch; a batch is delivered as soon as something is there.

        Raises (while iterating):
            GapError: a position is missing (checked when there is no filter), or the log is shorter than `after`.
        """
        ...
