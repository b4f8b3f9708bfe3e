"""`inventiv deploy <model>`: asks for N instances of a model and waits, telling each step, until all are ready.

    --plan: show and stop        costs nothing, or --yes: go ahead        costs something: show the plan, ask, go ahead

Ctrl-C (or --detach) lets go without cancelling: the deployment goes on by itself. A failed instance ends the waiting
with the platform's own code; what the others reached stays as it is.
"""

import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from infra.cli.asking import YesFlag, require_yes
from infra.cli.calling import calling, refusal
from infra.cli.deploy_plan import show_plan, tell_plan
from infra.cli.output import CommandError, ExitCode, JsonFlag, paint, print_json, say
from infra.client import Api

LOCAL = "local"
"""This machine; it costs nothing, so nobody is asked."""
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
    engine: Annotated[
        EngineName | None, typer.Option(help="What answers on them; simulated on this machine, else vllm.")
    ] = None,
    provider: Annotated[str, typer.Option(help="Whose servers.")] = LOCAL,
    zone: Annotated[str, typer.Option(help="Where; need not be said where there is one choice.")] = "",
    instance_type: Annotated[str, typer.Option("--type", help="Which kind; as above.")] = "",
    alternatives: Annotated[
        list[str] | None,
        typer.Option("--or", metavar="ZONE/TYPE", help="Where else, when there is none left; may be repeated."),
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="EUR an hour, where the catalogue does not know: of each place named.")
    ] = None,
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens of context to serve; as much as was listed, if not said.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be rented, and rent nothing.")] = False,
    yes: YesFlag = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; it goes on by itself.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = TIMEOUT_S,
    as_json: JsonFlag = False,
) -> None:
    body = {
        "model": model,
        "instances": instances,
        "engine": engine.value if engine else "simulated" if provider == LOCAL else None,
        "provider_code": provider,
        "zone": zone,
        "instance_type": instance_type,
        "price_eur_per_hour": price,
        "context_tokens": context,
        "alternatives": [_alternative(one, price) for one in alternatives or []],
    }
    with calling() as api:
        if plan:
            show_plan(api.post("/deployments", body, dry_run="true"), as_json=as_json)
            return
        if provider != LOCAL and not yes:
            _confirm(api.post("/deployments", body, dry_run="true"))
        accepted = api.post("/deployments", body)
        say(f"Deployment {accepted['deployment_id']}: {instances} of {model}.")
        views = _followed(api, accepted, detach=detach, timeout_s=timeout)
    if as_json:
        print_json({"deployment_id": accepted["deployment_id"], "model": model, "instances": views})
    elif detach:
        print(accepted["deployment_id"])
    else:
        say(f'{paint("✓", "green", stderr=True)} Ready. Try: inventiv chat {model} "hello"')
        for view in views:
            print(view["id"])


def _followed(api: Api, accepted: dict[str, Any], *, detach: bool, timeout_s: float) -> list[dict[str, Any]]:
    """Its instances: at once, or when all are ready."""
    deployment_id, wanted = accepted["deployment_id"], accepted["instances"]
    if detach:
        return _instances_of(api, wanted)
    try:
        return _wait_until_ready(api, deployment_id, wanted, timeout_s)
    except KeyboardInterrupt:
        say(f"Let go; it goes on by itself. Come back with `inventiv deployment show {deployment_id}`.")
        raise


def _alternative(text: str, price: float | None) -> dict[str, Any]:
    """Raises CommandError: it is not ZONE/TYPE."""
    zone, slash, instance_type = text.partition("/")
    if not (zone and slash and instance_type):
        message = f"{text} is not ZONE/TYPE, for example fr-par-1/L4-1-24G."
        raise CommandError(ExitCode.USAGE, "invalid_alternative", message)
    return {"zone": zone, "instance_type": instance_type, "price_eur_per_hour": price}


def _confirm(plan: dict[str, Any]) -> None:
    """Asks where it costs something; what is refused anyway is left to the platform, which records it.

    Raises:
        CommandError: the answer was no, or nobody is there to answer.
    """
    if plan["refusal"] or not plan["cost_per_hour_at_most"]:
        return
    tell_plan(plan)
    require_yes(f"Rent this, for up to {plan['cost_per_hour_at_most']:g} EUR an hour?", yes=False)


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
