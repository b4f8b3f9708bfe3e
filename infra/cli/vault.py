"""`inventiv vault status` and `rotate`: which keys wrap what the vault stores, and a new one.

Both go to Postgres and to the folder of secrets themselves, so run them where the platform runs. `rotate` works beside
a running platform, and goes on where a killed one was. The root of all secrets (`master_key`) stays.
"""

import asyncio
import importlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from infra.cli import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json, print_table, say
from infra.cli.progress import progress
from infra.cli.stores import open_stores
from infra.environment import Environment
from infra.processes.running import read_platform

_COLUMNS = {"id": "KEY", "state": "STATE", "rows": "ROWS", "file": "FILE", "created_at": "SINCE"}

KeepOld = Annotated[
    bool, typer.Option("--keep-old", help="Keep key files that nothing uses: older backups of Postgres need them.")
]


class Opened(msgspec.Struct, frozen=True):
    """A vault: where it is, a pool on it, its keys."""

    postgres_url: str
    pool: Any
    keys: Any


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The keys under which personal data and credentials lie.", no_args_is_help=True)
    group.command("status", help="Show the keys, and how many rows each one wraps.")(status)
    group.command("rotate", help="Make a new key, and wrap everything with it.")(rotate)
    app.add_typer(group, name="vault")


def status(*, as_json: JsonFlag = False) -> None:
    keys = asyncio.run(_status(calling.environment()))
    if as_json:
        print_json({"keys": keys})
        return
    print_table([{**key, "rows": sum(key["rows"].values())} for key in keys], _COLUMNS, empty="No key yet.")
    if missing := [key["id"] for key in keys if not key["file"] and any(key["rows"].values())]:
        say(f"Key files that are not on this machine: {', '.join(missing)}. Copy them from where they were made.")
    if any(key["state"] == "older" and any(key["rows"].values()) for key in keys):
        say("A rotation was not finished; `inventiv vault rotate` goes on with it.")


def rotate(*, keep_old: KeepOld = False, as_json: JsonFlag = False) -> None:
    done = asyncio.run(_rotate(calling.environment(), keep_old=keep_old, quiet=as_json))
    if as_json:
        print_json(done)
        return
    say(
        f"{done['rows']:,} rows now hang on key {done['key']}. Copy <secrets>/vault_keys/{done['key']} to every machine"
    )
    say("that runs the platform, and into the backup of the secrets: without it nothing opens.")
    if done["removed"]:
        say(f"Removed: {', '.join(done['removed'])}. Backups of Postgres from before now open with those alone.")


async def _status(environment: Environment) -> list[dict[str, Any]]:
    rotation: Any = importlib.import_module("infra.rotation")
    async with _opened(environment) as vault:
        uses = await rotation.key_uses(vault.pool, vault.keys)
    return [
        {
            "id": use.id,
            "state": "newest" if use.newest else "older",
            "rows": dict(use.rows),
            "file": use.file,
            "created_at": use.created_at,
        }
        for use in uses
    ]


async def _rotate(environment: Environment, *, keep_old: bool, quiet: bool) -> dict[str, Any]:
    rotation: Any = importlib.import_module("infra.rotation")
    erasure: Any = importlib.import_module("infra.erasure")
    async with _opened(environment) as vault, rotation.rotating(vault.postgres_url):
        key_id = await rotation.begin(vault.pool, vault.keys)
        uses = await rotation.key_uses(vault.pool, vault.keys)
        total = sum(use.used for use in uses if not use.newest)
        with progress("Wrapping anew", total, unit="rows", quiet=quiet) as advance:
            rows = await rotation.rewrap(vault.pool, vault.keys, key_id, advance=advance)
        removed = [] if keep_old else await rotation.remove_unused(vault.pool, vault.keys)
        await erasure.scrub_tables(vault.postgres_url, [kind.table for kind in rotation.WRAPPED])
    return {"key": key_id, "rows": rows, "removed": removed}


@asynccontextmanager
async def _opened(environment: Environment) -> AsyncIterator[Opened]:
    tables: Any = importlib.import_module("infra.vault_tables")
    master_key: Any = importlib.import_module("infra.master_key")
    wrapping: Any = importlib.import_module("infra.wrapping")
    platform = read_platform(environment.data_dir)
    secrets_dir = Path(platform.secrets_dir) if platform else environment.secrets_dir
    async with open_stores(environment) as stores:
        with _failures_explained():
            key = master_key.read_master_key(secrets_dir)
            async with tables.vault_pool(stores.postgres_url) as pool:
                await tables.create_vault(pool, key)
                yield Opened(stores.postgres_url, pool, wrapping.KeyRing(key, secrets_dir))


@contextmanager
def _failures_explained() -> Iterator[None]:
    rotation: Any = importlib.import_module("infra.rotation")
    secret_files: Any = importlib.import_module("infra.secret_files")
    tables: Any = importlib.import_module("infra.vault_tables")
    wrapping: Any = importlib.import_module("infra.wrapping")
    try:
        yield
    except rotation.RotationRunsError as error:
        raise CommandError(ExitCode.CONFLICT, "rotation_runs", f"{error}.", "Wait for it.") from error
    except secret_files.SecretFileError as error:
        cure = "INVENTIV_SECRETS_DIR names the folder of the platform's secrets."
        raise CommandError(ExitCode.NOT_ALLOWED, "secret_unusable", f"{error}.", cure) from error
    except wrapping.WrappingKeyMissingError as error:
        raise CommandError(ExitCode.NOT_FOUND, "vault_key_missing", f"{error}.") from error
    except tables.VaultKeyError as error:
        raise CommandError(ExitCode.FAILED, "vault_key_wrong", f"{error}.") from error
    except tables.VaultUnavailableError as error:
        cure = "What was wrapped stays wrapped; run the command again."
        raise CommandError(ExitCode.UNREACHABLE, "vault_unavailable", f"{error}.", cure) from error
