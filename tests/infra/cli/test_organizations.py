"""`inventiv org`, `member` and `invite`: what is asked of the API, what is printed, and how it ends."""

import io
import json
from typing import Any

import pytest

from infra.cli.asking import require_yes
from infra.cli.output import CommandError, ExitCode
from tests.infra.cli.conftest import Inventiv
from tests.infra.cli.stub_api import Answer, StubApi

CURRENT = "/organizations/current"
ACME = {
    "id": "0192aaaa-0000-7000-8000-00000000acce",
    "name": "Acme",
    "slug": "acme",
    "sidebar_color": "",
    "plan": "free",
    "created_at": "2026-11-21T08:00:00Z",
    "role": "owner",
    "member_count": 2,
    "limits": {
        "requests_per_minute": 600,
        "tokens_per_minute": None,
        "concurrency": None,
        "spend_limit_eur_micros_per_month": 12_500_000,
        "max_completion_tokens": None,
    },
}
GLOBEX = {**ACME, "id": "0192aaaa-0000-7000-8000-0000000910be", "name": "Globex", "slug": "globex", "role": "user"}
MARIA = {
    "user_id": "0192aaaa-0000-7000-8000-000000a00001",
    "username": "maria",
    "email": "Maria@example.org",
    "first_name": "",
    "last_name": "",
    "role": "user",
    "created_at": "2026-11-21T08:00:00Z",
}
INVITATION = {
    "id": "0192aaaa-0000-7000-8000-0000000000b1",
    "email": "carol@example.org",
    "role": "user",
    "invited_by": MARIA["user_id"],
    "state": "pending",
    "created_at": "2026-11-21T08:00:00Z",
    "expires_at": "2026-11-28T08:00:00Z",
    "accepted_at": None,
    "revoked_at": None,
}


@pytest.fixture
def api(stub: StubApi) -> StubApi:
    """At work in Acme; Maria is a member there, and Carol was invited."""
    stub.answer("GET", "/organizations", Answer(200, [ACME, GLOBEX]))
    stub.answer("GET", f"{CURRENT}/role", Answer(200, {"organization_id": ACME["id"], "role": "owner"}))
    stub.answer("GET", f"{CURRENT}/members", Answer(200, [MARIA]))
    stub.answer("GET", f"{CURRENT}/invitations", Answer(200, [INVITATION]))
    return stub


def body(stub: StubApi, method: str, path: str) -> Any:
    [asked] = stub.asked_of(method, path)
    return asked.body


