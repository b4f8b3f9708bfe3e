"""The audit log over HTTP: rows in words, filters, pages, the neighbour who sees nothing, states, exports."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from uuid_utils import uuid7

from domain.ids import PLATFORM, EventId
from domain.message import Context, Envelope
from domain.organization import ORGANIZATION
from domain.organization_commands import AddMember, RemoveMember
from infra.events.port import Append
from projections import audit_search
from tests.web.office import NOBODY, an_office
from tests.web.test_sign_in import refusal
from tests.web.world import World
from web import audit_rows
from web.hiding import HIDDEN, SEALED, sealed_fields

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_row_says_who_did_what_to_what(world: World) -> None:
    async with an_office(world) as office:
        [row] = await office.rows("action=API_KEY_RENAMED")
        me = (await office.owner.get("/auth/me")).json()
    assert row["position"] == office.positions[1]
    assert row["verb"] == "renamed the API key"
    assert row["target"] == {
        "aggregate": "api_key",
        "kind": "API key",
        "id": office.key_id,
        "label": "=staging, 100%",
        "version": 2,
    }
    assert (row["actor"]["kind"], row["actor"]["id"]) == ("user", me["user_id"])
    assert row["actor"]["name"] == f"{me['first_name']} {me['last_name']}"
    assert (row["outcome"], row["component"], row["organization_id"]) == (
        "success",
        "api",
        me["current_organization_id"],
    )
    assert row["origin"]["kind"] == "session"
    assert row["origin"]["ip"].startswith("10.")
    assert row["origin"]["browser"].startswith("python-httpx")
    assert row["changes"] == [{"field": "name", "before": "first", "after": "=staging, 100%"}]
    assert (row["cause"], row["cause_event_id"], row["changes_left_out"]) == (None, None, None)


async def test_hashes_and_sealed_values_are_never_shown(world: World) -> None:
    async with an_office(world) as office:
        [row] = await office.rows("type=ApiKeyIssued")
    assert row["data"]["key_sha256"] == HIDDEN
    told = {change["field"]: change["after"] for change in row["changes"]}
    assert told["key_sha256"] == HIDDEN
    assert told["name"] == "first"
    async with world.signed_in() as admin:
        page = (await admin.get("/audit?all=true&type=UserCreated")).json()["rows"]
        opened = (await admin.get("/audit?all=true&type=SessionOpened&limit=1")).json()["rows"]
    (digest,) = {change["after"] for change in page[0]["changes"] if change["field"] == "email_digest"}
    assert digest == SEALED
    shown = opened[0]["data"]
    assert (shown["token_sha256"], shown["ip"], shown["user_agent"]) == (HIDDEN, SEALED, SEALED)
    assert {"email", "username", "ip", "user_agent", "email_digest"} <= sealed_fields()


async def test_filters_narrow_alone_and_together(world: World) -> None:
    """Which rows fit which filter stands in tests/projections; here, that each parameter reaches its column."""
    async with an_office(world) as office:
        everything = await office.rows("limit=500")
        one = everything[0]
        fitting: dict[str, Callable[[Any], bool]] = {
            "actor_kind=user": lambda row: row["actor"]["kind"] == "user",
            f"actor_id={one['actor']['id']}": lambda row: row["actor"]["id"] == one["actor"]["id"],
            "aggregate=api_key": lambda row: row["target"]["aggregate"] == "api_key",
            f"id={office.key_id}": lambda row: row["target"]["id"] == office.key_id,
            "type=ApiKeyRevoked": lambda row: row["type"] == "ApiKeyRevoked",
            "action=ORG_MEMBER_ADDED": lambda row: row["action"] == "ORG_MEMBER_ADDED",
            "outcome=success": lambda row: row["outcome"] == "success",
            "outcome=failed": lambda row: row["outcome"] == "failed",
            "component=backend": lambda row: row["component"] == "api",
            f"correlation={one['correlation']}": lambda row: row["correlation"] == one["correlation"],
            f"cause={NOBODY}": lambda row: False,
            f"event_id={one['event_id']}": lambda row: row["event_id"] == one["event_id"],
            f"origin=session:{one['origin']['id']}": lambda row: (row["origin"] or {}).get("id") == one["origin"]["id"],
            f"since={one['at'].replace('+', '%2B')}": lambda row: row["at"] >= one["at"],
            f"until={one['at'].replace('+', '%2B')}": lambda row: row["at"] < one["at"],
            "text=STAGING%2C+100%25": lambda row: row["target"]["id"] == office.key_id,
            "aggregate=api_key&outcome=success&type=ApiKeyIssued": lambda row: row["type"] == "ApiKeyIssued",
        }
        for query, fits in fitting.items():
            expected = [row["position"] for row in everything if fits(row)]
            assert [row["position"] for row in await office.rows(f"limit=500&{query}")] == expected, query


async def test_a_whole_name_or_address_finds_what_that_person_did(world: World) -> None:
    """Names are sealed, so no part of one can be sought."""
    async with an_office(world) as office:
        me = (await office.owner.get("/auth/me")).json()
        for text in (me["username"], me["email"]):
            found = await office.rows(f"text={text}")
            assert {row["actor"]["id"] for row in found} == {me["user_id"]}
            assert len(found) >= 3
        assert await office.rows(f"text={me['username'][:-1]}") == []


async def test_a_slip_in_a_filter_is_heard(world: World) -> None:
    async with an_office(world) as office:
        for query in ("actr_id=x", "outcome=maybe", "since=yesterday", "actor_kind=ghost", f"text={'x' * 201}"):
            assert refusal(await office.owner.get(f"/audit?{query}")) == (400, "invalid_request"), query
            assert refusal(await office.owner.get(f"/audit/export?{query}")) == (400, "invalid_request"), query


async def test_a_search_that_takes_too_long_says_what_to_do(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def too_long(*_: object, **__: object) -> Any:
        raise audit_search.SearchTooBroadError

    async with an_office(world) as office:
        for module in ("web.api.audit_entries.list_newest", "web.audit_export.list_next"):
            monkeypatch.setattr(module, too_long)
        for path in ("/audit?text=x", "/audit/export?text=x"):
            assert refusal(await office.owner.get(path)) == (400, "search_too_broad")


async def test_pages_lead_back_and_forth_while_rows_arrive(world: World) -> None:
    async with an_office(world) as office:
        everything = [row["position"] for row in await office.rows("limit=500")]
        seen: list[int] = []
        page = (await office.owner.get("/audit?limit=2")).json()
        newest = page["newer"]
        while True:
            seen += [row["position"] for row in page["rows"]]
            arrived = await office.owner.post("/api_keys", json={"name": "meanwhile"})
            if page["older"] is None:
                break
            page = (await office.owner.get(f"/audit?limit=2&before={page['older']}")).json()
        assert seen == everything
        await world.visible(int(arrived.headers["event-position"]))
        later: list[int] = []
        while (page := (await office.owner.get(f"/audit?limit=2&after={newest}")).json())["rows"]:
            later = [row["position"] for row in page["rows"]] + later
            newest = page["newer"]
        everything = [row["position"] for row in await office.rows("limit=500")]
    assert later + seen == everything
    assert page["newer"] == newest == everything[0]


async def test_a_neighbour_sees_nothing(world: World) -> None:
    async with an_office(world) as office, world.team(eve="owner") as theirs:
        eve = theirs["eve"]
        position, organization = office.positions[0], (await office.rows("limit=1"))[0]["organization_id"]
        own = (await eve.get("/audit?limit=500")).json()["rows"]
        assert office.positions[0] not in [row["position"] for row in own]
        assert (await eve.get(f"/audit?id={office.key_id}")).json()["rows"] == []
        assert (await eve.get("/audit?text=staging")).json()["rows"] == []
        assert (await eve.get("/action_logs?limit=1000")).json() != []
        assert office.key_id not in (await eve.get("/action_logs?limit=1000")).text
        assert office.key_id not in (await eve.get("/audit/export")).text
        for path, foreign, absent in (
            ("/audit/{}", position, position + 100_000),
            ("/audit/state?aggregate=api_key&id={}", office.key_id, NOBODY),
        ):
            seen, none = await eve.get(path.format(foreign)), await eve.get(path.format(absent))
            assert (seen.status_code, seen.content) == (none.status_code, none.content)
            assert none.status_code == 404, path
        for query in ("all=true", f"organization={organization}"):
            separator = {"/audit/state": f"?aggregate=api_key&id={office.key_id}&"}
            for path in ("/audit", f"/audit/{position}", "/audit/state", "/audit/export"):
                reply = await eve.get(f"{path}{separator.get(path, '?')}{query}")
                assert refusal(reply) == (403, "admin_required"), (path, query)


async def test_an_administrator_sees_any_organisation_and_all(world: World) -> None:
    async with an_office(world) as office, world.signed_in() as admin:
        organization = (await office.rows("limit=1"))[0]["organization_id"]
        one = (await admin.get(f"/audit?organization={organization}&limit=500")).json()["rows"]
        every = (await admin.get("/audit?all=true&limit=500")).json()["rows"]
        state = await admin.get(f"/audit/state?all=true&aggregate=api_key&id={office.key_id}")
        row = await admin.get(f"/audit/{office.positions[0]}?all=true")
        for nowhere in ("evt.>", NOBODY, "_x"):
            refused = await admin.get("/audit/export", params={"organization": nowhere})
            assert refusal(refused) == (404, "organization_not_found"), nowhere
    assert {row["organization_id"] for row in one} == {organization}
    assert PLATFORM in {row["organization_id"] for row in every}
    assert (state.status_code, row.status_code) == (200, 200)


async def test_only_those_who_may_see_the_audit_log_do(world: World) -> None:
    async with an_office(world) as office:
        for path in ("/audit", "/audit/1", "/audit/state?aggregate=api_key&id=x", "/audit/export"):
            assert refusal(await office.member.get(path)) == (403, "insufficient_permissions"), path


async def test_a_forgotten_person_has_no_name_anywhere(world: World) -> None:
    """Who acted stays, as an id; name, address and browser are gone from every row and export."""
    async with an_office(world) as office:
        me = (await office.owner.get("/auth/me")).json()
        [before] = await office.rows("type=ApiKeyIssued")
        await world.vault.forget(me["user_id"])
        [after] = await office.rows("type=ApiKeyIssued")
        exported = (await office.owner.get("/audit/export?type=ApiKeyIssued")).text
    assert before["actor"]["name"] == f"{me['first_name']} {me['last_name']}"
    assert before["origin"]["ip"]
    assert before["origin"]["browser"]
    assert after["actor"] == {"kind": "user", "id": me["user_id"], "name": "forgotten"}
    assert (after["origin"]["ip"], after["origin"]["browser"]) == (None, None)
    assert me["first_name"] not in exported


async def test_a_row_in_full_has_its_causes_and_effects(world: World) -> None:
    async with an_office(world) as office:
        organization = (await office.rows("limit=1"))[0]["organization_id"]
        first = await office.rows("type=ApiKeyIssued")
        user_id = await world.person("caused")
        causes = [first[0]["event_id"]]
        end_position = 0
        for command in (AddMember(user_id=user_id, role="user"), RemoveMember(user_id=user_id)):
            context = Context(actor="system:handlers", correlation="story", cause=causes[-1])
            receipt = await world.dispatcher(ORGANIZATION, organization, organization, command, context)
            causes += receipt.event_ids
            end_position = receipt.position
        await world.visible()
        begin = (await office.owner.get(f"/audit/{first[0]['position']}")).json()
        end = (await office.owner.get(f"/audit/{end_position}")).json()
        caused = await office.rows(f"cause={causes[1]}")
    assert [effect["event_id"] for effect in begin["effects"]] == [causes[1]]
    assert [cause["event_id"] for cause in end["causes"]] == [causes[1], causes[0]]
    assert end["cause"] == end["causes"][0]
    assert [row["position"] for row in caused] == [end["position"]]
    assert end["envelope"]["event_id"] == causes[2]
    assert end["changes"] == [{"field": f"members.{user_id}", "before": "user", "after": None}]
    assert (begin["causes"], end["effects"], end["more_effects"]) == ([], [], False)


async def test_a_target_is_shown_as_it_was_at_any_moment(world: World) -> None:
    async with an_office(world) as office:
        issued, renamed, revoked = office.positions
        path = f"/audit/state?aggregate=api_key&id={office.key_id}"
        rows = {row["position"]: row for row in await office.rows(f"id={office.key_id}")}
        moments = {
            "": revoked,
            str(renamed): renamed,
            str(revoked - 1): renamed,
            rows[issued]["at"]: issued,
            "9999-12-31T23:59:59.999999Z": revoked,
        }
        for at, position in moments.items():
            state = (
                await office.owner.get(path, params={"aggregate": "api_key", "id": office.key_id, "at": at})
            ).json()
            assert state["position"] == position, at
            assert state["state"]["name"] == ("first" if position == issued else "=staging, 100%")
            assert state["state"]["revoked"] == (position == revoked)
            assert state["state"]["key_sha256"] == HIDDEN
            assert state["label"] == "=staging, 100%"
        for at, answer in {
            str(issued - 1): (404, "not_begun"),
            "2020-01-01": (404, "not_begun"),
            "0001-01-01T00:00:00%2B14:00": (404, "not_begun"),
            "whenever": (400, "invalid_moment"),
        }.items():
            assert refusal(await office.owner.get(f"{path}&at={at}")) == answer
        assert refusal(await office.owner.get(f"/audit/state?aggregate=gpu&id={NOBODY}")) == (
            404,
            "aggregate_not_found",
        )


async def test_before_and_after_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with an_office(world) as office:
        monkeypatch.setattr(audit_rows, "MAX_HISTORY_EVENTS", 2)
        rows = {row["position"]: row for row in await office.rows(f"id={office.key_id}")}
        assert [rows[p]["changes_left_out"] for p in office.positions] == [None, None, "history_too_long"]
        assert rows[office.positions[2]]["changes"] is None
        assert rows[office.positions[1]]["changes"] is not None
        monkeypatch.setattr(audit_rows, "MAX_PAGE_HISTORY_EVENTS", 0)
        assert {row["changes_left_out"] for row in await office.rows("limit=500")} >= {"page_too_long"}
        unasked = await office.rows("changes=false")
    assert {(row["changes"], row["changes_left_out"]) for row in unasked} == {(None, None)}


async def test_an_event_of_a_newer_release_is_a_row_all_the_same(world: World) -> None:
    async with an_office(world) as office:
        organization = (await office.rows("limit=1"))[0]["organization_id"]
        envelope = Envelope(
            event_id=EventId(str(uuid7())),
            aggregate="gpu_pool",
            id=NOBODY,
            version=1,
            type="GpuPoolOpened",
            schema=1,
            organization=organization,
            actor="system:pools",
            cause=None,
            correlation="tomorrow",
            at=world.clock(),
            previous="",
            data=msgspec.Raw(b'{"name":"=1+1"}'),
        )
        message = (envelope.event_id, msgspec.json.encode(envelope))
        await world.log.append([Append(f"evt.{organization}.gpu_pool.{NOBODY}", 0, (message,))])
        await world.visible()
        [row] = await office.rows("aggregate=gpu_pool")
        exported = (await office.owner.get("/audit/export?aggregate=gpu_pool&format=csv")).text
        state = await office.owner.get(f"/audit/state?aggregate=gpu_pool&id={NOBODY}")
    assert (row["verb"], row["action"], row["component"]) == ("gpu pool opened", "GPU_POOL_OPENED", "pools")
    assert row["changes_left_out"] == "history_unreadable"
    assert "GpuPoolOpened" in exported
    assert refusal(state) == (409, "history_unreadable")
