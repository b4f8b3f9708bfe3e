"""`inventiv host ls|show|add|change|rm|key`: your own machines as servers of the provider bare_metal.

    host key --new ──> the key's public half into each host's authorized_keys ──> host add ADDRESS ──> deploy

`host add` asks the host for its key from here, and shows the fingerprint: compare it with what the host itself says
(`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`). The platform then speaks to no host with another key.
"""

import asyncio
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli.asking import YesFlag, require_yes
from infra.cli.calling import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_json, print_table, say
from infra.cli.slots import slots_said, spoken_slots

FINGERPRINT_TIMEOUT_S = 15.0
_COLUMNS = {
    "id": "ID",
    "name": "NAME",
    "address": "ADDRESS",
    "zone": "ZONE",
    "instance_type": "TYPE",
    "price_eur_per_hour": "EUR/H",
    "when": "SLOTS",
    "use": "RUNS",
}

HostId = Annotated[str, typer.Argument(help="The host's id, from `inventiv host ls`.")]
Slots = Annotated[
    list[str] | None,
    typer.Option("--slot", help='When it may serve, in UTC, e.g. "mon-fri 20:00-06:00"; may be said again.'),
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Your own machines, reached by SSH.", no_args_is_help=True)
    group.command("ls", help="List hosts, and what runs on each.")(list_hosts)
    group.command("show", help="Show one host.")(show_host)
    group.command("add", help="Enrol a host: fetches its key, and asks you to confirm the fingerprint.")(add_host)
    group.command("change", help="Change what is said of a host; what is left out stays.")(change_host)
    group.command("rm", help="Withdraw a host on which nothing runs; nobody speaks to it afterwards.")(remove_host)
    group.command("key", help="Give the SSH key with which your hosts are reached, or make one.")(set_key)
    app.add_typer(group, name="host")


def list_hosts(*, as_json: JsonFlag = False) -> None:
    with calling() as api:
        hosts = api.get("/hosts")
    if as_json:
        print_json({"hosts": hosts})
        return
    rows = [{**host, "when": spoken_slots(host["slots"]), "use": host["instance_id"] or "nothing"} for host in hosts]
    print_table(rows, _COLUMNS, empty="No hosts; `inventiv host add ADDRESS --gpus N --vram GB` enrols one.")


def show_host(host_id: HostId, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        host = api.get(f"/hosts/{host_id}")
    _tell(host, as_json=as_json)


def add_host(
    address: Annotated[str, typer.Argument(help="IP address at which the platform reaches it.")],
    *,
    gpus: Annotated[int, typer.Option(help="How many GPUs it has.")],
    vram: Annotated[int, typer.Option(help="Memory of each GPU, in GB.")],
    cpus: Annotated[int, typer.Option(help="How many CPUs, when you like to say.")] = 0,
    ram: Annotated[int, typer.Option(help="Its memory in GB, when you like to say.")] = 0,
    name: Annotated[str, typer.Option(help="What you call it; made of its address, if not said.")] = "",
    port: Annotated[int, typer.Option(help="Port of its sshd.")] = 22,
    user: Annotated[str, typer.Option(help="Who logs in: root, or one who may `sudo` without a password.")] = "root",
    zone: Annotated[str, typer.Option(help="A label of yours, e.g. its room.")] = "default",
    price: Annotated[float, typer.Option(help="What an hour costs you, in EUR.")] = 0.0,
    slot: Slots = None,
    fingerprint: Annotated[str, typer.Option(help="Of its host key, when you know it; nothing is fetched then.")] = "",
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    body = {
        "address": address,
        "ssh_port": port,
        "name": name or "host-" + re.sub(r"[^a-z0-9]+", "-", address.lower()).strip("-"),
        "ssh_user": user,
        "zone": zone,
        "gpu_count": gpus,
        "vram_per_gpu_gb": vram,
        "cpu_count": cpus,
        "ram_gb": ram,
        "price_eur_per_hour": price,
        "slots": slots_said(slot),
        "host_key_fingerprint": fingerprint or _confirmed_fingerprint(address, port, yes=yes),
    }
    with calling() as api:
        host = api.post("/hosts", body)
    _tell(host, as_json=as_json)


def change_host(
    host_id: HostId,
    *,
    name: Annotated[str | None, typer.Option()] = None,
    user: Annotated[str | None, typer.Option(help="Who logs in.")] = None,
    zone: Annotated[str | None, typer.Option()] = None,
    gpus: Annotated[int | None, typer.Option()] = None,
    vram: Annotated[int | None, typer.Option(help="GB of each GPU.")] = None,
    cpus: Annotated[int | None, typer.Option()] = None,
    ram: Annotated[int | None, typer.Option(help="GB.")] = None,
    price: Annotated[float | None, typer.Option(help="EUR an hour.")] = None,
    slot: Slots = None,
    always: Annotated[bool, typer.Option("--always", help="Takes all slots away: it may serve at any time.")] = False,
    fingerprint: Annotated[str | None, typer.Option(help="Of its new host key, after it was set up anew.")] = None,
    as_json: JsonFlag = False,
) -> None:
    if always and slot:
        raise CommandError(ExitCode.USAGE, "two_slots", "Say --slot or --always, not both.")
    said = {
        "name": name,
        "ssh_user": user,
        "zone": zone,
        "gpu_count": gpus,
        "vram_per_gpu_gb": vram,
        "cpu_count": cpus,
        "ram_gb": ram,
        "price_eur_per_hour": price,
        "slots": slots_said(slot) if slot or always else None,
        "host_key_fingerprint": fingerprint,
    }
    with calling() as api:
        known = api.get(f"/hosts/{host_id}")
        body = {field: known[field] if value is None else value for field, value in said.items()}
        host = api.put(f"/hosts/{host_id}", body)
    _tell(host, as_json=as_json)


def remove_host(host_id: HostId, *, yes: YesFlag = False, as_json: JsonFlag = False) -> None:
    require_yes(f"Withdraw the host {host_id}?", yes=yes)
    with calling() as api:
        api.delete(f"/hosts/{host_id}")
    if as_json:
        print_json({"id": host_id, "withdrawn": True})
    else:
        say("The host is withdrawn.")


def set_key(
    *,
    from_file: Annotated[Path | None, typer.Option("--from", help="File of the private key, unlocked.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Make a key; only its public half is shown.")] = False,
    as_json: JsonFlag = False,
) -> None:
    if (from_file is not None) == new:
        cure = "For example: inventiv host key --new >> authorized_keys"
        raise CommandError(ExitCode.USAGE, "key_required", "Say --from FILE, or --new.", cure)
    private, public = _new_key() if from_file is None else _key_of(from_file)
    with calling() as api:
        api.put("/providers/bare_metal/credentials", {"values": {"ssh_private_key": private}})
    if as_json:
        print_json({"public_key": public})
        return
    say("The key is kept. Each host lets it in by this line in its user's ~/.ssh/authorized_keys:")
    print(public)


def _new_key() -> tuple[str, str]:
    import asyncssh  # noqa: PLC0415 - 0.4 s that the other commands need not take

    key = asyncssh.generate_private_key("ssh-ed25519", comment="inventiv")
    return key.export_private_key().decode(), key.export_public_key().decode().strip()


def _key_of(path: Path) -> tuple[str, str]:
    import asyncssh  # noqa: PLC0415 - as above

    try:
        text = path.read_text()
        return text, asyncssh.import_private_key(text).export_public_key().decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise CommandError(ExitCode.USAGE, "file_unreadable", f"{path} cannot be read ({reason}).") from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        message = f"{path} holds no private key that can be used without a passphrase."
        raise CommandError(ExitCode.USAGE, "invalid_key", message, "`inventiv host key --new` makes one.") from error


def _confirmed_fingerprint(address: str, port: int, *, yes: bool) -> str:
    from infra.ssh import Place, read_fingerprint  # noqa: PLC0415 - as above

    say(f"Asking {address} for its host key ...")
    try:
        found = asyncio.run(read_fingerprint(Place(address, port), timeout_s=FINGERPRINT_TIMEOUT_S))
    except OSError as error:
        cure = "Is its sshd running, and can it be reached from here? Else say --fingerprint SHA256:..."
        raise CommandError(ExitCode.UNREACHABLE, "host_unreachable", f"{error}.", cure) from error
    say(f"{address} shows the host key {found}")
    require_yes("Is that the host's own?", yes=yes)
    return found


def _tell(host: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(host)
        return
    say(
        f"{host['name']} at {host['address']} serves {spoken_slots(host['slots'])}. To run a model on it: "
        f"inventiv deploy MODEL --provider bare_metal --zone {host['zone']} --type {host['instance_type']}"
    )
    print(host["id"])
