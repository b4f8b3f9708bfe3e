"""`inventiv audit key`, `checkpoints`, `proof`: what anyone may have to check the audit log, fetched and checked here.

What people read of it (`log`, `show`, `state`, `download`) stands in audit_log.py.

`key` prints PEM and `checkpoints --stored` the exact texts, so that both can be kept in files: audit_evidence.py says
for what. `proof` believes nothing that it fetches but the key, and that only when no --public-key is given.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer

from domain.merkle import is_included, leaf_hash
from domain.seal import Seal, leaf_entry, note
from infra.cli import audit_evidence, audit_log, calling
from infra.cli.audit_evidence import PublicKeys, read_keys
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json, print_table, say
from infra.client import Api
from infra.deploy.verify_audit_export import is_signed

PAGE_CHECKPOINTS = 500

_COLUMNS = {"number": "NUMBER", "size": "ENTRIES", "at": "SIGNED AT", "key_id": "KEY", "root": "ROOT"}


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Who did what, and the proof that the log was not changed.", no_args_is_help=True)
    audit_log.register(group)
    group.command("key", help="Print the public key that signs checkpoints, as PEM.")(key)
    group.command("checkpoints", help="List the signed checkpoints.")(checkpoints)
    group.command("proof", help="Prove that one entry is in the log, and check the proof here.")(proof)
    audit_evidence.register(group)
    app.add_typer(group, name="audit")


def key(
    key_id: Annotated[str, typer.Argument(help="Of an older key; without it, the newest.")] = "",
    *,
    as_json: JsonFlag = False,
) -> None:
    with calling.calling() as api:
        keys = api.get("/audit/key")
    if as_json:
        print_json({"keys": keys})
        return
    wanted = [one for one in keys if key_id in {"", one["key_id"]}]
    if not wanted:
        message = f"No key {key_id} ever signed here." if key_id else "No checkpoint has been signed yet."
        raise CommandError(ExitCode.NOT_FOUND, "key_not_found", message, "The first checkpoint comes within seconds.")
    print(wanted[-1]["pem"], end="")
    if older := [one["key_id"] for one in keys if one is not wanted[-1]]:
        say(f"Key {wanted[-1]['key_id']}; other keys that signed: {', '.join(older)}.")


def checkpoints(
    *,
    after: Annotated[int, typer.Option(min=0, help="Only those with a higher number.")] = 0,
    stored: Annotated[
        bool, typer.Option("--stored", help="Their exact texts, a line each, to keep elsewhere.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    with calling.calling() as api:
        found = list(_checkpoints(api, after))
    if as_json:
        print_json({"checkpoints": found})
    elif stored:
        for one in found:
            print(one["stored"])
    else:
        print_table(found, _COLUMNS, empty="No checkpoint has been signed yet; the first one comes within seconds.")


def proof(
    position: Annotated[int, typer.Argument(min=1, help="Of the entry, as `inventiv events tail` shows it.")],
    *,
    public_key: PublicKeys = None,
    as_json: JsonFlag = False,
) -> None:
    with calling.calling() as api:
        entry = api.get(f"/audit/entries/{position}", all="true" if api.is_admin else None)
        checkpoint = api.get("/audit/checkpoints/latest")
        inclusion = api.get("/audit/proofs/inclusion", entry=position, size=checkpoint["size"])
        keys = read_keys(public_key) if public_key else [bytes.fromhex(k["public_key"]) for k in api.get("/audit/key")]
    wrong = _wrong_with(entry, checkpoint, inclusion, keys)
    if as_json:
        print_json({"ok": not wrong, "wrong": wrong, "entry": entry, "inclusion": inclusion, "checkpoint": checkpoint})
    if wrong:
        if as_json:
            raise typer.Exit(ExitCode.FAILED)
        raise CommandError(ExitCode.FAILED, "audit_proof_wrong", f"Entry {position}: {wrong}.", "Ask who had access.")
    if not as_json:
        say(f"Entry {position} is in the log of {checkpoint['size']:,} entries, signed at {checkpoint['at']} by key")
        say(f"{checkpoint['key_id']}{'' if public_key else ' (told by the platform itself; give --public-key)'}.")


def _checkpoints(api: Api, after: int) -> Iterator[dict[str, Any]]:
    following: int | None = after
    while following is not None:  # bounded: each page moves on
        page = api.get("/audit/checkpoints", after=following, limit=PAGE_CHECKPOINTS)
        yield from page["checkpoints"]
        following = page["next"]


def _wrong_with(entry: dict[str, Any], checkpoint: dict[str, Any], inclusion: dict[str, Any], keys: list[bytes]) -> str:
    """What does not hold; "" when all does."""
    leaf = leaf_hash(leaf_entry(entry["position"], entry["subject"], bytes.fromhex(entry["payload"])))
    hashes = [bytes.fromhex(one) for one in inclusion["hashes"]]
    said = msgspec.json.decode(checkpoint["stored"], type=Seal)
    if not is_included(leaf, entry["position"] - 1, said.size, hashes, bytes.fromhex(said.root)):
        return "its bytes are not under the checkpoint's root"
    if not any(is_signed(one, note(said), bytes.fromhex(said.signature)) for one in keys):
        return "the checkpoint is not signed by a trusted key"
    return ""
