"""Proof that the audit log was not changed: signed checkpoints of its Merkle tree, and proofs against them.

    entry ──leaf_hash──> inclusion proof ──> root of a checkpoint ──signature──> public key
                         consistency proof: an older checkpoint ──> a newer one

Hashes and signatures are for everyone who is signed in; an entry's bytes only for its own organisation. The surprising
rule: nobody has to believe these answers. With its own entry's bytes and a public key from elsewhere, a client checks
them. (What is a checkpoint here is a seal in the code, where a checkpoint is a read model's position.)
"""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from domain.merkle import leaf_hash
from domain.seal import StoredSeal, leaf_entry, note, public_pem
from projections.audit_log import EventFilter, list_events
from projections.audit_tree import TreeTooSmallError, consistency_proof, inclusion_proof, tree_root
from projections.projection import EVERYTHING, Connection
from web.auth import MAX_POSITION, Member, Served, SignedInOrKey, member
from web.errors import ApiError, not_found
from web.services import Services
from web.shapes import Reply

router = APIRouter(prefix="/audit", tags=["audit"])

Auditor = Annotated[Member, Depends(member("audit.view"))]
Count = Annotated[int, Field(ge=1, le=MAX_POSITION)]

MAX_PAGE_CHECKPOINTS = 500


class PublicKey(Reply):
    """Ed25519. `public_key` is 32 bytes in hex, `pem` the same for openssl, `key_id` how checkpoints name it."""

    key_id: str
    algorithm: Literal["ed25519"] = "ed25519"
    public_key: str
    pem: str
    at: datetime


class Checkpoint(Reply):
    """A signed statement that the first `size` entries have this root.

    `signature` (hex) signs `note`, a text. `stored` is the checkpoint's exact text: keep it, somewhere else. `previous`
    is the SHA-256 of that text of the checkpoint before.
    """

    number: int
    origin: str
    size: int
    root: str
    at: datetime
    key_id: str
    previous: str
    signature: str
    note: str
    stored: str


class CheckpointPage(Reply):
    """`next` is the number to ask `after` for the following page; null at the end."""

    checkpoints: list[Checkpoint]
    next: int | None


class InclusionProof(Reply):
    """That the entry at `position` is leaf `position - 1` of the tree of `size`: RFC 6962 2.1.1, SHA-256 in hex."""

    position: int
    size: int
    root: str
    hashes: list[str]


class ConsistencyProof(Reply):
    """That the tree of `from_size` begins that of `to_size`: RFC 6962 2.1.2, SHA-256 in hex."""

    from_size: int
    to_size: int
    from_root: str
    to_root: str
    hashes: list[str]


class AuditEntry(Reply):
    """`leaf_hash` covers 8 bytes of position, 2 of the subject's length, subject, payload (`payload` is in hex)."""

    position: int
    subject: str
    payload: str
    leaf_hash: str


@router.get("/key")
async def audit_keys(_caller: SignedInOrKey, services: Served) -> list[PublicKey]:
    """Every key that ever signed a checkpoint, oldest first. Compare them with what you were told elsewhere."""
    return [
        PublicKey(
            key_id=key.key_id, public_key=key.public_key, pem=public_pem(bytes.fromhex(key.public_key)), at=key.at
        )
        for key in await services.seals.keys()
    ]


@router.get("/checkpoints")
async def checkpoints(
    _caller: SignedInOrKey,
    services: Served,
    after: Annotated[int, Field(ge=0, le=MAX_POSITION)] = 0,
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_CHECKPOINTS)] = 100,
) -> CheckpointPage:
    """A page of signed checkpoints, oldest first."""
    found = [_shown(seal) for seal in await services.seals.page(after=after, limit=limit)]
    return CheckpointPage(checkpoints=found, next=found[-1].number if len(found) == limit else None)


