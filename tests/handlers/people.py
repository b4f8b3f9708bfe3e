"""An organisation that invites, and a person who signed up, in the world of tests/handlers/world.py."""

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from domain.ids import InvitationId, UserId
from domain.organization import ORGANIZATION
from domain.organization_commands import CreateOrganization, InviteMember
from domain.user import USER, CreateUser, RequestPasswordReset
from domain.values import Digest, Sealed
from tests.handlers.world import ACME, World

OWNER = UserId("0192aaaa-0000-7000-8000-0000000a11ce")
BOB = UserId("0192aaaa-0000-7000-8000-000000000b0b")


async def founded(world: World, name: str = "Acme GmbH") -> None:
    await world.command(ORGANIZATION, ACME, CreateOrganization(name=name, owner=OWNER, fallback_slug="acme"))


async def invited(
    world: World, who: str, *, token: str = "", expires_in: timedelta = timedelta(days=7)
) -> InvitationId:
    """An invitation to `<who>@example.org`."""
    invitation_id = InvitationId(f"invitation-{who}")
    command = InviteMember(
        by=OWNER,
        invitation_id=invitation_id,
        email=Sealed(f"{invitation_id}:{who}@example.org"),
        email_digest=Digest(f"digest-of-{who}@"),
        role="manager",
        token_sha256=sha256((token or f"invitation-of-{invitation_id}").encode()).hexdigest(),
        expires_at=world.now + expires_in,
    )
    await world.command(ORGANIZATION, ACME, command)
    return invitation_id


async def signed_up(world: World) -> None:
    names: dict[str, Any] = {field: Sealed(f"{BOB}:{text}") for field, text in NAMES.items()}
    command = CreateUser(**names, username_digest=Digest("digest-of-bob"), email_digest=Digest("digest-of-bob@"))
    await world.command(USER, BOB, command)


NAMES = {"username": "bob", "email": "bob@example.org", "first_name": "Bob", "last_name": "Builder"}


async def reset_requested(world: World) -> datetime:
    expires_at = world.now + timedelta(hours=1)
    token = f"password_reset-of-{BOB}/{expires_at.isoformat()}"
    command = RequestPasswordReset(token_sha256=sha256(token.encode()).hexdigest(), expires_at=expires_at)
    await world.command(USER, BOB, command)
    return expires_at
