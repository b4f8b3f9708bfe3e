"""`inventiv user ls|create|show|role|plan|forget`: who may sign in. For platform administrators.

A user is named by id, username or e-mail address. The surprising rule: `forget` cannot be undone by anybody, and waits
until the last trace is gone.
"""

import time
from typing import Annotated, Any
from uuid import UUID

import typer

from infra.cli.asking import YesFlag, require_yes
from infra.cli.calling import calling
from infra.cli.output import CommandError, ExitCode, JsonFlag, age, print_fields, print_json, print_table, say
from infra.cli.password import PasswordFile, new_password
from infra.client import Api, ApiError

ERASURE_TIMEOUT_S = 60
"""The erasure takes a second or two; handlers that are being restarted come back within twenty."""
ERASURE_LOOK_S = 0.2
PAGE_ROWS = 500

_COLUMNS = {
    "id": "ID",
    "username": "USERNAME",
    "email": "E-MAIL",
    "role": "ROLE",
    "account_plan": "PLAN",
    "organization_slug": "ORGANISATION",
    "organization_role": "ROLE THERE",
    "age": "AGE",
}
_FIELDS = {
    "username": "Username",
    "id": "Id",
    "email": "E-mail",
    "first_name": "First name",
    "last_name": "Last name",
    "role": "Role",
    "account_plan": "Plan",
    "created_at": "Created",
    "updated_at": "Changed",
}
_ERASED = (
    "key of the sealed personal data (names, e-mail address, addresses and browsers of sessions)",
    "password, sessions, own API keys",
    "memberships, invitations to the address, mails in the inbox, kept replies",
)
_LEFT = "The log keeps the user's id, and what that id did; nobody can tell any more whose it was."

UserName = Annotated[str, typer.Argument(metavar="USER", help="Id, username or e-mail address.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="People who may sign in (for platform administrators).", no_args_is_help=True)
    group.command("ls", help="List users, one line for each organisation they belong to.")(list_users)
    group.command("create", help="Add a user; the password comes from a prompt or a file.")(create_user)
    group.command("show", help="Show one user.")(show_user)
    group.command("role", help="Make a user a platform administrator, or one no more.")(change_role)
    group.command("plan", help="Change a user's own plan.")(change_plan)
    group.command("forget", help="Forget a person for ever; nobody can undo it.")(forget_user)
    app.add_typer(group, name="user")


def list_users(
    search: Annotated[str, typer.Argument(help="A username or e-mail address, or a part of one.")] = "",
    *,
    as_json: JsonFlag = False,
) -> None:
    with calling() as api:
        page = api.get("/users/search", q=search, sort_by="username", limit=PAGE_ROWS)
    if as_json:
        print_json(page)
        return
    rows = [{**row, "age": age(row["created_at"])} for row in page["rows"]]
    print_table(
        rows, _COLUMNS, empty=f"No user has {search!r} in username or e-mail address; `inventiv user ls` lists all."
    )
    if page["filtered_count"] > len(rows):
        say(f"{page['filtered_count'] - len(rows)} more; name a part of a username or e-mail address.")
    if page["searched_count"] < page["total_count"]:
        unread = page["total_count"] - page["searched_count"]
        say(f"{unread} older users were not looked through; a whole username or e-mail address finds them.")


def create_user(
    username: Annotated[str, typer.Argument(help="What they sign in with.")],
    email: Annotated[str, typer.Argument(help="Their e-mail address; they may sign in with it, too.")],
    *,
    role: Annotated[str, typer.Option(help="user, or admin for the whole platform.")] = "user",
    first_name: str = "",
    last_name: str = "",
    password_file: PasswordFile = None,
    as_json: JsonFlag = False,
) -> None:
    body = {"username": username, "email": email, "role": role, "first_name": first_name, "last_name": last_name}
    body["password"] = new_password(password_file)
    with calling() as api:
        made = api.post("/users", body)
    if as_json:
        print_json(made)
    else:
        print(made["id"])
        say(f"{made['username']} can sign in; `inventiv invite create {made['email']}` invites them to work with you.")


def show_user(name: UserName, *, as_json: JsonFlag = False) -> None:
    with calling() as api:
        found = _find(api, name)
    if as_json:
        print_json(found)
    else:
        print_fields(found, _FIELDS)


def change_role(
    name: UserName,
    role: Annotated[str, typer.Argument(help="admin or user.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    _change(name, {"role": role}, f"is now {role} on the platform; their sessions have ended", as_json=as_json)


def change_plan(
    name: UserName,
    plan: Annotated[str, typer.Argument(help="free or subscriber.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    _change(name, {"account_plan": plan}, f"has the plan {plan}", as_json=as_json)


def forget_user(name: UserName, *, yes: YesFlag = False, as_json: JsonFlag = False) -> None:
    with calling() as api:
        user_id = _forgotten(api, name) or _forget(api, name, yes=yes)
        erased_at = _when_erased(api, user_id)
    if as_json:
        print_json({"user_id": user_id, "erased_at": erased_at, "erased": _ERASED})
        return
    say(f"User {user_id} is forgotten. Erased:")
    for what in _ERASED:
        say(f"  {what}")
    say(_LEFT)


def _forgotten(api: Api, name: str) -> str:
    """The id when it is one that was forgotten already, else "": the command goes on where an earlier one ended."""
    if not _is_id(name):
        return ""
    try:
        return str(api.get(f"/users/{name}/forgetting")["user_id"])
    except ApiError as error:
        if error.code != "user_not_found":
            raise
        return ""


def _forget(api: Api, name: str, *, yes: bool) -> str:
    found = _find(api, name)
    require_yes(f"Forget {found['username']} ({found['id']}) for ever? Nobody can undo it.", yes=yes)
    api.delete(f"/users/{found['id']}")
    return str(found["id"])


def _change(name: str, body: dict[str, str], told: str, *, as_json: bool) -> None:
    with calling() as api:
        changed = api.put(f"/users/{_find(api, name)['id']}", body)
    if as_json:
        print_json(changed)
    else:
        say(f"{changed['username']} {told}.")


def _find(api: Api, name: str) -> Any:
    """The user of that id, or whose whole username or e-mail address it is.

    Raises:
        CommandError: there is none.
    """
    user_id = name if _is_id(name) else _id_of(api, name)
    return api.get(f"/users/{user_id}")


def _id_of(api: Api, name: str) -> str:
    rows = api.get("/users/search", q=name)["rows"]
    wanted = name.strip().casefold()
    for field in ("username", "email"):
        for row in rows:
            if row[field].casefold() == wanted:
                return str(row["id"])
    cure = "`inventiv user ls` lists all."
    raise CommandError(ExitCode.NOT_FOUND, "user_not_found", f"No user is called {name}.", cure)


def _is_id(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True


def _when_erased(api: Api, user_id: str) -> str:
    """Waits for the reaction that erases.

    Raises:
        CommandError: it takes too long; it goes on by itself.
    """
    say("Erasing ...")
    give_up = time.monotonic() + ERASURE_TIMEOUT_S
    while time.monotonic() < give_up:
        erased_at = api.get(f"/users/{user_id}/forgetting")["erased_at"]
        if erased_at:
            return str(erased_at)
        time.sleep(ERASURE_LOOK_S)
    cure = f"`inventiv user forget {user_id}` waits on; the log of the role handlers tells what it is at."
    message = f"User {user_id} is forgotten, but not everything was erased within {ERASURE_TIMEOUT_S} s."
    raise CommandError(ExitCode.TIMED_OUT, "erasure_under_way", message, cure)
