"""`inventiv member ls|role|remove|leave`: who belongs to the current organisation, and as what."""

from typing import Annotated, Any

import typer

from infra.cli.asking import YesFlag, require_yes
from infra.cli.calling import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, age, print_json, print_table, say
from infra.client import Api

_MEMBERS = {"username": "USERNAME", "email": "E-MAIL", "role": "ROLE", "age": "JOINED", "user_id": "ID"}

Wanted = Annotated[str, typer.Argument(metavar="MEMBER", help="Username, e-mail address or id, from `member ls`.")]
Role = Annotated[str, typer.Argument(help="owner, admin, manager or user.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Members of the current organisation.", no_args_is_help=True)
    group.command("ls", help="List members.")(list_members)
    group.command("role", help="Give a member another role.")(change_role)
    group.command("remove", help="End a membership at once.")(remove_member)
    group.command("leave", help="End your own membership.")(leave)
    app.add_typer(group, name="member")


def list_members(*, as_json: JsonFlag = False) -> None:
    with calling() as api:
        found = api.get("/organizations/current/members")
    if as_json:
        print_json({"members": found})
        return
    rows = [{**one, "age": age(one["created_at"])} for one in found]
    print_table(rows, _MEMBERS, empty="Nobody; `inventiv invite create EMAIL` brings others in.")


def change_role(wanted: Wanted, role: Role, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        found = _find(api, wanted)
        changed = api.put(f"/organizations/current/members/{found['user_id']}", {"role": role})
    if as_json:
        print_json(changed)
    else:
        say(f"{_name(changed)} has the role {changed['role']} now.")


def remove_member(wanted: Wanted, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        found = _find(api, wanted)
        api.delete(f"/organizations/current/members/{found['user_id']}")
    if as_json:
        print_json({"user_id": found["user_id"], "removed": True})
    else:
        say(f"{_name(found)} is no member any more.")


def leave(*, yes: YesFlag = False, as_json: JsonFlag = False) -> None:
    with calling() as api:
        require_yes("Leave the current organisation? Only an invitation brings you back.", yes=yes)
        api.post("/organizations/current/leave")
    if as_json:
        print_json({"left": True})
    else:
        say("You have left. You work in your personal workspace now.")


def _find(api: Api, wanted: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [
        one
        for one in api.get("/organizations/current/members")
        if wanted.casefold() in {one["user_id"], one["username"].casefold(), one["email"].casefold()}
    ]
    if not found:
        message = f"There is no member {wanted}."
        raise CommandError(ExitCode.NOT_FOUND, "member_not_found", message, "`inventiv member ls` lists them.")
    return found[0]


def _name(one: dict[str, Any]) -> str:
    return str(one["username"] or one["user_id"])
