"""`inventiv model ls|show|add|rm`: the catalogue, by public model code; everyone's models and your own."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from infra.cli.calling import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, print_fields, print_json, print_table, say
from infra.client import Api

_COLUMNS = {
    "code": "MODEL",
    "scope": "OF",
    "required_vram_gb": "VRAM GB",
    "context_length": "CONTEXT",
    "data_volume_gb": "DISK GB",
}
_FIELDS = {
    "code": "Model",
    "id": "Id",
    "name": "Name",
    "scope": "Of",
    "required_vram_gb": "VRAM GB",
    "context_length": "Context",
    "recommended_data_volume_gb": "Disk GB",
}

ModelCode = Annotated[str, typer.Argument(help="Model code, e.g. mock-echo-model.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The models that can be deployed.", no_args_is_help=True)
    group.command("ls", help="List the catalogue.")(list_models)
    group.command("show", help="Show one model, with the disk that it should have.")(show_model)
    group.command("add", help="List a model of your organisation's own.")(add_model)
    group.command("rm", help="Take a model out of the catalogue; refused while it is used.")(remove_model)
    app.add_typer(group, name="model")


def list_models(*, as_json: JsonFlag = False) -> None:
    with calling() as api:
        models = api.get("/models")
    if as_json:
        print_json({"models": models})
    else:
        print_table(models, _COLUMNS, empty="The catalogue is empty; `inventiv model add CODE` lists a model.")


def show_model(model: ModelCode, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        found = find_model(api, model)
        found |= api.get(f"/models/{found['id']}/recommended-data-volume") if api.is_admin else {}
    if as_json:
        print_json(found)
    else:
        print_fields(found, _FIELDS)


def add_model(
    model: Annotated[str, typer.Argument(help="Its code: a repository of weights (owner/name) or a local path.")],
    *,
    vram_gb: Annotated[int, typer.Option("--vram-gb", min=0, help="GPU memory that it needs.")],
    context: Annotated[int, typer.Option("--context", min=1, help="Tokens of context.")],
    name: Annotated[str, typer.Option(help="A name for people; the code's last part, if not said.")] = "",
    disk_gb: Annotated[int, typer.Option("--disk-gb", min=0, help="0: recommended by size.")] = 0,
    platform: Annotated[bool, typer.Option("--platform", help="For everyone; platform administrators only.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="Its config.json, so that plans know exactly what it needs of a GPU.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    body = {
        "model_id": model,
        "name": name,
        "required_vram_gb": vram_gb,
        "context_length": context,
        "data_volume_gb": disk_gb,
        "platform": platform,
    }
    if config is not None:
        body["config"] = _read_config(config)
    with calling() as api:
        made = api.post("/models", body)
    if as_json:
        print_json(made)
    else:
        say(f"{model} is listed; `inventiv deploy {model}` runs it.")


def _read_config(path: Path) -> dict[str, Any]:
    """Raises CommandError: it cannot be read, or is no JSON object."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise CommandError(ExitCode.USAGE, "config_unreadable", f"{path}: {error.strerror}.") from error
    except msgspec.DecodeError as error:
        raise CommandError(ExitCode.USAGE, "config_unreadable", f"{path} is no JSON object: {error}.") from error
    return config


def remove_model(model: ModelCode, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        found = find_model(api, model)
        api.delete(f"/models/{found['id']}")
    if as_json:
        print_json({"id": found["id"], "code": found["code"], "removed": True})
    else:
        say(f"{found['code']} is not in the catalogue any more.")


def find_model(api: Api, code: str) -> dict[str, Any]:
    """The catalogue's model of that code (or id), your organisation's own before the platform's.

    Raises:
        CommandError: there is none.
    """
    for model in api.get("/models"):
        if code in {model["code"], model["id"]}:
            return dict(model)
    message = f"There is no model {code} in the catalogue."
    raise CommandError(ExitCode.NOT_FOUND, "model_not_found", message, "`inventiv model ls` lists what there is.")
