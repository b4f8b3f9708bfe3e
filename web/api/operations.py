"""Looks at providers that somebody wants now, and how an organisation's accounts there are.

    POST /reconcile      POST /catalog/sync      ──> an intent for each account; 202
    GET /provider_accounts                       ──> what the last looks found, and what went wrong, in whose words

The surprising rule: a provider without accounts (`local`) is the platform's, so its account is shown to, and looked at
for, platform administrators alone.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

from fastapi import APIRouter, Depends

from domain.catalogue import PROVIDERS, Provider
from domain.ids import PLATFORM, OrganizationId
from domain.provider_account import PROVIDER_ACCOUNT, provider_account_id_of
from domain.provider_account_commands import RequestCatalogueSync, RequestReconciliation
from domain.provider_credentials import EXPECTED, missing_credentials
from projections.projection import EVERYTHING
from projections.provider_accounts import ProviderAccountView, list_provider_accounts
from projections.settings import CredentialsView, list_credentials
from web.api.catalogue import provider_id
from web.auth import Member, Position, Served, member
from web.errors import ApiError, not_found
from web.intent import Intended
from web.services import Services
from web.shapes import Reply

router = APIRouter(tags=["operations"])

Viewer = Annotated[Member, Depends(member("settings.view"))]
Operator = Annotated[Member, Depends(member("operations.request"))]

Wanted = RequestReconciliation | RequestCatalogueSync


class Triggered(Reply):
    """`providers`: whose accounts are looked at; `position` shows their outcome no earlier than that."""

    status: Literal["triggered"] = "triggered"
    providers: list[str]
    position: int


class ReconciliationShown(Reply):
    """Counts are of the last look that is on record, null before the first.

    `requested_at`: of a request that is not answered yet. `failure`: the provider's own words, until it works again.
    `unrecorded`: servers signed by this platform that no record knows; they are never deleted by it.
    """

    requested_at: datetime | None = None
    completed_at: datetime | None = None
    servers: int | None = None
    volumes: int | None = None
    strays: int | None = None
    strays_deleted: int = 0
    unrecorded: int | None = None
    missed: int | None = None
    deletions_halted_at: datetime | None = None
    failed_at: datetime | None = None
    failed_call: str = ""
    failure_kind: str = ""
    failure: str = ""


class CatalogueSyncShown(Reply):
    requested_at: datetime | None = None
    synced_at: datetime | None = None
    failed_at: datetime | None = None
    failure_kind: str = ""
    failure: str = ""


class ProviderAccountShown(Reply):
    """`set_at`: when its credentials were given. `position`: of its last event, 0 before the first."""

    provider_id: str
    provider_code: str
    provider_name: str
    is_configured: bool
    missing_config: list[str]
    set_at: datetime | None
    reconciliation: ReconciliationShown
    catalogue: CatalogueSyncShown
    position: int


class _Account(NamedTuple):
    organization_id: OrganizationId
    provider: Provider
    credentials: CredentialsView | None

    @property
    def missing(self) -> tuple[str, ...]:
        return missing_credentials(self.provider.code, self.credentials.names if self.credentials else ())


@router.post("/reconcile", status_code=202)
async def reconcile(
    operator: Operator, services: Served, intent: Intended, position: Position, provider: str = ""
) -> Triggered:
    """Compares servers and volumes with the records, both ways; of all accounts, or of one provider's."""
    accounts = await _usable(operator, services, position, provider)
    wanted = [(account, RequestReconciliation(provider=account.provider.code)) for account in accounts]
    return await _trigger(wanted, operator, intent)


@router.post("/catalog/sync", status_code=202)
async def sync_catalogue(
    operator: Operator, services: Served, intent: Intended, position: Position, provider: str = ""
) -> Triggered:
    """Asks what can be rented, at what price and stock; of all accounts, or of one provider's."""
    accounts = await _usable(operator, services, position, provider)
    wanted = [(account, RequestCatalogueSync(provider=account.provider.code)) for account in accounts]
    return await _trigger(wanted, operator, intent)


