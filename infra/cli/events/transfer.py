"""`inventiv events export` and `import`: the log as a file of JSON lines, or as the server's own backup.

    export FILE                   EVENTS, or a selection of it      import FILE                   into an empty EVENTS
    export --stream-backup DIR    every for-ever stream whole       import --stream-backup DIR    where none is

A file holds sealed personal data as the log does; the keys to it are in Postgres and the data folder's secrets.
"""

import asyncio
import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from infra.cli import calling
from infra.cli.events.at_stores import Stopped, failures_explained, reader, replicas_of, require_stopped, writer
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json, say
from infra.cli.progress import progress
from infra.cli.stores import open_stores
from infra.environment import Environment

STDIO = "-"

ExportFile = Annotated[str, typer.Argument(metavar="[FILE|-]", help="A new file; - is stdout.")]
ImportFile = Annotated[str, typer.Argument(metavar="[FILE|-]", help="An export of the whole log; - is stdin.")]
BackupFolder = Annotated[Path | None, typer.Option("--stream-backup", metavar="DIR", help="The server's own backup.")]


def register(group: typer.Typer) -> None:
    group.command("export", help="Write the log as JSON lines, or back up the streams.")(export)
    group.command("import", help="Fill an empty log from an export or a backup.")(import_)


def export(
    file: ExportFile = STDIO,
    *,
    first: Annotated[int, typer.Option("--from", min=1, help="First position.")] = 1,
    last: Annotated[int, typer.Option("--to", min=0, help="Last position; default: the newest.")] = 0,
    aggregate: Annotated[str, typer.Option(help="Only of this kind of thing, e.g. instance.")] = "",
    organization: Annotated[str, typer.Option(help="Only of this organisation's id.")] = "",
    stream_backup: BackupFolder = None,
    as_json: JsonFlag = False,
) -> None:
    environment = calling.environment()
    if stream_backup is not None:
        manifest = asyncio.run(_save(environment, stream_backup, quiet=as_json))
        _tell({"folder": str(stream_backup), "streams": list(manifest.streams)}, as_json=as_json)
        return
    if as_json and file == STDIO:
        message = "--json and an export on stdout would mix; name a file."
        raise CommandError(ExitCode.USAGE, "stdout_taken", message)
    transfer: Any = importlib.import_module("infra.replay.transfer")
    wanted = transfer.Wanted(first=first, last=last, aggregate=aggregate, organization=organization)
    with _written(file) as out:
        end = asyncio.run(_export(environment, out, wanted, quiet=as_json))
    document = {"file": file, "events": end.events, "first": end.first, "last": end.last, "sha256": end.sha256}
    if file != STDIO:
        _tell(document, as_json=as_json)


def import_(
    file: ImportFile = STDIO,
    *,
    stream_backup: BackupFolder = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an import that was interrupted.")] = False,
    stopped: Stopped = False,
    as_json: JsonFlag = False,
) -> None:
    environment = calling.environment()
    if stream_backup is not None:
        streams = asyncio.run(_load(environment, stream_backup, stopped=stopped, quiet=as_json))
        _tell({"folder": str(stream_backup), "streams": streams}, as_json=as_json)
    else:
        with _opened(file) as source:
            there, added = asyncio.run(_import(environment, source, resume=resume, stopped=stopped, quiet=as_json))
        _tell({"file": file, "events_there": there, "events_added": added}, as_json=as_json)
    say("Read models follow when the platform starts. `inventiv events verify` checks it all.")


async def _export(environment: Environment, out: BinaryIO, wanted: Any, *, quiet: bool) -> Any:
    transfer: Any = importlib.import_module("infra.replay.transfer")
    with failures_explained():
        async with open_stores(environment) as stores, reader(environment, stores) as nc:
            with progress("Exported", 0, quiet=quiet) as advance:
                return await transfer.export_events(nc, out, wanted, advance=advance)


async def _import(
    environment: Environment, source: BinaryIO, *, resume: bool, stopped: bool, quiet: bool
) -> tuple[int, int]:
    transfer, refill, streams = (
        importlib.import_module(f"infra.{name}") for name in ("replay.transfer", "replay.refill", "events.streams")
    )
    with failures_explained():
        async with open_stores(environment) as stores, writer(environment, stores) as nc:
            require_stopped(environment, stores, stopped=stopped)
            try:
                await streams.ensure_streams(nc, replicas=replicas_of(environment, stores))
                with progress("Imported", 0, quiet=quiet) as advance:
                    done: tuple[int, int] = await transfer.import_events(nc, source, resume=resume, advance=advance)
                    return done
            except transfer.UnfitExportError as error:
                raise CommandError(ExitCode.CONFLICT, "unfit_export", f"{error}.") from error
            except (refill.DifferentLogError, refill.RefillError, streams.UnfitServerError) as error:
                raise CommandError(ExitCode.CONFLICT, "log_in_the_way", f"{error}.") from error


async def _save(environment: Environment, folder: Path, *, quiet: bool) -> Any:
    backup: Any = importlib.import_module("infra.replay.backup")
    with failures_explained(), _backup_errors(backup):
        async with open_stores(environment) as stores, writer(environment, stores) as nc:
            with progress("Saved", 0, unit="bytes", quiet=quiet) as advance:
                return await backup.save_streams(nc, folder, advance=advance)


async def _load(environment: Environment, folder: Path, *, stopped: bool, quiet: bool) -> list[str]:
    backup: Any = importlib.import_module("infra.replay.backup")
    with failures_explained(), _backup_errors(backup):
        async with open_stores(environment) as stores, writer(environment, stores) as nc:
            require_stopped(environment, stores, stopped=stopped)
            with progress("Brought back", 0, unit="bytes", quiet=quiet) as advance:
                return list(await backup.load_streams(nc, folder, advance=advance))


@contextlib.contextmanager
def _backup_errors(backup: Any) -> Iterator[None]:
    reads: Any = importlib.import_module("infra.events.reads")
    try:
        yield
    except (backup.BackupError, reads.ApiError) as error:
        raise CommandError(ExitCode.CONFLICT, "backup_refused", f"{error}.") from error


@contextlib.contextmanager
def _written(file: str) -> Iterator[BinaryIO]:
    """The file, whole or not at all, for its owner's eyes alone."""
    if file == STDIO:
        yield sys.stdout.buffer
        return
    path, draft = Path(file), Path(f"{file}.part")
    if path.exists():
        raise CommandError(ExitCode.CONFLICT, "file_exists", f"{file} exists already.", "Name another file.")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            yield out
            os.fsync(out.fileno())
        draft.replace(path)
    except OSError as error:
        message = f"{file} cannot be written ({error.strerror})."
        raise CommandError(ExitCode.FAILED, "cannot_write", message) from error
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == STDIO:
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as source:
            yield source
    except FileNotFoundError as error:
        raise CommandError(ExitCode.NOT_FOUND, "no_such_file", f"There is no file {file}.") from error


def _tell(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    say(", ".join(f"{name.replace('_', ' ')}: {_words(value)}" for name, value in document.items()))


def _words(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(value) if isinstance(value, list) else str(value)
