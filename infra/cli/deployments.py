"""`inventiv deployment ls|show|stop`: what was wanted, and how much of it came true."""

from typing import Annotated

import typer

from infra.cli.calling import calling
from infra.cli.output import JsonFlag, age, print_fields, print_json, print_table, say

_COLUMNS = {
    "id": "ID",
    "model_code": "MODEL",
    "status": "STATUS",
    "instances": "WANTED",
    "ready_instances": "READY",
    "engine": "ENGINE",
    "age": "AGE",
    "error_code": "ERROR",
}
_FIELDS = _COLUMNS | {
    "provider": "PROVIDER",
    "zone": "ZONE",
    "instance_type": "TYPE",
    "error_message": "REASON",
    "url": "URL",
    "model": "CALLED THERE",
    "key_fingerprint": "KEY",
}
"""The last three are an upstream's; see `inventiv upstream`."""

DeploymentId = Annotated[str, typer.Argument(help="The deployment's id, from `inventiv deployment ls`.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Models wanted a number of times.", no_args_is_help=True)
    group.command("ls", help="List deployments.")(list_deployments)
    group.command("show", help="Show one deployment.")(show_deployment)
    group.command("stop", help="Stop all instances of a deployment; running answers finish first.")(stop_deployment)
    app.add_typer(group, name="deployment")


def list_deployments(*, as_json: JsonFlag = False) -> None:
    with calling() as api:
        deployments = api.get("/deployments")
    if as_json:
        print_json({"deployments": deployments})
        return
    rows = [{**deployment, "age": age(deployment.get("created_at"))} for deployment in deployments]
    print_table(rows, _COLUMNS, empty="No deployments; `inventiv deploy MODEL` makes one.")


def show_deployment(deployment_id: DeploymentId, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        deployment = api.get(f"/deployments/{deployment_id}")
    if as_json:
        print_json(deployment)
    else:
        print_fields({**(deployment["upstream"] or {}), **deployment}, _FIELDS)


def stop_deployment(deployment_id: DeploymentId, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        api.delete(f"/deployments/{deployment_id}")
        deployment = api.get(f"/deployments/{deployment_id}")
    if as_json:
        print_json(deployment)
    else:
        ending = "its key is destroyed" if deployment["upstream"] else "`inventiv instance ls` shows its servers ending"
        say(f"Deployment {deployment_id} is {deployment['status']}; {ending}.")
