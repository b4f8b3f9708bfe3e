"""`inventiv org ...`: the organisations that you belong to, and the one that you work in."""

from typing import Annotated, Any
from uuid import UUID

import typer

from infra.cli.asking import YesFlag, require_yes
from infra.cli.calling import calling
from infra.cli.organization_limits import organization_limits
from infra.cli.output import CommandError, ExitCode, JsonFlag, age, print_fields, print_json, print_table, say
from infra.client import Api

_COLUMNS = {
    "slug": "SLUG",
    "name": "NAME",
    "role": "YOUR ROLE",
    "plan": "PLAN",
    "member_count": "MEMBERS",
    "age": "AGE",
    "current": "CURRENT",
}
_FIELDS = {"id": "ID"} | _COLUMNS | {"sidebar_color": "COLOUR"}

Wanted = Annotated[str, typer.Argument(metavar="ORGANIZATION", help="Its slug or id, from `inventiv org ls`.")]
Name = Annotated[str, typer.Argument(help="Its name, at most 100 characters.")]
Slug = Annotated[str, typer.Option(help="Its short name in addresses; made of the name, if not said.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Your organisations.", no_args_is_help=True)
    group.command("ls", help="List the organisations that you belong to.")(list_organizations)
    group.command("create", help="Make one, own it, and work in it.")(create_organization)
    group.command("switch", help="Work in another organisation, or in your personal workspace.")(switch)
    group.command("show", help="Show one; the current one, if not said.")(show_organization)
    group.command("rename", help="Give the current one another name, slug or colour.")(rename_organization)
    group.command("delete", help="End the current one and every membership in it.")(delete_organization)
    group.command("plan", help="Change what one pays for; platform administrators only.")(change_plan)
    group.command("limits", help="Show the limits of one; platform administrators change them.")(organization_limits)
    app.add_typer(group, name="org")


def list_organizations(*, as_json: JsonFlag = False) -> None:
    with calling() as api:
        found = _own(api)
    if as_json:
        print_json({"organizations": found})
        return
    rows = [{**one, "age": age(one["created_at"])} for one in found]
    print_table(rows, _COLUMNS, empty="No organisation yet; `inventiv org create NAME` makes one.")


def create_organization(
    name: Name,
    *,
    slug: Slug = "",
    stay: Annotated[bool, typer.Option("--stay", help="Do not work in it yet.")] = False,
    as_json: JsonFlag = False,
) -> None:
    with calling() as api:
        made = api.post("/organizations", {"name": name, "slug": slug, "set_as_current": not stay})
    if as_json:
        print_json(made)
    else:
        say(f"{made['name']} ({made['slug']}) is yours. `inventiv invite create EMAIL` brings others in.")


def switch(
    wanted: Annotated[str, typer.Argument(metavar="[ORGANIZATION]", help="Its slug or id.")] = "",
    *,
    personal: Annotated[bool, typer.Option("--personal", help="Into your personal workspace.")] = False,
    as_json: JsonFlag = False,
) -> None:
    if bool(wanted) == personal:
        raise CommandError(ExitCode.USAGE, "wrong_usage", "Name one organisation, or say --personal.")
    with calling() as api:
        found = None if personal else _find(api, wanted)
        api.put("/organizations/current", {"organization_id": found["id"] if found else None})
    if as_json:
        print_json({"organization_id": found["id"] if found else None})
    else:
        say(f"You work in {found['name']} now." if found else "You work in your personal workspace now.")


def show_organization(
    wanted: Annotated[str, typer.Argument(metavar="[ORGANIZATION]", help="Its slug or id.")] = "",
    *,
    as_json: JsonFlag = False,
) -> None:
    with calling() as api:
        found = _find(api, wanted) if wanted else _current(api)
    if as_json:
        print_json(found)
    else:
        print_fields({**found, "age": age(found["created_at"])}, _FIELDS)


def rename_organization(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Its new name.")] = "",
    *,
    slug: Annotated[str, typer.Option(help="Its new slug. The old one stays yours: nobody else can take it.")] = "",
    color: Annotated[str, typer.Option("--color", help="#rrggbb, as the console's side bar shows it.")] = "",
    as_json: JsonFlag = False,
) -> None:
    changes = {field: text for field, text in (("name", name), ("slug", slug), ("sidebar_color", color)) if text}
    if not changes:
        raise CommandError(ExitCode.USAGE, "wrong_usage", "Say a NAME, --slug or --color.")
    with calling() as api:
        changed = api.patch("/organizations/current", changes)
    if as_json:
        print_json(changed)
    else:
        say(f"It is {changed['name']} ({changed['slug']}) now.")


def delete_organization(*, yes: YesFlag = False, as_json: JsonFlag = False) -> None:
    with calling() as api:
        found = _current(api)
        require_yes(
            f"Delete {found['name']} ({found['slug']}), with {found['member_count']} members, for ever?", yes=yes
        )
        api.delete("/organizations/current")
    if as_json:
        print_json({"id": found["id"], "deleted": True})
    else:
        say(f"{found['name']} is deleted. You work in your personal workspace now.")


def change_plan(
    wanted: Annotated[str, typer.Argument(metavar="ORGANIZATION", help="Its id; the slug does for your own.")],
    plan: Annotated[str, typer.Argument(help="free or subscriber.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    with calling() as api:
        id_ = wanted if _is_id(wanted) else _find(api, wanted)["id"]
        changed = api.put(f"/organizations/{id_}/plan", {"plan": plan})
    if as_json:
        print_json(changed)
    else:
        say(f"{changed['name']} is on the plan {changed['plan']} now.")


def _is_id(text: str) -> bool:
    """An organisation that one does not belong to is known by its id alone."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _own(api: Api) -> list[dict[str, Any]]:
    """With `current`: whether that is where the session works."""
    current = api.get("/organizations/current/role")["organization_id"]
    return [{**one, "current": one["id"] == current} for one in api.get("/organizations")]


def _find(api: Api, wanted: str) -> dict[str, Any]:
    for one in _own(api):
        if wanted in (one["id"], one["slug"]):
            return one
    message = f"You belong to no organisation {wanted}."
    raise CommandError(ExitCode.NOT_FOUND, "organization_not_found", message, "`inventiv org ls` lists yours.")


def _current(api: Api) -> dict[str, Any]:
    for one in _own(api):
        if one["current"]:
            return one
    message = "You work in your personal workspace, in no organisation."
    raise CommandError(ExitCode.FAILED, "no_current_organization", message, "`inventiv org switch SLUG` enters one.")
