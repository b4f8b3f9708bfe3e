"""`inventiv deploy <model>`: asks for N instances of a model and waits, telling each step, until all are ready.

Ctrl-C (or --detach) lets go without cancelling: the deployment goes on by itself. A failed instance ends the waiting
with the platform's own code; what the others reached stays as it is.
"""

import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from infra.cli.calling import calling, refusal
from infra.cli.output import CommandError, ExitCode, JsonFlag, paint, print_json, say
from infra.client import Api

POLL_S = 0.1
TIMEOUT_S = 600.0
FAILED = frozenset({"provisioning_failed", "startup_failed", "failed", "terminating", "terminated", "archived"})


class EngineName(StrEnum):
    simulated = "simulated"
    vllm = "vllm"


def register(app: typer.Typer) -> None:
    app.command("deploy", help="Run a model; waits until it answers.")(deploy)


def deploy(
    model: Annotated[str, typer.Argument(help="Model code, from `inventiv model ls`.")],
    *,
    instances: Annotated[int, typer.Option(min=1, help="How many servers.")] = 1,
    engine: Annotated[EngineName, typer.Option(help="What answers on them.")] = EngineName.simulated,
    provider: Annotated[str, typer.Option(help="Whose servers.")] = "local",
    zone: Annotated[str, typer.Option(help="Where.")] = "local",
    instance_type: Annotated[str, typer.Option("--type", help="Which kind.")] = "mock-local-instance",
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; it goes on by itself.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = TIMEOUT_S,
    as_json: JsonFlag = False,
) -> None:
    body = {
        "model": model,
        "instances": instances,
        "engine": engine.value,
        "provider_code": provider,
        "zone": zone,
        "instance_type": instance_type,
    }
    with calling() as api:
        accepted = api.post("/deployments", body)
        deployment_id = accepted["deployment_id"]
        say(f"Deployment {deployment_id}: {instances} of {model} ({engine.value}).")
        views = _instances_of(api, accepted["instances"])
        if not detach:
            try:
                views = _wait_until_ready(api, deployment_id, accepted["instances"], timeout)
            except KeyboardInterrupt:
                say(f"Let go; it goes on by itself. Come back with `inventiv deployment show {deployment_id}`.")
                raise
    if as_json:
        print_json({"deployment_id": deployment_id, "model": model, "instances": views})
    elif detach:
        print(deployment_id)
    else:
        say(f'{paint("✓", "green", stderr=True)} Ready. Try: inventiv chat {model} "hello"')
        for view in views:
            print(view["id"])


def _wait_until_ready(api: Api, deployment_id: str, wanted: list[str], timeout_s: float) -> list[dict[str, Any]]:
    began = time.monotonic()
    told: dict[str, tuple[str, int]] = {}
    told_missing: set[str] = set()
    while True:
        views = _instances_of(api, wanted)
        for view in views:
            _tell_news(view, told, time.monotonic() - began)
        _explain_failure(views)
        _tell_missing_flags(views, told_missing)
        if all(view["status"] == "ready" for view in views):
            return views
        if time.monotonic() - began > timeout_s:
            message = f"Deployment {deployment_id} is not ready after {timeout_s:g} s."
            cure = f"It goes on by itself: `inventiv deployment show {deployment_id}`, `inventiv instance ls`."
            raise CommandError(ExitCode.TIMED_OUT, "timed_out", message, cure)
        time.sleep(POLL_S)


def _instances_of(api: Api, wanted: list[str]) -> list[dict[str, Any]]:
    """In the deployment's order. Their ids are known before they are: what is not there yet is about to be."""
    views = {view["id"]: view for view in api.get("/instances")}
    return [views.get(wished, {"id": wished, "status": "provisioning", "progress_percent": 0}) for wished in wanted]


def _tell_news(view: dict[str, Any], told: dict[str, tuple[str, int]], after_s: float) -> None:
    """One line for each status or progress that this instance had not shown before."""
    news = (view["status"], view["progress_percent"])
    if told.get(view["id"]) != news:
        told[view["id"]] = news
        say(f"  {after_s:5.1f} s  {view['id']}  {news[0]} {news[1]} %")


def _tell_missing_flags(views: list[dict[str, Any]], told: set[str]) -> None:
    """What waits for a person says so once: nothing is rented before both flags are set."""
    for view in views:
        missing = view.get("activation", {}).get("missing", [])
        if missing and view["id"] not in told:
            told.add(view["id"])
            cure = f"`inventiv instance activate {view['id']} {missing[0]}`"
            say(f"  waits for the {' and the '.join(missing)} flag: {cure}")


def _explain_failure(views: list[dict[str, Any]]) -> None:
    for view in views:
        if view["status"] in FAILED:
            code = view["error_code"] or view["status"]
            reason = view["error_message"] or f"It is {view['status']}."
            raise refusal(500, code, f"Instance {view['id']} failed: {reason}")
