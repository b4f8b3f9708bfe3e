"""The accounts of requests that still run, in memory that outlives the process: a mapped file of fixed slots.

    running   header 4 KiB │ one state byte a slot │ slots of 2 KiB: head │ opening record │ progress A │ progress B
    free ──open──> in use (opening whole, then its state byte) ──progress ... finish──> A, B, A ... ──free──> free

A store into the mapping costs no system call, and the kernel keeps it however the process dies; the next gateway on the
folder reads what was left. Progress goes to two areas by turns, so that dying within one store loses that chunk alone.
The surprising rule: nothing here is synced. A power cut may lose the newest seconds, or show slots that had been freed;
checksums tell torn ones, and the request id makes the others harmless.
"""

import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

import msgspec
import structlog

from domain.usage import UsageRecord
from gateway.account import draft_of
from gateway.counts import Usage, counts_of

SLOTS = 16_384
"""Requests that one gateway may have open, those included that ended within the last 50 ms."""
MAX_OPENING_BYTES = 1_312
"""Above the longest record there is: six ids and a model's code of 256 characters are at most 1,243 bytes."""
MAX_TAIL_BYTES = 342
"""The longest usage object seen (OpenAI's own, with all its details) is about 280 bytes; how a request ended is about
290, and one that is longer is opened anew as a whole."""

_MAGIC = b"inventiv running requests 2\n"
_READABLE = (_MAGIC, b"inventiv running requests 1\n")
"""In the first version an opening was a whole draft, and a final record had a slot of its own; both are read still."""
_HEADER_BYTES = 4_096
_FIRST_SLOT = _HEADER_BYTES + SLOTS
_HEAD = struct.Struct(f"<QIH2x{MAX_OPENING_BYTES}s")
"""Turn of the slot when it was opened, checksum, length, opening record."""
_AREA = struct.Struct(f"<QH{MAX_TAIL_BYTES}sQ")
"""Turn, length, tail, turn again: both are equal in an area that was written to its end."""
_SLOT_BYTES = _HEAD.size + 2 * _AREA.size
FILE_BYTES = _FIRST_SLOT + SLOTS * _SLOT_BYTES

_log = structlog.get_logger(__name__)
_record_decoder = msgspec.json.Decoder(UsageRecord)
_encode = msgspec.json.Encoder().encode
_FINAL = b'"prompt_tokens":'
"""How the tail of a finished request begins (account.Account.tail_of); progress begins otherwise (Relay.progress)."""


class RunningJournal:
    """Implements gateway.meter.Journal; on one event loop, like everything that calls it.

    Args:
        path: made anew, all its bytes reserved on the disk; what an earlier process left there must have been read.

    Raises:
        OSError: the disk has no room for FILE_BYTES.
    """

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.posix_fallocate(fd, 0, FILE_BYTES)  # a store that finds no room later would be a SIGBUS
            self._map = mmap.mmap(fd, FILE_BYTES)
        finally:
            os.close(fd)
        self._path = path
        self._map[: len(_MAGIC)] = _MAGIC
        self._free = list(range(SLOTS - 1, -1, -1))  # taken and given back at its end, so few pages are ever touched
        self._turns = [0] * SLOTS

    @property
    def has_room(self) -> bool:
        return bool(self._free)

    def open(self, record: bytes) -> int:
        length = len(record)
        if not self._free or length > MAX_OPENING_BYTES:
            return -1
        slot = self._free.pop()
        _HEAD.pack_into(self._map, _FIRST_SLOT + slot * _SLOT_BYTES, self._turns[slot], crc32(record), length, record)
        self._map[_HEADER_BYTES + slot] = 1  # last: only a whole opening is ever in use
        return slot

    def progress(self, slot: int, tail: bytes) -> None:
        length = len(tail)
        if slot < 0 or not 0 < length <= MAX_TAIL_BYTES:
            return
        turn = self._turns[slot] + 1
        self._turns[slot] = turn
        at = _FIRST_SLOT + slot * _SLOT_BYTES + _HEAD.size + (turn & 1) * _AREA.size
        _AREA.pack_into(self._map, at, turn, length, tail, turn)

    def finish(self, slot: int, tail: bytes) -> bool:
        if slot < 0 or not 0 < len(tail) <= MAX_TAIL_BYTES:
            return False
        self.progress(slot, tail)
        return True

    def free(self, slot: int) -> None:
        self._map[_HEADER_BYTES + slot] = 0
        self._free.append(slot)

    def close(self) -> None:
        """Lets the file go; what is open stays open in it, and where nothing is, nothing stays."""
        self._map.close()
        if len(self._free) == SLOTS:
            self._path.unlink(missing_ok=True)


