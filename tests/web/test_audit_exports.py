"""Exports of the audit log: exactly what is filtered, safe to open, and on record themselves."""

import csv
import io
import json
from typing import Any

import pytest

from domain.access import MAX_EXPORTS_PER_MINUTE
from projections import audit_search
from tests.web.office import NOBODY, an_office
from tests.web.test_sign_in import refusal
from tests.web.world import World
from web import audit_export
from web.audit_export import COLUMNS
from web.hiding import HIDDEN

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_export_is_exactly_what_is_filtered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_export, "PAGE_ROWS", 2)  # many pages
    async with an_office(world) as office:
        for query in ("", "aggregate=api_key&", "type=ApiKeyIssued&", "text=staging&", f"actor_id={NOBODY}&"):
            shown = (await office.rows(f"{query}limit=500"))[::-1]
            lines = (await office.owner.get(f"/audit/export?{query}format=jsonl")).text.splitlines()
            rows = [json.loads(line) for line in lines]
            before = [row for row in await office.rows(f"{query}limit=500") if row["type"] == "AuditLogExported"]
            assert [row["position"] for row in rows] == [row["position"] for row in shown], query
            assert all(list(row) == list(COLUMNS) for row in rows)
            table = await office.owner.get(f"/audit/export?{query}format=csv")
            parsed = list(csv.reader(io.StringIO(table.text, newline=""), strict=True))
            assert parsed[0] == list(COLUMNS)
            assert [int(line[0]) for line in parsed[1:]] == [row["position"] for row in shown + before]


async def test_a_file_for_a_spreadsheet_holds_no_formula(world: World) -> None:
    """RFC 4180, and no cell that begins like a formula; the JSON lines keep the very bytes."""
    async with an_office(world) as office:
        table = await office.owner.get(f"/audit/export?format=csv&id={office.key_id}")
        lines = (await office.owner.get(f"/audit/export?format=jsonl&id={office.key_id}")).text.splitlines()
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert table.headers["content-disposition"].startswith('attachment; filename="audit-log-')
    assert table.text.count("\r\n") == 4
    parsed = list(csv.reader(io.StringIO(table.text, newline=""), strict=True))
    assert {line[COLUMNS.index("target_label")] for line in parsed[1:]} == {"'=staging, 100%"}
    assert not [cell for line in parsed for cell in line if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert {json.loads(line)["target_label"] for line in lines} == {"=staging, 100%"}
    assert {json.loads(line)["data"].get("key_sha256", HIDDEN) for line in lines} == {HIDDEN}


async def test_an_export_names_no_person(world: World) -> None:
    """A file cannot be made to forget anybody; the screen, which asks the vault each time, does name them."""
    async with an_office(world) as office:
        names = {row["actor"]["name"] for row in await office.rows("limit=500") if row["actor"]["kind"] == "user"}
        exported = [(await office.owner.get(f"/audit/export?format={kind}")).text for kind in ("csv", "jsonl")]
    names -= {None}
    assert names
    assert not [name for name in names for text in exported if name in text]


async def test_an_export_is_itself_recorded_before_it_begins(world: World) -> None:
    """With the filters that may stand in the log for ever, and in the log of those whose rows were taken."""
    async with an_office(world) as office, world.signed_in() as admin:
        organization = (await office.rows("limit=1"))[0]["organization_id"]
        query = f"type=ApiKeyIssued&id={office.key_id}&text=Olga+Miller&actor_id=olga%40example.org&since=2026-01-01"
        first = await office.owner.get(f"/audit/export?format=csv&{query}")
        again = await admin.get(f"/audit/export?organization={organization}")
        await world.visible()
        rows = await office.rows("type=AuditLogExported")
        envelopes = [(await office.owner.get(f"/audit/{row['position']}")).json()["envelope"] for row in rows]
    assert [row["position"] for row in rows] == [
        int(again.headers["event-position"]),
        int(first.headers["event-position"]),
    ]
    assert rows[0]["actor"]["id"] != rows[1]["actor"]["id"]
    assert envelopes[0]["data"] == {"format": "jsonl", "filters": {}}
    assert envelopes[1]["data"] == {
        "format": "csv",
        "filters": {
            "type": "ApiKeyIssued",
            "id": office.key_id,
            "text": HIDDEN,
            "actor_id": HIDDEN,
            "since": "2026-01-01T00:00:00",
        },
    }
    assert str(rows[0]["position"]) not in [line.partition(",")[0] for line in again.text.splitlines()]


async def test_too_many_exports_are_refused(world: World) -> None:
    async with an_office(world) as office:
        for _ in range(MAX_EXPORTS_PER_MINUTE):
            assert (await office.owner.get("/audit/export?type=ApiKeyIssued")).status_code == 200
        assert refusal(await office.owner.get("/audit/export")) == (429, "too_many_exports")


async def test_an_export_breaks_off_when_its_reader_may_not_read_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the client sees what came so far; over a socket, a chunked body without its end."""
    monkeypatch.setattr(audit_export, "PAGE_ROWS", 1)
    asked, pages = audit_search.list_next, 0
    async with an_office(world) as office:

        async def signed_out_after_two_pages(*given: Any, **options: Any) -> Any:
            nonlocal pages
            pages += 1
            if pages == 2:
                assert (await office.owner.post("/auth/logout")).is_success
            return await asked(*given, **options)

        monkeypatch.setattr(audit_export, "list_next", signed_out_after_two_pages)
        reply = await office.owner.get("/audit/export")
        assert (reply.status_code, len(reply.text.splitlines()), pages) == (200, 2, 2)
        assert (await office.owner.get("/audit/export")).status_code == 401
