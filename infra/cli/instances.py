"""`inventiv instance ls|show|stop|archive|activate|deactivate`: the servers that run models."""

import time
from typing import Annotated, Any

import typer

from infra.cli.calling import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, age, print_fields, print_json, print_table, say
from infra.client import Api

POLL_S = 0.2
STOP_TIMEOUT_S = 600.0
"""The drain's deadline (300 s unless configured otherwise), then the provider's deletion."""
ENDED = frozenset({"terminated", "archived"})
_COLUMNS = {
    "id": "ID",
    "model_code": "MODEL",
    "status": "STATUS",
    "progress": "PROGRESS",
    "ip_address": "ADDRESS",
    "age": "AGE",
    "flags_missing": "WAITS FOR",
    "error_code": "ERROR",
}
_FIELDS = {
    "id": "Id",
    "deployment_id": "Deployment",
    "model_code": "Model",
    "engine": "Engine",
    "status": "Status",
    "progress": "Progress",
    "flags_missing": "Flags missing",
    "provider": "Provider",
    "zone": "Zone",
    "instance_type": "Type",
    "provider_instance_id": "Server",
    "ip_address": "Address",
    "engine_url": "Engine URL",
    "agent_url": "Agent URL",
    "created_at": "Created",
    "ready_at": "Ready",
    "terminated_at": "Terminated",
    "error_code": "Error",
    "error_message": "Reason",
    "deletion_reason": "Deleted because",
}

InstanceId = Annotated[str, typer.Argument(help="The instance's id, from `inventiv instance ls`.")]


FlagName = Annotated[str, typer.Argument(help="technical (owner, admin) or economic (owner, manager).")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The servers that run models.", no_args_is_help=True)
    group.command("ls", help="List instances.")(list_instances)
    group.command("show", help="Show one instance.")(show_instance)
    group.command("stop", help="Finish running answers, then end the server.")(stop_instance)
    group.command("archive", help="Put a terminated instance away.")(archive_instance)
    group.command("activate", help="Set a flag; nothing is rented or routed to before both are set.")(activate_instance)
    group.command("deactivate", help="Clear a flag; the instance gets no more requests.")(deactivate_instance)
    app.add_typer(group, name="instance")


def list_instances(
    *,
    archived: Annotated[bool, typer.Option("--archived", help="Only archived ones.")] = False,
    as_json: JsonFlag = False,
) -> None:
    with calling() as api:
        instances = api.get("/instances", archived="true" if archived else "false")
    if as_json:
        print_json({"instances": instances})
        return
    rows = [with_words(instance) for instance in instances]
    print_table(rows, _COLUMNS, empty="No instances; `inventiv deploy MODEL` makes one.")


def show_instance(instance_id: InstanceId, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        instance = api.get(f"/instances/{instance_id}")
    if as_json:
        print_json(instance)
    else:
        print_fields(with_words(instance), _FIELDS)


def stop_instance(
    instance_id: InstanceId,
    *,
    force: Annotated[bool, typer.Option("--force", help="Do not wait for running answers.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the server is gone.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = STOP_TIMEOUT_S,
    as_json: JsonFlag = False,
) -> None:
    with calling() as api:
        api.delete(f"/instances/{instance_id}", force="true" if force else None)
        instance = api.get(f"/instances/{instance_id}")
        if wait:
            instance = _wait_until_ended(api, instance, timeout)
    if as_json:
        print_json(instance)
    else:
        say(f"Instance {instance_id} is {instance['status']}.")


def archive_instance(instance_id: InstanceId, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        api.put(f"/instances/{instance_id}/archive")
        instance = api.get(f"/instances/{instance_id}")
    if as_json:
        print_json(instance)
    else:
        say(f"Instance {instance_id} is archived.")


def activate_instance(instance_id: InstanceId, flag: FlagName, *, as_json: JsonFlag = False) -> None:
    _change_flag(instance_id, flag, value=True, as_json=as_json)


def deactivate_instance(instance_id: InstanceId, flag: FlagName, *, as_json: JsonFlag = False) -> None:
    _change_flag(instance_id, flag, value=False, as_json=as_json)


def _change_flag(instance_id: str, flag: str, *, value: bool, as_json: bool) -> None:
    with calling() as api:
        changed = api.put(f"/instances/{instance_id}/activation", {"flag": flag, "value": value})
    missing = changed["activation"]["missing"]
    if as_json:
        print_json(changed)
    elif missing:
        say(f"Instance {instance_id} does not work before these are set, too: {', '.join(missing)}.")
    else:
        say(f"Instance {instance_id} has both flags.")


def with_words(instance: dict[str, Any]) -> dict[str, Any]:
    """The instance with its progress and age as people read them."""
    missing = ", ".join(instance.get("activation", {}).get("missing", []))
    progress, since = f"{instance['progress_percent']} %", age(instance.get("created_at"))
    return {**instance, "progress": progress, "age": since, "flags_missing": missing or "-"}


def _wait_until_ended(api: Api, instance: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while instance["status"] not in ENDED:
        if time.monotonic() > deadline:
            message = f"Instance {instance['id']} is still {instance['status']} after {timeout_s:g} s."
            cure = "It goes on by itself; look again with `inventiv instance show`, or end it now with --force."
            raise CommandError(ExitCode.TIMED_OUT, "timed_out", message, cure)
        time.sleep(POLL_S)
        instance = api.get(f"/instances/{instance['id']}")
    return instance
