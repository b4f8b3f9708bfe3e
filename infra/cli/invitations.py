"""`inventiv invite create|ls|revoke|accept`: asks somebody into the current organisation, or answers when asked."""

from typing import Annotated, Any

import typer

from infra.cli.calling import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, age, print_json, print_table, say
from infra.client import Api

_COLUMNS = {
    "email": "E-MAIL",
    "role": "ROLE",
    "state": "STATE",
    "age": "AGE",
    "expires_at": "EXPIRES",
    "id": "ID",
}


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Invitations into the current organisation.", no_args_is_help=True)
    group.command("create", help="Invite an e-mail address; a mail with the link goes out.")(create_invitation)
    group.command("ls", help="List invitations.")(list_invitations)
    group.command("revoke", help="Take an invitation back.")(revoke_invitation)
    group.command("accept", help="Become a member with the token of a mail's link.")(accept_invitation)
    app.add_typer(group, name="invite")


def create_invitation(
    email: Annotated[str, typer.Argument(help="Whom to invite.")],
    *,
    role: Annotated[str, typer.Option(help="owner, admin, manager or user.")] = "user",
    days: Annotated[int, typer.Option(min=1, max=30, help="How long it can be accepted.")] = 7,
    as_json: JsonFlag = False,
) -> None:
    with calling() as api:
        made = api.post("/organizations/current/invitations", {"email": email, "role": role, "expires_in_days": days})
    if as_json:
        print_json(made)
        return
    print(made["token"])
    say(f"{made['email']} gets a mail with a link. The token is shown this once: `inventiv invite accept TOKEN`.")


def list_invitations(*, as_json: JsonFlag = False) -> None:
    with calling() as api:
        found = api.get("/organizations/current/invitations")
    if as_json:
        print_json({"invitations": found})
        return
    rows = [{**one, "age": age(one["created_at"])} for one in found]
    print_table(rows, _COLUMNS, empty="No invitations; `inventiv invite create EMAIL` makes one.")


def revoke_invitation(
    wanted: Annotated[str, typer.Argument(metavar="INVITATION", help="Its e-mail address or id, from `invite ls`.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    with calling() as api:
        found = _find(api, wanted)
        if found["state"] == "accepted":
            message = f"{found['email'] or found['id']} has accepted already."
            cure = "`inventiv member remove MEMBER` ends a membership."
            raise CommandError(ExitCode.CONFLICT, "invitation_already_accepted", message, cure)
        api.delete(f"/organizations/current/invitations/{found['id']}")
    if as_json:
        print_json({"id": found["id"], "revoked": True})
    else:
        say(f"The invitation to {found['email'] or found['id']} is revoked.")


def accept_invitation(
    token: Annotated[str, typer.Argument(help="What stands at the end of the mail's link.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    with calling() as api:
        joined = api.post(f"/organizations/invitations/{token}/accept")
    if as_json:
        print_json(joined)
    else:
        say(f"You are {joined['role']} in {joined['name']} now. `inventiv org switch {joined['slug']}` enters it.")


def _find(api: Api, wanted: str) -> dict[str, Any]:
    """A pending one before those that ended."""
    found: list[dict[str, Any]] = [
        one
        for one in api.get("/organizations/current/invitations")
        if wanted.casefold() in {one["id"], one["email"].casefold()}
    ]
    if not found:
        message = f"There is no invitation {wanted}."
        raise CommandError(ExitCode.NOT_FOUND, "invitation_not_found", message, "`inventiv invite ls` lists them.")
    return min(found, key=lambda one: one["state"] != "pending")
