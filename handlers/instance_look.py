"""What one look at an instance works with, and how its provider's answers are heard.

    answer ──> CloudRefusedError        no, for certain: the step says what follows
          └──> ProviderTroubleError     nobody knows, or nothing else may be done than asking again

The surprising rule: each code says which of SPEC's refusals it is by its kind first, since that decides whether another
place may do; the adapter's own code only counts for kinds that no other place would change.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from domain.ids import InstanceId, OrganizationId
from domain.instance_commands import InstanceCommand
from domain.instance_events import InstanceRequested
from domain.instance_state import Instance
from domain.place import Place
from handlers.cloud_ports import (
    Absent,
    Cloud,
    CloudRefusedError,
    CloudUnavailableError,
    Present,
    RefusalKind,
    Unknown,
    Volume,
)
from handlers.ports import Doors, Trigger
from handlers.provider_words import said, trouble_of
from handlers.server_tags import Owner

T = TypeVar("T")

CODES: dict[RefusalKind, str] = {
    "out_of_stock": "PROVIDER_OUT_OF_STOCK",
    "quota": "PROVIDER_QUOTA_EXCEEDED",
    "auth": "PROVIDER_AUTH_FAILED",
}


class ProviderTroubleError(Exception):
    """The look ends here, and is taken again later.

    Attributes:
        call: of the port, e.g. "create_server".
        kind: of the trouble, in the port's words.
        retry_after_s: as the provider asked for, 0 when it did not say.
        finding: what is known all the same, instead of the trouble itself.
    """

    def __init__(
        self, call: str, kind: str, message: str, *, retry_after_s: float = 0.0, finding: InstanceCommand | None = None
    ) -> None:
        super().__init__(call, kind, message)
        self.call = call
        self.kind = kind
        self.message = message
        self.retry_after_s = retry_after_s
        self.finding = finding


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at an instance.

    `intended_now`: this very look wrote the attempt's intent, so nobody has asked for its server yet.
    """

    state: Instance
    trigger: Trigger
    doors: Doors
    intended_now: bool = False

    @property
    def now(self) -> datetime:
        return self.doors.clock()

    @property
    def organization(self) -> OrganizationId:
        return OrganizationId(self.trigger.organization)

    @property
    def owner(self) -> Owner:
        return Owner(self.organization, InstanceId(self.trigger.id), self.state.attempt)

    @property
    def request(self) -> InstanceRequested:
        request = self.state.request
        assert request is not None, "only a requested instance has steps"  # noqa: S101 - the impossible
        return request

    @property
    def place(self) -> Place:
        place = self.state.place
        assert place is not None, "only a requested instance has steps"  # noqa: S101 - the impossible
        return place

    @property
    def is_clearing(self) -> bool:
        """Its server has to go, whatever the provider says."""
        return self.state.status == "terminating" or self.state.discarding


async def asked(call: str, answer: Awaitable[T]) -> T:
    """Raises CloudRefusedError, and ProviderTroubleError for what is not known."""
    try:
        return await answer
    except CloudUnavailableError as unknown:
        trouble = trouble_of(unknown)
        pause_s = unknown.retry_after_s
        raise ProviderTroubleError(call, trouble.kind, trouble.message, retry_after_s=pause_s) from unknown


def insisted(call: str, refused: CloudRefusedError) -> ProviderTroubleError:
    """A refusal where giving up is no choice: it is asked again until it is not refused."""
    trouble = trouble_of(refused)
    return ProviderTroubleError(call, trouble.kind, trouble.message)


async def look_for_server(cloud: Cloud, *, name: str = "", zone: str = "", server_id: str = "") -> Present | Absent:
    """By its id, or by its name in a zone. Raises ProviderTroubleError."""
    try:
        found = await asked("find_server", cloud.find_server(name=name, zone=zone, provider_instance_id=server_id))
    except CloudRefusedError as refused:
        raise insisted("find_server", refused) from refused
    if isinstance(found, Unknown):
        raise ProviderTroubleError("find_server", "transient", said(found.reason))
    return found


def known_volume(found: Volume | Absent | Unknown) -> Volume | Absent:
    """Raises ProviderTroubleError."""
    if isinstance(found, Unknown):
        raise ProviderTroubleError("find_volume", "transient", said(found.reason))
    return found


def code_of(refused: CloudRefusedError, step_code: str) -> str:
    """SPEC's code of a refusal; `step_code` where neither its kind nor the adapter has one."""
    return CODES.get(refused.kind) or refused.code or step_code
