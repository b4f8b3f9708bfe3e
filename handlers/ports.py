"""The doors through which handlers touch the world, as types; infra/providers holds the adapters.

Existence is three-valued: a server is present, certainly absent, or unknown (a timeout, a 401, 429 or 5xx, a partial
page). Only a complete, trusted answer makes an absence.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec


class ServerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One server to be created. `name` is fixed for the attempt, so that creating twice creates once."""

    name: str
    tags: Mapping[str, str]
    zone: str
    instance_type: str
    agent_environment: Mapping[str, str]


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server as its provider lists it; `ip_address` is empty until it has one."""

    provider_instance_id: str
    name: str
    tags: Mapping[str, str]
    running: bool
    ip_address: str


class Present(msgspec.Struct, frozen=True):
    server: Server


class Absent(msgspec.Struct, frozen=True):
    pass


class Unknown(msgspec.Struct, frozen=True):
    reason: str


Existence = Present | Absent | Unknown


class CloudRefusedError(Exception):
    """The provider said no, for good: SPEC's code and the provider's own words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class CloudUnavailableError(OSError):
    """The provider gave no trusted answer; whether the call took effect is unknown."""


class Cloud(Protocol):
    """A provider of servers. Every call may be repeated."""

    async def create_server(self, request: ServerRequest) -> Server: ...

    async def start_server(self, provider_instance_id: str) -> None: ...

    async def find_server(self, *, name: str = "", provider_instance_id: str = "") -> Existence: ...

    async def list_servers(self) -> Sequence[Server]: ...

    async def delete_server(self, provider_instance_id: str) -> None: ...


class WorkerSecrets(Protocol):
    """Derives the one-time token with which an instance's agent registers, the same each time it is asked."""

    def bootstrap_token(self, instance_id: str, attempt: int) -> str: ...
