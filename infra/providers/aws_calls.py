"""One AWS account as calls of its API.

    calls(region, "run_instances", ...) ──> Caller (a thread) ──> boto3 ──> reply, or what aws_errors.py makes of it
    calls.all(region, "describe_instances", "Reservations", ...) ──> every page, or nothing

The surprising rule: boto3 repeats nothing here. Who asked decides whether to ask again, and looks first.
"""

import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from handlers.cloud_ports import CloudUnavailableError
from infra.providers.aws_errors import translated
from infra.providers.calling import CONNECT_S, TOTAL_S, Caller

PAGE_SIZE = 500
MAX_PAGES = 100
DEFAULT_REGIONS = ("eu-west-3", "eu-central-1", "us-east-1")
"""Those of the built-in catalogue."""
ROLE_SESSION = "inventiv-agents"
ROLE_RENEWED_BEFORE = timedelta(minutes=5)
"""An assumed role's keys last an hour; a call must not outlive them."""


class AwsAccount(msgspec.Struct, frozen=True, kw_only=True):
    """What an organisation gave of its account.

    Attributes:
        regions: those that are looked at; what is rented must be in one of them.
        role_arn: assumed with the keys, unless empty; then the keys need no other right.
        subnet_ids: where servers are put; without them, the default network of each zone.
        endpoint_url: empty for AWS itself.
    """

    access_key_id: str
    secret_access_key: str
    regions: tuple[str, ...] = DEFAULT_REGIONS
    role_arn: str = ""
    external_id: str = ""
    subnet_ids: tuple[str, ...] = ()
    endpoint_url: str = ""


def aws_account(credentials: Mapping[str, str], *, endpoint_url: str = "") -> AwsAccount:
    """From the names of domain/provider_credentials.py. Raises KeyError: a required one is missing."""
    return AwsAccount(
        access_key_id=credentials["access_key_id"],
        secret_access_key=credentials["secret_access_key"],
        regions=_listed(credentials.get("regions", "")) or DEFAULT_REGIONS,
        role_arn=credentials.get("role_arn", ""),
        external_id=credentials.get("external_id", ""),
        subnet_ids=_listed(credentials.get("subnet_ids", "")),
        endpoint_url=endpoint_url,
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)


class AwsCalls:
    """Calls of one account; one client a service and region, made when it is first needed."""

    def __init__(self, account: AwsAccount) -> None:
        self.account = account
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()
        self._role_until: datetime | None = None
        self._caller = Caller("aws", translated, secrets=(account.secret_access_key, account.external_id))

    async def __call__(self, region: str, operation: str, *, service: str = "ec2", **asked: Any) -> Mapping[str, Any]:
        """One call of the API.

        Raises:
            CloudRefusedError, CloudUnavailableError: see aws_errors.translated.
        """

        def act() -> Mapping[str, Any]:
            reply: Mapping[str, Any] = getattr(self._client(service, region), operation)(**asked)
            return reply

        return await self._caller(operation, act)

    async def all(self, region: str, operation: str, key: str, **asked: Any) -> list[Any]:
        """Every entry of a listing; raises CloudUnavailableError when it has more than MAX_PAGES pages, too."""

        def act() -> list[Any]:
            found: list[Any] = []
            paginator = self._client("ec2", region).get_paginator(operation)
            for number, page in enumerate(paginator.paginate(PaginationConfig={"PageSize": PAGE_SIZE}, **asked)):
                if number == MAX_PAGES:
                    raise CloudUnavailableError(f"{operation} has more than {MAX_PAGES} pages")
                found += page[key]
            return found

        return await self._caller(operation, act)

    def _client(self, service: str, region: str) -> Any:
        """boto3 makes clients one at a time; one that is made may be used by many threads."""
        with self._lock:
            if self._role_until is not None and datetime.now(UTC) > self._role_until - ROLE_RENEWED_BEFORE:
                self._clients.clear()
            if (service, region) not in self._clients:
                self._clients[service, region] = self._made(service, region)
            return self._clients[service, region]

    def _made(self, service: str, region: str) -> Any:
        from botocore.config import Config  # noqa: PLC0415 - half a second, which only who rents at AWS pays

        account = self.account
        keys = {"aws_access_key_id": account.access_key_id, "aws_secret_access_key": account.secret_access_key}
        settings: dict[str, Any] = {
            "region_name": region,
            "endpoint_url": account.endpoint_url or None,
            "config": Config(connect_timeout=CONNECT_S, read_timeout=TOTAL_S, retries={"total_max_attempts": 1}),
        }
        if account.role_arn:
            role = {"RoleArn": account.role_arn, "RoleSessionName": ROLE_SESSION}
            role |= {"ExternalId": account.external_id} if account.external_id else {}
            assumed = _session(keys).client("sts", **settings).assume_role(**role)["Credentials"]
            self._role_until = assumed["Expiration"]
            keys = {
                "aws_access_key_id": assumed["AccessKeyId"],
                "aws_secret_access_key": assumed["SecretAccessKey"],
                "aws_session_token": assumed["SessionToken"],
            }
        return _session(keys).client(service, **settings)


def _session(keys: Mapping[str, str]) -> Any:
    import boto3  # noqa: PLC0415 - as above
    import botocore.session  # noqa: PLC0415 - as above

    core = botocore.session.get_session()
    core.register_component("data_loader", _descriptions())
    return boto3.Session(**keys, botocore_session=core)


@lru_cache(maxsize=1)
def _descriptions() -> Any:
    """AWS's descriptions of its services: 0.1 s to read, the same for every account, and never changed."""
    from botocore.loaders import create_loader  # noqa: PLC0415 - as above

    return create_loader()
