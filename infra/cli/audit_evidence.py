"""`inventiv audit export` and `verify`: the whole audit log, taken away or checked on the spot.

    export FILE     entries, checkpoints and keys from the stores, as an auditor takes them away
    verify FILE     offline: the file and a public key, nothing else         exit code 0: all holds
    verify          at the stores: every row, chain, leaf and signature      exit code 1: the first thing that does not

The surprising rule: a file is checked by the very script that an auditor runs alone (infra/deploy).
"""

import asyncio
import contextlib
import importlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
import typer

from infra.cli import calling
from infra.cli.events.at_stores import failures_explained, reader
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json, say
from infra.cli.progress import progress
from infra.cli.stores import open_stores
from infra.environment import Environment

FILE_MODE = 0o600

PublicKeys = Annotated[
    list[Path] | None, typer.Option("--public-key", metavar="FILE", help="A trusted key (PEM); may be given again.")
]
_NOT_PINNED = "No --public-key was given, so the keys that the log itself names were trusted."


class Evidence(msgspec.Struct, frozen=True):
    """The audit log, open: `connection` sees one moment of it, `seals` those that are not younger."""

    connection: Any
    seals: AsyncIterator[Any]
    keys: Sequence[Any]


def register(group: typer.Typer) -> None:
    group.command("export", help="Write a file that can be verified anywhere.")(export)
    group.command("verify", help="Verify an export; without one, every row at the stores.")(verify)


