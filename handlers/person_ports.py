"""The doors to what is personal or secret: opening it for a deed, and erasing it. Part of handlers/ports.py's `Doors`.

seals, tokens, credentials are opened inside a deed and kept nowhere        an erasure finds traces, and ends them
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from domain.ids import ApiKeyId, DeploymentId, InvitationId, OrganizationId, SessionId
from domain.values import Digest, Sealed


class Vault(Protocol):
    """Opens personal data. Raises OSError when the vault is away."""

    async def open(self, sealed: Sealed) -> str | None:
        """The clear text; None once its person is forgotten."""
        ...


class OneTimeTokens(Protocol):
    """Derives the tokens of mails again; see web/services.py."""

    def token(self, kind: str, subject: str) -> str: ...


class OpenCredentials(Protocol):
    """An organisation's credentials at a provider, by name; empty where there are none.

    Raises:
        OSError: the vault is away.
    """

    async def __call__(self, organization: OrganizationId, provider: str, /) -> Mapping[str, str]: ...


class KeptKey(msgspec.Struct, frozen=True):
    """A foreign upstream's key in the vault, by where it belongs; never the key."""

    organization: OrganizationId
    deployment_id: DeploymentId
    credential_id: str


class UpstreamKeyVault(Protocol):
    """Destroys the keys of upstreams; nobody who holds this can read one. Raises OSError when the vault is away."""

    async def destroy(self, organization: OrganizationId, deployment_id: DeploymentId, /, *, but: str) -> None:
        """All that a deployment had, but the one with this id ("" none) and what was kept after that one."""
        ...

    async def list_older(self, after: str, /, *, age_s: float) -> Sequence[KeptKey]:
        """A page of those that were kept longer ago than that, by credential id, after the last page's last."""
        ...

    async def destroy_older(self, credential_id: str, /, *, age_s: float) -> None:
        """One, unless it was kept again meanwhile."""
        ...


class HeldAddress(msgspec.Struct, frozen=True):
    """An e-mail address that was a person's until then; whoever has it later is somebody else."""

    email: Digest
    until: datetime


class PersonTraces(msgspec.Struct, frozen=True, kw_only=True):
    """What a person still has, and what was ever sent to them.

    Attributes:
        sessions: live ones.
        api_keys: the person's own that are not revoked, with their organisations.
        memberships: organisations that the person belongs to.
        pending: invitations to one of the person's addresses that have no answer, expired ones too.
        invitations: all that were ever sent to one of those addresses while it was the person's, or before.
    """

    sessions: Sequence[SessionId] = ()
    api_keys: Sequence[tuple[OrganizationId, ApiKeyId]] = ()
    memberships: Sequence[OrganizationId] = ()
    pending: Sequence[tuple[OrganizationId, InvitationId]] = ()
    invitations: Sequence[InvitationId] = ()


class FindTraces(Protocol):
    """Looks in read models that have come at least as far as `position`. Lists are bounded: look again after acting.

    Raises:
        OSError: the read models are away, or not that far yet.
    """

    async def __call__(self, user_id: str, addresses: Sequence[HeldAddress], /, *, position: int) -> PersonTraces: ...


class Eraser(Protocol):
    """Erases what is kept of a person outside the log; every step may be repeated. Raises OSError: a store is away."""

    async def forget_replies(self, user_id: str, words: Sequence[str]) -> None:
        """Kept replies to the person, and all that hold one of the words."""
        ...

    async def forget_sign_ins(self, user_id: str) -> None:
        """What was counted and noted when the person signed in."""
        ...

    async def destroy_keys(self, person_ids: Sequence[str]) -> None:
        """Data keys and passwords: nothing sealed for these persons opens after that."""
        ...

    async def delete_mails(self, addresses: Sequence[HeldAddress]) -> None:
        """Mails to these addresses that are still here."""
        ...

    async def scrub(self) -> None:
        """Rewrites the vault's tables, so that what was deleted leaves their files too."""
        ...

    async def finish(self, user_id: str) -> None:
        """Writes down that all of it is done."""
        ...
