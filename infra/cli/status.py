"""`inventiv status`: what `inventiv up` runs on our data folder, process by process. Exit code 8 when nothing runs."""

import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

import typer

from infra.cli import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, paint, print_fields, print_json, print_table
from infra.processes.running import Platform, is_alive, read_platform

METRICS_TIMEOUT_S = 1.0
MAX_METRICS_BYTES = 100_000
_LAG = re.compile(r'^inventiv_projection_lag_events\{projection="(\w+)"\} (\d+)$', re.MULTILINE)


def register(app: typer.Typer) -> None:
    app.command("status", help="Show what runs here: addresses, processes, restarts.")(status)


def status(*, as_json: JsonFlag = False) -> None:
    environment = calling.environment()
    platform = read_platform(environment.data_dir)
    if platform is None:
        if as_json:
            print_json(
                {"running": False, "data_dir": str(environment.data_dir), "roles": {}, "servers": {}, "finishing": {}}
            )
            raise typer.Exit(ExitCode.UNREACHABLE)
        message = f"Nothing runs on {environment.data_dir}."
        raise CommandError(ExitCode.UNREACHABLE, "not_running", message, "Start it with `inventiv up`.")
    document = {**document_of(platform), "lag": _worst_lag(platform)}
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
    if (lag := document["lag"]) is not None:
        print_fields({"lag": f"at most {lag['events']} events behind ({lag['projection']})"}, {"lag": "Read models   "})
    print()
    children = {**document["servers"], **document["roles"], **document["finishing"]}
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
        "finishing": children(platform.finishing),
    }


def _worst_lag(platform: Platform) -> dict[str, Any] | None:
    """The read model that is furthest behind, from the API's /metrics; None while the API does not answer."""
    try:
        with urlopen(f"{platform.api_url}/metrics", timeout=METRICS_TIMEOUT_S) as reply:  # noqa: S310 - our own, http
            text = reply.read(MAX_METRICS_BYTES).decode()
    except OSError:
        return None
    lags = {name: int(events) for name, events in _LAG.findall(text)}
    worst = max(lags, key=lambda name: lags[name], default=None)
    return {"projection": worst, "events": lags[worst]} if worst is not None else None


def without_password(url: str) -> str:
    """Of one address or several, separated by commas."""
    parts = [urlsplit(each) for each in url.split(",")]
    return ",".join(urlunsplit(each._replace(netloc=f"{each.hostname}:{each.port}")) for each in parts)