@router.get("/checkpoints/latest")
async def latest_checkpoint(_caller: SignedInOrKey, services: Served) -> Checkpoint:
    """The newest one; it is at most about a minute behind the log."""
    return _shown(await _latest(services))


@router.get("/proofs/inclusion")
async def prove_inclusion(
    _caller: SignedInOrKey, services: Served, entry: Count, size: Count | None = None
) -> InclusionProof:
    """`entry` is a position of the log; without `size`, the tree is that of the newest checkpoint."""
    sealed = size or (await _latest(services)).seal.size
    if entry > sealed:
        message = f"Position {entry} is not among the first {sealed} entries; a checkpoint comes every minute."
        raise ApiError(409, "entry_not_sealed", message, {"retry-after": "60"})
    async with services.read("audit_tree") as connection:
        root = await _root(connection, sealed)
        hashes = await inclusion_proof(connection, entry, sealed)
    return InclusionProof(position=entry, size=sealed, root=root, hashes=[found.hex() for found in hashes])


@router.get("/proofs/consistency")
async def prove_consistency(
    _caller: SignedInOrKey,
    services: Served,
    from_size: Annotated[int, Query(alias="from", ge=1, le=MAX_POSITION)],
    to_size: Annotated[int | None, Query(alias="to", ge=1, le=MAX_POSITION)] = None,
) -> ConsistencyProof:
    """From the tree of one size to that of another; without `to`, that of the newest checkpoint."""
    newer = to_size or (await _latest(services)).seal.size
    if from_size > newer:
        raise ApiError(400, "invalid_sizes", f"A tree of {newer} entries cannot follow one of {from_size}.")
    async with services.read("audit_tree") as connection:
        from_root, to_root = await _root(connection, from_size), await _root(connection, newer)
        hashes = await consistency_proof(connection, from_size, newer)
    return ConsistencyProof(
        from_size=from_size,
        to_size=newer,
        from_root=from_root,
        to_root=to_root,
        hashes=[found.hex() for found in hashes],
    )


@router.get("/entries/{position}")
async def audit_entry(
    position: Annotated[int, Field(ge=1, le=MAX_POSITION)],
    auditor: Auditor,
    services: Served,
    all: bool = False,  # noqa: A002 - the parameter's name in the API
) -> AuditEntry:
    """What an inclusion proof is about, byte for byte; the organisation's own, or any for a platform administrator."""
    if all and auditor.caller.platform_role != "admin":
        raise ApiError(403, "admin_required", "This needs a platform administrator.")
    wanted = EventFilter(organization_id="" if all else auditor.organization_id)
    scope = EVERYTHING if all else None  # an administrator sees any organisation's
    async with services.read("audit_log", scope=scope) as connection:
        found = await list_events(connection, wanted, after=position - 1, limit=1)
    if not found or found[0].position != position:
        raise not_found("audit_entry")
    entry = found[0]
    leaf = leaf_hash(leaf_entry(position, entry.subject, entry.payload))
    return AuditEntry(position=position, subject=entry.subject, payload=entry.payload.hex(), leaf_hash=leaf.hex())


async def _latest(services: Services) -> StoredSeal:
    latest = await services.seals.latest()
    if latest is None:
        raise ApiError(404, "checkpoint_not_found", "Nothing has been sealed yet; the first one comes with the log.")
    return latest


async def _root(connection: Connection, size: int) -> str:
    try:
        return (await tree_root(connection, size)).hex()
    except TreeTooSmallError as error:
        raise ApiError(404, "tree_too_small", f"The audit log has no {size} entries.") from error


def _shown(found: StoredSeal) -> Checkpoint:
    seal = found.seal
    return Checkpoint(
        number=found.number,
        origin=seal.origin,
        size=seal.size,
        root=seal.root,
        at=seal.at,
        key_id=seal.key_id,
        previous=seal.previous,
        signature=seal.signature,
        note=note(seal).decode(),
        stored=found.stored.decode(),
    )
