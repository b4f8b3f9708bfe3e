"""The server's own backup of what is kept for ever: one file a stream and a manifest, and back.

    $JS.API.STREAM.SNAPSHOT.<S> ──chunks, each acknowledged──> <S>.snapshot       manifest.json: sha256, state, settings
    $JS.API.STREAM.RESTORE.<S>  <──chunks, each acknowledged── <S>.snapshot

Positions, times, headers and message ids come back as they were. The surprising rule: a stream that holds anything is
never overwritten; an empty one, which `inventiv up` makes at its start, is removed first.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.events.reads import ApiError
from infra.events.streams import EVENTS, SEALS, USAGE
from infra.replay.stored import API_TIMEOUT_S, StreamState, end_of, stream_info

FOR_EVER = (EVENTS, USAGE, SEALS)
MANIFEST = "manifest.json"
SAVED_CHUNK_BYTES = 128 * 1024
LOADED_CHUNK_BYTES = 16 * 1024
"""The server gives up on a chunk after 5 s, and with sync_interval always it syncs each message in it: some 250."""
WINDOW_BYTES = 8 * 1024 * 1024
"""What the server may send before it waits for our acknowledgements."""
CHUNK_TIMEOUT_S = 30.0


class BackupError(RuntimeError):
    """The backup is not whole, or cannot be taken or brought back; the message says what to do."""


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """One stream in a backup; `config` and `state` are the server's own words, which it wants back."""

    file: str
    bytes: int
    sha256: str
    config: dict[str, Any]
    state: dict[str, Any]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds."""

    created_at: datetime
    streams: dict[str, Saved]
    format: str = "inventiv-stream-backup-1"


async def save_streams(nc: Client, folder: Path, *, advance: Callable[[int], None]) -> Manifest:
    """Writes each for-ever stream into the folder, the manifest last.

    Args:
        nc: connected as an administrator.
        folder: without a backup in it; made when absent.
        advance: told the bytes written.

    Raises:
        BackupError: the folder holds a backup, or a stream is missing or damaged.
        OSError: the folder cannot be written, or the server went silent (TimeoutError).
    """
    _prepare(folder)
    streams = {stream: await _save(nc, stream, folder / f"{stream}.snapshot", advance) for stream in FOR_EVER}
    manifest = Manifest(created_at=datetime.now(UTC), streams=streams)
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    return manifest


def _prepare(folder: Path) -> None:
    if (folder / MANIFEST).exists():
        raise BackupError(f"{folder} holds a backup already; name another folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def read_manifest(folder: Path) -> Manifest:
    """The manifest, with every file checked against it.

    Raises:
        BackupError: there is none, or a file is missing or altered.
    """
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise BackupError(f"{folder} holds no {MANIFEST}: it is no backup, or one that was interrupted") from None
    except msgspec.DecodeError as error:
        raise BackupError(f"{folder / MANIFEST} cannot be read: {error}") from error
    for saved in manifest.streams.values():
        path = folder / saved.file
        if not path.is_file() or _sha256(path) != saved.sha256:
            raise BackupError(f"{path} is missing or not what was saved; take another backup")
    return manifest


async def load_streams(nc: Client, folder: Path, *, advance: Callable[[int], None]) -> Sequence[str]:
    """Brings back every stream of a backup, and checks that each one is what it was; returns their names.

    Args:
        nc: connected as an administrator; no service is running.
        folder: a backup.
        advance: told the bytes read.

    Raises:
        BackupError: the backup is not whole, a stream of the server holds something, or the server refused.
    """
    manifest = read_manifest(folder)
    for stream in manifest.streams:
        if end := await end_of(nc, stream):
            raise BackupError(f"{stream} is not empty: it ends at {end:,}; nothing was changed")
    for stream, saved in manifest.streams.items():
        if await stream_info(nc, stream) is not None:
            await _ask(nc, f"$JS.API.STREAM.DELETE.{stream}", {})
        await _load(nc, stream, saved, folder / saved.file, advance)
    return tuple(manifest.streams)


async def _save(nc: Client, stream: str, path: Path, advance: Callable[[int], None]) -> Saved:
    chunks: asyncio.Queue[Msg] = asyncio.Queue()  # bounded by WINDOW_BYTES: the server waits for our acknowledgements

    async def take(chunk: Msg) -> None:
        await chunks.put(chunk)

    inbox = nc.new_inbox()
    subscription = await nc.subscribe(inbox, cb=take, pending_msgs_limit=-1, pending_bytes_limit=-1)
    request = {"deliver_subject": inbox, "chunk_size": SAVED_CHUNK_BYTES, "window_size": WINDOW_BYTES, "jsck": True}
    digest, size = sha256(), 0
    try:
        begun = await _ask(nc, f"$JS.API.STREAM.SNAPSHOT.{stream}", request)
        with path.open("wb") as file:
            while True:  # each chunk is waited for CHUNK_TIMEOUT_S at most
                async with asyncio.timeout(CHUNK_TIMEOUT_S):
                    chunk = await chunks.get()
                if not chunk.data:
                    _require_end(stream, chunk)
                    break
                digest.update(chunk.data)
                size += file.write(chunk.data)
                advance(len(chunk.data))
                if chunk.reply:
                    await nc.publish(chunk.reply)
    finally:
        await subscription.unsubscribe()
    return Saved(file=path.name, bytes=size, sha256=digest.hexdigest(), config=begun["config"], state=begun["state"])


def _require_end(stream: str, last: Msg) -> None:
    status = (last.headers or {}).get("Status", "204")
    if status != "204":
        reason = (last.headers or {}).get("Description", "")
        raise BackupError(f"{stream} cannot be saved: the server ended with {status} {reason}")


async def _load(nc: Client, stream: str, saved: Saved, path: Path, advance: Callable[[int], None]) -> None:
    begun = await _ask(nc, f"$JS.API.STREAM.RESTORE.{stream}", {"config": saved.config, "state": saved.state})
    deliver = begun["deliver_subject"]
    with path.open("rb") as file:
        while chunk := file.read(LOADED_CHUNK_BYTES):
            _require_ok(stream, await nc.request(deliver, chunk, timeout=CHUNK_TIMEOUT_S))
            advance(len(chunk))
    _require_ok(stream, await nc.request(deliver, b"", timeout=CHUNK_TIMEOUT_S))
    info = await stream_info(nc, stream)
    state = info[1] if info is not None else StreamState()
    wanted = msgspec.convert(saved.state, StreamState)
    if (state.messages, state.last_seq, state.num_deleted) != (wanted.messages, wanted.last_seq, wanted.num_deleted):
        raise BackupError(f"{stream} came back with {state.messages:,} messages instead of {wanted.messages:,}")


def _require_ok(stream: str, reply: Msg) -> None:
    answer: dict[str, Any] = msgspec.json.decode(reply.data) if reply.data else {}
    if error := answer.get("error"):
        raise BackupError(f"{stream} cannot be brought back: {error.get('description')}")


async def _ask(nc: Client, subject: str, request: dict[str, Any]) -> dict[str, Any]:
    reply = await nc.request(subject, msgspec.json.encode(request) if request else b"", timeout=API_TIMEOUT_S)
    answer = msgspec.json.decode(reply.data, type=dict[str, Any])
    if error := answer.get("error"):
        raise ApiError(error.get("code", 500), error.get("err_code", 0), f"{subject}: {error.get('description')}")
    return answer


def _sha256(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(SAVED_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