def export(
    file: Annotated[Path, typer.Argument(help="A new file: JSON lines.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    environment = calling.environment()
    with new_file(file) as out:
        exported = asyncio.run(_export(environment, out, quiet=as_json))
    if as_json:
        print_json({"file": str(file), **msgspec.structs.asdict(exported)})
    else:
        say(f"{exported.checkpoints} checkpoints cover {exported.sealed_entries:,} of {exported.entries:,} entries.")
        say(f"Verify it anywhere: inventiv audit verify {file} --public-key KEY.pem (KEY.pem: `inventiv audit key`).")


def verify(
    file: Annotated[Path | None, typer.Argument(metavar="[EXPORT]", help="From `inventiv audit export`.")] = None,
    *,
    public_key: PublicKeys = None,
    known: Annotated[Path | None, typer.Option(help="Checkpoints kept from earlier; each must be in EXPORT.")] = None,
    as_json: JsonFlag = False,
) -> None:
    keys = read_keys(public_key or ())
    if known is not None and file is None:
        raise CommandError(ExitCode.USAGE, "export_missing", "--known is for an export: name its file.")
    if file is None:
        found = asyncio.run(_verify_stores(calling.environment(), keys, quiet=as_json))
    else:
        found = _verify_file(file, keys, known)
    if as_json:
        print_json({**found, "key_pinned": bool(keys)})
    elif found["ok"]:
        say(f"All {found['entries']:,} entries are as they were written.")
        say(f"{found['checkpoints']} signed checkpoints cover {found['sealed_entries']:,} of them.")
        say(f"The newest was made at {found['newest_at'] or '-'}.")
        if not keys:
            say(_NOT_PINNED)
    else:
        say(f"NOT as it was written: {found['finding']}.")
    if not found["ok"]:
        raise typer.Exit(ExitCode.FAILED)


def read_keys(files: Sequence[Path]) -> list[bytes]:
    """Raw public keys from files in PEM.

    Raises:
        CommandError: a file is missing, or holds no key.
    """
    verifier: Any = importlib.import_module("infra.deploy.verify_audit_export")
    keys = []
    for file in files:
        try:
            keys.append(verifier.read_key(file))
        except FileNotFoundError as error:
            raise CommandError(ExitCode.NOT_FOUND, "no_such_file", f"There is no file {file}.") from error
        except (OSError, ValueError) as error:
            cure = "`inventiv audit key > KEY.pem` writes one."
            raise CommandError(ExitCode.USAGE, "no_public_key", f"{file} holds no public key.", cure) from error
    return keys


def _verify_file(file: Path, keys: list[bytes], known: Path | None) -> dict[str, Any]:
    verifier: Any = importlib.import_module("infra.deploy.verify_audit_export")
    try:
        kept = [line for line in known.read_text(encoding="utf-8").splitlines() if line] if known else []
        with file.open(encoding="utf-8") as lines:
            return {"ok": True, **verifier.verify(lines, keys or _keys_inside(file), kept)}
    except FileNotFoundError as error:
        raise CommandError(ExitCode.NOT_FOUND, "no_such_file", f"There is no file {error.filename}.") from error
    except verifier.WrongError as wrong:
        return {"ok": False, "position": None, "finding": str(wrong)}


def _keys_inside(file: Path) -> list[bytes]:
    """Those that the head of an export names; none when it has no such head, which the verifier will say."""
    with file.open("rb") as lines:
        try:
            return [bytes.fromhex(key["public_key"]) for key in msgspec.json.decode(lines.readline())["keys"]]
        except (ValueError, KeyError, TypeError):
            return []


async def _verify_stores(environment: Environment, keys: list[bytes], *, quiet: bool) -> dict[str, Any]:
    checking: Any = importlib.import_module("infra.audit.checking")
    seal: Any = importlib.import_module("domain.seal")
    async with _evidence(environment) as evidence:
        trusted = keys or [bytes.fromhex(key.public_key) for key in evidence.keys]
        try:
            with progress("Verified", await _count(evidence), unit="entries", quiet=quiet) as advance:
                checked = await checking.check_audit_log(
                    evidence.connection,
                    evidence.seals,
                    {seal.key_id_of(key): key for key in trusted},
                    advance=advance,
                )
        except checking.TamperedError as tampered:
            return {"ok": False, "position": tampered.position, "finding": str(tampered)}
    return {"ok": True, **msgspec.structs.asdict(checked)}


async def _export(environment: Environment, out: BinaryIO, *, quiet: bool) -> Any:
    writing: Any = importlib.import_module("infra.audit.export")
    async with _evidence(environment) as evidence:
        with progress("Exported", await _count(evidence), unit="entries", quiet=quiet) as advance:
            return await writing.export_audit_log(
                evidence.connection, evidence.seals, evidence.keys, out, advance=advance
            )


async def _count(evidence: Evidence) -> int:
    tree: Any = importlib.import_module("projections.audit_tree")
    size: int = await tree.tree_size(evidence.connection)
    return size


@contextlib.asynccontextmanager
async def _evidence(environment: Environment) -> AsyncIterator[Evidence]:
    reading, seals = importlib.import_module("infra.audit.reading"), importlib.import_module("infra.audit.seals")
    psycopg: Any = importlib.import_module("psycopg")
    with failures_explained():
        async with open_stores(environment) as stores, reader(environment, stores) as nc:
            store = seals.SealStore(nc)
            newest, keys = await store.latest(), await store.keys()
            wait_for = newest.seal.size if newest and stores.running else 0
            try:
                async with reading.open_audit_log(stores.postgres_url, at_least=wait_for) as connection:
                    until = newest.number if newest else 0
                    yield Evidence(connection, store.every(until=until), keys)
            except psycopg.errors.UndefinedTable as error:
                message = "There is no audit log in this Postgres yet."
                raise CommandError(ExitCode.NOT_FOUND, "no_audit_log", message, "Run `inventiv up` once.") from error


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """The file, whole or not at all, for its owner's eyes alone: entries hold sealed personal data."""
    draft = path.with_name(f"{path.name}.part")
    if path.exists():
        raise CommandError(ExitCode.CONFLICT, "file_exists", f"{path} exists already.", "Name another file.")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "wb") as out:
            yield out
        draft.replace(path)
    except FileNotFoundError as error:
        raise CommandError(ExitCode.NOT_FOUND, "no_such_folder", f"There is no folder {path.parent}.") from error
    finally:
        draft.unlink(missing_ok=True)