async def _trigger(wanted: Sequence[tuple[_Account, Wanted]], operator: Member, intent: Intended) -> Triggered:
    actor = operator.caller.actor
    for account, command in wanted:
        organization_id = account.organization_id
        account_id = provider_account_id_of(organization_id, account.provider.code)
        await intent.send(PROVIDER_ACCOUNT, organization_id, account_id, command, actor=actor)
    return Triggered(providers=[account.provider.code for account, _ in wanted], position=intent.position)


@router.get("/provider_accounts")
async def provider_accounts(viewer: Viewer, services: Served, position: Position) -> list[ProviderAccountShown]:
    """Also those that lack credentials, and what they lack."""
    accounts = await _accounts(viewer, services, position)
    async with services.read("provider_accounts", position=position) as connection:
        known = {one.provider: one for one in await list_provider_accounts(connection, viewer.organization_id)}
    if _is_admin(viewer):
        async with services.read("provider_accounts", position=position, scope=EVERYTHING) as connection:
            platforms = await list_provider_accounts(connection, PLATFORM)
        known |= {one.provider: one for one in platforms}
    return [_shown(account, known.get(account.provider.code)) for account in accounts]


def _is_admin(asker: Member) -> bool:
    return asker.caller.platform_role == "admin"


async def _accounts(asker: Member, services: Services, position: int) -> list[_Account]:
    """Of every active provider whose account is the asker's to see."""
    async with services.read("settings", position=position) as connection:
        given = {one.provider: one for one in await list_credentials(connection, asker.organization_id)}
    accounts = []
    for provider in PROVIDERS:
        if provider.is_active and EXPECTED[provider.code].required:
            accounts.append(_Account(asker.organization_id, provider, given.get(provider.code)))
        elif provider.is_active and _is_admin(asker):
            accounts.append(_Account(PLATFORM, provider, None))
    return accounts


async def _usable(asker: Member, services: Services, position: int, provider: str) -> list[_Account]:
    """Those with credentials; the one named must have them."""
    accounts = await _accounts(asker, services, position)
    if not provider:
        return [account for account in accounts if not account.missing]
    named = next((p for p in PROVIDERS if p.is_active and provider in {p.code, provider_id(p.code)}), None)
    if named is None:
        raise not_found("provider")
    found = next((account for account in accounts if account.provider == named), None)
    if found is None:
        raise ApiError(403, "admin_required", f"{named.name} is the platform's own; its administrators look after it.")
    if found.missing:
        words = f"{named.name} cannot be asked without {', '.join(found.missing)}."
        raise ApiError(409, "provider_not_configured", words)
    return [found]


def _shown(account: _Account, known: ProviderAccountView | None) -> ProviderAccountShown:
    return ProviderAccountShown(
        provider_id=provider_id(account.provider.code),
        provider_code=account.provider.code,
        provider_name=account.provider.name,
        is_configured=not account.missing,
        missing_config=list(account.missing),
        set_at=account.credentials.set_at if account.credentials else None,
        reconciliation=_reconciliation(known) if known else ReconciliationShown(),
        catalogue=_catalogue(known) if known else CatalogueSyncShown(),
        position=known.position if known else 0,
    )


def _reconciliation(known: ProviderAccountView) -> ReconciliationShown:
    return ReconciliationShown(
        requested_at=known.reconcile_requested_at,
        completed_at=known.reconciled_at,
        servers=known.servers,
        volumes=known.volumes,
        strays=known.strays,
        strays_deleted=known.strays_deleted,
        unrecorded=known.unrecorded,
        missed=known.missed,
        deletions_halted_at=known.halted_at,
        failed_at=known.failed_at,
        failed_call=known.failed_call,
        failure_kind=known.failure_kind,
        failure=known.failure,
    )


def _catalogue(known: ProviderAccountView) -> CatalogueSyncShown:
    return CatalogueSyncShown(
        requested_at=known.sync_requested_at,
        synced_at=known.synced_at,
        failed_at=known.sync_failed_at,
        failure_kind=known.sync_failure_kind,
        failure=known.sync_failure,
    )