def left_running(path: Path) -> Mapping[str, UsageRecord]:
    """What a dead gateway left in its journal, by request id, each with the counts of its last progress.

    A request that is there twice was about to end, or to go to another worker: its final record counts, else the one
    that got further.
    """
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return {}
    try:
        if os.fstat(fd).st_size != FILE_BYTES:
            return {}  # its making was interrupted, so nothing was ever opened in it
        with mmap.mmap(fd, FILE_BYTES, access=mmap.ACCESS_READ) as content:
            return _records_in(content)
    finally:
        os.close(fd)


def _records_in(content: mmap.mmap) -> dict[str, UsageRecord]:
    found: dict[str, UsageRecord] = {}
    if content[: len(_MAGIC)] not in _READABLE:
        _log.error("running_requests_unreadable", reason="written by another version, or its making was interrupted")
        return found
    for slot, state in enumerate(content[_HEADER_BYTES:_FIRST_SLOT]):
        if not state:
            continue
        record = _record_in(content, _FIRST_SLOT + slot * _SLOT_BYTES)
        if record is None:
            _log.error("running_request_torn", slot=slot)
        elif (before := found.get(record.request_id)) is None or _rank(before) < _rank(record):
            found[record.request_id] = record
    return found


def _rank(record: UsageRecord) -> tuple[bool, int]:
    return record.outcome != "gateway_died", record.attempts


def _record_in(content: mmap.mmap, at: int) -> UsageRecord | None:
    opened_turn, checksum, length, opening = _HEAD.unpack_from(content, at)
    opening = opening[:length]
    if crc32(opening) != checksum:
        return None
    try:
        record = _record_decoder.decode(opening if opening.endswith(b"}") else draft_of(opening))
    except (msgspec.MsgspecError, UnicodeError):
        return None
    areas = [_AREA.unpack_from(content, at + _HEAD.size + n * _AREA.size) for n in range(2)]
    whole = [(turn, tail[:size]) for turn, size, tail, again in areas if turn == again > opened_turn]
    return _with_counts(record, max(whole)[1]) if whole else record


class _Tail(msgspec.Struct):
    """What Relay.progress says, in braces: the engine's latest usage, and the chunks of content since."""

    usage: Usage | None = None
    chunks: int = 0


_tail_decoder = msgspec.json.Decoder(_Tail)


def _with_counts(record: UsageRecord, tail: bytes) -> UsageRecord:
    """Chunks that the engine has not counted (yet) count one token each, the lower bound.

    Of a finished request the tail says all that is not known at the opening; of a field that is there twice, JSON's
    reader takes the last.
    """
    try:
        if tail.startswith(_FINAL):
            return _record_decoder.decode(_encode(record)[:-1] + b"," + tail + b"}")
        told = _tail_decoder.decode(b"{" + tail + b"}")
    except (msgspec.MsgspecError, UnicodeError):
        _log.error("progress_unreadable", request_id=record.request_id, length_bytes=len(tail))
        return record
    counts = counts_of(told.usage)
    return msgspec.structs.replace(
        record,
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.completion_tokens + told.chunks,
        cached_tokens=counts.cached_tokens,
        counted_by="gateway" if told.chunks else counts.counted_by,
    )
