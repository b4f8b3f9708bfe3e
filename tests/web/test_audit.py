"""Tamper evidence over HTTP: a tenant proves its own entry with what anyone may have, and sees nobody else's."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from domain.ids import PLATFORM
from domain.merkle import is_consistent, is_included, leaf_hash
from domain.seal import SealKey, StoredSeal, leaf_entry, seal_hash
from infra.audit.sealer import next_seal
from infra.audit.signing_key import SigningKey
from infra.deploy.verify_audit_export import is_signed
from projections.projection import EVERYTHING
from tests.web.test_sign_in import refusal
from tests.web.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = SigningKey(b"k" * 32)


async def seal(world: World) -> StoredSeal:
    """The whole log as it is now."""
    size = await world.log.head()
    await world.visible(size)
    last = await world.seals.latest()
    at = world.clock() + timedelta(seconds=len(world.seals.kept))
    async with world.services.read("audit_tree", position=size, scope=EVERYTHING) as connection:
        signed = KEY.signed(await next_seal(connection, last, size, at))
    world.seals.kept.append(StoredSeal(len(world.seals.kept) + 1, signed, msgspec.json.encode(signed)))
    return world.seals.kept[-1]


async def happen(client: httpx.AsyncClient, name: str) -> int:
    reply = await client.post("/api_keys", json={"name": name})
    return int(reply.headers["event-position"])


@pytest_asyncio.fixture(loop_scope="module")
async def sealed(world: World) -> AsyncIterator[World]:
    """Two seals with an event between them."""
    world.seals.kept.clear()
    world.seals.known[:] = [
        SealKey(key_id=KEY.key_id, public_key=KEY.public_key.hex(), at=world.clock().replace(microsecond=0))
    ]
    await seal(world)
    async with world.team(bob="owner") as team:
        await happen(team["bob"], "between")
    await seal(world)
    yield world
    world.seals.kept.clear()


def hashes(proof: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(one) for one in proof["hashes"]]


async def test_a_tenant_proves_its_own_entry(sealed: World) -> None:
    """Its bytes, a proof, a checkpoint, a public key: nothing of the platform need be believed."""
    async with sealed.team(ann="manager", olga="owner") as team:
        position = await happen(team["olga"], "mine")
        await seal(sealed)
        client = team["ann"]
        entry = (await client.get(f"/audit/entries/{position}")).json()
        proof = (await client.get(f"/audit/proofs/inclusion?entry={position}")).json()
        checkpoint = (await client.get("/audit/checkpoints/latest")).json()
        (key,) = (await client.get("/audit/key")).json()
    payload = bytes.fromhex(entry["payload"])
    assert msgspec.json.decode(payload)["data"]["name"] == "mine"
    leaf = leaf_hash(leaf_entry(position, entry["subject"], payload))
    assert leaf.hex() == entry["leaf_hash"]
    root = bytes.fromhex(checkpoint["root"])
    assert is_included(leaf, position - 1, checkpoint["size"], hashes(proof), root)
    signature = bytes.fromhex(checkpoint["signature"])
    assert is_signed(bytes.fromhex(key["public_key"]), checkpoint["note"].encode(), signature)
    assert key["key_id"] == checkpoint["key_id"]


async def test_checkpoints_come_in_pages_and_name_one_another(sealed: World) -> None:
    async with sealed.signed_in() as admin:
        first = (await admin.get("/audit/checkpoints?limit=1")).json()
        rest = (await admin.get(f"/audit/checkpoints?after={first['next']}")).json()
        (one,), (two,) = first["checkpoints"], rest["checkpoints"]
        assert rest["next"] is None
        assert two["previous"] == seal_hash(one["stored"].encode())
        assert two == (await admin.get("/audit/checkpoints/latest")).json()
        proof = (await admin.get(f"/audit/proofs/consistency?from={one['size']}")).json()
    assert (proof["to_size"], proof["from_root"], proof["to_root"]) == (two["size"], one["root"], two["root"])
    roots = (bytes.fromhex(one["root"]), bytes.fromhex(two["root"]))
    assert is_consistent(one["size"], two["size"], *roots, hashes(proof))


async def test_hashes_are_for_members_and_keys_and_entries_for_auditors(sealed: World) -> None:
    async with sealed.team(olga="owner", uma="user") as team, sealed.client() as stranger:
        key = (await team["olga"].post("/api_keys", json={"name": "k"})).json()["api_key"]
        await sealed.visible()
        paths = ("key", "checkpoints", "checkpoints/latest", "proofs/inclusion?entry=1", "proofs/consistency?from=1")
        for path in paths:
            assert (await team["uma"].get(f"/audit/{path}")).status_code == 200, path
            assert (await stranger.get(f"/audit/{path}", headers={"x-api-key": key})).status_code == 200, path
        assert refusal(await team["uma"].get("/audit/entries/1")) == (403, "insufficient_permissions")


async def test_another_organisations_entry_is_answered_like_none(sealed: World) -> None:
    async with sealed.team(ann="owner") as ours, sealed.team(eve="owner") as theirs, sealed.signed_in() as admin:
        position = await happen(ours["ann"], "ours")
        await sealed.visible()
        seen = await theirs["eve"].get(f"/audit/entries/{position}")
        none = await theirs["eve"].get(f"/audit/entries/{position + 1000}")
        assert refusal(seen) == refusal(none) == (404, "audit_entry_not_found")
        assert seen.json() == none.json()
        assert refusal(await theirs["eve"].get(f"/audit/entries/{position}?all=true")) == (403, "admin_required")
        assert (await admin.get(f"/audit/entries/{position}?all=true")).status_code == 200


async def test_what_cannot_be_proved_says_why(sealed: World) -> None:
    async with sealed.signed_in() as admin:
        head = await sealed.log.head()
        for path, answer in {
            f"inclusion?entry={head + 1}": (409, "entry_not_sealed"),
            f"inclusion?entry=1&size={head + 1000}": (404, "tree_too_small"),
            f"consistency?from=1&to={head + 1000}": (404, "tree_too_small"),
            "consistency?from=5&to=4": (400, "invalid_sizes"),
            "inclusion?entry=0": (400, "invalid_request"),
        }.items():
            assert refusal(await admin.get(f"/audit/proofs/{path}")) == answer
        sealed.seals.kept.clear()
        assert refusal(await admin.get("/audit/checkpoints/latest")) == (404, "checkpoint_not_found")
        assert (await admin.get("/audit/checkpoints")).json() == {"checkpoints": [], "next": None}


async def test_the_platforms_own_entries_are_for_its_administrators(sealed: World) -> None:
    """Reservations, users and the catalogue belong to no tenant."""
    async with sealed.team(ann="owner") as team, sealed.signed_in() as admin:
        page = (await admin.get("/events?all=true&limit=500")).json()["events"]
        position = next(event["position"] for event in page if event["organization"] == PLATFORM)
        assert refusal(await team["ann"].get(f"/audit/entries/{position}")) == (404, "audit_entry_not_found")
