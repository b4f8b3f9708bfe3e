"""`inventiv status`: what `inventiv up` runs on our data folder, process by process. Exit code 8 when nothing runs."""

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import typer

from infra.cli import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, paint, print_fields, print_json, print_table
from infra.processes.running import Platform, is_alive, read_platform


def register(app: typer.Typer) -> None:
    app.command("status", help="Show what runs here: addresses, processes, restarts.")(status)


def status(*, as_json: JsonFlag = False) -> None:
    environment = calling.environment()
    platform = read_platform(environment.data_dir)
    if platform is None:
        if as_json:
            print_json({"running": False, "data_dir": str(environment.data_dir), "roles": {}, "servers": {}})
            raise typer.Exit(ExitCode.UNREACHABLE)
        message = f"Nothing runs on {environment.data_dir}."
        raise CommandError(ExitCode.UNREACHABLE, "not_running", message, "Start it with `inventiv up`.")
    document = document_of(platform)
    if as_json:
        print_json(document)
        return
    headings = {
        "state": "State",
        "api_url": "API",
        "gateway_url": "Gateway",
        "data_dir": "Data",
        "pid": "Supervisor pid",
    }
    print_fields(document, headings)
    print()
    children = {**document["servers"], **document["roles"]}
    rows = [{"name": name, **child} for name, child in children.items()]
    for row in rows:
        row["state"] = paint(row["state"], "green" if row["state"] == "running" else "yellow")
    print_table(rows, {"name": "PROCESS", "state": "STATE", "pid": "PID", "restarts": "RESTARTS"}, empty="None yet.")


def document_of(platform: Platform) -> dict[str, Any]:
    """What `status --json` prints: without the passwords that the platform's own URLs hold."""

    def children(views: dict[str, Any]) -> dict[str, Any]:
        return {
            name: {
                "pid": view.pid,
                "state": "restarting" if view.pid and not is_alive(view.pid, view.created_at) else view.state,
                "restarts": view.restarts,
            }
            for name, view in views.items()
        }

    return {
        "running": True,
        "state": platform.state,
        "api_url": platform.api_url,
        "gateway_url": platform.gateway_url,
        "data_dir": platform.data_dir,
        "secrets_dir": platform.secrets_dir,
        "nats_url": without_password(platform.nats_url),
        "nats_monitor_url": platform.nats_monitor_url,
        "postgres_url": without_password(platform.postgres_url),
        "pid": platform.pid,
        "roles": children(platform.roles),
        "servers": children(platform.servers),
    }


def without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.hostname}:{parts.port}"))