def test_the_list_says_where_one_works(api: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    assert inventiv("org", "ls", "--json") == ExitCode.OK
    listed = json.loads(capsys.readouterr().out)["organizations"]
    assert [(one["slug"], one["current"]) for one in listed] == [("acme", True), ("globex", False)]
    assert inventiv("org", "ls") == ExitCode.OK
    assert "globex  Globex  user" in capsys.readouterr().out
    api.answer("GET", "/organizations", Answer(200, []))
    assert inventiv("org", "ls") == ExitCode.OK
    assert "inventiv org create NAME" in capsys.readouterr().err


def test_one_is_made_and_entered_unless_one_stays(api: StubApi, inventiv: Inventiv) -> None:
    api.answer("POST", "/organizations", Answer(201, ACME))
    assert inventiv("org", "create", "Acme") == ExitCode.OK
    assert inventiv("org", "create", "Acme", "--slug", "a", "--stay") == ExitCode.OK
    assert [asked.body for asked in api.asked_of("POST", "/organizations")] == [
        {"name": "Acme", "slug": "", "set_as_current": True},
        {"name": "Acme", "slug": "a", "set_as_current": False},
    ]


@pytest.mark.parametrize("wanted", [GLOBEX["slug"], GLOBEX["id"]])
def test_one_switches_by_slug_or_id(api: StubApi, inventiv: Inventiv, wanted: str) -> None:
    api.answer("PUT", CURRENT, Answer(200, GLOBEX))
    assert inventiv("org", "switch", wanted) == ExitCode.OK
    assert body(api, "PUT", CURRENT) == {"organization_id": GLOBEX["id"]}


def test_one_switches_into_the_personal_workspace(api: StubApi, inventiv: Inventiv) -> None:
    api.answer("PUT", CURRENT, Answer(200, None))
    assert inventiv("org", "switch", "--personal") == ExitCode.OK
    assert body(api, "PUT", CURRENT) == {"organization_id": None}


@pytest.mark.parametrize("words", [(), ("acme", "--personal")])
def test_switching_needs_one_place_to_go(api: StubApi, inventiv: Inventiv, words: tuple[str, ...]) -> None:
    assert inventiv("org", "switch", *words) == ExitCode.USAGE
    assert api.asked == []


def test_what_is_not_there_is_exit_code_3_and_says_where_to_look(
    api: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, code, cure in (
        (("org", "show", "nowhere"), "organization_not_found", "inventiv org ls"),
        (("member", "remove", "nobody"), "member_not_found", "inventiv member ls"),
        (("invite", "revoke", "nobody@example.org"), "invitation_not_found", "inventiv invite ls"),
    ):
        assert inventiv(*words, "--json") == ExitCode.NOT_FOUND
        said = capsys.readouterr()
        assert json.loads(said.out)["error"] == code
        assert cure in said.err
    assert [asked.method for asked in api.asked if asked.method != "GET" and asked.path != "/auth/login"] == []


def test_only_what_is_said_is_changed(api: StubApi, inventiv: Inventiv) -> None:
    api.answer("PATCH", CURRENT, Answer(200, ACME))
    assert inventiv("org", "rename", "Acme Two", "--color", "#2f6f4f") == ExitCode.OK
    assert body(api, "PATCH", CURRENT) == {"name": "Acme Two", "sidebar_color": "#2f6f4f"}
    assert inventiv("org", "rename") == ExitCode.USAGE


def test_deleting_asks_first(api: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer("DELETE", CURRENT, Answer(200, None))
    assert inventiv("org", "delete") == ExitCode.USAGE
    assert "--yes" in capsys.readouterr().err
    assert api.asked_of("DELETE", CURRENT) == []
    assert inventiv("org", "delete", "--yes", "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"id": ACME["id"], "deleted": True}
    assert len(api.asked_of("DELETE", CURRENT)) == 1


def test_a_refusal_says_what_to_do(api: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    refused = {"error": "organization_has_live_instances", "message": "Stop its deployments first."}
    api.answer("DELETE", CURRENT, Answer(409, refused))
    assert inventiv("org", "delete", "--yes") == ExitCode.CONFLICT
    assert "inventiv deployment stop ID" in capsys.readouterr().err


def test_a_plan_is_changed_by_slug_or_by_any_id(api: StubApi, inventiv: Inventiv) -> None:
    foreign = "0192aaaa-0000-7000-8000-00000000f04e"
    for wanted, id_ in (("globex", GLOBEX["id"]), (foreign, foreign)):
        api.answer("PUT", f"/organizations/{id_}/plan", Answer(200, {**GLOBEX, "plan": "subscriber"}))
        assert inventiv("org", "plan", wanted, "subscriber") == ExitCode.OK
        assert body(api, "PUT", f"/organizations/{id_}/plan") == {"plan": "subscriber"}


def test_limits_of_an_own_organisation_are_shown(
    api: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("org", "limits", "globex") == ExitCode.OK
    shown = capsys.readouterr().out
    assert "600" in shown
    assert "12.50 EUR" in shown
    assert shown.count("no limit") == 3
    assert inventiv("org", "limits", "globex", "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["limits"] == GLOBEX["limits"]


def test_limits_are_changed_and_lifted_by_name(api: StubApi, inventiv: Inventiv) -> None:
    foreign = "0192aaaa-0000-7000-8000-00000000f04e"
    said = ("--requests-per-minute", "60", "--spend-limit-eur", "0.5", "--max-tokens", "100", "--lift", "concurrency")
    for wanted, id_ in (("globex", GLOBEX["id"]), (foreign, foreign)):
        api.answer("PATCH", f"/organizations/{id_}/limits", Answer(200, GLOBEX))
        assert inventiv("org", "limits", wanted, *said) == ExitCode.OK
        assert body(api, "PATCH", f"/organizations/{id_}/limits") == {
            "requests_per_minute": 60,
            "spend_limit_eur_micros_per_month": 500_000,
            "max_completion_tokens": 100,
            "concurrency": None,
        }


def test_limits_of_others_are_asked_of_the_platform(api: StubApi, inventiv: Inventiv) -> None:
    foreign = "0192aaaa-0000-7000-8000-00000000f04e"
    api.answer("GET", f"/organizations/{foreign}/limits", Answer(200, {**GLOBEX, "id": foreign}))
    assert inventiv("org", "limits", foreign) == ExitCode.OK
    assert inventiv("org", "limits", foreign, "--lift", "everything") == ExitCode.USAGE


@pytest.mark.parametrize("wanted", ["maria", "MARIA@example.org", MARIA["user_id"]])
def test_a_member_is_known_by_name_address_or_id(api: StubApi, inventiv: Inventiv, wanted: str) -> None:
    path = f"{CURRENT}/members/{MARIA['user_id']}"
    api.answer("PUT", path, Answer(200, {**MARIA, "role": "admin"}))
    api.answer("DELETE", path, Answer(200, None))
    assert inventiv("member", "role", wanted, "admin") == ExitCode.OK
    assert body(api, "PUT", path) == {"role": "admin"}
    assert inventiv("member", "remove", wanted) == ExitCode.OK
    assert len(api.asked_of("DELETE", path)) == 1


def test_leaving_asks_first(api: StubApi, inventiv: Inventiv) -> None:
    api.answer("POST", f"{CURRENT}/leave", Answer(200, None))
    assert inventiv("member", "leave") == ExitCode.USAGE
    assert api.asked_of("POST", f"{CURRENT}/leave") == []
    assert inventiv("member", "leave", "--yes") == ExitCode.OK


def test_an_invitation_prints_its_token_alone(
    api: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {**INVITATION, "token": "t" * 32}
    api.answer("POST", f"{CURRENT}/invitations", Answer(201, made))
    assert inventiv("invite", "create", "carol@example.org", "--role", "manager", "--days", "3") == ExitCode.OK
    assert capsys.readouterr().out == "t" * 32 + "\n"
    assert body(api, "POST", f"{CURRENT}/invitations") == {
        "email": "carol@example.org",
        "role": "manager",
        "expires_in_days": 3,
    }
    assert inventiv("invite", "create", "carol@example.org", "--days", "31") == ExitCode.USAGE


def test_an_invitation_is_revoked_by_address_and_the_pending_one_is_meant(api: StubApi, inventiv: Inventiv) -> None:
    ended = {**INVITATION, "id": "0192aaaa-0000-7000-8000-0000000000b0", "state": "revoked"}
    api.answer("GET", f"{CURRENT}/invitations", Answer(200, [ended, INVITATION]))
    path = f"{CURRENT}/invitations/{INVITATION['id']}"
    api.answer("DELETE", path, Answer(200, None))
    assert inventiv("invite", "revoke", "Carol@example.org") == ExitCode.OK
    assert len(api.asked_of("DELETE", path)) == 1


def test_an_accepted_invitation_is_not_revoked(api: StubApi, inventiv: Inventiv) -> None:
    api.answer("GET", f"{CURRENT}/invitations", Answer(200, [{**INVITATION, "state": "accepted"}]))
    assert inventiv("invite", "revoke", "carol@example.org") == ExitCode.CONFLICT


def test_who_accepts_is_told_how_to_enter(api: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer("POST", "/organizations/invitations/ttt/accept", Answer(200, GLOBEX))
    assert inventiv("invite", "accept", "ttt") == ExitCode.OK
    assert "inventiv org switch globex" in capsys.readouterr().err


def test_empty_lists_say_what_to_do_next(api: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    for noun in ("member", "invite"):
        api.answer("GET", f"{CURRENT}/{noun.replace('invite', 'invitation')}s", Answer(200, []))
        assert inventiv(noun, "ls") == ExitCode.OK
        said = capsys.readouterr()
        assert (said.out, "inventiv invite create EMAIL" in said.err) == ("", True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer", ["y\n", "YES\n"])
def test_a_person_may_say_yes(answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    require_yes("Really?", yes=False)
    assert capsys.readouterr().err == "Really? [y/N] "


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "yup\n"])
def test_everything_else_is_a_no(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    with pytest.raises(CommandError, match="Nothing was done"):
        require_yes("Really?", yes=False)
