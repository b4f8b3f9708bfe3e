"""The log as a file and back: byte for byte, and nothing but a whole, unaltered file is taken."""

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.embedded.nats import EmbeddedNats
from infra.events.streams import EVENTS, SEALS, USAGE
from infra.replay.backup import BackupError, load_streams, read_manifest, save_streams
from infra.replay.refill import DifferentLogError
from infra.replay.stored import Message
from infra.replay.transfer import End, UnfitExportError, Wanted, decode_line, encode_line, export_events, import_events
from tests.infra.replay.stores import (
    a_story,
    administrator,
    changed,
    messages_of,
    publish,
    stored,
    used,
    wipe,
)

WHOLE = messages_of(a_story())


def _nobody(_: int) -> None:
    pass


async def exported(server: EmbeddedNats, wanted: Wanted | None = None) -> bytes:
    async with administrator(server) as nc:
        await publish(nc, WHOLE)
        file = io.BytesIO()
        await export_events(nc, file, wanted or Wanted(), advance=_nobody)
        await wipe(nc, EVENTS)
        return file.getvalue()


async def imported(server: EmbeddedNats, content: bytes, *, resume: bool = False) -> tuple[int, int]:
    async with administrator(server) as nc:
        return await import_events(nc, io.BytesIO(content), resume=resume, advance=_nobody)


async def test_an_export_fills_an_empty_log_with_the_same_bytes(bare_nats: EmbeddedNats) -> None:
    assert await imported(bare_nats, await exported(bare_nats)) == (0, len(WHOLE))
    async with administrator(bare_nats) as nc:
        assert await stored(nc) == WHOLE


async def test_an_export_is_readable_with_stock_tools(bare_nats: EmbeddedNats) -> None:
    *lines, end = [json.loads(line) for line in (await exported(bare_nats)).splitlines()]
    assert [line["position"] for line in lines] == list(range(1, len(WHOLE) + 1))
    assert lines[0]["envelope"] == json.loads(WHOLE[0].payload)
    assert (end["end"]["events"], end["end"]["filtered"]) == (len(WHOLE), False)


@pytest.mark.parametrize(
    ("wanted", "positions"),
    [
        (Wanted(first=3, last=5), [3, 4, 5]),
        (Wanted(aggregate="api_key"), [m.position for m in WHOLE if ".api_key." in m.subject]),
        (Wanted(organization="acme"), [m.position for m in WHOLE if m.subject.startswith("evt.acme.")]),
    ],
)
async def test_a_selection_is_exported_but_never_imported(
    bare_nats: EmbeddedNats, wanted: Wanted, positions: list[int]
) -> None:
    content = await exported(bare_nats, wanted)
    assert [json.loads(line)["position"] for line in content.splitlines()[:-1]] == positions
    with pytest.raises(UnfitExportError):
        await imported(bare_nats, content)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda content: content.rsplit(b"\n", 2)[0] + b"\n", "cut off"),
        (lambda content: content[: len(content) // 2], "none|cut off|not of an export"),
        (lambda content: b"".join(content.splitlines(keepends=True)[1:]), "line 1"),
        (lambda content: content.replace(b"user:alice", b"user:mallo", 1), "line 2|line"),
        (lambda content: b"hello\n" + content, "not of an export"),
        (lambda _: b"", "cut off"),
    ],
)
async def test_a_file_that_is_not_whole_is_refused(bare_nats: EmbeddedNats, damage: object, found: str) -> None:
    content = await exported(bare_nats)
    assert callable(damage)
    with pytest.raises(UnfitExportError, match=found):
        await imported(bare_nats, damage(content))


async def test_only_an_empty_log_is_filled_unless_an_import_is_resumed(bare_nats: EmbeddedNats) -> None:
    content = await exported(bare_nats)
    async with administrator(bare_nats) as nc:
        await publish(nc, WHOLE[:5])
    with pytest.raises(UnfitExportError, match="not empty: it ends at 5"):
        await imported(bare_nats, content)
    assert await imported(bare_nats, content, resume=True) == (5, len(WHOLE) - 5)


async def test_a_resumed_import_compares_what_is_there(bare_nats: EmbeddedNats) -> None:
    content = await exported(bare_nats)
    async with administrator(bare_nats) as nc:
        await publish(nc, [changed(WHOLE[0], actor="user:mallory")])
    with pytest.raises(DifferentLogError, match="position 1"):
        await imported(bare_nats, content, resume=True)


@given(payload=st.one_of(st.binary(min_size=1), st.text(min_size=1).map(lambda text: json.dumps({"t": text}).encode())))
def test_any_message_survives_a_line(payload: bytes) -> None:
    message = Message(7, "evt.acme.api_key.k", "id", payload)
    line = encode_line(message)
    assert line.count(b"\n") == 1
    assert decode_line(line) == message


def test_the_last_line_is_told_from_the_others() -> None:
    end = End(events=0, first=0, last=0, filtered=False, sha256="")
    assert decode_line(b'{"end":{"events":0,"first":0,"last":0,"filtered":false,"sha256":""}}\n') == end


async def test_a_stream_backup_brings_every_stream_back(bare_nats: EmbeddedNats, tmp_path: Path) -> None:
    usage = used(5)
    async with administrator(bare_nats) as nc:
        await publish(nc, [*WHOLE, *usage])
        manifest = await save_streams(nc, tmp_path / "backup", advance=_nobody)
        assert list(manifest.streams) == [EVENTS, USAGE, SEALS]
        for stream in manifest.streams:
            await wipe(nc, stream)
        await load_streams(nc, tmp_path / "backup", advance=_nobody)
        assert (await stored(nc), await stored(nc, USAGE)) == (WHOLE, usage)
        with pytest.raises(BackupError, match="EVENTS is not empty"):
            await load_streams(nc, tmp_path / "backup", advance=_nobody)
        with pytest.raises(BackupError, match="holds a backup already"):
            await save_streams(nc, tmp_path / "backup", advance=_nobody)


async def test_empty_streams_make_room_for_a_backup(bare_nats: EmbeddedNats, tmp_path: Path) -> None:
    async with administrator(bare_nats) as nc:
        await publish(nc, WHOLE)
        await save_streams(nc, tmp_path, advance=_nobody)
        await wipe(nc, EVENTS)
    async with administrator(bare_nats) as nc:
        await load_streams(nc, tmp_path, advance=_nobody)
        assert await stored(nc) == WHOLE


async def test_an_altered_backup_is_refused_before_anything_is_touched(bare_nats: EmbeddedNats, tmp_path: Path) -> None:
    async with administrator(bare_nats) as nc:
        await publish(nc, WHOLE)
        await save_streams(nc, tmp_path, advance=_nobody)
        path = tmp_path / "EVENTS.snapshot"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(BackupError, match="not what was saved"):
            await load_streams(nc, tmp_path, advance=_nobody)
        assert await stored(nc) == WHOLE


def test_a_folder_without_manifest_is_no_backup(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"holds no manifest\.json"):
        read_manifest(tmp_path)
