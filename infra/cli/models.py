"""`inventiv model ls|show`: the catalogue, by public model code."""

from typing import Annotated, Any

import typer

from infra.cli.calling import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_fields, print_json, print_table
from infra.client import Api

_COLUMNS = {"code": "MODEL", "required_vram_gb": "VRAM GB", "context_length": "CONTEXT", "data_volume_gb": "DISK GB"}
_FIELDS = {"code": "Model", "id": "Id", "name": "Name", "required_vram_gb": "VRAM GB", "context_length": "Context"}


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The models that can be deployed.", no_args_is_help=True)
    group.command("ls", help="List the catalogue.")(list_models)
    group.command("show", help="Show one model.")(show_model)
    app.add_typer(group, name="model")


def list_models(*, as_json: JsonFlag = False) -> None:
    with calling() as api:
        models = api.get("/models")
    if as_json:
        print_json({"models": models})
    else:
        print_table(models, _COLUMNS, empty="The catalogue is empty.")


def show_model(
    model: Annotated[str, typer.Argument(help="Model code, e.g. mock-echo-model.")], *, as_json: JsonFlag = False
) -> None:
    with calling() as api:
        found = find_model(api, model)
    if as_json:
        print_json(found)
    else:
        print_fields(found, _FIELDS)


def find_model(api: Api, code: str) -> dict[str, Any]:
    """The catalogue's model of that code (or id).

    Raises:
        CommandError: there is none.
    """
    for model in api.get("/models"):
        if code in {model["code"], model["id"]}:
            return dict(model)
    message = f"There is no model {code} in the catalogue."
    raise CommandError(ExitCode.NOT_FOUND, "model_not_found", message, "`inventiv model ls` lists what there is.")
